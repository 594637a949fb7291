//! Plans, decisions, the log, and seeded simulations of whole rollouts. `GANNET_PROOF=full` multiplies the counts of
//! runs and nothing else.

use gannet_models::{ModelName, Version};
use gannet_stats::random::Random;

use super::{
    audit::{Input, Record, explain, step},
    *,
};

const MINUTE_MS: u64 = 60_000;

fn plan_of(json: &str) -> Result<Plan, PlanFaults> {
    let file: PlanFile = serde_json::from_str(json).unwrap();
    Plan::new(&ModelName::new("m").unwrap(), &Version::new("1").unwrap(), &file)
}

fn plan(stages: &str, guards: &str) -> Plan {
    plan_of(&format!(r#"{{"candidate":"2","stages":[{stages}],"guards":[{guards}],"alpha":0.01}}"#)).unwrap()
}

fn errors(epoch: u32, trials: [u64; 2], events: [u64; 2]) -> Evidence {
    let arms = |[candidate, stable]: [u64; 2]| Arms { candidate, stable };
    Evidence {
        epoch,
        requests: arms(trials),
        users: Some(arms(trials)),
        errors: Some(EventCounts { events: arms(events), trials: arms(trials) }),
        ..Evidence::default()
    }
}

#[test]
fn every_fault_of_a_plan_is_named() {
    let check = |json: &str, expected: &[&str]| {
        let PlanFaults(faults) = plan_of(json).unwrap_err();
        assert_eq!(faults.len(), expected.len(), "{faults:#?}");
        for (fault, expected) in faults.iter().zip(expected) {
            assert!(fault.contains(expected), "'{fault}' has no '{expected}'");
        }
    };
    check(
        r#"{"candidate":"1","alpha":2,"stages":[{"weight_bp":500},{"weight_bp":100},{"shadow":1.5},{}],
            "guards":[{"name":"eror_rate"},{"name":"latency","tolerance":-1}]}"#,
        &[
            "candidate: version '1' is the baseline itself",
            "alpha: expected 0.000001 to 0.2",
            "stages[1].weight_bp: expected more than 500, the stage before it, got 100",
            "stages[2].shadow: expected a share of 0.0001 to 1, got 1.5",
            "stages[3]: expected either 'shadow' or 'weight_bp', got neither",
            "did you mean 'error_rate'?",
            "guards[1].tolerance: expected a number of at least 0 (0.1 is 10 %), got -1",
        ],
    );
    check(
        r#"{"candidate":"2","stages":[{"weight_bp":100}],"guards":[{"name":"disagreement"}]}"#,
        &["only a shadow stage has"],
    );
    check(r#"{"candidate":"2","guards":[{"name":"quality"}]}"#, &["metric:<name>, got 'quality'"]);
    let whole = plan_of(r#"{"candidate":"2"}"#).unwrap();
    let weights: Vec<u32> = whole.stages.iter().map(|stage| stage.traffic.weight_bp()).collect();
    assert_eq!(weights, [0, 100, 500, 2500, 5000, 10_000]);
    assert_eq!(whole.fingerprint(), plan_of(r#"{"candidate":"2","alpha":0.01}"#).unwrap().fingerprint());
    assert_ne!(whole.fingerprint(), plan_of(r#"{"candidate":"2","alpha":0.02}"#).unwrap().fingerprint());
}

#[test]
fn it_goes_on_only_with_everything_it_needs() {
    let plan =
        plan(r#"{"weight_bp":500},{"weight_bp":5000},{"weight_bp":10000}"#, r#"{"name":"error_rate"}"#);
    let begun = start(&plan, None, 0).unwrap();
    let check = |evidence: &Evidence, minutes: u64, expected: &str| {
        let (decision, _) = decide(&plan, &begun, evidence, minutes * MINUTE_MS);
        assert!(decision.to_string().contains(expected), "expected '{expected}', got '{decision}'");
    };
    let good = errors(0, [2000, 38_000], [2, 38]);
    check(&good, 30, "advance to stage 1");
    check(&good, 29, "1740 s of 1800 s");
    check(&errors(0, [900, 17_100], [0, 17]), 30, "900 of 1000 requests");
    check(&Evidence { users: None, ..good.clone() }, 30, "requests carry no key");
    check(&Evidence { errors: None, ..good.clone() }, 30, "error_rate has no data");
    check(&Evidence { epoch: 7, ..good.clone() }, 30, "this is epoch 0");
    check(&errors(0, [2600, 37_400], [2, 38]), 30, "do not get the shares they should");
    check(&errors(0, [2000, 38_000], [20, 380]), 30, "error_rate is not yet known");
    check(&errors(0, [2000, 38_000], [100, 760]), 30, "roll back: error_rate");
    check(&Evidence { crashes_in_a_row: 5, ..good.clone() }, 0, "roll back: the candidate crashed 5 times");
    let failed = Evidence { candidate_failed: Some("no memory".into()), epoch: 9, ..good };
    check(&failed, 0, "roll back: the candidate does not serve: no memory");
}

#[test]
fn people_hold_push_and_take_back() {
    let plan = plan(r#"{"shadow":1.0},{"weight_bp":10000}"#, r#"{"name":"error_rate"}"#);
    let begun = start(&plan, None, 0).unwrap();
    let obey = |state: &State, wish: Command| command(&plan, state, &wish, 5).unwrap().1;
    let paused = obey(&begun, Command::Pause);
    assert_eq!(paused.phase(&plan).as_str(), "paused");
    let good = errors(0, [9000, 9000], [9, 9]);
    assert!(decide(&plan, &paused, &good, 60 * MINUTE_MS).0.to_string().contains("paused by hand"));
    let harmed = decide(&plan, &paused, &errors(0, [900, 900], [200, 9]), 60 * MINUTE_MS).1;
    assert_eq!(
        (harmed.phase(&plan), harmed.weight_bp(&plan)),
        (Phase::RolledBack, 0),
        "a pause stops no rollback"
    );
    let full = obey(&paused, Command::Promote);
    assert_eq!((full.phase(&plan), full.weight_bp(&plan), full.epoch), (Phase::Full, 10_000, 1));
    let done = obey(&full, Command::Promote);
    assert_eq!(done.phase(&plan), Phase::Promoted);
    let again = command(&plan, &done, &Command::Resume, 6).unwrap_err();
    assert_eq!(again.to_string(), "the rollout is over (promoted); begin a new one");
    assert!(matches!(command(&plan, &begun, &Command::Resume, 6), Err(CommandError::Already("running"))));
    let back = obey(&full, Command::RollBack { reason: "wrong model".into() });
    assert_eq!(back.decision.to_string(), "roll back: by hand: wrong model");
    let soon = start(&plan, Some(Ended { rolled_back_ms: 0 }), 60_000).unwrap_err();
    assert!(soon.to_string().contains("wait 3540 s"), "{soon}");
    assert!(start(&plan, Some(Ended { rolled_back_ms: 0 }), 3_600_000).is_ok());
}

#[test]
fn evidence_of_closed_stages_is_kept() {
    let plan = plan(r#"{"weight_bp":500},{"weight_bp":5000}"#, r#"{"name":"error_rate"}"#);
    let begun = start(&plan, None, 0).unwrap();
    let first = decide(&plan, &begun, &errors(0, [1000, 19_000], [30, 380]), 1).1;
    let log_e = first.guards[0].log_e;
    assert!(log_e > 0.0);
    let (_, recounted) = command(&plan, &first, &Command::Recount, 2).unwrap();
    let second = decide(&plan, &recounted, &errors(1, [1, 19], [0, 0]), 3).1;
    assert!((second.guards[0].log_e - log_e).abs() < 1e-12);
    let third = decide(&plan, &second, &errors(1, [1000, 19_000], [30, 380]), 3).1;
    assert!((third.guards[0].log_e - 2.0 * log_e).abs() < 1e-9, "logarithms add up");
}

#[test]
fn every_guard_finds_harm_and_safety() {
    let guards =
        r#"{"name":"latency"},{"name":"output_drift"},{"name":"disagreement"},{"name":"metric:sales"}"#;
    let plan = plan(r#"{"shadow":1.0},{"weight_bp":5000}"#, guards);
    let metric = |mean: f64| gannet_stats::moments::Moments::of(100_000, mean, 1.0);
    let evidence = |epoch, slow: u64, bins: [u64; 3], disagreed, sales: f64| Evidence {
        stable_latency: Some(StableLatency { p99_us: 900.0, requests: 5000 }),
        slow: Some(EventCounts {
            events: Arms { candidate: slow, stable: 50 },
            trials: Arms { candidate: 10_000, stable: 10_000 },
        }),
        outputs: Some(Arms { candidate: bins.to_vec(), stable: vec![3000, 3000, 4000] }),
        pairs: Some(PairCounts { pairs: 10_000, disagreed }),
        metrics: [("sales".to_owned(), Arms { candidate: metric(sales), stable: metric(1.0) })].into(),
        ..errors(epoch, [10_000, 10_000], [0, 0])
    };
    let shadow = start(&plan, None, 0).unwrap();
    let (_, weighted) = command(&plan, &shadow, &Command::Promote, 0).unwrap();
    let same = [3000, 3000, 4000];
    let check = |state: &State, evidence: &Evidence, expected: &str| {
        let (decision, next) = decide(&plan, state, evidence, 40 * MINUTE_MS);
        assert!(decision.to_string().starts_with(expected), "{expected}: {decision} {:#?}", next.guards);
    };
    check(&shadow, &evidence(0, 50, same, 100, 1.0), "advance");
    check(&shadow, &evidence(0, 500, same, 100, 1.0), "advance");
    check(&weighted, &evidence(1, 500, same, 100, 1.0), "roll back: latency");
    check(&shadow, &evidence(0, 50, [1000, 3000, 6000], 100, 1.0), "roll back: output_drift");
    check(&shadow, &evidence(0, 50, same, 1000, 1.0), "roll back: disagreement");
    check(&weighted, &evidence(1, 50, same, 1000, 1.0), "promote");
    check(&weighted, &evidence(1, 50, same, 0, 0.8), "roll back: metric:sales");
    check(&weighted, &evidence(1, 50, same, 0, 0.97), "promote");
}

fn log_of_a_rollout(plan: &Plan) -> Vec<Record> {
    let mut records = vec![step(plan, None, (0, "ada"), Input::Start(None)).unwrap()];
    let mut push = |at_ms, actor, input| {
        let record = step(plan, records.last(), (at_ms, actor), input).unwrap();
        records.push(record);
    };
    push(1, "controller", Input::Look(Box::new(errors(0, [500, 9500], [1, 9]))));
    push(2, "ada", Input::Command(Command::Pause));
    push(3, "ada", Input::Command(Command::Resume));
    push(40 * MINUTE_MS, "controller", Input::Look(Box::new(errors(0, [2000, 38_000], [2, 38]))));
    push(41 * MINUTE_MS, "controller", Input::Look(Box::new(errors(1, [2000, 2000], [100, 2]))));
    records
}

#[test]
fn the_log_is_decided_again() {
    let plan = plan(r#"{"weight_bp":500},{"weight_bp":5000}"#, r#"{"name":"error_rate"}"#);
    let records = log_of_a_rollout(&plan);
    let text: Vec<String> = records.iter().map(|record| serde_json::to_string(record).unwrap()).collect();
    let read: Vec<Record> = text.iter().map(|line| serde_json::from_str(line).unwrap()).collect();
    let lines = explain(&plan, &read).unwrap();
    assert!(
        lines[4].contains("advance to stage 1") && lines[5].contains("roll back: error_rate"),
        "{lines:#?}"
    );
    let forged = |change: &dyn Fn(&mut Vec<Record>)| {
        let mut records = records.clone();
        change(&mut records);
        explain(&plan, &records).unwrap_err().to_string()
    };
    assert!(forged(&|records| drop(records.remove(2))).contains("record 3: sequence: expected 2, got 3"));
    assert!(
        forged(&|records| records[5].decision = Decision::Promote)
            .contains("record 5: decision: expected roll")
    );
    let counts = |records: &mut Vec<Record>| {
        records[4].input = Input::Look(Box::new(errors(0, [2000, 38_000], [100, 38])))
    };
    assert!(forged(&counts).contains("record 4: decision"));
    assert!(forged(&|records| records[1].state.epoch = 4).contains("record 1: state.epoch"));
    let evidence = |records: &mut Vec<Record>| records[1].state.guards[0].log_e += 0.1;
    assert!(forged(&evidence).contains("log_e of error_rate"));
    assert!(forged(&|records| records[0].plan = "0".into()).contains("record 0: plan"));
}

/// Runs of a simulation: a few on every run, all of them for the proof.
fn runs(small: u64, full: u64) -> u64 {
    if std::env::var("GANNET_PROOF").is_ok_and(|wish| wish == "full") { full } else { small }
}

/// Events in `trials` requests at `rate`.
fn binomial(random: &mut Random, trials: u64, rate: f64) -> u64 {
    (0..trials).filter(|_| random.uniform() < rate).count() as u64
}

/// Requests of both versions until the candidate went back, looking every `step` requests; `None`: it did not.
fn until_rollback(plan: &Plan, seed: u64, rates: [f64; 2], (step, looks): (u64, u64)) -> Option<u64> {
    let mut random = Random::new(seed);
    let mut state = start(plan, None, 0).unwrap();
    let (mut trials, mut events) = ([0; 2], [0; 2]);
    for look in 1..=looks {
        let share = f64::from(state.weight_bp(plan)) / 10_000.0;
        let candidate = binomial(&mut random, step, share);
        for (arm, count) in [candidate, step - candidate].into_iter().enumerate() {
            trials[arm] += count;
            events[arm] += binomial(&mut random, count, rates[arm]);
        }
        let epoch = state.epoch;
        let (decision, next) = decide(plan, &state, &errors(epoch, trials, events), look * MINUTE_MS);
        if let Decision::RollBack(_) = decision {
            return Some(look * step);
        }
        if next.epoch != epoch {
            (trials, events) = ([0; 2], [0; 2]);
        }
        state = next;
    }
    None
}

fn median_delay(plan: &Plan, rates: [f64; 2], looks: (u64, u64)) -> u64 {
    let count = runs(60, 1000);
    let mut delays: Vec<u64> =
        (0..count).map(|seed| until_rollback(plan, seed, rates, looks).unwrap_or(u64::MAX)).collect();
    delays.sort_unstable();
    let median = delays[delays.len() / 2];
    println!("{rates:?}: median {median}, p90 {} of {count} runs", delays[delays.len() * 9 / 10]);
    median
}

#[test]
fn harmless_candidates_rarely_go_back_however_often_one_looks() {
    let stages = r#"{"weight_bp":500},{"weight_bp":2500},{"weight_bp":5000}"#;
    let plan = plan(stages, r#"{"name":"error_rate","tolerance":0,"margin":1}"#);
    let count = runs(200, 2000);
    let wrong =
        (0..count).filter(|seed| until_rollback(&plan, *seed, [0.02; 2], (200, 100)).is_some()).count();
    println!("{wrong} of {count} went back");
    // one in a hundred, and three standard deviations for the few runs
    let most = count as f64 * 0.01 + if count < 2000 { 3.0 * (count as f64 * 0.01).sqrt() } else { 0.0 };
    assert!(wrong as f64 <= most, "{wrong} of {count} went back");
}

#[test]
fn five_times_the_errors_are_caught_within_2500_requests_at_five_percent() {
    let plan = plan(r#"{"weight_bp":500}"#, r#"{"name":"error_rate"}"#);
    assert!(median_delay(&plan, [0.10, 0.02], (50, 400)) <= 2500);
}

#[test]
fn twice_the_errors_are_caught_within_5000_requests_at_half() {
    let plan = plan(r#"{"weight_bp":5000}"#, r#"{"name":"error_rate"}"#);
    assert!(median_delay(&plan, [0.04, 0.02], (100, 300)) <= 5000);
}

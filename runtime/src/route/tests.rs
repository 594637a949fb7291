//! Routes: their faults, and who is assigned to whom.

use gannet_stats::event_share::{SRM_ALPHA, ShareTest};

use super::*;

fn file(weights: &[(&str, u32)]) -> RouteFile {
    let weight = |(version, weight_bp): &(&str, u32)| WeightFile {
        version: (*version).to_owned(),
        weight_bp: *weight_bp,
    };
    RouteFile { split: weights.iter().map(weight).collect(), ..RouteFile::default() }
}

fn route(weights: &[(&str, u32)]) -> Route {
    Route::new("m", &file(weights)).unwrap()
}

fn shadowed(version: &str, fraction: f64) -> RouteFile {
    let shadow = vec![ShadowFile { version: version.into(), fraction, ..ShadowFile::default() }];
    RouteFile { shadow, ..file(&[("1", 10_000)]) }
}

#[test]
fn faults_are_named_with_their_paths_all_together() {
    let check = |file: &RouteFile, parts: &[&str]| {
        let text = Route::new("m", file).unwrap_err().to_string();
        parts.iter().for_each(|part| assert!(text.contains(part), "{part} is missing in {text}"));
    };
    check(&file(&[]), &["split: expected 1 to 16 versions, got 0"]);
    check(
        &file(&[("1", 9000), ("2", 500)]),
        &["the weights sum to 9500, expected 10000; raise one of them by 500"],
    );
    check(&file(&[("1", 9000), ("2", 5000)]), &["sum to 14000, expected 10000; lower one of them by 4000"]);
    check(&file(&[("1", 10_001), ("../2", 0)]), &["split[0].weight_bp", "split[1].version"]);
    check(&file(&[("1", 5000), ("1", 5000)]), &["split[1].version: '1' is there twice"]);
    for fraction in [0.0, -1.0, 1.1, f64::NAN, 0.00001] {
        check(&shadowed("2", fraction), &["shadow[0].fraction: expected 0.0001 to 1"]);
    }
    let sticky = |header: Option<&str>, parameter: Option<&str>| RouteFile {
        sticky: Some(StickyFile {
            header: header.map(Into::into),
            parameter: parameter.map(Into::into),
            required: None,
        }),
        ..file(&[("1", 10_000)])
    };
    check(&sticky(None, None), &["sticky: expected either 'header' or 'parameter', got neither"]);
    check(&sticky(Some("a"), Some("b")), &["got both"]);
    check(&sticky(Some(""), None), &["sticky: expected a name"]);
    check(&RouteFile { salt: Some(String::new()), ..file(&[("1", 10_000)]) }, &["salt: expected 1 to 255"]);
    assert_eq!(
        *Route::new("m", &sticky(Some("X-User"), None)).unwrap().sticky(),
        Sticky { key: StickyKey::Header("x-user".into()), required: true }
    );
}

#[test]
fn the_second_version_is_the_candidate_of_the_split() {
    let (route, split) = (route(&[("1", 9000), ("2", 1000)]), Split::new("m"));
    for key in (0..5000u32).map(u32::to_le_bytes) {
        assert_eq!(route.assign(&key) == 1, split.is_candidate(&key, 1000));
    }
}

#[test]
fn raising_a_weight_at_the_firsts_expense_moves_keys_of_the_two_alone() {
    let before = route(&[("1", 7000), ("2", 1000), ("3", 2000)]);
    for (after, grown) in [
        (route(&[("1", 5000), ("2", 3000), ("3", 2000)]), 1),
        (route(&[("1", 1000), ("2", 1000), ("3", 8000)]), 2),
        (route(&[("1", 0), ("2", 1000), ("3", 9000)]), 2),
    ] {
        for key in (0..5000u32).map(u32::to_le_bytes) {
            let (old, new) = (before.assign(&key), after.assign(&key));
            assert!(old == new || (old == 0 && new == grown), "{old} -> {new}");
        }
    }
}

#[test]
fn every_version_gets_its_share_at_a_million_keys() {
    let shares = [6000, 100, 2500, 900, 500];
    let names = ["1", "2", "3", "4", "5"];
    let weights: Vec<(&str, u32)> = names.into_iter().zip(shares).collect();
    let route = route(&weights);
    let mut counts = [0u64; 5];
    for user in 0..1_000_000u32 {
        counts[route.assign(format!("user-{user}").as_bytes())] += 1;
    }
    for (index, share) in shares.iter().enumerate() {
        let mut test = ShareTest::sample_ratio(f64::from(*share) / 10_000.0).unwrap();
        let log_e = test.add(&[1_000_000 - counts[index], counts[index]]).unwrap();
        assert!(log_e < -SRM_ALPHA.ln(), "version {}: {counts:?}, log e {log_e}", names[index]);
    }
}

#[test]
fn who_is_copied_says_nothing_of_who_answers() {
    let mut file = shadowed("3", 0.25);
    file.split = self::file(&[("1", 5000), ("2", 5000)]).split;
    let route = Route::new("m", &file).unwrap();
    let mut seen = [0u32; 2];
    for key in (0..40_000u32).map(u32::to_le_bytes) {
        seen[route.assign(&key)] += u32::from(route.shadows()[0].sees(&key));
    }
    // a quarter of each half: 5000, and five standard deviations are about 300
    assert!(seen.iter().all(|seen| seen.abs_diff(5000) < 320), "{seen:?}");
}

#[test]
fn the_first_version_stands_in_then_the_largest() {
    let route = route(&[("1", 5000), ("2", 1000), ("3", 1500), ("4", 2500)]);
    assert_eq!(route.stand_ins(1), [1, 0, 3, 2]);
    assert_eq!(route.stand_ins(0), [0, 3, 2, 1]);
}

#[test]
fn counts_stay_with_their_version() {
    let first = Arc::new(LiveRoute::after(None, route(&[("1", 9000), ("2", 1000)]), Judge::default()));
    assert_eq!(first.enter(1, 0, true).version().as_str(), "2");
    let second = LiveRoute::after(Some(&first), route(&[("2", 5000), ("3", 5000)]), Judge::default());
    let counts: Vec<(u64, u64)> = second.counts.iter().map(|c| (c.requests(), c.fallbacks())).collect();
    assert_eq!(counts, [(1, 1), (0, 0)]);
}

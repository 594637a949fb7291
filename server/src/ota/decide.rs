//! Whether a bundle goes on to more devices, waits, or is stopped: a function of what was counted, with bounds that hold
//! however often one looks. Pure. Must not know devices.

use gannet_stats::event_share::{RateBounds, rate_bounds};
use serde::{Deserialize, Serialize};

use super::{fleet::Counts, plan::Plan};

/// Bad devices before a bundle is stopped: one may always be a broken device.
const BAD_MIN: u64 = 2;

/// How a rollout stands. Running and Paused become each other, both become Done or Halted, which stay.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Status {
    /// It goes on by itself.
    Running,
    /// Nobody new is offered it; harm still stops it.
    Paused,
    /// It reached all.
    Done,
    /// It is offered to nobody any more.
    Halted,
}

impl Status {
    /// As it is written.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Running => "running",
            Self::Paused => "paused",
            Self::Done => "done",
            Self::Halted => "halted",
        }
    }
}

/// A bundle on its way.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Rollout {
    /// Its number.
    pub id: u64,
    /// To whom and how.
    pub plan: Plan,
    /// The bundle's model.
    pub model: String,
    /// The bundle's sequence.
    pub sequence: u64,
    /// How it stands.
    pub status: Status,
    /// The stage, from 0.
    pub stage: usize,
    /// When it came to this stage or status.
    pub since_ms: u64,
    /// Why it is held, or why it ended.
    pub reason: String,
}

impl Rollout {
    /// At its first stage.
    #[must_use]
    pub fn new(id: u64, plan: Plan, (model, sequence): (&str, u64), now_ms: u64) -> Self {
        let (model, reason) = (model.to_owned(), String::new());
        Self { id, plan, model, sequence, status: Status::Running, stage: 0, since_ms: now_ms, reason }
    }

    /// Whether it is neither done nor stopped.
    #[must_use]
    pub fn goes_on(&self) -> bool {
        matches!(self.status, Status::Running | Status::Paused)
    }
}

/// What to do with a rollout.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Decision {
    /// Nothing, for this reason.
    Hold(String),
    /// Go to that stage.
    Widen(usize),
    /// It reached all, and does no harm.
    Finish,
    /// Stop it, for this reason.
    Halt(String),
}

/// The share of bad devices with its bounds, half of the error spent on either side.
#[must_use]
pub(crate) fn bounds(bad: u64, of: u64, plan: &Plan) -> RateBounds {
    rate_bounds(bad, of, plan.alpha / 2.0).unwrap_or(RateBounds { estimate: None, lower: 0.0, upper: 1.0 })
}

/// Decides. The same values give the same answer.
#[must_use]
pub(crate) fn decide(rollout: &Rollout, counts: &Counts, now_ms: u64) -> Decision {
    let Rollout { plan, stage, .. } = rollout;
    if !rollout.goes_on() {
        return Decision::Hold(rollout.reason.clone());
    }
    let candidate = bounds(counts.bad, counts.voted, plan);
    // where what runs now is bad itself, the bundle must be worse than that
    let control = if counts.control >= plan.devices_min {
        bounds(counts.control_bad, counts.control, plan).upper
    } else {
        0.0
    };
    let tolerated = if counts.control_bad > 0 { plan.bad_share_max.max(control) } else { plan.bad_share_max };
    if counts.bad >= BAD_MIN && candidate.lower > tolerated {
        let Counts { voted, bad, failing, alerting, slow, silent, .. } = counts;
        return Decision::Halt(format!(
            "{bad} of {voted} devices are bad ({failing} failing, {alerting} with hardware alerts, {slow} slow, {silent} \
             silent): at least {:.1} % are, {:.1} % may be",
            100.0 * candidate.lower,
            100.0 * tolerated
        ));
    }
    if rollout.status == Status::Paused {
        return Decision::Hold("it is held".into());
    }
    if counts.reached == 0 && *stage + 1 < plan.stages.len() && counts.devices > 0 {
        // a small fleet has nobody in a small stage
        return Decision::Widen(stage + 1);
    }
    let seconds = now_ms.saturating_sub(rollout.since_ms) / 1000;
    if seconds < plan.seconds_min {
        return Decision::Hold(format!("{seconds} of {} s of this stage are over", plan.seconds_min));
    }
    // a wider stage must see more: what few devices cannot show, many can
    let share = (counts.reached as f64 * plan.voted_share_min).ceil() as u64;
    let needed = plan.devices_min.max(share).min(counts.reached).max(1);
    if counts.voted < needed {
        return Decision::Hold(format!("{} of {needed} devices have voted", counts.voted));
    }
    // what took it and is not heard yet may be what cannot be heard any more
    let unheard = counts.took.saturating_sub(counts.voted);
    let worst = bounds(counts.bad + unheard, counts.voted + unheard, plan);
    let all = counts.voted >= counts.reached;
    if worst.upper > plan.bad_share_margin && !(all && counts.bad < BAD_MIN) {
        return Decision::Hold(format!(
            "{unheard} devices that took it have no vote yet; {:.1} % could be bad, {:.1} % must be ruled out",
            100.0 * worst.upper,
            100.0 * plan.bad_share_margin
        ));
    }
    if stage + 1 < plan.stages.len() { Decision::Widen(stage + 1) } else { Decision::Finish }
}

#[cfg(test)]
mod tests {
    use gannet_stats::random::Random;

    use super::*;
    use crate::ota::plan::tests::plan;

    fn rollout() -> Rollout {
        Rollout::new(1, plan(|file| file.seconds_min = 10), ("m", 7), 0)
    }

    #[test]
    fn the_table_of_decisions() {
        let check = |change: &dyn Fn(&mut Rollout, &mut Counts), expected: &str| {
            let mut rollout = rollout();
            let mut counts = Counts { devices: 1000, reached: 50, voted: 50, ..Counts::default() };
            change(&mut rollout, &mut counts);
            counts.took = counts.took.max(counts.voted);
            let got = format!("{:?}", decide(&rollout, &counts, 10_000));
            assert!(got.starts_with(expected), "{got}, expected {expected}");
        };
        check(&|_, _| {}, "Widen(1)");
        check(&|rollout, _| rollout.since_ms = 1, "Hold(\"9 of 10 s");
        check(&|_, counts| counts.voted = 19, "Hold(\"19 of 25 devices have voted");
        check(&|_, counts| (counts.reached, counts.voted) = (3, 2), "Hold(\"2 of 3 devices");
        check(&|_, counts| (counts.reached, counts.voted) = (3, 3), "Widen(1)");
        check(&|_, counts| (counts.reached, counts.voted) = (0, 0), "Widen(1)");
        check(
            &|_, counts| (counts.devices, counts.reached, counts.voted) = (0, 0, 0),
            "Hold(\"0 of 1 devices",
        );
        check(&|rollout, _| rollout.stage = 2, "Finish");
        check(&|rollout, counts| (rollout.stage, counts.reached) = (2, 1000), "Hold(\"50 of 500 devices");
        check(&|rollout, _| rollout.status = Status::Paused, "Hold(\"it is held");
        check(&|_, counts| counts.bad = 1, "Widen(1)");
        check(
            &|_, counts| (counts.bad, counts.failing) = (25, 25),
            "Halt(\"25 of 50 devices are bad (25 failing",
        );
        check(&|rollout, counts| (rollout.status, counts.bad) = (Status::Paused, 25), "Halt(");
        check(&|rollout, counts| (rollout.status, counts.bad) = (Status::Halted, 25), "Hold(");
        check(&|rollout, counts| (rollout.since_ms, counts.bad) = (9999, 25), "Halt(");
        check(&|_, counts| (counts.voted, counts.bad) = (3, 3), "Halt(");
        check(&|_, counts| (counts.voted, counts.bad) = (1, 1), "Hold(");
        check(
            &|_, counts| (counts.voted, counts.took) = (35, 50),
            "Hold(\"15 devices that took it have no vote",
        );
        check(&|_, counts| (counts.voted, counts.took) = (48, 50), "Widen(1)");
        // the fleet is as bad with what it runs now
        check(&|_, counts| (counts.bad, counts.control, counts.control_bad) = (10, 900, 180), "Hold(");
        check(&|_, counts| (counts.bad, counts.control, counts.control_bad) = (40, 900, 180), "Halt(");
    }

    /// How a fleet of a thousand ends, looked at after every vote.
    #[derive(Debug, PartialEq)]
    enum End {
        Halted { stage: usize, votes: u64 },
        Held,
        Finished,
    }

    fn end(seed: u64, bad_share: f64) -> End {
        let mut random = Random::new(seed);
        let mut rollout = rollout();
        let mut counts = Counts { devices: 1000, ..Counts::default() };
        loop {
            counts.reached = (1000.0 * rollout.plan.share(rollout.stage)) as u64;
            if counts.voted < counts.reached {
                counts.voted += 1;
                counts.took = counts.voted;
                counts.bad += u64::from(random.uniform() < bad_share);
            }
            match decide(&rollout, &counts, 1_000_000) {
                Decision::Halt(_) => return End::Halted { stage: rollout.stage, votes: counts.voted },
                Decision::Finish => return End::Finished,
                Decision::Widen(stage) => rollout.stage = stage,
                Decision::Hold(_) if counts.voted == counts.reached => return End::Held,
                Decision::Hold(_) => {}
            }
        }
    }

    #[test]
    fn harmless_bundles_pass_and_bad_ones_stop_in_their_first_stage() {
        let ends = |count: u64, bad_share: f64| (0..count).map(move |seed| end(seed, bad_share));
        let halted = |end: &End| matches!(end, End::Halted { .. });
        let worst = ends(1000, 0.02).filter(halted).count();
        assert!(worst <= 10, "{worst} of 1000 were stopped with as many bad devices as may be");
        let good = ends(500, 0.005).filter(|end| *end == End::Finished).count();
        assert!(good >= 498, "{good} of 500 good ones reached all");
        let mut votes: Vec<u64> = ends(200, 0.3)
            .filter_map(|end| if let End::Halted { stage: 0, votes } = end { Some(votes) } else { None })
            .collect();
        assert!(votes.len() >= 199, "{} of 200 were stopped in the first stage", votes.len());
        votes.sort_unstable();
        println!("three in ten bad: stopped after {} votes in the median", votes[votes.len() / 2]);
        let subtle = ends(200, 0.1).filter(|end| *end == End::Finished).count();
        assert_eq!(subtle, 0, "of 200 with one bad device in ten");
    }
}

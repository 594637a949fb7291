//! How each measure reads the evidence. Must not judge what it finds. `None` is "no data", which holds the candidate.

use gannet_stats::{
    StatsError,
    event_share::{HarmTest, StageCounts, rate_bounds, ratio_bounds},
    mean::{self, MeanDifference},
    moments::Moments,
    quantile::distribution_bound,
};

use super::{Finding, GuardMemory, Look, Unit};
use crate::control::rollout::{
    evidence::{Arms, EventCounts, PairCounts},
    plan::{Better, Guard, Measure},
};

pub(super) fn find(guard: &Guard, memory: &mut GuardMemory, look: Look<'_>) -> Option<Finding> {
    let evidence = look.evidence;
    let found = match guard.measure {
        Measure::ErrorRate => events(guard, memory, look, evidence.errors?),
        Measure::Latency => {
            look.latency_threshold_us?;
            events(guard, memory, look, evidence.slow?)
        }
        Measure::OutputDrift => outputs(guard, memory, look, evidence.outputs.as_ref()?),
        Measure::Disagreement => pairs(guard, memory, look, evidence.pairs?),
        Measure::Metric(better) => {
            let name = guard.name.strip_prefix("metric:")?;
            metric(guard, memory, look, (better, evidence.metrics.get(name)?))
        }
    };
    // parameters were checked with the plan: what is left is evidence that contradicts itself, and that is no data
    found.ok().flatten()
}

type Found = Result<Option<Finding>, StatsError>;

fn events(guard: &Guard, memory: &mut GuardMemory, look: Look<'_>, counts: EventCounts) -> Found {
    let EventCounts { events, trials } = counts;
    let Some(share) = look.traffic.share() else { return Ok(None) };
    if trials.candidate == 0 || trials.stable == 0 {
        return Ok(None);
    }
    // also refuses more events than trials
    let candidate = rate_bounds(events.candidate, trials.candidate, 0.5 * look.alpha)?;
    let stable = rate_bounds(events.stable, trials.stable, 0.5 * look.alpha)?;
    let mut test = HarmTest::new(share, guard.tolerance)?;
    test.add(events.candidate, events.stable);
    memory.set(vec![test.log_e()]);
    let here = StageCounts { share, candidate: events.candidate, stable: events.stable };
    memory.current_stage = Some(here);
    let mut stages = memory.closed_stages.clone();
    stages.push(here);
    let ratio = ratio_bounds(&stages, look.alpha)?;
    let of_ratio = Finding {
        n: trials.candidate,
        unit: Unit::Ratio,
        estimate: ratio.estimate,
        lower: Some(ratio.lower),
        upper: ratio.upper,
        margin: 1.0 + guard.margin,
    };
    let of_difference = Finding {
        n: trials.candidate,
        unit: Unit::Difference,
        estimate: candidate.estimate.zip(stable.estimate).map(|(candidate, stable)| candidate - stable),
        lower: Some(candidate.lower - stable.upper),
        upper: Some(candidate.upper - stable.lower),
        margin: guard.margin_absolute,
    };
    // rare events are known by their difference long before their ratio is
    let is_safe = |found: &Finding| found.upper.is_some_and(|upper| upper <= found.margin);
    let by_difference = of_ratio.upper.is_none() || is_safe(&of_difference);
    Ok(Some(if by_difference && !is_safe(&of_ratio) { of_difference } else { of_ratio }))
}

fn outputs(guard: &Guard, memory: &mut GuardMemory, look: Look<'_>, bins: &Arms<Vec<u64>>) -> Found {
    let Some(share) = look.traffic.share() else { return Ok(None) };
    let (candidate, stable) = (&bins.candidate, &bins.stable);
    let (n, m) = (candidate.iter().sum::<u64>(), stable.iter().sum::<u64>());
    if n == 0 || m == 0 || candidate.len() != stable.len() {
        return Ok(None);
    }
    let mut components = Vec::with_capacity(2 * candidate.len());
    let (mut below, mut below_stable, mut distance) = (0, 0, 0.0f64);
    for (&here, &there) in candidate.iter().zip(stable) {
        let mut more = HarmTest::new(share, guard.tolerance)?;
        more.add(here, there);
        let mut fewer = HarmTest::new(1.0 - share, guard.tolerance)?;
        fewer.add(there, here);
        components.extend([more.log_e(), fewer.log_e()]);
        below += here;
        below_stable += there;
        distance = distance.max((below as f64 / n as f64 - below_stable as f64 / m as f64).abs());
    }
    memory.set(components);
    let half = distribution_bound(n, 0.5 * look.alpha)? + distribution_bound(m, 0.5 * look.alpha)?;
    Ok(Some(Finding {
        n,
        unit: Unit::Distance,
        estimate: Some(distance),
        lower: Some((distance - half).max(0.0)),
        upper: Some((distance + half).min(1.0)),
        margin: guard.margin,
    }))
}

fn pairs(guard: &Guard, memory: &mut GuardMemory, look: Look<'_>, counts: PairCounts) -> Found {
    let PairCounts { pairs, disagreed } = counts;
    if pairs == 0 {
        return Ok(None);
    }
    let bounds = rate_bounds(disagreed, pairs, look.alpha)?;
    let mut test = HarmTest::of_rate(guard.tolerance)?;
    test.add(disagreed, pairs - disagreed);
    memory.set(vec![test.log_e()]);
    Ok(Some(Finding {
        n: pairs,
        unit: Unit::Rate,
        estimate: bounds.estimate,
        lower: Some(bounds.lower),
        upper: Some(bounds.upper),
        margin: guard.margin,
    }))
}

fn metric(
    guard: &Guard,
    memory: &mut GuardMemory,
    look: Look<'_>,
    (better, arms): (Better, &Arms<Moments>),
) -> Found {
    let Arms { candidate, stable } = arms;
    let base = stable.mean();
    if candidate.n().min(stable.n()) < mean::SAMPLES_MIN || base == 0.0 {
        return Ok(None);
    }
    // how much worse than `by` times the baseline tolerates; above zero is harm
    let worse_by = |by: f64| {
        let (sign, factor) = match better {
            Better::Higher => (1.0, 1.0 - by * base.signum()),
            Better::Lower => (-1.0, 1.0 + by * base.signum()),
        };
        let variance = factor * factor * stable.variance() / stable.n() as f64
            + candidate.variance() / candidate.n() as f64;
        MeanDifference { difference: sign * (factor * base - candidate.mean()), variance }
    };
    let plain = worse_by(0.0);
    if plain.variance <= 0.0 {
        return Ok(None);
    }
    let tau2 = match memory.tau2 {
        Some(tau2) => tau2,
        // tuned to the end of the stage; fixed from here on, so that the evidence stays evidence
        None => {
            let planned = plain.variance * candidate.n() as f64 / look.min_requests.max(candidate.n()) as f64;
            mean::tau2(look.alpha, planned)?
        }
    };
    memory.tau2 = Some(tau2);
    memory.set(vec![worse_by(guard.tolerance).log_e_above(0.0, tau2)]);
    let half = plain.half_width(tau2, look.alpha) / base.abs();
    let at_margin = worse_by(guard.margin);
    let ruled_out = at_margin.difference + at_margin.half_width(tau2, look.alpha) <= 0.0;
    let estimate = plain.difference / base.abs();
    // the bound of the test at the margin decides; the one shown is of the plain difference
    let upper = if ruled_out {
        (estimate + half).min(guard.margin)
    } else {
        (estimate + half).max(guard.margin.next_up())
    };
    Ok(Some(Finding {
        n: candidate.n(),
        unit: Unit::Relative,
        estimate: Some(estimate),
        lower: Some(estimate - half),
        upper: Some(upper),
        margin: guard.margin,
    }))
}

//! Deliveries as JSON. Must not know paths or status codes.

use serde_json::{Value, json};

use super::{Rollout, Seen, Shown, Status, decide::bounds, shelf::Signed};

/// Everything.
#[must_use]
pub fn all(shown: &Shown) -> Value {
    json!({
        "rollouts": shown.rollouts.iter().rev().map(|of| rollout(of, shown)).collect::<Vec<_>>(),
        "bundles": shown.bundles.values().map(|of| bundle(of)).collect::<Vec<_>>(),
        "lines": shown.lines,
    })
}

/// A bundle.
#[must_use]
pub fn bundle(bundle: &Signed) -> Value {
    let manifest = bundle.manifest();
    json!({
        "bundle": bundle.id(),
        "model": manifest.model,
        "version": manifest.version,
        "sequence": manifest.sequence,
        "tflite_bytes": bundle.model_bytes(),
        "arena_bytes": manifest.abi.arena.cortex_m,
        "operators": manifest.abi.operators,
    })
}

/// A rollout.
#[must_use]
pub fn rollout(rollout: &Rollout, shown: &Shown) -> Value {
    let counts = shown.counts.get(&rollout.id).copied().unwrap_or_default();
    let bad = bounds(counts.bad, counts.voted, &rollout.plan);
    let percent = match rollout.status {
        Status::Halted => 0.0,
        _ => 100.0 * rollout.plan.share(rollout.stage),
    };
    json!({
        "id": rollout.id,
        "model": rollout.model,
        "sequence": rollout.sequence,
        "status": rollout.status.name(),
        "stage": rollout.stage,
        "percent": percent,
        "since_ms": rollout.since_ms,
        "reason": rollout.reason,
        "devices": counts,
        "bad_share": { "estimate": bad.estimate, "lower": bad.lower, "upper": bad.upper },
        "plan": rollout.plan,
    })
}

/// What devices saw of one input: where it fell beside the calibration, and how far apart. Whether that is an alarm is said
/// by the drift monitor.
#[must_use]
pub fn seen(name: &str, seen: &Seen) -> Value {
    let scores = seen.scores();
    json!({
        "name": name,
        "reports": seen.reports,
        "psi": scores.as_ref().map(gannet_stats::score::Scores::psi_debiased),
        "total_variation": scores.as_ref().map(|scores| scores.total_variation),
        "reference": seen.reference,
        "counts": seen.counts,
    })
}

//! Which bundle a device is offered: a function of the rollouts, the shelf and what the device says of itself. Pure. Must
//! not know HTTP.

use std::sync::Arc;

use gannet_edge::device::DeviceAbi;
use serde::Deserialize;

use super::{
    decide::{Rollout, Status},
    devices::Device,
    fleet::place,
    shelf::{Bundles, Signed},
};

/// What a device asks with.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Ask {
    /// Its class, which must be that of its credential.
    pub class: String,
    /// The model that it runs.
    pub model: String,
    /// The sequence that it runs.
    pub sequence: u64,
    /// What it has.
    pub abi: DeviceAbi,
}

/// A bundle that a device may take.
struct May<'a> {
    bundle: &'a Arc<Signed>,
    /// For those alone that run this sequence or a higher one.
    from: u64,
}

/// Every bundle of a model that a device may take, whatever it runs.
fn may<'a>(rollouts: &'a [Rollout], bundles: &'a Bundles, device: &Device, model: &str) -> Vec<May<'a>> {
    let of = rollouts
        .iter()
        .filter(|rollout| rollout.model == model && rollout.plan.classes.contains(&device.class));
    let bundle = |id: &str, from: u64| Some(May { bundle: bundles.get(id)?, from });
    of.filter_map(|rollout| {
        let id = &rollout.plan.bundle;
        match rollout.status {
            Status::Done => bundle(id, 0),
            Status::Running if place(id, &device.id) < rollout.plan.share(rollout.stage) => bundle(id, 0),
            Status::Running | Status::Paused => None,
            // who has what was stopped goes back
            Status::Halted => bundle(rollout.plan.fallback.as_deref()?, rollout.sequence),
        }
    })
    .collect()
}

/// The newest bundle that is newer than what the device runs, or why there is none.
///
/// # Errors
/// A text for the device's log.
pub(crate) fn offer(
    rollouts: &[Rollout],
    bundles: &Bundles,
    device: &Device,
    ask: &Ask,
) -> Result<Arc<Signed>, String> {
    let mut newer: Vec<May<'_>> = may(rollouts, bundles, device, &ask.model);
    newer.retain(|may| may.bundle.manifest().sequence > ask.sequence && ask.sequence >= may.from);
    newer.sort_by_key(|may| std::cmp::Reverse(may.bundle.manifest().sequence));
    let mut why = "nothing newer".to_owned();
    for May { bundle, .. } in newer {
        match ask.abi.fits(&bundle.manifest().abi, bundle.model_bytes()) {
            Ok(()) => return Ok(Arc::clone(bundle)),
            Err(misfit) => why = format!("sequence {} does not fit: {misfit}", bundle.manifest().sequence),
        }
    }
    Err(why)
}

/// The bundle of that name, if the device may take it.
#[must_use]
pub(crate) fn may_take(
    rollouts: &[Rollout],
    bundles: &Bundles,
    device: &Device,
    id: &str,
) -> Option<Arc<Signed>> {
    let model = &bundles.get(id)?.manifest().model;
    let found = may(rollouts, bundles, device, model).into_iter().find(|may| may.bundle.id() == id);
    found.map(|may| Arc::clone(may.bundle))
}

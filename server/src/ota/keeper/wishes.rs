//! What operators ask for: bundles on the shelf and off it, rollouts begun, held and stopped. Must not know reports.

use std::sync::Arc;

use gannet_edge::bundle::Bundle;
use gannet_runtime::clock;

use super::{Audit, Keeper, no_rollout, of_bundle, unwritten};
use crate::{
    ota::{
        CommandKind,
        decide::{Rollout, Status},
        plan::Plan,
        shelf::{BUNDLES_MAX, Bundles, Signed},
    },
    respond::{Kind, Refusal},
};

/// Rollouts that are kept.
const ROLLOUTS_MAX: usize = 64;

impl Keeper {
    pub(super) fn publish(
        &mut self,
        bundle: &Bundle,
        signed: Signed,
        actor: &str,
    ) -> Result<Arc<Signed>, Refusal> {
        if let Some(known) = self.bundles.get(signed.id()) {
            return Ok(Arc::clone(known));
        }
        let manifest = signed.manifest().clone();
        let twin = self.bundles.values().find(|other| {
            other.manifest().model == manifest.model && other.manifest().sequence == manifest.sequence
        });
        if twin.is_some() {
            return Err(Refusal::new(
                Kind::Conflict,
                format!(
                    "sequence {} of '{}' was published with other files; sign this one with a higher --sequence",
                    manifest.sequence, manifest.model
                ),
            ));
        }
        if self.bundles.len() >= BUNDLES_MAX {
            let message = format!("{BUNDLES_MAX} bundles are published; DELETE one that no rollout needs");
            return Err(Refusal::new(Kind::Exhausted, message));
        }
        self.shelf.add(bundle, &signed).map_err(|error| unwritten("the bundle", &error))?;
        let signed = Arc::new(signed);
        self.log(&Audit { actor: actor.into(), ..of_bundle("publish", &signed) })?;
        let mut bundles = Bundles::clone(&self.bundles);
        bundles.insert(signed.id().to_owned(), Arc::clone(&signed));
        self.bundles = Arc::new(bundles);
        self.show();
        Ok(signed)
    }

    pub(super) fn remove(&mut self, id: &str, actor: &str) -> Result<(), Refusal> {
        let bundle = self.bundle(id)?;
        let needs = |rollout: &&Rollout| {
            let halted = rollout.status == Status::Halted;
            (rollout.plan.bundle == id && !halted) || rollout.plan.fallback.as_deref() == Some(id)
        };
        if let Some(rollout) = self.saved.rollouts.iter().find(needs) {
            let (number, status) = (rollout.id, rollout.status.name());
            return Err(Refusal::new(
                Kind::Conflict,
                format!("rollout {number} ({status}) needs this bundle; halt it first"),
            ));
        }
        self.log(&Audit { actor: actor.into(), ..of_bundle("remove", &bundle) })?;
        self.shelf.remove(id).map_err(|error| unwritten("the shelf", &error))?;
        let mut bundles = Bundles::clone(&self.bundles);
        bundles.remove(id);
        self.bundles = Arc::new(bundles);
        self.show();
        Ok(())
    }

    fn bundle(&self, id: &str) -> Result<Arc<Signed>, Refusal> {
        self.bundles.get(id).cloned().ok_or_else(|| {
            let message = format!("there is no bundle {id:?}; POST /admin/v1/ota/bundles publishes one");
            Refusal::new(Kind::NotFound, message)
        })
    }

    pub(super) fn start(&mut self, plan: Plan, actor: &str) -> Result<u64, Refusal> {
        let bundle = self.bundle(&plan.bundle)?;
        let fallback = plan.fallback.as_deref().map(|id| self.bundle(id)).transpose()?;
        let manifest = bundle.manifest();
        if let Some(same) =
            self.saved.rollouts.iter().find(|rollout| rollout.goes_on() && rollout.plan == plan)
        {
            return Ok(same.id);
        }
        let conflict = |message: String| Err(Refusal::new(Kind::Conflict, message));
        if let Some(fallback) = fallback.as_ref().map(|fallback| fallback.manifest())
            && (fallback.model != manifest.model || fallback.sequence <= manifest.sequence)
        {
            return conflict(format!(
                "the fallback: expected '{}' with a sequence above {}, got '{}' with {}; sign the old bundle again with \
                 a higher --sequence",
                manifest.model, manifest.sequence, fallback.model, fallback.sequence
            ));
        }
        self.free(&plan, &bundle)?;
        let mut saved = self.saved.clone();
        while saved.rollouts.len() >= ROLLOUTS_MAX {
            let Some(place) = obsolete(&saved.rollouts) else {
                return conflict(format!("{ROLLOUTS_MAX} rollouts are kept, and all of them are in force"));
            };
            saved.rollouts.remove(place);
        }
        let id = saved.next_id;
        saved.next_id += 1;
        let now_ms = clock::wall_ms(clock::now());
        let rollout = Rollout::new(id, plan, (&manifest.model, manifest.sequence), now_ms);
        saved.rollouts.push(rollout.clone());
        let audit = Audit { actor: actor.into(), ..self.of_rollout("start", &rollout) };
        self.keep(&audit, saved)?;
        self.look();
        Ok(id)
    }

    /// Whether nothing else goes to the same devices, and they would take it.
    fn free(&self, plan: &Plan, bundle: &Signed) -> Result<(), Refusal> {
        let manifest = bundle.manifest();
        let conflict = |message: String| Err(Refusal::new(Kind::Conflict, message));
        let shares = |rollout: &&Rollout| {
            rollout.model == manifest.model
                && rollout.plan.classes.iter().any(|class| plan.classes.contains(class))
        };
        if let Some(other) = self.saved.rollouts.iter().find(|rollout| rollout.goes_on() && shares(rollout)) {
            return conflict(format!(
                "rollout {} of '{}' goes on; wait for it, or halt it",
                other.id, other.model
            ));
        }
        let offered = |rollout: &Rollout| {
            let fallback = rollout.plan.fallback.as_deref().filter(|_| rollout.status == Status::Halted);
            let fallback = fallback.and_then(|id| Some(self.bundles.get(id)?.manifest().sequence));
            rollout.sequence.max(fallback.unwrap_or(0))
        };
        let highest = self.saved.rollouts.iter().filter(shares).map(offered).max().unwrap_or(0);
        if manifest.sequence <= highest {
            return conflict(format!(
                "devices take nothing that is not newer: expected a sequence above {highest}, got {}; sign the bundle \
                 again with a higher --sequence",
                manifest.sequence
            ));
        }
        Ok(())
    }

    pub(super) fn command(
        &mut self,
        id: u64,
        kind: CommandKind,
        actor: &str,
        reason: String,
    ) -> Result<(), Refusal> {
        let mut saved = self.saved.clone();
        let Some(rollout) = saved.rollouts.iter_mut().find(|rollout| rollout.id == id) else {
            return Err(no_rollout(id));
        };
        let wanted = match kind {
            CommandKind::Pause => Status::Paused,
            CommandKind::Resume => Status::Running,
            CommandKind::Halt => Status::Halted,
        };
        if rollout.status == wanted {
            return Ok(());
        }
        // what reached all may still turn out to be bad
        let allowed = rollout.goes_on() || (kind == CommandKind::Halt && rollout.status == Status::Done);
        if !allowed {
            let message = format!("rollout {id} is over ({}); begin a new one", rollout.status.name());
            return Err(Refusal::new(Kind::Conflict, message));
        }
        rollout.status = wanted;
        rollout.since_ms = clock::wall_ms(clock::now());
        rollout.reason =
            if kind == CommandKind::Halt { format!("by hand: {reason}") } else { reason.clone() };
        let what = rollout.status.name();
        let rollout = rollout.clone();
        let audit = Audit { actor: actor.into(), why: reason, ..self.of_rollout(what, &rollout) };
        self.keep(&audit, saved)?;
        self.look();
        Ok(())
    }
}

/// The oldest rollout that nobody is offered anything by.
fn obsolete(rollouts: &[Rollout]) -> Option<usize> {
    let superseded = |rollout: &Rollout| {
        rollouts.iter().any(|other| {
            other.status == Status::Done
                && other.model == rollout.model
                && other.sequence > rollout.sequence
                && rollout.plan.classes.iter().all(|class| other.plan.classes.contains(class))
        })
    };
    rollouts.iter().position(|rollout| {
        let idle = rollout.status == Status::Halted && rollout.plan.fallback.is_none();
        !rollout.goes_on() && (idle || superseded(rollout))
    })
}

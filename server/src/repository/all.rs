//! Several sources as one: of two that name the same model, the one that comes first wins. Must not know what kinds of
//! sources there are.

use std::collections::BTreeMap;

use gannet_models::ModelName;
use gannet_registry::{AspiredModel, Poll, Source, SourceHealth};

/// Sources in the order of their say.
pub(super) struct All(pub(super) Vec<Box<dyn Source>>);

impl Source for All {
    fn name(&self) -> &str {
        "all"
    }

    fn poll(&mut self, now_ms: u64) -> Poll {
        let mut models: BTreeMap<ModelName, AspiredModel> = BTreeMap::new();
        let mut whole = Poll {
            models: Vec::new(),
            health: SourceHealth::Healthy,
            problems: Vec::new(),
            changed: false,
            settling: false,
            pending: false,
            moves: Vec::new(),
        };
        for source in &mut self.0 {
            let poll = source.poll(now_ms);
            for model in poll.models {
                match models.get_mut(&model.name) {
                    None => drop(models.insert(model.name.clone(), model)),
                    Some(first) => first.problems.push(format!(
                        "expected model names to differ between sources, got '{}' again from '{}'; the first wins: \
                         rename or remove this one",
                        model.name,
                        source.name()
                    )),
                }
            }
            whole.health = worse(whole.health, poll.health);
            whole.problems.extend(poll.problems);
            whole.changed |= poll.changed;
            whole.settling |= poll.settling;
            whole.pending |= poll.pending;
            whole.moves.extend(poll.moves);
        }
        whole.models = models.into_values().collect();
        whole
    }
}

/// Both reasons, since the earlier time.
fn worse(a: SourceHealth, b: SourceHealth) -> SourceHealth {
    match (a, b) {
        (SourceHealth::Healthy, other) | (other, SourceHealth::Healthy) => other,
        (
            SourceHealth::Stale { reason: first, since_ms: a },
            SourceHealth::Stale { reason: second, since_ms: b },
        ) => SourceHealth::Stale { reason: format!("{first}\n{second}"), since_ms: a.min(b) },
    }
}

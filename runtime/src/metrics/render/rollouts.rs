//! The series of rollouts. Must not know how they are carried out.

use std::fmt::Write as _;

use super::{escape, family};
use crate::control::rollout::{GuardReport, Phase, View};

/// The rollouts' series: those that go on, with the newest of each model that is over. `decisions` are by model and kind.
#[must_use]
pub fn render_rollouts(rollouts: &[&View], decisions: &[(&str, &str, u64)]) -> String {
    let mut page = String::new();
    family(
        &mut page,
        "gannet_rollout_phase",
        "gauge",
        "1 for the phase that the model's newest rollout is in",
    );
    for view in rollouts {
        let labels = format!("model=\"{}\",candidate=\"{}\"", escape(&view.model), escape(&view.candidate));
        for phase in Phase::ALL {
            let is_in = u8::from(phase.as_str() == view.state);
            let _ = writeln!(page, "gannet_rollout_phase{{{labels},phase=\"{}\"}} {is_in}", phase.as_str());
        }
    }
    type Read = fn(&GuardReport) -> Option<f64>;
    let guards: [(&str, &str, Read); 4] = [
        ("gannet_rollout_guard_log_e", "Evidence of harm, as a logarithm", |guard| Some(guard.log_e)),
        ("gannet_rollout_guard_limit", "Evidence at which the rollout goes back", |guard| Some(guard.limit)),
        ("gannet_rollout_guard_upper", "Upper bound of how bad the candidate can be", |guard| guard.upper),
        ("gannet_rollout_guard_margin", "Where that bound must lie to go on", |guard| Some(guard.margin)),
    ];
    for (name, help, read) in guards {
        family(&mut page, name, "gauge", help);
        for view in rollouts {
            for (guard, value) in view.guards.iter().filter_map(|guard| Some((guard, read(guard)?))) {
                let (model, guard) = (escape(&view.model), escape(&guard.name));
                let _ = writeln!(page, "{name}{{model=\"{model}\",guard=\"{guard}\"}} {value}");
            }
        }
    }
    family(&mut page, "gannet_rollout_decisions_total", "counter", "Moves of rollouts");
    for (model, decision, count) in decisions {
        let model = escape(model);
        let _ = writeln!(
            page,
            "gannet_rollout_decisions_total{{model=\"{model}\",decision=\"{decision}\"}} {count}"
        );
    }
    page
}

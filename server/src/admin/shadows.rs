//! A model's shadows: how their answers differ from those that were given. Must not know how answers are compared.

use gannet_runtime::{
    route::Shadow,
    shadow::{Line, Report, Worst},
    table::ModelEntry,
};
use serde_json::{Value, json};

use super::{
    models,
    router::{Answer, Call},
};

/// Every shadow of the model's route, with its worst cases.
pub(super) async fn get(call: Call) -> Answer {
    let model = models::model(&call)?;
    let table = call.context.state.table().snapshot();
    let entry = table.model(model.as_str());
    let route = entry.and_then(|entry| Some((entry, entry.route.as_ref()?)));
    let shadows: Vec<Value> = route
        .into_iter()
        .flat_map(|(entry, route)| {
            let shadows = route.live.route.shadows().iter().zip(&route.lines);
            shadows.map(move |(shadow, line)| show(entry, shadow, line))
        })
        .collect();
    Ok(json!({ "model": model.as_str(), "shadows": shadows }))
}

fn show(entry: &ModelEntry, shadow: &Shadow, line: &Line) -> Value {
    let ready = entry.version_entry(&shadow.version).is_some_and(|found| found.servable.is_some());
    let report: &Report = &line.report();
    // JSON has no infinity: a failure, or an answer of another form, has no size
    let worst = |worst: &Worst| json!({ "id": worst.id, "size": worst.size.is_finite().then_some(worst.size), "what": worst.what });
    json!({
        "version": shadow.version.as_str(),
        "fraction": f64::from(shadow.share_bp) / 10_000.0,
        "ready": ready,
        "compared": report.compared,
        "disagreed": report.disagreed,
        "failed": report.failed,
        "primary_failed": report.primary_failed,
        "both_failed": report.both_failed,
        "dropped": line.dropped(),
        "best_same": report.best_same,
        "best_shared": report.best_shared,
        "rank_correlation": report.rank_correlation,
        "score_distance": report.score_distance,
        "latency_ratio": report.latency_ratio,
        "worst": report.worst.iter().map(worst).collect::<Vec<_>>(),
    })
}

//! Captured requests: where they are kept, and how that goes. Must not know how they are written.

use serde_json::{Value, json};

use super::router::{Answer, Call};

/// The tables, what was counted, and what went wrong last.
pub(super) async fn get(call: Call) -> Answer {
    let Some(capture) = &call.context.state.capture else {
        return Ok(json!({ "enabled": false, "place": null, "tables": [], "counts": {} }));
    };
    let mut shown = capture.shown().to_json();
    let name = |(what, reason, number): &(&str, &str, u64)| {
        let key = if reason.is_empty() { (*what).to_owned() } else { format!("{what}_{reason}") };
        (key, json!(number))
    };
    shown["counts"] = Value::Object(capture.counted().iter().map(name).collect());
    shown["enabled"] = json!(true);
    Ok(shown)
}

//! The configuration in force. Must not know any key.

use serde_json::{Map, Value, json};

use super::router::{Answer, Call};

/// Every key with its value and source.
pub(super) async fn get(call: Call) -> Answer {
    let entries = call.context.config.effective();
    let fields =
        entries.map(|entry| (entry.key.to_owned(), json!({ "value": entry.value, "source": entry.source })));
    Ok(Value::Object(fields.collect::<Map<String, Value>>()))
}

//! `config.pbtxt`, Triton's model configuration, in and out: as text, as the JSON of a load request, and as the
//! JSON that `GET /v2/models/{name}/config` answers. Must not know `model.toml`, nor any backend.
//!
//! What Triton does where this format says nothing, Gannet does too, with these differences, decided once:
//! * Without `dynamic_batching` Triton runs requests one by one; Gannet batches them all the same, up to
//!   `max_batch_size` and with no delay: the answers are the same, and it is faster.
//! * A queue without `max_queue_size` is not endless, but holds [`crate::settings::QUEUE_REQUESTS_MAX`].
//! * Warm-up happens whether or not `model_warmup` asks for it, with the server's own inputs.
//! * A file that gives neither tensors nor `max_batch_size` is completed from the model, as Triton does.
//! * What Gannet lacks is refused by name, all of it in one message; see `support.rs` for every field's verdict.

mod read;
mod support;
mod syntax;
mod write;

use std::{path::Path, sync::LazyLock};

use miette::Diagnostic as _;
use prost_reflect::{DescriptorPool, DeserializeOptions, DynamicMessage, MessageDescriptor};

use crate::{
    ModelSettings,
    error::{Fault, ModelError},
    faults::{self, Faults},
};

use self::syntax::{Places, with_list_colons};

pub use self::write::{ModelConfigParts, to_json, to_model_config};

/// The compiled schema, a serialised `google.protobuf.FileDescriptorSet`, for whoever compiles or reflects it.
pub const DESCRIPTOR_SET: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/model_config.bin"));

static POOL: LazyLock<DescriptorPool> = LazyLock::new(|| {
    DescriptorPool::decode(DESCRIPTOR_SET).expect("the build script made a valid descriptor set")
});

/// The descriptor of one message of the schema.
fn descriptor(name: &str) -> MessageDescriptor {
    let name = format!("inference.{name}");
    POOL.get_message_by_name(&name).expect("the schema in this crate has every message that its code names")
}

/// Where a configuration comes from.
#[derive(Debug, Clone, Copy)]
pub struct Origin<'a> {
    /// What messages call it: a path, or such as `load request`.
    pub path: &'a Path,
    /// The name that the configuration must give, if it gives one.
    pub name: Option<&'a str>,
    /// The folder in which label files are looked for.
    pub model_dir: &'a Path,
}

/// Reads the text of a `config.pbtxt`. `path` names it in messages; its folder gives the model's name and the
/// label files.
///
/// # Errors
/// [`ModelError::Settings`] with every fault, and with every setting that Gannet does not support.
pub fn parse(text: &str, path: &Path) -> Result<ModelSettings, ModelError> {
    let model_dir = path.parent().unwrap_or(Path::new(""));
    let name = model_dir.file_name().and_then(|name| name.to_str());
    let origin = Origin { path, name, model_dir };
    let text = with_list_colons(text);
    match DynamicMessage::parse_text_format(descriptor("ModelConfig"), &text) {
        Ok(message) => convert(&message, &text, &origin),
        Err(error) => {
            let offset = error.labels().and_then(|mut labels| labels.next()).map(|label| label.offset());
            let line =
                offset.and_then(|offset| text.get(..offset)).map(|before| before.matches('\n').count() + 1);
            let got = error.to_string();
            refuse(&origin, line, "a model configuration in protobuf text format", got)
        }
    }
}

/// Reads a configuration as JSON, as a load request gives it. It stands instead of the file, not beside it.
///
/// # Errors
/// As for [`parse`].
pub fn from_json(text: &str, origin: &Origin<'_>) -> Result<ModelSettings, ModelError> {
    let options = DeserializeOptions::new().deny_unknown_fields(true);
    let mut deserializer = serde_json::Deserializer::from_str(text);
    let message =
        DynamicMessage::deserialize_with_options(descriptor("ModelConfig"), &mut deserializer, &options)
            .and_then(|message| deserializer.end().map(|()| message));
    match message {
        Ok(message) => convert(&message, text, origin),
        Err(error) => {
            let line = Some(error.line()).filter(|&line| line > 0);
            refuse(origin, line, "a model configuration in JSON", error.to_string())
        }
    }
}

fn refuse(
    origin: &Origin<'_>,
    line: Option<usize>,
    expected: &str,
    got: String,
) -> Result<ModelSettings, ModelError> {
    let mut faults = Faults::default();
    let advice = "field names are those of models/proto/model_config.proto".to_owned();
    faults.push(Fault { line, field: String::new(), expected: expected.to_owned(), got, advice });
    faults.finish(origin.path, ModelSettings::default())
}

fn convert(message: &DynamicMessage, text: &str, origin: &Origin<'_>) -> Result<ModelSettings, ModelError> {
    let mut faults = Faults::default();
    support::check(message, &mut faults);
    let mut settings = read::settings(message, origin, &mut faults);
    faults::check(&mut settings, &read::NAMES, &mut faults);
    let places = Places::of(text);
    faults.locate(|field| places.line(field));
    faults.finish(origin.path, settings)
}

#[cfg(test)]
mod tests;

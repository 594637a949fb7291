//! An answer to an inference read back, as whoever asked gets it. Must not know who asked.

use bytes::Bytes;
use gannet_runtime::Tensor;

use super::{Refusal, tensors};
use crate::http::json::Reader;

/// What an answer says.
#[derive(Debug, Default)]
pub struct Read {
    /// The version that computed it, where it is named.
    pub version: String,
    /// By name.
    pub outputs: Vec<(String, Tensor)>,
}

/// Reads an answer whose first `json_length` bytes are JSON and whose rest are binary tensors.
///
/// # Errors
/// A refusal naming the field, what was expected and what came.
pub fn read(body: &Bytes, json_length: usize) -> Result<Read, Refusal> {
    let Some(json) = body.get(..json_length) else {
        let message =
            format!("expected {json_length} bytes of JSON, as its header says, got {} in all", body.len());
        return Err(Refusal::invalid(message));
    };
    let mut answer = Read::default();
    let mut at = json_length;
    let mut reader = Reader::new(json)?;
    reader.object::<Refusal>(|reader, key| {
        match key {
            "model_version" => answer.version = reader.text()?.into_owned(),
            // outputs are written as inputs are
            "outputs" => tensors(reader, (&mut answer.outputs, "outputs"), body, &mut at)?,
            _ => drop(reader.skip()?),
        }
        Ok(())
    })?;
    reader.end()?;
    Ok(answer)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_are_read_with_and_without_binary_tensors() {
        let check = |json: &str, blob: &[u8], expected: &str| {
            let text = match read(&Bytes::from([json.as_bytes(), blob].concat()), json.len()) {
                Ok(answer) => {
                    let tensor = |(name, t): &(String, Tensor)| {
                        format!("{name} {} {:?} {:?}", t.dtype, t.shape, &t.data[..])
                    };
                    format!("{}: {:?}", answer.version, answer.outputs.iter().map(tensor).collect::<Vec<_>>())
                }
                Err(refusal) => refusal.message.into_owned(),
            };
            assert!(text.contains(expected), "expected {expected}\n     got {text}");
        };
        let with = |fields: &str| {
            format!(
                r#"{{"model_name":"m","model_version":"3","outputs":[{{"name":"y","datatype":"UINT8","shape":[2],{fields}}}]}}"#
            )
        };
        check(&with(r#""data":[1,2]"#), b"", r#"3: ["y UINT8 [2] [1, 2]"]"#);
        check(&with(r#""parameters":{"binary_data_size":2}"#), &[1, 2], r#"3: ["y UINT8 [2] [1, 2]"]"#);
        check(&with(r#""parameters":{"binary_data_size":9}"#), &[1, 2], "states 9 bytes");
        check(&with(r#""data":[1]"#), b"", "takes 2 values, got 1");
        check("{", b"", "the text ends");
        let short = read(&Bytes::from_static(b"{}"), 3).unwrap_err();
        assert!(short.message.contains("expected 3 bytes of JSON"), "{}", short.message);
    }
}

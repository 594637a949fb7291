//! Tells a TorchScript archive from a pickle by the names in its table of contents. Nothing in it is opened.
//! Must not know how such an archive is run.

use std::{
    fs::File,
    io::{Read as _, Seek as _, SeekFrom},
    path::Path,
};

use gannet_models::ModelError;

use crate::RemoteError;

/// Bytes at the end of a file among which its table of contents is looked for.
const TAIL_BYTES: u64 = 4 << 20;

/// Whether a file is an archive that holds code of TorchScript.
pub(crate) fn check(path: &Path) -> Result<(), RemoteError> {
    let mut file = File::open(path).map_err(ModelError::io(path, "open"))?;
    let length = file.metadata().map_err(ModelError::io(path, "look at"))?.len();
    let mut head = [0; 4];
    let is_archive = file.read_exact(&mut head).is_ok() && head == *b"PK\x03\x04";
    file.seek(SeekFrom::Start(length.saturating_sub(TAIL_BYTES))).map_err(ModelError::io(path, "read"))?;
    let mut tail = Vec::new();
    file.read_to_end(&mut tail).map_err(ModelError::io(path, "read"))?;
    if is_archive && names(&tail).any(|name| name.contains("/code/")) {
        return Ok(());
    }
    Err(RemoteError::Unusable(
        "expected TorchScript, got a pickled torch.nn.Module: whoever opens a pickle runs what is in it, so it is never \
         opened. Log it as ONNX: mlflow.onnx.log_model(torch.onnx.export(model, example, dynamo=True).model_proto, \
         name=...), or as TorchScript: mlflow.pytorch.log_model(torch.jit.script(model), \
         serialization_format=\"pickle\")"
            .to_owned(),
    ))
}

/// The names in the headers of a central directory, as far as they lie in `tail`.
fn names(tail: &[u8]) -> impl Iterator<Item = String> {
    const HEADER: usize = 46;
    let starts = tail.windows(4).enumerate().filter(|(_, window)| *window == b"PK\x01\x02").map(|(at, _)| at);
    starts.filter_map(move |at| {
        let header = tail.get(at..at + HEADER)?;
        let length = usize::from(u16::from_le_bytes([header[28], header[29]]));
        let name = tail.get(at + HEADER..at + HEADER + length)?;
        Some(String::from_utf8_lossy(name).into_owned())
    })
}

#[cfg(test)]
mod tests {

    /// The parts of an archive that are looked at.
    fn archive(names: &[&str]) -> Vec<u8> {
        let mut bytes = b"PK\x03\x04 content ".to_vec();
        for name in names {
            let mut header = [0; 46];
            header[..4].copy_from_slice(b"PK\x01\x02");
            header[28..30].copy_from_slice(&u16::try_from(name.len()).unwrap().to_le_bytes());
            bytes.extend(header);
            bytes.extend(name.as_bytes());
        }
        bytes
    }

    #[test]
    fn archives_with_code_pass_and_pickles_do_not() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("model.pth");
        let check = |bytes: &[u8], good: bool| {
            std::fs::write(&path, bytes).unwrap();
            assert_eq!(super::check(&path).is_ok(), good);
        };
        check(&archive(&["m/data.pkl", "m/code/__torch__.py", "m/constants.pkl"]), true);
        check(&archive(&["m/data.pkl", "m/data/0"]), false);
        check(b"\x80\x02}q\x00. m/code/x", false);
        check(b"", false);
    }
}

//! A bundle as one file: a plain tar, which every system can unpack. Must not know what a bundle holds.

use std::io::Read as _;

use gannet_edge::bundle::Bundle;

/// Files of a bundle.
const FILES_MAX: usize = 64;
/// Bytes of all files of a bundle.
pub const BUNDLE_BYTES_MAX: u64 = 16 << 20;

/// The files in a folder of that name, without times or owners: the same bundle is the same archive.
///
/// # Errors
/// A text, when a path is too long for the format.
pub fn pack(bundle: &Bundle, folder: &str) -> Result<Vec<u8>, String> {
    let mut archive = tar::Builder::new(Vec::new());
    for (path, bytes) in &bundle.files {
        let mut header = tar::Header::new_gnu();
        header.set_size(bytes.len() as u64);
        header.set_mode(0o644);
        archive
            .append_data(&mut header, format!("{folder}/{path}"), &bytes[..])
            .map_err(|error| format!("{path} cannot be packed: {error}"))?;
    }
    archive.into_inner().map_err(|error| format!("the archive cannot be written: {error}"))
}

/// The files of an archive, below its one folder or none. Nothing is written anywhere.
///
/// # Errors
/// A text: what, expected and got.
pub fn unpack(bytes: &[u8]) -> Result<Bundle, String> {
    let mut bundle = Bundle::default();
    let mut total = 0u64;
    let mut archive = tar::Archive::new(bytes);
    let entries = archive.entries().map_err(|error| format!("expected a tar archive: {error}"))?;
    for entry in entries {
        let entry = entry.map_err(|error| format!("expected a tar archive: {error}"))?;
        let path = String::from_utf8(entry.path_bytes().into_owned())
            .map_err(|_| "a path: expected UTF-8".to_owned())?;
        if entry.header().entry_type().is_dir() {
            continue;
        }
        if !entry.header().entry_type().is_file() {
            return Err(format!("{path}: expected plain files, got a link or a device"));
        }
        total = total.saturating_add(entry.size());
        if total > BUNDLE_BYTES_MAX {
            return Err(format!("expected at most {BUNDLE_BYTES_MAX} bytes of files, got more"));
        }
        if bundle.files.len() == FILES_MAX {
            return Err(format!("expected at most {FILES_MAX} files, got more"));
        }
        let mut content = Vec::new();
        entry
            .take(BUNDLE_BYTES_MAX)
            .read_to_end(&mut content)
            .map_err(|error| format!("{path}: the archive breaks off: {error}"))?;
        if bundle.files.insert(path.clone(), content).is_some() {
            return Err(format!("{path}: expected each file once, got it twice"));
        }
    }
    strip(&mut bundle)?;
    Ok(bundle)
}

/// Leaves the folder out that all files are in.
fn strip(bundle: &mut Bundle) -> Result<(), String> {
    if bundle.files.keys().any(|path| path == "manifest.json" || path == "./manifest.json") {
        let files = std::mem::take(&mut bundle.files);
        bundle.files = files
            .into_iter()
            .map(|(path, bytes)| (path.trim_start_matches("./").to_owned(), bytes))
            .collect();
    } else {
        let manifest =
            bundle.files.keys().find(|path| path.trim_start_matches("./").ends_with("/manifest.json"));
        let Some(folder) = manifest.and_then(|path| path.strip_suffix("manifest.json")).map(str::to_owned)
        else {
            return Err("expected manifest.json, alone or in one folder, got none".into());
        };
        let files = std::mem::take(&mut bundle.files);
        for (path, bytes) in files {
            let inside = path.strip_prefix(&folder).map(str::to_owned);
            let inside = inside.ok_or_else(|| format!("{path}: expected all files in {folder}"))?;
            bundle.files.insert(inside, bytes);
        }
    }
    let inside = |path: &&String| path.split('/').any(|part| part.is_empty() || part == "." || part == "..");
    match bundle.files.keys().find(inside) {
        Some(path) => Err(format!("{path}: expected a path inside of the bundle")),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_packed_is_unpacked_and_nothing_else() {
        let mut bundle = Bundle::default();
        for (path, bytes) in [("manifest.json", &b"{}"[..]), ("src/model.c", b"int x;"), ("empty", b"")] {
            bundle.files.insert(path.into(), bytes.into());
        }
        let packed = pack(&bundle, "digits-edge").unwrap();
        assert_eq!(unpack(&packed).unwrap(), bundle);
        assert_eq!(pack(&bundle, "digits-edge").unwrap(), packed);
        // whatever is cut off or changed is an error or a bundle, and never ends the process
        for length in 0..packed.len() {
            let _ = unpack(&packed[..length]);
        }
        for place in 0..packed.len().min(1536) {
            let mut changed = packed.clone();
            changed[place] ^= 0x55;
            let _ = unpack(&changed);
        }
        let refused = |entries: &[(&str, tar::EntryType, &[u8])], part: &str| {
            let mut archive = tar::Builder::new(Vec::new());
            for (path, kind, bytes) in entries {
                let mut header = tar::Header::new_gnu();
                header.set_entry_type(*kind);
                header.set_size(bytes.len() as u64);
                // as the crate itself would not write it
                header.as_old_mut().name[..path.len()].copy_from_slice(path.as_bytes());
                header.set_cksum();
                archive.append(&header, *bytes).unwrap();
            }
            let why = unpack(&archive.into_inner().unwrap()).unwrap_err();
            assert!(why.contains(part), "{why}");
        };
        use tar::EntryType::{Regular, Symlink};
        refused(&[("x", Regular, b"")], "expected manifest.json");
        refused(&[("a/manifest.json", Regular, b""), ("b/x", Regular, b"")], "all files in a/");
        refused(&[("manifest.json", Regular, b""), ("../x", Regular, b"")], "inside of the bundle");
        refused(&[("a/manifest.json", Regular, b""), ("a/../../x", Regular, b"")], "inside of the bundle");
        refused(&[("manifest.json", Symlink, b"")], "plain files");
        refused(&[("manifest.json", Regular, b""), ("manifest.json", Regular, b"")], "got it twice");
        let large = vec![0; BUNDLE_BYTES_MAX as usize + 1];
        refused(&[("manifest.json", Regular, &large)], "at most 16777216 bytes");
    }
}

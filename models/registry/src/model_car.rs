//! Layers of a ModelCar image: tar archives, gzipped or not, whose `models/` folder is the package. Reads what a
//! stranger wrote: nothing but plain files and folders inside of it comes out, within limits of size and number.
//! Must not know registries.

use std::{
    fs::{self, File},
    io::{self, BufReader, Read, Seek as _, Write as _},
    path::Path,
};

use flate2::read::MultiGzDecoder;
use gannet_models::{IngestLimits, ModelError};
use tar::EntryType;

use crate::{
    RemoteError,
    package::{check_path, too_large},
};

/// Entries of one archive, whatever they are.
const ENTRIES_MAX: usize = 100_000;
/// What gzip may swell to for each byte that came, beyond the first mebibyte.
const SWELLING_MAX: u64 = 200;
const PIECE_BYTES: usize = 256 << 10;

/// Unpacks one layer over what earlier layers left in `into`.
pub(crate) fn unpack(layer: &Path, into: &Path, limits: &IngestLimits) -> Result<(), RemoteError> {
    let mut file = File::open(layer).map_err(ModelError::io(layer, "open"))?;
    let packed = file.metadata().map_err(ModelError::io(layer, "look at"))?.len();
    let mut magic = [0; 2];
    let gzipped = file.read_exact(&mut magic).is_ok() && magic == [0x1f, 0x8b];
    file.rewind().map_err(ModelError::io(layer, "read"))?;
    let file = BufReader::new(file);
    let reader: Box<dyn Read> = if gzipped { Box::new(MultiGzDecoder::new(file)) } else { Box::new(file) };
    let swollen = (1 << 20) + packed.saturating_mul(SWELLING_MAX);
    let bound = limits.bytes_max.saturating_add(1 << 20).min(swollen);
    let mut archive = tar::Archive::new(Bounded { reader, left: bound });
    let broken = |error: io::Error| RemoteError::Unusable(format!("the archive cannot be read: {error}"));
    let (mut count, mut bytes, mut entries) = (0, 0_u64, 0);
    for entry in archive.entries().map_err(broken)? {
        let mut entry = entry.map_err(broken)?;
        entries += 1;
        if entries > ENTRIES_MAX {
            return Err(RemoteError::Unusable(format!(
                "expected at most {ENTRIES_MAX} entries in the archive"
            )));
        }
        let path = String::from_utf8(entry.path_bytes().into_owned())
            .map_err(|_| RemoteError::Unusable("expected names in UTF-8 in the archive".to_owned()))?;
        let trimmed = path.trim_start_matches("./").trim_start_matches('/').trim_end_matches('/');
        let Some(inside) = trimmed.strip_prefix("models/") else { continue };
        check_path(inside)?;
        match entry.header().entry_type() {
            EntryType::Directory => continue,
            EntryType::Regular | EntryType::Continuous => {}
            other => {
                return Err(RemoteError::Unusable(format!(
                    "the archive holds '{inside}': expected plain files, got {}; build the image without it",
                    name_of(other)
                )));
            }
        }
        if let Some(removed) = inside.rsplit('/').next().and_then(|name| name.strip_prefix(".wh.")) {
            let parent = inside.rsplit_once('/').map_or(into.to_owned(), |(parent, _)| into.join(parent));
            check_path(removed)?;
            let target = parent.join(removed);
            let _ = if target.is_dir() { fs::remove_dir_all(&target) } else { fs::remove_file(&target) };
            continue;
        }
        count += 1;
        bytes = bytes.saturating_add(entry.size());
        if count > limits.files_max || bytes > limits.bytes_max {
            return Err(too_large(
                limits.bytes_max,
                &format!("{count} files of {bytes} bytes in one archive"),
            ));
        }
        write(&mut entry, inside, into)?;
    }
    Ok(())
}

fn write(entry: &mut impl Read, path: &str, into: &Path) -> Result<(), RemoteError> {
    let target = into.join(path);
    if let Some(parent) = target.parent() {
        fs::create_dir_all(parent).map_err(ModelError::io(parent, "create the folder"))?;
    }
    if target.exists() {
        fs::remove_file(&target).map_err(ModelError::io(&target, "replace"))?;
    }
    let mut file = File::create_new(&target).map_err(ModelError::io(&target, "create"))?;
    let mut piece = vec![0; PIECE_BYTES];
    loop {
        let count = entry
            .read(&mut piece)
            .map_err(|error| RemoteError::Unusable(format!("the archive broke off in '{path}': {error}")))?;
        if count == 0 {
            return Ok(());
        }
        file.write_all(&piece[..count]).map_err(ModelError::io(&target, "write"))?;
    }
}

fn name_of(kind: EntryType) -> &'static str {
    match kind {
        EntryType::Symlink => "a symbolic link",
        EntryType::Link => "a hard link",
        EntryType::Char | EntryType::Block => "a device",
        EntryType::Fifo => "a pipe",
        EntryType::GNUSparse => "a sparse file",
        _ => "something else",
    }
}

/// Ends with an error once more came than may.
struct Bounded<R> {
    reader: R,
    left: u64,
}

impl<R: Read> Read for Bounded<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.reader.read(buffer)?;
        self.left = self.left.checked_sub(count as u64).ok_or_else(|| {
            io::Error::other(
                "it swells to more than registry.max_package_bytes allows, or than any model would",
            )
        })?;
        Ok(count)
    }
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use flate2::{Compression, write::GzEncoder};

    use super::*;

    const LIMITS: IngestLimits = IngestLimits { files_max: 10, bytes_max: 1 << 20 };

    /// An archive of raw headers, so that it can hold what a sound writer would refuse.
    fn archive(entries: &[(&str, EntryType, &[u8])]) -> Vec<u8> {
        let mut builder = tar::Builder::new(Vec::new());
        for (path, kind, content) in entries {
            let mut header = tar::Header::new_gnu();
            header.as_old_mut().name[..path.len()].copy_from_slice(path.as_bytes());
            header.set_entry_type(*kind);
            header.set_size(content.len() as u64);
            header.set_mode(0o777);
            header.as_old_mut().linkname[..6].copy_from_slice(b"/etc/x");
            header.set_cksum();
            builder.append(&header, *content).unwrap();
        }
        builder.into_inner().unwrap()
    }

    fn unpacked(bytes: &[u8]) -> (tempfile::TempDir, Result<(), RemoteError>) {
        let dir = tempfile::tempdir().unwrap();
        let layer = dir.path().join("layer");
        fs::write(&layer, bytes).unwrap();
        let into: PathBuf = dir.path().join("into");
        fs::create_dir(&into).unwrap();
        let result = unpack(&layer, &into, &LIMITS);
        (dir, result)
    }

    #[test]
    fn the_models_folder_comes_out() {
        let plain = archive(&[
            ("models/", EntryType::Directory, b""),
            ("models/data/w.bin", EntryType::Regular, b"w"),
            ("./models/model.onnx", EntryType::Regular, b"onnx"),
            ("etc/passwd", EntryType::Regular, b"no"),
        ]);
        let mut gzip = GzEncoder::new(Vec::new(), Compression::fast());
        gzip.write_all(&plain).unwrap();
        for bytes in [plain, gzip.finish().unwrap()] {
            let (dir, result) = unpacked(&bytes);
            result.unwrap();
            assert_eq!(fs::read(dir.path().join("into/model.onnx")).unwrap(), b"onnx");
            assert_eq!(fs::read(dir.path().join("into/data/w.bin")).unwrap(), b"w");
            assert_eq!(fs::read_dir(dir.path().join("into")).unwrap().count(), 2);
        }
    }

    #[test]
    fn what_would_leave_or_swell_is_refused() {
        let check = |entries: &[(&str, EntryType, &[u8])], part: &str| {
            let (dir, result) = unpacked(&archive(entries));
            let message = result.unwrap_err().to_string();
            assert!(message.contains(part), "{part}: {message}");
            assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 2, "something was written outside");
        };
        check(&[("models/../../evil", EntryType::Regular, b"x")], "steps through");
        check(&[("models//etc/x", EntryType::Regular, b"x")], "absolute");
        check(&[("models/link", EntryType::Symlink, b"")], "symbolic link");
        check(&[("models/link", EntryType::Link, b"")], "hard link");
        check(&[("models/pipe", EntryType::Fifo, b"")], "pipe");
        check(&[("models/big", EntryType::Regular, &[0; (1 << 20) + 1])], "max_package_bytes");
        let many: Vec<String> = (0..11).map(|n| format!("models/{n}")).collect();
        let many: Vec<(&str, EntryType, &[u8])> =
            many.iter().map(|path| (path.as_str(), EntryType::Regular, &b"x"[..])).collect();
        check(&many, "11 files");
    }

    #[test]
    fn a_bomb_is_stopped_before_it_swells() {
        let mut gzip = GzEncoder::new(Vec::new(), Compression::best());
        let mut header = tar::Header::new_gnu();
        header.set_path("ignored").unwrap();
        header.set_size(1 << 30);
        header.set_cksum();
        gzip.write_all(header.as_bytes()).unwrap();
        for _ in 0..1024 {
            gzip.write_all(&[0; 1 << 16]).unwrap();
        }
        let bomb = gzip.finish().unwrap();
        assert!(bomb.len() < 1 << 17, "{}", bomb.len());
        let (_dir, result) = unpacked(&bomb);
        let message = result.unwrap_err().to_string();
        assert!(message.contains("swells"), "{message}");
    }
}

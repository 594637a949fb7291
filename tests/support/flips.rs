//! Single bits of files that are turned over, anywhere, one at a time. Must not know whose files they are.

use std::{
    fs,
    path::{Path, PathBuf},
};

use super::{proof::scaled, random::Random};

/// Every file below a folder.
pub(crate) fn files_below(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut folders = vec![folder.to_owned()];
    while let Some(folder) = folders.pop() {
        for item in fs::read_dir(&folder).expect("a folder").map(|item| item.expect("an item").path()) {
            if item.is_dir() { folders.push(item) } else { found.push(item) }
        }
    }
    found.sort();
    found
}

/// Turns over bits of each of `files`, one at a time, wherever chance says: `pull` must fail each time, and not
/// before or after.
#[track_caller]
pub(crate) fn every_flip_is_refused(files: &[PathBuf], pull: impl Fn() -> Result<String, String>) {
    assert!(!files.is_empty(), "there are files");
    assert_eq!(pull().err(), None, "the whole files are taken");
    let (mut random, mut flips) = (Random::new(0x0f11), 0);
    for path in files {
        let whole = fs::read(path).expect("a file");
        for _ in 0..scaled(1, 20).min(whole.len() as u64 * 8) {
            let (byte, bit) = (random.below(whole.len() as u64), random.below(8));
            let mut bytes = whole.clone();
            bytes[usize::try_from(byte).expect("it fits")] ^= 1 << bit;
            fs::write(path, bytes).expect("a file");
            flips += 1;
            assert!(pull().is_err(), "bit {bit} of byte {byte} of {} was turned over", path.display());
        }
        fs::write(path, whole).expect("a file");
    }
    assert_eq!(pull().err(), None, "the whole files are taken again");
    println!("{flips} bits of {} files turned over, each refused", files.len());
}

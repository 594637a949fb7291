//! Writes the nets of the proof, and the samples they are calibrated and scored with, into a folder: what
//! `tests/peers/measure_peer.py` measures the peer on. Must not compile anything.

#[path = "../tests/support/nets.rs"]
#[allow(dead_code, missing_docs, unreachable_pub, reason = "shared with the tests")]
mod nets;

use std::{fs, path::PathBuf};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let folder = std::env::args().nth(1).map(PathBuf::from).ok_or("usage: nets FOLDER")?;
    fs::create_dir_all(&folder)?;
    for name in nets::NAMES {
        fs::write(folder.join(format!("{name}.onnx")), nets::onnx(name))?;
        for (kind, count, seed) in [("calibrate", 100, 1), ("score", 512, 2)] {
            let values = nets::samples(name, count, seed);
            let bytes: Vec<u8> = values.iter().flat_map(|value| value.to_le_bytes()).collect();
            fs::write(folder.join(format!("{name}.{kind}.f32")), bytes)?;
        }
    }
    Ok(())
}

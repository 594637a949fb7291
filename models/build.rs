//! Compiles `proto/model_config.proto` into a descriptor set, without protoc.

use std::{env, error::Error, fs, path::Path};

use prost::Message as _;

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo::rerun-if-changed=proto/model_config.proto");
    println!("cargo::rerun-if-changed=build.rs");
    let set = protox::compile(["model_config.proto"], ["proto"])?;
    fs::write(Path::new(&env::var("OUT_DIR")?).join("model_config.bin"), set.encode_to_vec())?;
    Ok(())
}

//! Compiles the gRPC services without protoc. Every `bytes` field is a `Bytes`, so that tensors are not copied.

use std::{env, error::Error, fs, path::PathBuf};

use protox::prost::Message as _;

fn main() -> Result<(), Box<dyn Error>> {
    for path in ["build.rs", "proto/inference.proto", "../models/proto/model_config.proto"] {
        println!("cargo::rerun-if-changed={path}");
    }
    // where LibTorch lies, told by the crate that links to it; absent without the feature
    if let Ok(library) = env::var("DEP_GANNET_TCH_LIB") {
        println!("cargo::rustc-link-arg-bins=-Wl,-rpath,{library}");
    }
    let services = protox::compile(["inference.proto"], ["proto", "../models/proto"])?;
    let out = PathBuf::from(env::var("OUT_DIR")?);
    fs::write(out.join("services.bin"), services.encode_to_vec())?;
    tonic_prost_build::configure().build_client(false).bytes(".inference").compile_fds(services)?;
    Ok(())
}

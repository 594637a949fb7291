//! Compiles the gRPC services without protoc. Every `bytes` field is a `Bytes`, so that tensors are not copied.

use std::{env, path::PathBuf};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let protos = ["proto/inference.proto", "../models/proto/model_config.proto"];
    for proto in protos {
        println!("cargo:rerun-if-changed={proto}");
    }
    let descriptors = protox::compile(protos, ["proto", "../models/proto"])?;
    let out = PathBuf::from(env::var("OUT_DIR")?);
    tonic_prost_build::configure()
        .build_client(false)
        .bytes(".inference")
        .file_descriptor_set_path(out.join("services.bin"))
        .compile_fds(descriptors)?;
    Ok(())
}

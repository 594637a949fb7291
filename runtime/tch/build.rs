//! Tells who links an executable where LibTorch lies, which the crate that wraps it does not, and compiles what that
//! crate leaves out of it. Must not need anything but the standard library without the feature.

use std::{env, fs, os::unix::fs::symlink, path::PathBuf};

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    // set by the wrapper's own build script; absent without the feature
    let Some(library) = env::var_os("DEP_TCH_LIBTORCH_LIB").map(PathBuf::from) else { return };
    let library = library.canonicalize().unwrap_or(library);
    println!("cargo::metadata=lib={}", library.display());
    // Cargo gives what it runs itself (tests, benches) the search paths that lie inside the target folder.
    let Some(out) = env::var_os("OUT_DIR").map(PathBuf::from) else { return };
    let inside = out.join("lib");
    let _ = fs::remove_file(&inside);
    if let Err(error) = symlink(&library, &inside) {
        println!("cargo::warning={}: {error}; tests will not find LibTorch", inside.display());
    }
    println!("cargo::rustc-link-search=native={}", inside.display());
    #[cfg(feature = "torch")]
    compile(&library);
}

#[cfg(feature = "torch")]
fn compile(library: &std::path::Path) {
    const SOURCE: &str = "native/inference.cpp";
    println!("cargo::rerun-if-changed={SOURCE}");
    // as the wrapper finds them
    let headers = env::var_os("LIBTORCH_INCLUDE").map(PathBuf::from);
    let headers = headers.or_else(|| Some(library.parent()?.to_owned())).unwrap_or_default().join("include");
    let abi = env::var("LIBTORCH_CXX11_ABI").unwrap_or_else(|_| "1".to_owned());
    let mut build = cc::Build::new();
    build.cpp(true).pic(true).warnings(false).std("c++17").file(SOURCE);
    build.include(&headers).include(headers.join("torch/csrc/api/include"));
    build.define("_GLIBCXX_USE_CXX11_ABI", abi.as_str());
    build.compile("gannet_tch_inference");
    println!("cargo::rustc-link-lib=torch_cpu");
    println!("cargo::rustc-link-lib=c10");
}

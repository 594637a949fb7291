//! Tells who links an executable where LibTorch lies, which the crate that wraps it does not. Must not need anything
//! but the standard library.

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
}

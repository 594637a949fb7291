//! PyTorch for scripts that log its models, without 3 GB of libraries for graphics cards: the loader wants them to be
//! there, and nobody calls them, so that empty ones do. Must not know which scripts.

use std::{
    env, fs,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use super::environment::{Environment, cache};

/// What PyTorch 2.13 is linked to, beside the two that its lock names.
const UNUSED: [&str; 13] = [
    "libcublas.so.13",
    "libcublasLt.so.13",
    "libcuda.so.1",
    "libcudnn.so.9",
    "libcufft.so.12",
    "libcufile.so.0",
    "libcurand.so.10",
    "libcusolver.so.12",
    "libcusparse.so.12",
    "libcusparseLt.so.0",
    "libnccl.so.2",
    "libnvrtc.so.13",
    "libnvshmem_host.so.3",
];

/// Lets a Python script of another environment import PyTorch. It has to look names up late:
/// `sys.setdlopenflags(os.RTLD_LAZY)` before the import.
pub(crate) fn offer(command: &mut Command) {
    let python = Environment::Torch.python();
    let environment = python.parent().and_then(Path::parent).expect("it lies in bin");
    let packages = environment.join("lib/python3.11/site-packages");
    let cuda = packages.join("nvidia/cu13/lib");
    let libraries = env::join_paths([unused(environment), cuda]).expect("paths without colons");
    command.env("PYTHONPATH", packages).env("LD_LIBRARY_PATH", libraries);
}

/// The folder with the empty libraries, made by the first who needs it.
fn unused(environment: &Path) -> PathBuf {
    let folder = environment.join("unused");
    if folder.exists() {
        return folder;
    }
    let making =
        tempfile::Builder::new().prefix(".making-").tempdir_in(cache()).expect("a folder in the cache");
    for name in UNUSED {
        let mut cc = Command::new("cc");
        cc.args(["-shared", "-x", "c", "/dev/null"]).arg(format!("-Wl,-soname,{name}"));
        cc.arg("-o").arg(making.path().join(name)).stdin(Stdio::null());
        assert!(cc.status().expect("a C compiler, as for Rust").success(), "{name} was not made");
    }
    // whoever was first has made the same
    let _ = fs::rename(making.keep(), &folder);
    folder
}

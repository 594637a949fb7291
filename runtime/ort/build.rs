//! Puts a pinned ONNX Runtime where this crate finds it at run time: once a machine, into a cache folder, with
//! Python's pip. A failure is a warning and is told again at run time: checking the code needs no library.
//! Must not need anything but the standard library, `python3` and pip.

use std::{
    env, fs,
    io::Write as _,
    path::{Path, PathBuf},
    process::{self, Command},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

const VERSION: &str = "1.31.1";
const LIBRARY: &str = "libonnxruntime.so.1.31.1";

/// The time the file gets: 2025-01-01, before any build.
const RELEASED: Duration = Duration::from_secs(1_735_689_600);

/// What is downloaded for one architecture.
struct Pin {
    arch: &'static str,
    platform: &'static str,
    /// SHA-256 of the wheel for CPython 3.12; any Python downloads that one.
    wheel_sha256: &'static str,
    /// SHA-256 of the library inside; `None`: the wheel's is proof enough, a file without a stamp is fetched again.
    library_sha256: Option<&'static str>,
}

const PINS: [Pin; 2] = [
    Pin {
        arch: "x86_64",
        platform: "manylinux_2_28_x86_64",
        wheel_sha256: "1f3dea47f2f0e5117c2404cea7d21fd253ae7836a3bf167a501cdfbb2600d536",
        library_sha256: Some("fc44112fbe06d7d689c57e11d3862031f64711007e4ee020f8eed5185fd2c1d3"),
    },
    Pin {
        arch: "aarch64",
        platform: "manylinux_2_28_aarch64",
        wheel_sha256: "0b9a492176886992e0e875f06bc0367e333f5fff11711a2d642e18b02f3009cc",
        library_sha256: None,
    },
];

/// Copies one member of a wheel out, and prints the SHA-256 of what it wrote.
const EXTRACT: &str = "
import hashlib, sys, zipfile
wheel, member, out = sys.argv[1:]
data = zipfile.ZipFile(wheel).read(member)
open(out, 'wb').write(data)
print(hashlib.sha256(data).hexdigest())
";

const HASH: &str = "
import hashlib, sys
print(hashlib.sha256(open(sys.argv[1], 'rb').read()).hexdigest())
";

fn main() {
    println!("cargo:rerun-if-changed=build.rs");
    for variable in ["ORT_DYLIB_PATH", "GANNET_CACHE", "XDG_CACHE_HOME", "HOME"] {
        println!("cargo:rerun-if-env-changed={variable}");
    }
    if env::var_os("ORT_DYLIB_PATH").is_some_and(|path| !path.is_empty()) {
        println!(
            "cargo:rustc-env=GANNET_ORT_PROVISION_ERROR=ORT_DYLIB_PATH was set at build time, so nothing was \
             downloaded"
        );
        return;
    }
    match locate() {
        Ok((pin, path)) => {
            // A missing file counts as changed, so a wiped cache is filled again by the next build.
            println!("cargo:rerun-if-changed={}", path.display());
            println!("cargo:rustc-env=GANNET_BAKED_ORT_DYLIB={}", path.display());
            if let Err(reason) = provision(pin, &path) {
                report(&reason);
            }
        }
        Err(reason) => report(&reason),
    }
}

fn report(reason: &str) {
    let reason = reason.split_whitespace().collect::<Vec<_>>().join(" ");
    println!("cargo:warning=ONNX Runtime {VERSION} could not be provided: {reason}");
    println!("cargo:rustc-env=GANNET_ORT_PROVISION_ERROR={reason}");
}

/// What to fetch for the target, and where it belongs.
fn locate() -> Result<(&'static Pin, PathBuf), String> {
    let variable = |name: &str| env::var(name).unwrap_or_default();
    let (os, arch, abi) = (
        variable("CARGO_CFG_TARGET_OS"),
        variable("CARGO_CFG_TARGET_ARCH"),
        variable("CARGO_CFG_TARGET_ENV"),
    );
    let pin = PINS.iter().find(|pin| os == "linux" && abi == "gnu" && pin.arch == arch).ok_or(format!(
        "no library is pinned for {arch}-{os}-{abi}, only for x86_64 and aarch64 Linux with glibc"
    ))?;
    let folder = |name: &str| env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    let cache = folder("GANNET_CACHE")
        .or_else(|| folder("XDG_CACHE_HOME").map(|path| path.join("gannet")))
        .or_else(|| folder("HOME").map(|path| path.join(".cache/gannet")))
        .ok_or("there is no cache folder: none of GANNET_CACHE, XDG_CACHE_HOME and HOME is set")?;
    // A relative folder would mean another place at run time.
    let cache = std::path::absolute(&cache).map_err(|e| format!("{}: {e}", cache.display()))?;
    if cache.to_str().is_none_or(|text| text.contains('\n')) {
        return Err(format!("the path of the cache folder {} is not plain text", cache.display()));
    }
    Ok((pin, cache.join(format!("onnxruntime-{VERSION}-linux-{}", pin.arch)).join(LIBRARY)))
}

fn provision(pin: &Pin, path: &Path) -> Result<(), String> {
    if verified(pin, path) {
        return Ok(());
    }
    // Another file than the pinned one must not be found at run time, should the download fail.
    let _ = fs::remove_file(path);
    let folder = path.parent().ok_or("the library's path has no folder")?;
    fs::create_dir_all(folder).map_err(|e| format!("cannot create {}: {e}", folder.display()))?;
    let scratch = Scratch::new(folder)?;
    let requirements = scratch.0.join("requirements.txt");
    fs::File::create(&requirements)
        .and_then(|mut file| writeln!(file, "onnxruntime=={VERSION} --hash=sha256:{}", pin.wheel_sha256))
        .map_err(|e| format!("cannot write {}: {e}", requirements.display()))?;
    python(
        Command::new("python3")
            .args(["-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--no-input"])
            .args(["--require-hashes", "--no-deps", "--only-binary=:all:", "--retries=1", "--timeout=20"])
            .args(["--implementation=cp", "--python-version=3.12", "--platform", pin.platform])
            .arg("--dest")
            .arg(&scratch.0)
            .arg("--requirement")
            .arg(&requirements),
    )?;
    let wheel = fs::read_dir(&scratch.0)
        .map_err(|e| format!("cannot list {}: {e}", scratch.0.display()))?
        .filter_map(|entry| Some(entry.ok()?.path()))
        .find(|path| path.extension().is_some_and(|extension| extension == "whl"))
        .ok_or("pip reported success, but left no wheel")?;
    let unpacked = scratch.0.join(LIBRARY);
    let member = format!("onnxruntime/capi/{LIBRARY}");
    let digest =
        python(Command::new("python3").args(["-c", EXTRACT]).arg(wheel).arg(&member).arg(&unpacked))?;
    if let Some(expected) = pin.library_sha256.filter(|expected| *expected != digest.trim()) {
        return Err(format!("{member} has SHA-256 {}, expected {expected}", digest.trim()));
    }
    // Older than this build: else the next one would take the library for changed, and compile again.
    fs::File::options()
        .append(true)
        .open(&unpacked)
        .and_then(|file| file.set_modified(UNIX_EPOCH + RELEASED))
        .map_err(|e| format!("cannot set the time of {}: {e}", unpacked.display()))?;
    fs::rename(&unpacked, path).map_err(|e| format!("cannot move the library to {}: {e}", path.display()))?;
    write_stamp(path);
    Ok(())
}

/// Whether the library is there and is the pinned one. Hashing takes 0.1 s, so a stamp of size and time stands in.
fn verified(pin: &Pin, path: &Path) -> bool {
    let Some(stamp) = stamp(path) else { return false };
    if fs::read_to_string(stamp_path(path)).is_ok_and(|written| written == stamp) {
        return true;
    }
    let digest = || python(Command::new("python3").args(["-c", HASH]).arg(path)).unwrap_or_default();
    let intact = pin.library_sha256.is_some_and(|expected| digest().trim() == expected);
    if intact {
        write_stamp(path);
    }
    intact
}

fn stamp_path(path: &Path) -> PathBuf {
    path.with_file_name("verified")
}

fn stamp(path: &Path) -> Option<String> {
    let metadata = fs::metadata(path).ok().filter(fs::Metadata::is_file)?;
    let modified = metadata.modified().ok()?.duration_since(UNIX_EPOCH).ok()?;
    Some(format!("{} bytes, modified {} ns\n", metadata.len(), modified.as_nanos()))
}

fn write_stamp(path: &Path) {
    if let Some(stamp) = stamp(path) {
        // Without it the next build hashes again: slower, not wrong.
        let _ = fs::write(stamp_path(path), stamp);
    }
}

fn python(command: &mut Command) -> Result<String, String> {
    let output = command
        .env("PIP_REQUIRE_VIRTUALENV", "0")
        .output()
        .map_err(|e| format!("python3 could not be started: {e}"))?;
    if output.status.success() {
        return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
    }
    let error = String::from_utf8_lossy(&output.stderr);
    let lines: Vec<&str> = error.lines().filter(|line| !line.trim().is_empty()).collect();
    Err(format!("python3 failed ({}): {}", output.status, lines[lines.len().saturating_sub(3)..].join("; ")))
}

/// A folder of this build alone, beside the final file (so that the rename is atomic), removed at the end.
struct Scratch(PathBuf);

impl Scratch {
    fn new(folder: &Path) -> Result<Self, String> {
        let ns = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |elapsed| elapsed.as_nanos());
        let path = folder.join(format!(".download-{}-{ns}", process::id()));
        fs::create_dir(&path).map_err(|e| format!("cannot create {}: {e}", path.display()))?;
        Ok(Self(path))
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

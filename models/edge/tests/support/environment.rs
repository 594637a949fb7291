//! The judges' Python environment, installed from its lock and kept in the user's cache from run to run. Must not know
//! what is judged.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use gannet_models::Digest;

/// The locks are for this version.
const PYTHON: &str = "python3.11";

/// The folder of the scripts.
pub fn scripts() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/peers")
}

/// How much is tried: a little on every run, much with `GANNET_PROOF=full`.
pub fn scaled(small: usize, full: usize) -> usize {
    if std::env::var("GANNET_PROOF").is_ok_and(|wish| wish == "full") { full } else { small }
}

/// `$XDG_CACHE_HOME/gannet/peers`, else `~/.cache/gannet/peers`.
pub fn cache() -> PathBuf {
    let named = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    let cache = named("XDG_CACHE_HOME").or_else(|| Some(named("HOME")?.join(".cache")));
    cache.expect("HOME or XDG_CACHE_HOME, for the environment of the judges").join("gannet/peers")
}

/// The interpreter, installed first where it is not yet.
fn python() -> PathBuf {
    let lock = scripts().join("judge.lock");
    let digest = Digest::of(&fs::read(&lock).expect("the lock lies in the repository")).to_string();
    let hex: String = digest.chars().filter(char::is_ascii_hexdigit).rev().take(12).collect();
    let cache = cache();
    fs::create_dir_all(&cache).unwrap_or_else(|error| panic!("{}: {error}", cache.display()));
    let folder = cache.join(format!("edge-{hex}"));
    // one installs, whichever test or process comes first; the others wait here
    let turn = fs::File::create(cache.join("edge.turn")).expect("a file to lock");
    turn.lock().expect("a lock");
    if !folder.join("bin/python").exists() {
        let making =
            tempfile::Builder::new().prefix(".making-").tempdir_in(&cache).expect("a folder in the cache");
        let made = making.path().join("environment");
        run(
            Command::new(PYTHON).args(["-m", "venv"]).arg(&made),
            "an environment (the lock is for CPython 3.11)",
        );
        let mut pip = Command::new(made.join("bin/python"));
        pip.args([
            "-m",
            "pip",
            "install",
            "--quiet",
            "--no-input",
            "--disable-pip-version-check",
            "--no-compile",
        ]);
        pip.args(["--only-binary", ":all:", "--require-hashes", "-r"]).arg(&lock);
        run(&mut pip, "the judges' packages, which need the package index or a mirror of it");
        fs::rename(&made, &folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display()));
    }
    folder.join("bin/python")
}

/// Runs a command that must succeed; what it printed.
#[track_caller]
pub fn run(command: &mut Command, what: &str) -> String {
    let output =
        command.output().unwrap_or_else(|error| panic!("{what}: {command:?} cannot be started: {error}"));
    let text = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
    assert!(output.status.success(), "{what}: {command:?}\n{text}");
    text
}

/// Runs one of the scripts.
#[track_caller]
pub fn script(name: &str, arguments: &[&Path]) -> String {
    let mut command = Command::new(python());
    command.arg(scripts().join(name)).args(arguments).env("PYTHONDONTWRITEBYTECODE", "1");
    run(&mut command, name)
}

/// A module of the environment that is a program; its own script does not survive that the environment was moved.
pub fn program(module: &str) -> Command {
    let mut command = Command::new(python());
    command.args(["-m", module]).env("PYTHONDONTWRITEBYTECODE", "1");
    command
}

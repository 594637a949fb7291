//! Python environments, one for each lock under `tests/peers`, kept in the user's cache from run to run.
//! Must not know which scripts run in them.

use std::{
    fmt::Write as _,
    fs,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::Duration,
};

use sha2::{Digest as _, Sha256};

use super::{server::root, wait};

/// The locks are for this version.
const PYTHON: &str = "python3.11";
/// The longest that an installation may take, downloads included.
const INSTALL_BOUND: Duration = Duration::from_secs(900);

/// What a script needs.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Environment {
    Triton,
    Kserve,
    Mlflow,
    Registries,
    Torch,
    Capture,
}

impl Environment {
    fn name(self) -> &'static str {
        match self {
            Self::Triton => "triton",
            Self::Kserve => "kserve",
            Self::Mlflow => "mlflow",
            Self::Registries => "registries",
            Self::Torch => "torch",
            Self::Capture => "capture",
        }
    }

    /// The interpreter of the environment, which is installed first where it is not yet.
    pub(crate) fn python(self) -> PathBuf {
        let lock = root().join("tests/peers").join(format!("{}.lock", self.name()));
        let text = fs::read(&lock).expect("the lock lies in the repository");
        let mut digest = String::new();
        for byte in &Sha256::digest(&text)[..6] {
            write!(digest, "{byte:02x}").expect("a text takes all");
        }
        let cache = cache();
        fs::create_dir_all(&cache).unwrap_or_else(|error| panic!("{}: {error}", cache.display()));
        let folder = cache.join(format!("{}-{digest}", self.name()));
        let python = folder.join("bin/python");
        // one installs, whichever test or process comes first; the others wait here
        let turn = fs::File::create(cache.join(format!("{}.turn", self.name()))).expect("a file to lock");
        turn.lock().expect("a lock");
        if !python.exists() {
            install(&lock, &folder);
        }
        python
    }
}

/// `$XDG_CACHE_HOME/gannet/peers`, else `~/.cache/gannet/peers`.
pub(crate) fn cache() -> PathBuf {
    let named = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    let cache = named("XDG_CACHE_HOME").or_else(|| Some(named("HOME")?.join(".cache")));
    cache.expect("HOME or XDG_CACHE_HOME, for the environments of the peers").join("gannet/peers")
}

/// Installs under another name first, so that what lies under the folder's own name is whole.
fn install(lock: &Path, folder: &Path) {
    let parent = folder.parent().expect("it lies in the cache");
    let making =
        tempfile::Builder::new().prefix(".making-").tempdir_in(parent).expect("a folder in the cache");
    let made = making.path().join("environment");
    let mut create = Command::new(PYTHON);
    create.args(["-m", "venv"]).arg(&made);
    step(create, "an environment (the locks are for CPython 3.11)");
    let mut pip = Command::new(made.join("bin/python"));
    pip.args(["-m", "pip", "install", "--quiet", "--no-input", "--disable-pip-version-check"]);
    pip.args(["--no-compile", "--no-deps", "--only-binary", ":all:", "--require-hashes", "-r"]).arg(lock);
    step(pip, &format!("the packages of {}", lock.display()));
    fs::rename(&made, folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display()));
}

#[track_caller]
fn step(command: Command, what: &str) {
    let line = format!("{command:?}");
    let (passed, output) = bounded(command, INSTALL_BOUND);
    assert!(passed, "cannot install {what}; it needs the package index or a mirror of it\n{line}\n{output}");
}

/// Runs a command; whether it ended well within the bound, and what it printed.
pub(crate) fn bounded(mut command: Command, bound: Duration) -> (bool, String) {
    let printed = tempfile::NamedTempFile::new().expect("a file for the output");
    let file = |path: &Path| std::fs::OpenOptions::new().append(true).open(path).expect("it was made");
    command.stdin(Stdio::null()).stdout(file(printed.path())).stderr(file(printed.path()));
    let program = command.get_program().to_string_lossy().into_owned();
    let mut child = match command.spawn() {
        Ok(child) => child,
        Err(error) => return (false, format!("{program} cannot be started: {error}")),
    };
    let mut status = None;
    let ended = wait::holds_within(bound, || {
        status = child.try_wait().expect("a child of this process");
        status.is_some()
    });
    if !ended {
        let _ = child.kill();
        let _ = child.wait();
    }
    let mut output = String::from_utf8_lossy(&std::fs::read(printed.path()).unwrap_or_default()).into_owned();
    if !ended {
        output.push_str(&format!("\n{program} was still running after {} s", bound.as_secs()));
    }
    (status.is_some_and(|status| status.success()), output)
}

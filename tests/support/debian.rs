//! Programs out of Debian's packages, fetched once into the cache and never installed. Must not know what they do.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use sha2::{Digest as _, Sha256};

/// What the lock names.
struct Locked {
    package: String,
    version: String,
    architecture: String,
    sha256: String,
}

/// A program of the package that `lock` names, fetched if it is not there.
pub(crate) fn program(lock: &str, name: &str) -> PathBuf {
    let text = |key: &str| {
        let lock: toml::Table = lock.parse().expect("the lock is TOML");
        lock[key].as_str().expect("a text").to_owned()
    };
    let locked = Locked {
        package: text("package"),
        version: text("version"),
        architecture: text("architecture"),
        sha256: text("sha256"),
    };
    let tools = cache().join("gannet/tools");
    let home = tools.join(format!("{}-{}", locked.package, locked.version));
    let program = || {
        ["usr/bin", "usr/sbin"]
            .map(|folder| home.join(folder).join(name))
            .into_iter()
            .find(|path| path.exists())
    };
    fs::create_dir_all(&tools).expect("a folder for tools");
    // one at a time: parallel tests and other runs wait until it is there
    let gate = fs::File::create(tools.join(format!("{name}.lock"))).expect("a lock file");
    gate.lock().expect("a lock");
    if program().is_none() {
        fetch(&locked, &tools, &home);
    }
    program().unwrap_or_else(|| panic!("{} has no {name}", home.display()))
}

fn cache() -> PathBuf {
    let of = |name: &str| std::env::var_os(name).map(PathBuf::from).filter(|path| path.is_absolute());
    of("XDG_CACHE_HOME").or_else(|| Some(of("HOME")?.join(".cache"))).expect("XDG_CACHE_HOME or HOME")
}

fn fetch(locked: &Locked, tools: &Path, home: &Path) {
    let Locked { package, version, architecture, sha256 } = locked;
    let run = |program: &str, arguments: &[&str], folder: &Path| {
        let output = Command::new(program).args(arguments).current_dir(folder).output();
        let output = output.unwrap_or_else(|error| panic!("{program}: {error}"));
        let said = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
        (output.status.success(), said)
    };
    let work = tempfile::tempdir_in(tools).expect("a folder to work in");
    let wanted = format!("{package}:{architecture}={version}");
    let (mut done, mut said) = run("apt-get", &["download", &wanted], work.path());
    if !done {
        run("apt-get", &["update"], work.path());
        (done, said) = run("apt-get", &["download", &wanted], work.path());
    }
    assert!(
        done,
        "{wanted} cannot be fetched: {said}\nIf the archive has moved on to another version (apt-cache policy \
         {package}), run `apt-get download {package}` and `sha256sum` on the file, and write both into \
         the lock in tests/support"
    );
    let files = fs::read_dir(work.path()).expect("a folder").map(|item| item.expect("a file").path());
    let package_file = files.into_iter().find(|path| path.extension().is_some_and(|e| e == "deb"));
    let package_file = package_file.expect("a package");
    let hash = Sha256::digest(fs::read(&package_file).expect("a package"));
    let hash: String = hash.iter().map(|byte| format!("{byte:02x}")).collect();
    assert_eq!(
        hash,
        *sha256,
        "{} is not the file that the lock in tests/support names",
        package_file.display()
    );
    let unpacked = work.path().join("unpacked");
    let arguments = ["-x", &package_file.display().to_string(), &unpacked.display().to_string()];
    let (done, said) = run("dpkg-deb", &arguments, work.path());
    assert!(done, "{said}");
    fs::rename(unpacked, home).expect("the unpacked package moves into its place");
}

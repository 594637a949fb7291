//! Programs out of Debian's packages: the system's, or unpacked into the cache. Must not know what they do.

use std::{fs, path::PathBuf, process::Command};

use super::environment::{cache, run};

/// `arm-none-eabi-gcc`, which compiles C and C++.
pub fn compiler() -> PathBuf {
    program("arm-none-eabi-gcc", "arm-none-eabi", &["gcc-arm-none-eabi", "binutils-arm-none-eabi"])
}

/// `flatc`, the compiler of FlatBuffers' schemas.
pub fn flatc() -> PathBuf {
    program("flatc", "flatc", &["flatbuffers-compiler"])
}

/// `qemu-system-arm`, installed where the system does not have it: it needs too many libraries to be unpacked.
pub fn emulator() -> PathBuf {
    const PROGRAM: &str = "qemu-system-arm";
    let is_there =
        || Command::new(PROGRAM).arg("--version").output().is_ok_and(|output| output.status.success());
    let turn = fs::File::create(cache().with_file_name("qemu.turn")).expect("a file to lock");
    turn.lock().expect("a lock");
    if !is_there() {
        let install = ["install", "-y", "-q", "--no-install-recommends", PROGRAM];
        let apt = |arguments: &[&str]| {
            let mut apt = Command::new("apt-get");
            // somebody else may be installing
            apt.args(["-o", "DPkg::Lock::Timeout=300"])
                .args(arguments)
                .env("DEBIAN_FRONTEND", "noninteractive");
            apt
        };
        if !apt(&install).output().is_ok_and(|output| output.status.success()) {
            run(&mut apt(&["update"]), "the lists of Debian's packages");
            run(&mut apt(&install), "Debian's qemu-system-arm");
        }
    }
    PROGRAM.into()
}

/// A program, out of packages that are unpacked where the system does not have it.
fn program(program: &str, name: &str, packages: &[&str]) -> PathBuf {
    if Command::new(program).arg("--version").output().is_ok_and(|output| output.status.success()) {
        return program.into();
    }
    let folder = cache().with_file_name("tools").join(name);
    let found = folder.join("usr/bin").join(program);
    fs::create_dir_all(folder.parent().expect("it lies in the cache")).expect("a folder for tools");
    let turn = fs::File::create(folder.with_extension("turn")).expect("a file to lock");
    turn.lock().expect("a lock");
    if !found.exists() {
        let work = tempfile::tempdir_in(folder.parent().expect("it lies in the cache"))
            .expect("a folder to work in");
        let download =
            |command: &mut Command| command.arg("download").args(packages).current_dir(work.path()).output();
        if !download(&mut Command::new("apt-get")).is_ok_and(|output| output.status.success()) {
            run(Command::new("apt-get").arg("update"), "the lists of Debian's packages");
            run(
                Command::new("apt-get").arg("download").args(packages).current_dir(work.path()),
                "Debian's packages",
            );
        }
        let made = work.path().join("unpacked");
        for item in fs::read_dir(work.path()).expect("a folder").map(|item| item.expect("a file").path()) {
            if item.extension().is_some_and(|end| end == "deb") {
                run(Command::new("dpkg-deb").arg("-x").arg(&item).arg(&made), "a package");
            }
        }
        fs::rename(made, &folder).expect("it moves into its place");
    }
    found
}

//! The first load of a model file that is a program: in a process of its own, so that one that crashes, or never
//! ends, harms nobody. The process is this very program, called with a command that its help does not show; it reads
//! what to load from its input and writes how that went as its last line. Must not know what engines there are, nor
//! what they make of a file.

use std::{
    collections::HashSet,
    fmt,
    io::{PipeReader, Read as _, Write as _},
    os::unix::process::ExitStatusExt as _,
    path::PathBuf,
    process::{Child, Command, ExitStatus, Stdio},
    sync::{Mutex, PoisonError},
    time::Duration,
};

use crossbeam::channel::bounded;
use gannet_models::{
    Artifact, DType, Digest, Signature,
    settings::{Device, TensorDeclaration},
};
use gannet_runtime::{
    backend::{Declared, OpenOptions},
    control::loader::{self, LoadSpec, Qualify},
    request::GoldenCase,
};
use serde::{Deserialize, Serialize};

use crate::{
    backends,
    config::{RepositoryConfig, RuntimeConfig},
    golden::GoldenReader,
};

/// The command, as the process is called.
pub const COMMAND: &str = "rehearse";
/// What a rehearsal may print; more is left out.
const OUTPUT_BYTES_MAX: u64 = 256 * 1024;
/// What of it is passed on.
const SHOWN_BYTES_MAX: usize = 300;
/// Times that one is waited for again which hardly got to run.
const PATIENCE_MAX: usize = 10;
/// Linux counts processor time for its readers in these.
const TICKS_A_SECOND: u64 = 100;
/// Files that are remembered to have passed; then they are forgotten, and tried again.
const PASSED_MAX: usize = 4096;

/// Reads golden requests, and rehearses what is a program.
pub struct Rehearsal {
    golden: GoldenReader,
    program: Option<PathBuf>,
    time_max: Duration,
    /// What was loaded well, and how: it is not rehearsed again.
    passed: Mutex<HashSet<(Digest, String)>>,
}

impl fmt::Debug for Rehearsal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Rehearsal").field("program", &self.program).finish_non_exhaustive()
    }
}

/// What is to be loaded.
#[derive(Debug, Serialize, Deserialize)]
struct Piece {
    backend: String,
    model_path: PathBuf,
    threads: usize,
    /// Index of the CUDA device; none: the processor.
    cuda: Option<usize>,
    batch_axis: bool,
    inputs: Vec<Declaration>,
    outputs: Vec<Declaration>,
}

#[derive(Debug, Serialize, Deserialize)]
struct Declaration {
    name: String,
    datatype: Option<String>,
    dims: Option<Vec<i64>>,
}

/// The last line.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Verdict {
    RehearsalPassed,
    RehearsalRefused(String),
}

impl Rehearsal {
    /// As the operator wants it.
    #[must_use]
    pub fn new(config: &RepositoryConfig) -> Self {
        Self {
            golden: GoldenReader,
            program: config.rehearsal_program.clone(),
            time_max: config.rehearsal,
            passed: Mutex::default(),
        }
    }

    fn play(&self, piece: &str) -> Result<(), String> {
        let program = self.program.clone().map_or_else(std::env::current_exe, Ok);
        let program =
            program.map_err(|error| format!("this program cannot be found to rehearse it: {error}"))?;
        let unstarted = |error: std::io::Error| format!("no process to rehearse it in: {error}");
        let (reader, writer) = std::io::pipe().map_err(unstarted)?;
        let mut command = Command::new(program);
        command.arg(COMMAND).stdin(Stdio::piped());
        command.stdout(writer.try_clone().map_err(unstarted)?).stderr(writer);
        let mut child = command.spawn().map_err(unstarted)?;
        // it holds our ends of the pipe, which would never end
        drop(command);
        if let Some(mut input) = child.stdin.take() {
            // one that ended already says so by how it ended
            let _ = input.write_all(piece.as_bytes());
        }
        let printed = self.listen(reader, &mut child)?;
        let status = child.wait().map_err(unstarted)?;
        judge(status, &printed)
    }

    /// All that it prints, until it ends or its time is over; then it is killed.
    fn listen(&self, mut reader: PipeReader, child: &mut Child) -> Result<String, String> {
        let (done, heard) = bounded(1);
        let listen = move || {
            let mut printed = Vec::new();
            let _ = (&mut reader).take(OUTPUT_BYTES_MAX).read_to_end(&mut printed);
            // what comes after that is read, so that it does not wait for us
            let _ = std::io::copy(&mut reader, &mut std::io::sink());
            let _ = done.send(String::from_utf8_lossy(&printed).into_owned());
        };
        let thread = std::thread::Builder::new().name("gannet-rehearse".into()).spawn(listen);
        let overdue = || {
            format!(
                "its first load, in a process of its own, did not end within {} ms (repository.rehearsal_ms)",
                self.time_max.as_millis()
            )
        };
        let heard = thread.map_err(|error| error.to_string()).and_then(|_| {
            for _ in 0..PATIENCE_MAX {
                match heard.recv_timeout(self.time_max) {
                    Ok(printed) => return Ok(printed),
                    // it runs when nobody else wants the core: on a machine that is full that is no fault of its own
                    Err(_) if worked(child.id()).is_some_and(|worked| worked < self.time_max / 2) => {}
                    Err(_) => break,
                }
            }
            Err(overdue())
        });
        if heard.is_err() {
            let _ = child.kill();
            let _ = child.wait();
        }
        heard
    }
}

impl Qualify for Rehearsal {
    fn golden_cases(
        &self,
        artifact: &Artifact,
        model: &str,
        signature: &Signature,
    ) -> Result<Vec<GoldenCase>, String> {
        self.golden.golden_cases(artifact, model, signature)
    }

    fn baseline(
        &self,
        artifact: &Artifact,
        signature: &Signature,
    ) -> Result<Option<gannet_runtime::drift::Baseline>, String> {
        self.golden.baseline(artifact, signature)
    }

    fn rehearse(&self, spec: &LoadSpec) -> Result<(), String> {
        let (_, path) = spec.model_file()?;
        let piece = Piece::of(spec.backend.name(), &spec.open_options(&path, spec.settings.threads));
        let piece = serde_json::to_string(&piece).map_err(|error| format!("its path is no text: {error}"))?;
        let key = (spec.artifact.digest(), piece);
        let lock = || self.passed.lock().unwrap_or_else(PoisonError::into_inner);
        if lock().contains(&key) {
            return Ok(());
        }
        self.play(&key.1)?;
        let mut passed = lock();
        if passed.len() >= PASSED_MAX {
            passed.clear();
        }
        passed.insert(key);
        Ok(())
    }
}

/// Processor time that a process has had; `None` where the system does not say.
fn worked(pid: u32) -> Option<Duration> {
    // fields 14 and 15, of which the second field's parentheses may hold anything
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let fields: Vec<&str> = stat.rsplit_once(')')?.1.split_whitespace().collect();
    let ticks = |index: usize| fields.get(index)?.parse::<u64>().ok();
    Some(Duration::from_millis((ticks(11)? + ticks(12)?) * 1000 / TICKS_A_SECOND))
}

/// How it went, by how the process ended and by what it said.
fn judge(status: ExitStatus, printed: &str) -> Result<(), String> {
    let last = printed.lines().rev().find_map(|line| serde_json::from_str::<Verdict>(line).ok());
    match (status.success(), last) {
        (true, Some(Verdict::RehearsalPassed)) => Ok(()),
        (true, Some(Verdict::RehearsalRefused(why))) => Err(why),
        _ => {
            let how = match (status.signal(), status.code()) {
                (Some(signal), _) => format!("was killed by signal {signal}"),
                (None, code) => format!("ended with code {}", code.unwrap_or(-1)),
            };
            let from = printed.len().saturating_sub(SHOWN_BYTES_MAX);
            let tail = String::from_utf8_lossy(&printed.as_bytes()[from..]).trim().replace('\n', " | ");
            let words = if tail.is_empty() { String::new() } else { format!("; its last words: {tail}") };
            Err(format!("its first load crashed: the process that tried it {how}{words}"))
        }
    }
}

/// The hidden command: loads what the input names, and says how that went. Its exit code is 0 unless it crashes.
#[must_use]
pub fn perform(config: &RuntimeConfig) -> u8 {
    let verdict = match read_and_load(config) {
        Ok(()) => Verdict::RehearsalPassed,
        Err(why) => Verdict::RehearsalRefused(why),
    };
    let line = serde_json::to_string(&verdict).unwrap_or_default();
    let written = writeln!(std::io::stdout(), "\n{line}");
    u8::from(written.is_err())
}

fn read_and_load(config: &RuntimeConfig) -> Result<(), String> {
    let mut text = String::new();
    let read = std::io::stdin().take(OUTPUT_BYTES_MAX).read_to_string(&mut text);
    read.map_err(|error| format!("no rehearsal: {error}"))?;
    let piece: Piece = serde_json::from_str(&text).map_err(|error| format!("no rehearsal: {error}"))?;
    let backend = backends::start_one(&piece.backend, config).map_err(|error| error.to_string())?;
    let (inputs, outputs) = (declarations(&piece.inputs), declarations(&piece.outputs));
    let options = OpenOptions {
        model_path: &piece.model_path,
        threads: piece.threads,
        device: piece.cuda.map_or(Device::Cpu, Device::Cuda),
        declared: Declared { inputs: &inputs, outputs: &outputs, batch_axis: piece.batch_axis },
    };
    loader::try_once(&*backend, &options)
}

fn declarations(list: &[Declaration]) -> Vec<TensorDeclaration> {
    let declaration = |declared: &Declaration| TensorDeclaration {
        name: declared.name.clone(),
        dtype: declared.datatype.as_deref().and_then(DType::parse),
        dims: declared.dims.clone(),
        labels: None,
    };
    list.iter().map(declaration).collect()
}

impl Piece {
    fn of(backend: &str, options: &OpenOptions<'_>) -> Self {
        let declarations = |list: &[TensorDeclaration]| {
            let declaration = |declared: &TensorDeclaration| Declaration {
                name: declared.name.clone(),
                datatype: declared.dtype.map(|dtype| dtype.name().to_owned()),
                dims: declared.dims.clone(),
            };
            list.iter().map(declaration).collect()
        };
        Self {
            backend: backend.to_owned(),
            model_path: options.model_path.to_owned(),
            threads: options.threads,
            cuda: match options.device {
                Device::Cpu => None,
                Device::Cuda(index) => Some(index),
            },
            batch_axis: options.declared.batch_axis,
            inputs: declarations(options.declared.inputs),
            outputs: declarations(options.declared.outputs),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn played(script: &str, time_max: Duration) -> Result<(), String> {
        let folder = tempfile::tempdir().unwrap();
        let program = folder.path().join("program");
        std::fs::write(&program, format!("#!/bin/sh\n{script}\n")).unwrap();
        let mode = std::os::unix::fs::PermissionsExt::from_mode(0o755);
        std::fs::set_permissions(&program, mode).unwrap();
        let rehearsal =
            Rehearsal { golden: GoldenReader, program: Some(program), time_max, passed: Mutex::default() };
        rehearsal.play("{}")
    }

    #[test]
    fn every_way_to_end_is_told_apart() {
        let check = |script: &str, expected: &[&str]| {
            let result = played(script, Duration::from_secs(30));
            let why = result.err().unwrap_or_default();
            assert!(expected.iter().all(|part| why.contains(part)), "{script}: {why}");
            assert_eq!(why.is_empty(), expected.is_empty(), "{script}: {why}");
        };
        check("echo noise; echo '\"rehearsal_passed\"'", &[]);
        check("echo '{\"rehearsal_refused\":\"no model\"}'", &["no model"]);
        check("echo half a word >&2; kill -SEGV $$", &["signal 11", "half a word"]);
        check("echo '\"rehearsal_passed\"'; kill -ABRT $$", &["signal 6"]);
        check("exit 3", &["code 3"]);
        check("true", &["code 0"]);
        // more than is kept, and more than a pipe holds
        check("head -c 1000000 /dev/zero | tr '\\0' x; exit 4", &["code 4"]);
    }

    #[test]
    fn one_that_does_not_end_is_ended() {
        let why = played("exec tail -f /dev/null", Duration::from_millis(200)).unwrap_err();
        assert!(why.contains("did not end within 200 ms"), "{why}");
    }
}

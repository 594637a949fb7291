//! How many instructions, allocations and system calls does a request cost the server? Unlike times these hardly
//! depend on the machine, so they are held against a budget, and this fails when one is exceeded. Only the server's
//! own code is counted, not ONNX Runtime's; what the kernel does is not counted at all.
//!
//! Needs `valgrind` and `strace`; says so and measures what it can without them.
//!
//! `cargo bench -p gannet-benches --bench counts`

use std::{
    collections::HashMap,
    fs,
    path::Path,
    process::{Command, ExitCode},
};

use gannet_benches::{
    models::Net,
    rig::{self, Process, Role, SERVER_CPU, Wire},
};
use gannet_loadtest::flags::Flags;

/// Requests that are counted.
const REQUESTS: u64 = 4000;
/// In flight while they are.
const IN_FLIGHT: usize = 32;

/// What a request may cost: instructions, allocations, system calls. A few percent above what was measured; raise one
/// only with a reason, and lower it when something got better.
const BUDGETS: [(Wire, f64, f64, f64); 3] = [
    (Wire::Json, 22_500.0, 13.5, 2.3),
    (Wire::Binary, 24_500.0, 15.5, 2.3),
    (Wire::Grpc, 43_000.0, 27.5, 0.9),
];

fn main() -> ExitCode {
    rig::play();
    let repository = tempfile::tempdir().expect("a folder");
    Net::Mlp.put(repository.path()).expect("the model is written");
    let body = repository.path().join("request.json");
    fs::write(&body, Net::Mlp.request(1, 7)).expect("the request is written");
    let mut held = true;
    for (wire, instructions, allocations, calls) in BUDGETS {
        let name = wire.name();
        match callgrind(repository.path(), &body, wire) {
            Some(counted) => {
                held &= judge(&format!("{name}: instructions"), counted.instructions, instructions);
                held &= judge(&format!("{name}: allocations"), counted.allocations, allocations);
            }
            None => println!("{name}: instructions and allocations not counted: valgrind cannot be run"),
        }
        match strace(repository.path(), &body, wire) {
            Some(counted) => held &= judge(&format!("{name}: system calls"), counted, calls),
            None => println!("{name}: system calls not counted: strace cannot be run"),
        }
    }
    if held { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn judge(name: &str, counted: f64, budget: f64) -> bool {
    let held = counted <= budget;
    println!("{name} a request: {counted:.1} (budget {budget}){}", if held { "" } else { "  EXCEEDED" });
    held
}

fn load(server: &Process, wire: Wire, body: &Path, requests: u64) {
    let connections = (wire == Wire::Grpc).then_some(8);
    let report = rig::load(&Flags {
        in_flight: Some(IN_FLIGHT),
        connections,
        requests: Some(requests),
        duration: Some("120s".into()),
        warmup: Some("0s".into()),
        no_server_stats: true,
        ..rig::flags(server, wire, Net::Mlp.name(), body, 1.0)
    });
    assert_eq!(report.failed, 0, "{:?}", report.quotes);
}

fn can_run(program: &str) -> bool {
    Command::new(program).arg("--version").output().is_ok_and(|output| output.status.success())
}

/// Counts of one request.
struct Counted {
    instructions: f64,
    allocations: f64,
}

/// The server under callgrind, counting only while requests are answered.
fn callgrind(repository: &Path, body: &Path, wire: Wire) -> Option<Counted> {
    if !can_run("valgrind") || !can_run("callgrind_control") {
        return None;
    }
    let folder = tempfile::tempdir().expect("a folder");
    let out = folder.path().join("counts");
    let wrapper = ["valgrind", "--tool=callgrind", "--instr-atstart=no", "-q"].map(str::to_owned);
    let file = format!("--callgrind-out-file={}", out.display());
    let wrapper: Vec<String> = wrapper.into_iter().chain([file]).collect();
    let server = Process::start_under(&wrapper, Role::Server, &[SERVER_CPU], repository);
    load(&server, wire, body, REQUESTS / 2);
    control(&server, &["-i", "on"]);
    load(&server, wire, body, REQUESTS);
    control(&server, &["-i", "off"]);
    control(&server, &["-d"]);
    drop(server);
    let largest = fs::read_dir(folder.path()).expect("the folder").flatten().map(|entry| entry.path());
    let largest = largest.max_by_key(|path| fs::metadata(path).map_or(0, |metadata| metadata.len()))?;
    Some(read(&fs::read_to_string(largest).ok()?))
}

fn control(server: &Process, arguments: &[&str]) {
    let pid = server.pid().to_string();
    let status = Command::new("callgrind_control").args(arguments).arg(pid).output();
    assert!(status.is_ok_and(|output| output.status.success()), "callgrind_control {arguments:?}");
}

/// Sums a profile: lines of costs belong to the function and the object named before them; a line after `calls=` is
/// what was called, and counts there already.
fn read(profile: &str) -> Counted {
    let mut names: HashMap<(&str, &str), &str> = HashMap::new();
    let (mut ours, mut callee, mut called) = (false, "", false);
    let (mut instructions, mut allocations) = (0u64, 0u64);
    for line in profile.lines() {
        let Some((key, value)) = line.split_once('=') else {
            let cost = line.split_whitespace().nth(1).and_then(|cost| cost.parse::<u64>().ok()).unwrap_or(0);
            if ours
                && !called
                && line.starts_with(|first: char| first.is_ascii_digit() || "+-*".contains(first))
            {
                instructions += cost;
            }
            called = false;
            continue;
        };
        match key {
            "ob" => ours = resolve(&mut names, "ob", value).contains("counts-"),
            "cfn" => callee = resolve(&mut names, "fn", value),
            "fn" => drop(resolve(&mut names, "fn", value)),
            "cob" => drop(resolve(&mut names, "ob", value)),
            "calls" => {
                called = true;
                let count = value.split_whitespace().next().and_then(|count| count.parse::<u64>().ok());
                if ours && is_allocation(callee) {
                    allocations += count.unwrap_or(0);
                }
            }
            _ => {}
        }
    }
    let a_request = |count: u64| count as f64 / REQUESTS as f64;
    Counted { instructions: a_request(instructions), allocations: a_request(allocations) }
}

/// Names are written out once, as `(7) name`, and then as `(7)`.
fn resolve<'a>(names: &mut HashMap<(&'a str, &'a str), &'a str>, kind: &'a str, value: &'a str) -> &'a str {
    let (number, name) = value.split_once(' ').unwrap_or((value, ""));
    if !name.is_empty() {
        names.insert((kind, number), name);
    }
    names.get(&(kind, number)).copied().unwrap_or("")
}

/// The allocator's entrances as Rust code calls them.
fn is_allocation(function: &str) -> bool {
    let function = function.split('\'').next().unwrap_or(function);
    ["mi_malloc_aligned", "mi_zalloc_aligned", "mi_realloc_aligned"].contains(&function)
}

/// System calls of a request, those of background threads included.
fn strace(repository: &Path, body: &Path, wire: Wire) -> Option<f64> {
    if !can_run("strace") {
        return None;
    }
    let folder = tempfile::tempdir().expect("a folder");
    let out = folder.path().join("calls");
    let server = Process::start(Role::Server, &[SERVER_CPU], repository);
    load(&server, wire, body, REQUESTS / 2);
    let pid = server.pid().to_string();
    let mut tracer = Command::new("strace")
        .args(["-f", "-q", "-e", "trace=network,read,write,readv,writev,epoll_wait,futex"])
        .args(["-c", "-o"])
        .arg(&out)
        .args(["-p", &pid])
        .spawn()
        .ok()?;
    // attached once the server's threads are being traced
    let is_traced = || {
        let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
        status.lines().any(|line| line.starts_with("TracerPid:") && !line.ends_with("\t0"))
    };
    for _ in 0..500 {
        if is_traced() || tracer.try_wait().is_ok_and(|ended| ended.is_some()) {
            break;
        }
        std::thread::park_timeout(std::time::Duration::from_millis(10));
    }
    let traced = is_traced();
    load(&server, wire, body, REQUESTS);
    drop(server);
    let _ = tracer.wait();
    let table = fs::read_to_string(&out).ok().filter(|_| traced)?;
    // the columns: share, seconds, each, calls, errors or nothing, name
    let total = table.lines().find(|line| line.trim_end().ends_with("total"))?;
    total.split_whitespace().nth(3)?.parse::<f64>().ok().map(|calls| calls / REQUESTS as f64)
}

//! CPU time: of the calling thread, and of a server process from `/proc/PID/stat`.
//!
//! Linux only. Must not know about requests.

use std::fs;

use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};

use crate::clock;

/// CPU times at one moment.
#[derive(Debug, Clone, Copy, Default)]
pub struct CpuTimes {
    /// Of the calling thread.
    pub thread_ns: u64,
    /// Of the server process, when it is watched and alive.
    pub server_ns: Option<u64>,
}

impl CpuTimes {
    /// Reads both clocks.
    pub fn now(server_pid: Option<u32>) -> Self {
        Self { thread_ns: clock::thread_cpu_ns(), server_ns: server_pid.and_then(process_cpu_ns) }
    }
}

/// User and system time of a process with all its threads; the kernel counts in 10 ms steps.
pub fn process_cpu_ns(pid: u32) -> Option<u64> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let ticks = parse_stat(&stat)?;
    let ticks_per_second = rustix::param::clock_ticks_per_second();
    Some(ticks * clock::SECOND_NS / ticks_per_second.max(1))
}

/// utime + stime: fields 14 and 15, counted after the command in parentheses (proc(5)).
fn parse_stat(stat: &str) -> Option<u64> {
    let (_, fields) = stat.rsplit_once(')')?;
    let mut fields = fields.split_ascii_whitespace().skip(11);
    let user: u64 = fields.next()?.parse().ok()?;
    let system: u64 = fields.next()?.parse().ok()?;
    Some(user + system)
}

/// Pins the calling thread to one CPU.
pub fn pin_thread(cpu: usize) -> Result<(), String> {
    let allowed = sched_getaffinity(None)
        .map_err(|error| format!("cannot read the CPUs this process may use: {error}"))?;
    if cpu >= CpuSet::MAX_CPU || !allowed.is_set(cpu) {
        let usable: Vec<usize> = (0..CpuSet::MAX_CPU).filter(|i| allowed.is_set(*i)).collect();
        return Err(format!("--pin: expected one of the CPUs {usable:?}, got {cpu}; name one of them"));
    }
    let mut one = CpuSet::new();
    one.set(cpu);
    sched_setaffinity(None, &one)
        .map_err(|error| format!("--pin: cannot pin to CPU {cpu}: {error}; leave --pin out"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_stat_with_any_command_name() {
        let stat = "42 (a) b (c)) S 1 2 3 4 5 6 7 8 9 10 1100 220 0 0 20 0 1 0";
        assert_eq!(parse_stat(stat), Some(1320));
        assert_eq!(parse_stat("42 (x) S 1"), None);
        assert!(process_cpu_ns(std::process::id()).is_some());
        assert_eq!(process_cpu_ns(u32::MAX), None);
    }
}

//! The recorder: takes every answer and loss of a run, checks it and counts it.
//!
//! Called once or twice a request by the load thread, so it allocates nothing on the way of a good
//! answer. Must not know about sockets or arrivals.

use std::collections::BTreeMap;
use std::sync::mpsc::SyncSender;

use memchr::memmem;

use super::cpu::CpuTimes;
use super::windows::{self, Windows};
use super::{LatencyHistogram, Window, WindowSummary};
use crate::clock::SECOND_NS;
use crate::grpc;
use crate::link::{Answer, Status, text};
use crate::progress::Event;

/// Failures quoted in a report.
const QUOTES_MAX: usize = 5;
/// Failures of a kind that are looked at for a new quote: a flood of them must cost little.
const QUOTE_TRIES_MAX: u64 = 100;
/// Model versions told apart in a report.
const VERSIONS_MAX: usize = 64;
/// The beginning of a JSON answer in which the version is looked for.
const VERSION_SEARCH_BYTES: usize = 4096;
/// Significant digits of a run's percentiles.
const RUN_DIGITS: u8 = 3;

/// What an answer must satisfy besides its status.
#[derive(Debug, Clone, Default)]
pub struct Checks {
    /// The body (HTTP) or message (gRPC) that every answer must equal.
    pub expected_body: Option<Vec<u8>>,
    /// Versions of which every answer must name one; empty: any.
    pub versions_allowed: Vec<String>,
    /// Every how many answers the version is counted; 0: never.
    pub version_sample_every: u32,
}

/// Why a request did not succeed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum FailureKind {
    /// The server answered with an error.
    Status(Status),
    /// The body is not the expected one.
    BodyDiffers,
    /// The answer's `model_version` is missing or not an allowed one.
    VersionDiffers,
    /// The connection broke with the request on it.
    ConnectionLost,
    /// No answer when the run ended.
    Unanswered,
    /// The request was due and no connection became free for it.
    NotSent,
}

/// Counters of a moment, for the progress line.
#[derive(Debug, Clone, Copy)]
pub struct Snapshot {
    /// Seconds since measurement began.
    pub seconds: f64,
    /// Successful answers since the last snapshot, a second.
    pub rate: f64,
    /// Median latency since the last snapshot.
    pub p50_us: f64,
    /// 99th percentile since the last snapshot.
    pub p99_us: f64,
    /// Failures since the start.
    pub failures: u64,
}

/// What one run measured.
#[derive(Debug, Clone)]
pub struct Measurement {
    /// Length of the measured interval.
    pub seconds: f64,
    /// Requests sent that were due in the interval.
    pub sent: u64,
    /// Requests due in the interval and answered successfully, late ones included.
    pub succeeded: u64,
    /// Requests due in the interval that failed in any way.
    pub failed: u64,
    /// Successful answers inside the interval, a second.
    pub rate: f64,
    /// Latency of successful answers from the time they were due.
    pub latency: LatencyHistogram,
    /// Latency of answers with an error.
    pub failed_latency: LatencyHistogram,
    /// Time from when a request was due to when it was written.
    pub lateness: LatencyHistogram,
    /// The 50 ms windows.
    pub windows: Vec<Window>,
    /// Medians over the windows.
    pub window_summary: WindowSummary,
    /// Answers by status.
    pub statuses: BTreeMap<Status, u64>,
    /// Failures by kind.
    pub failures: BTreeMap<FailureKind, u64>,
    /// The first failures in the server's or the system's words.
    pub quotes: Vec<String>,
    /// Answers by model version, of the sampled ones.
    pub versions: Vec<(String, u64)>,
    /// Connections that were opened again.
    pub reconnects: u64,
    /// Loader CPU per answer inside the interval.
    pub loader_cpu_us: f64,
    /// Server CPU per answer inside the interval.
    pub server_cpu_us: Option<f64>,
}

/// Counts a run.
#[derive(Debug)]
pub struct Recorder {
    checks: Checks,
    server_pid: Option<u32>,
    progress: Option<SyncSender<Event>>,
    begin_ns: u64,
    end_ns: u64,
    cpu_begin: CpuTimes,
    cpu_end: CpuTimes,
    /// All answers inside the interval, and the successful of them.
    answers: u64,
    successes: u64,
    sent: u64,
    reconnects: u64,
    latency: LatencyHistogram,
    failed_latency: LatencyHistogram,
    lateness: LatencyHistogram,
    windows: Windows,
    statuses: BTreeMap<Status, u64>,
    /// The latest status and its count not yet in `statuses`: nearly all answers share one.
    status_run: (Status, u64),
    failures: BTreeMap<FailureKind, u64>,
    quotes: Vec<String>,
    versions: Vec<(String, u64)>,
    version_countdown: u32,
    recent: LatencyHistogram,
    snapshot_due_ns: u64,
}

impl Recorder {
    /// A recorder that counts nothing before the time that `plan` tells it.
    pub fn new(checks: Checks, server_pid: Option<u32>, progress: Option<SyncSender<Event>>) -> Self {
        Self {
            version_countdown: checks.version_sample_every,
            checks,
            server_pid,
            progress,
            begin_ns: u64::MAX,
            end_ns: u64::MAX,
            cpu_begin: CpuTimes::default(),
            cpu_end: CpuTimes::default(),
            answers: 0,
            successes: 0,
            sent: 0,
            reconnects: 0,
            latency: LatencyHistogram::new(RUN_DIGITS),
            failed_latency: LatencyHistogram::new(RUN_DIGITS),
            lateness: LatencyHistogram::new(RUN_DIGITS),
            windows: Windows::new(),
            statuses: BTreeMap::new(),
            status_run: (Status::Http(200), 0),
            failures: BTreeMap::new(),
            quotes: Vec::new(),
            versions: Vec::new(),
            recent: LatencyHistogram::new(2),
            snapshot_due_ns: u64::MAX,
        }
    }

    /// Requests due from this time on count.
    pub fn plan(&mut self, begin_ns: u64) {
        self.begin_ns = begin_ns;
    }

    /// The planned time has come.
    pub fn begin(&mut self) {
        self.windows.begin(self.begin_ns);
        self.snapshot_due_ns = self.begin_ns + SECOND_NS;
        self.cpu_begin = CpuTimes::now(self.server_pid);
    }

    /// The measured interval ends; answers may still come.
    pub fn end(&mut self, now_ns: u64) {
        self.windows.advance(now_ns);
        self.end_ns = now_ns;
        self.cpu_end = CpuTimes::now(self.server_pid);
    }

    /// A request went out.
    #[inline]
    pub fn sent(&mut self, due_ns: u64, now_ns: u64) {
        if due_ns >= self.begin_ns {
            self.sent += 1;
            self.lateness.record(now_ns.saturating_sub(due_ns));
        }
    }

    /// A connection was opened again.
    pub fn reconnected(&mut self) {
        self.reconnects += 1;
    }

    /// An answer came for the request that was due at its tag.
    #[inline]
    pub(crate) fn answer(&mut self, answer: &Answer<'_>, now_ns: u64) {
        let inside = now_ns >= self.begin_ns && now_ns < self.end_ns;
        if inside {
            self.answers += 1;
            self.windows.advance(now_ns);
            if now_ns >= self.snapshot_due_ns {
                self.send_snapshot(now_ns);
            }
        }
        let failure = self.check(answer);
        if inside && failure.is_none() {
            self.successes += 1;
        }
        if answer.tag < self.begin_ns {
            return;
        }
        let latency_ns = now_ns.saturating_sub(answer.tag);
        if self.status_run.0 != answer.status {
            self.flush_status();
            self.status_run.0 = answer.status;
        }
        self.status_run.1 += 1;
        match failure {
            None => {
                self.latency.record(latency_ns);
                if inside {
                    self.windows.success(latency_ns);
                    self.recent.record(latency_ns);
                }
            }
            Some(kind) => {
                self.failed_latency.record(latency_ns);
                let body = if answer.detail.is_empty() { text(answer.body) } else { answer.detail };
                self.fail(kind, body);
            }
        }
    }

    /// A request that was due at `due_ns` will have no answer.
    pub fn lost(&mut self, due_ns: u64, kind: FailureKind, detail: &str) {
        if due_ns >= self.begin_ns {
            self.fail(kind, detail);
        }
    }

    /// Something happened that belongs into the quotes but is no request's failure.
    pub fn note(&mut self, text: &str) {
        if self.quotes.len() < QUOTES_MAX && !self.quotes.iter().any(|known| known == text) {
            self.quotes.push(text.to_string());
        }
    }

    fn fail(&mut self, kind: FailureKind, detail: &str) {
        let count = self.failures.entry(kind).or_default();
        *count += 1;
        let quoted = *count <= QUOTE_TRIES_MAX && self.quotes.len() < QUOTES_MAX;
        self.windows.failure();
        if quoted {
            self.note(format!("{kind}: {detail}").trim_end_matches(": "));
        }
    }

    fn flush_status(&mut self) {
        let (status, count) = std::mem::replace(&mut self.status_run, (Status::Http(200), 0));
        if count > 0 {
            *self.statuses.entry(status).or_default() += count;
        }
    }

    fn check(&mut self, answer: &Answer<'_>) -> Option<FailureKind> {
        if !answer.status.is_success() {
            return Some(FailureKind::Status(answer.status));
        }
        if let Some(expected) = &self.checks.expected_body
            && answer.body != expected
        {
            return Some(FailureKind::BodyDiffers);
        }
        let mut count = false;
        if self.checks.version_sample_every > 0 {
            self.version_countdown -= 1;
            if self.version_countdown == 0 {
                self.version_countdown = self.checks.version_sample_every;
                count = true;
            }
        }
        if !count && self.checks.versions_allowed.is_empty() {
            return None;
        }
        let version = version_of(answer);
        if count && answer.tag >= self.begin_ns {
            count_version(&mut self.versions, version.unwrap_or(b"(none)"));
        }
        let allowed = &self.checks.versions_allowed;
        let known = version.is_some_and(|v| allowed.iter().any(|a| a.as_bytes() == v));
        (!allowed.is_empty() && !known).then_some(FailureKind::VersionDiffers)
    }

    fn send_snapshot(&mut self, now_ns: u64) {
        let since_ns = now_ns - (self.snapshot_due_ns - SECOND_NS);
        self.snapshot_due_ns = now_ns + SECOND_NS;
        if let Some(progress) = &self.progress {
            let snapshot = Snapshot {
                seconds: (now_ns - self.begin_ns) as f64 / SECOND_NS as f64,
                rate: self.recent.count() as f64 * SECOND_NS as f64 / since_ns as f64,
                p50_us: self.recent.at_us(0.5),
                p99_us: self.recent.at_us(0.99),
                failures: self.failures.values().sum(),
            };
            // A reader that lags loses a line, the load does not wait.
            let _ = progress.try_send(Event::Snapshot(snapshot));
        }
        self.recent.clear();
    }

    /// The result.
    pub fn finish(mut self) -> Measurement {
        self.flush_status();
        let seconds = self.end_ns.saturating_sub(self.begin_ns) as f64 / SECOND_NS as f64;
        let per_answer_us = |cpu_ns: u64| cpu_ns as f64 / 1000.0 / self.answers.max(1) as f64;
        let server_ns = match (self.cpu_begin.server_ns, self.cpu_end.server_ns) {
            (Some(begin), Some(end)) => Some(end.saturating_sub(begin)),
            _ => None,
        };
        let windows = self.windows.finish();
        Measurement {
            seconds,
            sent: self.sent,
            succeeded: self.latency.count(),
            failed: self.failures.values().sum(),
            rate: self.successes as f64 / seconds.max(1e-9),
            window_summary: windows::summary(&windows),
            windows,
            latency: self.latency,
            failed_latency: self.failed_latency,
            lateness: self.lateness,
            statuses: self.statuses,
            failures: self.failures,
            quotes: self.quotes,
            versions: self.versions,
            reconnects: self.reconnects,
            loader_cpu_us: per_answer_us(self.cpu_end.thread_ns.saturating_sub(self.cpu_begin.thread_ns)),
            server_cpu_us: server_ns.map(per_answer_us),
        }
    }
}

impl Measurement {
    /// Failures as a share of all requests that were due.
    pub fn failed_share(&self) -> f64 {
        self.failed as f64 / (self.succeeded + self.failed).max(1) as f64
    }
}

fn count_version(versions: &mut Vec<(String, u64)>, version: &[u8]) {
    if let Some((_, count)) = versions.iter_mut().find(|(v, _)| v.as_bytes() == version) {
        *count += 1;
    } else if versions.len() < VERSIONS_MAX {
        versions.push((String::from_utf8_lossy(version).into_owned(), 1));
    }
}

/// `model_version` of an answer, found without parsing the whole of it.
fn version_of<'a>(answer: &Answer<'a>) -> Option<&'a [u8]> {
    match answer.status {
        Status::Grpc(_) => grpc::model_version(answer.body).filter(|v| !v.is_empty()),
        _ => {
            let start = &answer.body[..answer.body.len().min(VERSION_SEARCH_BYTES)];
            let key = b"\"model_version\"";
            let rest = start[memmem::find(start, key)? + key.len()..].trim_ascii_start();
            let value = rest.strip_prefix(b":")?.trim_ascii_start().strip_prefix(b"\"")?;
            Some(&value[..memchr::memchr(b'"', value)?])
        }
    }
}

impl std::fmt::Display for FailureKind {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Status(status) => status.fmt(f),
            Self::BodyDiffers => f.write_str("body differs from --expect"),
            Self::VersionDiffers => f.write_str("model_version is not in --check-versions"),
            Self::ConnectionLost => f.write_str("connection lost"),
            Self::Unanswered => f.write_str("no answer when the run ended"),
            Self::NotSent => f.write_str("due but never sent (no free connection)"),
        }
    }
}

impl std::fmt::Display for Status {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Http(status) => write!(f, "HTTP {status}"),
            Self::Grpc(code) => write!(f, "gRPC {code} {}", grpc::code_name(*code)),
            Self::Reset(code) => write!(f, "HTTP/2 reset {code}"),
            Self::Malformed => f.write_str("malformed answer"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(tag: u64, status: Status, body: &[u8]) -> Answer<'_> {
        Answer { tag, status, body, detail: "" }
    }

    fn version(body: &str) -> Option<&str> {
        version_of(&answer(0, Status::Http(200), body.as_bytes())).map(|v| str::from_utf8(v).unwrap())
    }

    #[test]
    fn finds_versions_in_json() {
        assert_eq!(version(r#"{"model_version":"3","outputs":[]}"#), Some("3"));
        assert_eq!(version(r#"{ "model_version" : "v10" }"#), Some("v10"));
        assert_eq!(version(r#"{"model_version":null}"#), None);
        assert_eq!(version("{}"), None);
    }

    #[test]
    fn counts_and_checks() {
        let checks =
            Checks { versions_allowed: vec!["1".into()], version_sample_every: 1, expected_body: None };
        let mut recorder = Recorder::new(checks, None, None);
        let ok = Status::Http(200);
        recorder.answer(&answer(0, ok, br#"{"model_version":"1"}"#), 50);
        recorder.plan(100);
        recorder.begin();
        recorder.answer(&answer(60, ok, br#"{"model_version":"1"}"#), 150);
        recorder.answer(&answer(100, ok, br#"{"model_version":"1"}"#), 200);
        recorder.answer(&answer(110, ok, br#"{"model_version":"2"}"#), 200);
        recorder.answer(&answer(120, Status::Http(503), b"full"), 200);
        recorder.lost(130, FailureKind::ConnectionLost, "reset");
        recorder.end(1_000_000_100);
        recorder.answer(&answer(140, ok, br#"{"model_version":"1"}"#), 2_000_000_000);
        let result = recorder.finish();
        assert_eq!((result.succeeded, result.failed), (2, 3));
        // The answer to the request due before the start counts for the rate, the late one not.
        assert_eq!(result.rate, 2.0);
        assert_eq!(result.statuses[&ok], 3);
        assert_eq!(result.versions, [("1".into(), 2), ("2".into(), 1)]);
        assert_eq!(result.failures[&FailureKind::VersionDiffers], 1);
        assert_eq!(result.quotes.len(), 3);
        assert_eq!(result.quotes[1], "HTTP 503: full");
    }
}

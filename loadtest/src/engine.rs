//! Load generation: one thread, one epoll, prebuilt requests, open or closed loop.
//!
//! Each request carries the time it was due. Open loop: the arrival process decides, and a request
//! that finds no free connection waits in the backlog while its clock runs. Closed loop: due when
//! a place in flight became free. Must not know what is measured or reported.

mod connection;

use std::collections::VecDeque;
use std::io::{self, Read};
use std::net::SocketAddr;

use rustix::event::epoll;
use rustix::time::Timespec;

use crate::arrivals::Arrivals;
use crate::clock::{Clock, SECOND_NS};
use crate::link::Calls;
use crate::measure::{FailureKind, Recorder};
use connection::Connection;

/// Bytes read at once; larger answers take several reads.
const READ_BYTES_MAX: usize = 256 << 10;
/// Arrivals that may wait for a free connection; what comes beyond is counted as not sent.
const BACKLOG_MAX: usize = 1 << 20;
/// Events taken from one wait.
const EVENTS_MAX: usize = 1024;
/// Pause before a lost connection is opened again.
const RECONNECT_PAUSE_NS: u64 = 20_000_000;
/// Without any connection for this long the server counts as unreachable.
const ALL_LOST_NS_MAX: u64 = 2 * SECOND_NS;
/// Longest wait in one call, so that deadlines are seen.
const WAIT_NS_MAX: u64 = 50_000_000;

/// Where requests go and what they are.
#[derive(Debug)]
pub(crate) struct Target {
    pub address: SocketAddr,
    pub calls: Calls,
    /// Order in which payloads are used, again and again.
    pub order: Vec<u32>,
}

/// What decides when requests are due.
#[derive(Debug, Clone)]
pub(crate) enum Load {
    Closed { in_flight: usize },
    Open { arrivals: Arrivals },
}

/// One run.
#[derive(Debug, Clone)]
pub(crate) struct Run {
    pub load: Load,
    pub connections: usize,
    pub warmup_ns: u64,
    pub duration_ns: u64,
    /// Ends the run early once this many measured requests are sent.
    pub requests_max: Option<u64>,
    /// How long answers are waited for after the end.
    pub drain_ns: u64,
    /// Never sleep: exact send times for a whole core.
    pub spin: bool,
}

/// Why a run could not be done.
#[derive(Debug, thiserror::Error)]
pub(crate) enum EngineError {
    #[error("cannot connect to {address}: {cause}")]
    Unreachable { address: SocketAddr, cause: io::Error },
    #[error("epoll failed: {0}")]
    Poll(#[from] rustix::io::Errno),
}

/// Generates the load and tells the recorder.
pub(crate) fn run(target: &Target, run: Run, recorder: &mut Recorder) -> Result<(), EngineError> {
    let mut engine = Engine::open(target, run, recorder)?;
    engine.drive()
}

struct Engine<'a> {
    target: &'a Target,
    run: Run,
    recorder: &'a mut Recorder,
    clock: Clock,
    poll: std::os::fd::OwnedFd,
    slots: Vec<Slot>,
    /// Connections with room, each at most once.
    free: VecDeque<usize>,
    /// Connections with bytes to write.
    dirty: Vec<usize>,
    backlog: VecDeque<u64>,
    next_due_ns: Option<u64>,
    in_flight: usize,
    cursor: usize,
    measured: u64,
    begun: bool,
    stopped: bool,
    /// Connections that are not open now.
    lost: usize,
    all_lost_since_ns: Option<u64>,
    buffer: Vec<u8>,
}

struct Slot {
    connection: Option<Connection>,
    queued: bool,
    retry_ns: u64,
}

impl<'a> Engine<'a> {
    fn open(target: &'a Target, mut run: Run, recorder: &'a mut Recorder) -> Result<Self, EngineError> {
        // The planned time: a request that is due at that instant belongs to the run.
        recorder.plan(run.warmup_ns);
        let poll = epoll::create(epoll::CreateFlags::CLOEXEC)?;
        let mut slots = Vec::with_capacity(run.connections);
        for index in 0..run.connections {
            let connection = Connection::open(target, &poll, index)
                .map_err(|cause| EngineError::Unreachable { address: target.address, cause })?;
            slots.push(Slot { connection: Some(connection), queued: true, retry_ns: 0 });
        }
        let next_due_ns = match &mut run.load {
            Load::Closed { .. } => None,
            Load::Open { arrivals } => arrivals.next(),
        };
        Ok(Self {
            target,
            recorder,
            // The clock starts after the connections are open: arrivals are due from here on.
            clock: Clock::start(),
            poll,
            free: (0..slots.len()).collect(),
            slots,
            dirty: Vec::new(),
            backlog: VecDeque::new(),
            next_due_ns,
            in_flight: 0,
            cursor: 0,
            measured: 0,
            begun: false,
            stopped: false,
            lost: 0,
            all_lost_since_ns: None,
            buffer: vec![0; READ_BYTES_MAX],
            run,
        })
    }

    fn drive(&mut self) -> Result<(), EngineError> {
        let mut events: Vec<epoll::Event> = Vec::with_capacity(EVENTS_MAX);
        let end_ns = self.run.warmup_ns + self.run.duration_ns;
        let mut drain_end_ns = u64::MAX;
        loop {
            let now_ns = self.clock.now_ns();
            if !self.begun && now_ns >= self.run.warmup_ns {
                self.begun = true;
                self.recorder.begin();
            }
            if !self.stopped && (now_ns >= end_ns || self.sent_all()) {
                if now_ns < end_ns && self.in_flight > 0 && drain_end_ns == u64::MAX {
                    // A counted run measures until its last answer, within the same bounds.
                    drain_end_ns = end_ns.min(now_ns + self.run.drain_ns);
                }
                if now_ns >= end_ns || self.in_flight == 0 || now_ns >= drain_end_ns {
                    // What was due before the end is still sent while the last answers come.
                    self.take_due(now_ns.min(end_ns));
                    self.stopped = true;
                    self.recorder.end(now_ns);
                    drain_end_ns = now_ns + self.run.drain_ns;
                }
            }
            if self.counted_out() {
                self.backlog.clear();
            }
            let done = self.in_flight == 0 && self.backlog.is_empty();
            if self.stopped && (done || now_ns >= drain_end_ns) {
                break;
            }
            self.reopen(now_ns)?;
            self.take_due(now_ns);
            self.pump(now_ns);
            let timeout = self.wait_time(now_ns);
            events.clear();
            match epoll::wait(&self.poll, rustix::buffer::spare_capacity(&mut events), Some(&timeout)) {
                Ok(_) | Err(rustix::io::Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            }
            for event in &events {
                self.ready(event.data.u64() as usize, event.flags);
            }
        }
        self.abandon();
        Ok(())
    }

    /// As many requests are sent as were asked for.
    fn counted_out(&self) -> bool {
        self.run.requests_max.is_some_and(|max| self.measured >= max)
    }

    fn sent_all(&self) -> bool {
        let ran_dry = matches!(self.run.load, Load::Open { .. })
            && self.next_due_ns.is_none()
            && self.backlog.is_empty();
        self.counted_out() || ran_dry
    }

    /// Moves arrivals that are due into the backlog.
    fn take_due(&mut self, now_ns: u64) {
        let Load::Open { arrivals } = &mut self.run.load else {
            return;
        };
        while let Some(due_ns) = self.next_due_ns.filter(|due_ns| *due_ns <= now_ns) {
            if self.stopped {
                return;
            }
            if self.backlog.len() < BACKLOG_MAX {
                self.backlog.push_back(due_ns);
            } else {
                self.recorder.lost(due_ns, FailureKind::NotSent, "");
            }
            self.next_due_ns = arrivals.next();
        }
    }

    /// The request to send now, if there is one.
    fn next_request(&mut self, now_ns: u64) -> Option<u64> {
        if self.counted_out() {
            return None;
        }
        match &self.run.load {
            Load::Closed { in_flight } => (!self.stopped && self.in_flight < *in_flight).then_some(now_ns),
            Load::Open { .. } => self.backlog.front().copied(),
        }
    }

    /// Gives requests to connections with room, in turn, and writes them.
    fn pump(&mut self, now_ns: u64) {
        while let Some(due_ns) = self.next_request(now_ns) {
            let Some(&index) = self.free.front() else {
                break;
            };
            let slot = &mut self.slots[index];
            let room = slot.connection.as_ref().map_or(0, |c| c.link.room());
            let Some(connection) = slot.connection.as_mut().filter(|_| room > 0) else {
                self.free.pop_front();
                slot.queued = false;
                continue;
            };
            let payload = self.target.order[self.cursor];
            self.cursor = if self.cursor + 1 == self.target.order.len() { 0 } else { self.cursor + 1 };
            connection.link.send(due_ns, payload, &self.target.calls);
            if !connection.dirty {
                connection.dirty = true;
                self.dirty.push(index);
            }
            self.free.pop_front();
            if room > 1 {
                self.free.push_back(index);
            } else {
                slot.queued = false;
            }
            self.in_flight += 1;
            self.measured += u64::from(due_ns >= self.run.warmup_ns);
            if matches!(self.run.load, Load::Open { .. }) {
                self.backlog.pop_front();
            }
            self.recorder.sent(due_ns, now_ns);
        }
        while let Some(index) = self.dirty.pop() {
            if let Some(connection) = &mut self.slots[index].connection {
                connection.dirty = false;
                if let Err(error) = connection.flush(self.target, &self.poll, index) {
                    self.lose(index, &error.to_string());
                }
            }
        }
    }

    fn ready(&mut self, index: usize, flags: epoll::EventFlags) {
        let readable = epoll::EventFlags::IN
            | epoll::EventFlags::HUP
            | epoll::EventFlags::ERR
            | epoll::EventFlags::RDHUP;
        if flags.intersects(readable) {
            self.receive(index);
        }
        let Some(connection) = &mut self.slots[index].connection else {
            return;
        };
        if (flags.contains(epoll::EventFlags::OUT) || connection.has_output()) && !connection.dirty {
            connection.dirty = true;
            self.dirty.push(index);
        }
        let now_ns = self.clock.now_ns();
        self.pump(now_ns);
    }

    fn receive(&mut self, index: usize) {
        let slot = &mut self.slots[index];
        let Some(connection) = &mut slot.connection else {
            return;
        };
        let bytes = match (&connection.socket).read(&mut self.buffer) {
            Ok(0) => return self.closed(index),
            Ok(bytes) => bytes,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => return,
            Err(error) => return self.lose(index, &error.to_string()),
        };
        let now_ns = self.clock.now_ns();
        let (recorder, in_flight) = (&mut *self.recorder, &mut self.in_flight);
        let received = connection.link.receive(&self.buffer[..bytes], &self.target.calls, &mut |answer| {
            *in_flight -= 1;
            recorder.answer(&answer, now_ns);
        });
        if let Err(error) = received {
            return self.lose(index, &error.to_string());
        }
        if connection.link.exhausted() {
            self.closed(index);
            // The server said so after an answer: nothing to wait for.
            self.slots[index].retry_ns = 0;
            return;
        }
        if !slot.queued && connection.link.room() > 0 {
            slot.queued = true;
            self.free.push_back(index);
        }
    }

    /// The server closed the connection: no error unless a request was on it.
    fn closed(&mut self, index: usize) {
        self.lose(index, "server closed the connection before it answered");
    }

    fn lose(&mut self, index: usize, cause: &str) {
        let slot = &mut self.slots[index];
        let Some(connection) = slot.connection.take() else {
            return;
        };
        self.lost += 1;
        let (recorder, in_flight) = (&mut *self.recorder, &mut self.in_flight);
        let mut unanswered = 0;
        connection.link.for_each_open(&mut |due_ns| {
            unanswered += 1;
            *in_flight -= 1;
            recorder.lost(due_ns, FailureKind::ConnectionLost, cause);
        });
        let pause_ns = match unanswered {
            0 => RECONNECT_PAUSE_NS / 20,
            _ => RECONNECT_PAUSE_NS,
        };
        slot.retry_ns = self.clock.now_ns() + pause_ns;
    }

    /// Opens lost connections again.
    fn reopen(&mut self, now_ns: u64) -> Result<(), EngineError> {
        if self.lost == 0 || (self.stopped && self.backlog.is_empty()) {
            return Ok(());
        }
        for index in 0..self.slots.len() {
            let slot = &mut self.slots[index];
            if slot.connection.is_some() || slot.retry_ns > now_ns {
                continue;
            }
            match Connection::open(self.target, &self.poll, index) {
                Ok(connection) => {
                    slot.connection = Some(connection);
                    self.lost -= 1;
                    self.recorder.reconnected();
                    if !slot.queued {
                        slot.queued = true;
                        self.free.push_back(index);
                    }
                }
                Err(cause) => {
                    slot.retry_ns = now_ns + RECONNECT_PAUSE_NS;
                    self.recorder.note(&format!("reconnect failed: {cause}"));
                    let since_ns = self.all_lost_since_ns.unwrap_or(now_ns);
                    if now_ns - since_ns > ALL_LOST_NS_MAX {
                        return Err(EngineError::Unreachable { address: self.target.address, cause });
                    }
                }
            }
        }
        self.all_lost_since_ns = match self.lost == self.slots.len() {
            true => Some(self.all_lost_since_ns.unwrap_or(now_ns)),
            false => None,
        };
        Ok(())
    }

    fn wait_time(&self, now_ns: u64) -> Timespec {
        let mut wait_ns = WAIT_NS_MAX;
        if self.run.spin {
            wait_ns = 0;
        } else {
            let end_ns = self.run.warmup_ns + self.run.duration_ns;
            for deadline_ns in [self.run.warmup_ns, end_ns, self.next_due_ns.unwrap_or(u64::MAX)] {
                if deadline_ns > now_ns {
                    wait_ns = wait_ns.min(deadline_ns - now_ns);
                }
            }
            if self.lost > 0 {
                wait_ns = wait_ns.min(RECONNECT_PAUSE_NS);
            }
        }
        Timespec { tv_sec: 0, tv_nsec: wait_ns as _ }
    }

    /// Counts what is left when the run is over.
    fn abandon(&mut self) {
        for slot in &self.slots {
            if let Some(connection) = &slot.connection {
                connection.link.for_each_open(&mut |due_ns| {
                    self.recorder.lost(due_ns, FailureKind::Unanswered, "");
                });
            }
        }
        for due_ns in self.backlog.drain(..) {
            self.recorder.lost(due_ns, FailureKind::NotSent, "");
        }
    }
}

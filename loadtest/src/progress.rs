//! Lines on stderr while a test runs, from a thread of their own.
//!
//! Must not know what a run is; it prints what it is told and ends with the sender.

use std::io::{IsTerminal, Write};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread::{self, JoinHandle};

use crate::measure::Snapshot;
use crate::quantity::{show_count, show_rate, show_us};

/// Lines that may wait; what comes beyond is dropped.
const EVENTS_MAX: usize = 64;

/// What the load thread tells.
#[derive(Debug, Clone)]
pub enum Event {
    /// Numbers of the last second.
    Snapshot(Snapshot),
    /// A run begins.
    Begin(String),
}

/// Starts the printing thread; it ends when the sender is dropped.
pub fn start(forced: bool) -> std::io::Result<(SyncSender<Event>, JoinHandle<()>)> {
    let terminal = std::io::stderr().is_terminal();
    let (sender, events) = sync_channel(EVENTS_MAX);
    let thread = thread::Builder::new()
        .name("progress".into())
        .spawn(move || print(&events, forced || terminal, terminal))?;
    Ok((sender, thread))
}

fn print(events: &Receiver<Event>, shown: bool, terminal: bool) {
    let mut open_line = false;
    for event in events {
        if !shown {
            continue;
        }
        let mut stderr = std::io::stderr().lock();
        // Nobody to tell is no reason to stop.
        let _ = match event {
            Event::Begin(text) => {
                let end = if std::mem::take(&mut open_line) { "\n" } else { "" };
                writeln!(stderr, "{end}{text}")
            }
            Event::Snapshot(snapshot) if terminal => {
                open_line = true;
                write!(stderr, "\r{}\x1b[K", line(&snapshot)).and_then(|()| stderr.flush())
            }
            Event::Snapshot(snapshot) => writeln!(stderr, "{}", line(&snapshot)),
        };
    }
    if open_line {
        let _ = writeln!(std::io::stderr());
    }
}

fn line(snapshot: &Snapshot) -> String {
    format!(
        "{:5.0} s  {:>9} req/s  p50 {:>8}  p99 {:>8}  failed {}",
        snapshot.seconds,
        show_rate(snapshot.rate),
        show_us(snapshot.p50_us),
        show_us(snapshot.p99_us),
        show_count(snapshot.failures),
    )
}

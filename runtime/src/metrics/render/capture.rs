//! The series of captured requests. Must not know how they are kept.

use std::fmt::Write as _;

use super::family;

/// What is counted (a name, a reason or nothing, and how many) and what waits.
#[must_use]
pub fn render_capture(counted: &[(&str, &str, u64)], waiting_bytes: usize) -> String {
    let mut page = String::new();
    let families = [
        ("rows", "gannet_capture_rows_total", "Captured requests that were written"),
        ("bytes", "gannet_capture_bytes_total", "Bytes of files that were written"),
        ("files", "gannet_capture_files_total", "Files that were written"),
        ("dropped", "gannet_capture_dropped_total", "Captured requests that were lost, and why"),
        ("events", "gannet_capture_events_total", "Events of captured requests and answers that were taken"),
        (
            "events_dropped",
            "gannet_capture_events_dropped_total",
            "Events that were not sent or not taken, and why",
        ),
    ];
    for (what, name, help) in families {
        family(&mut page, name, "counter", help);
        for (_, reason, number) in counted.iter().filter(|(counted, _, _)| *counted == what) {
            let labels = if reason.is_empty() { String::new() } else { format!("{{reason=\"{reason}\"}}") };
            let _ = writeln!(page, "{name}{labels} {number}");
        }
    }
    family(&mut page, "gannet_capture_waiting_bytes", "gauge", "Bytes of captured tensors that wait");
    let _ = writeln!(page, "gannet_capture_waiting_bytes {waiting_bytes}");
    page
}

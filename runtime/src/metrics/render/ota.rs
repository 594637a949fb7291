//! The series of deliveries to devices. Must not know how a fleet is judged.

use std::fmt::Write as _;

use super::{escape, family};

/// A bundle on its way, as it is shown.
#[derive(Debug, Clone, PartialEq)]
pub struct OtaSample {
    /// The model.
    pub model: String,
    /// The bundle's sequence.
    pub sequence: u64,
    /// `running`, `paused`, `done` or `halted`.
    pub status: &'static str,
    /// The share of the devices that it is offered to, 0 to 1.
    pub share: f64,
    /// Devices by what is known of them.
    pub devices: Vec<(&'static str, u64)>,
}

/// How a delivery can stand.
const STATUSES: [&str; 4] = ["running", "paused", "done", "halted"];

/// The series: the newest delivery of each model, and what became of devices' requests.
#[must_use]
pub fn render_ota(samples: &[OtaSample], requests: &[(&str, u64)]) -> String {
    let mut page = String::new();
    let labels =
        |sample: &OtaSample| format!("model=\"{}\",sequence=\"{}\"", escape(&sample.model), sample.sequence);
    family(&mut page, "gannet_ota_status", "gauge", "1 for how the model's newest delivery stands");
    for sample in samples {
        for status in STATUSES {
            let is = u8::from(status == sample.status);
            let _ = writeln!(page, "gannet_ota_status{{{},status=\"{status}\"}} {is}", labels(sample));
        }
    }
    family(&mut page, "gannet_ota_share_ratio", "gauge", "Share of the devices that it is offered to");
    for sample in samples {
        let _ = writeln!(page, "gannet_ota_share_ratio{{{}}} {}", labels(sample), sample.share);
    }
    family(&mut page, "gannet_ota_devices", "gauge", "Devices by what is known of them");
    for sample in samples {
        for (what, count) in &sample.devices {
            let _ = writeln!(page, "gannet_ota_devices{{{},state=\"{what}\"}} {count}", labels(sample));
        }
    }
    family(&mut page, "gannet_ota_requests_total", "counter", "Requests of devices by what came of them");
    for (outcome, count) in requests {
        let _ = writeln!(page, "gannet_ota_requests_total{{outcome=\"{outcome}\"}} {count}");
    }
    page
}

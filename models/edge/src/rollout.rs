//! Which devices a stage of a rollout reaches, and whether what they report stops it: pure decisions. Must not know
//! how devices are asked.

use sha2::{Digest as _, Sha256};

/// What devices of one stage report.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Reports {
    /// Devices that reported, one vote each.
    pub devices: usize,
    /// Of them, those with failures or hardware alerts.
    pub failing: usize,
}

/// What to do with a stage.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Decision {
    /// Too few have reported.
    Wait,
    /// Go to the next stage.
    Widen,
    /// Offer it to nobody else.
    Stop,
}

/// Devices that have to report before a stage may widen.
const DEVICES_MIN: usize = 10;
/// The probability with which a good bundle may be stopped by chance.
const RISK: f64 = 1e-3;

/// Whether a device is among the first `share` (0 to 1) of a rollout: the same answer for the same device and bundle.
#[must_use]
pub fn reaches(bundle: &str, device: &str, share: f64) -> bool {
    let digest = Sha256::digest(format!("{bundle}\n{device}"));
    let bits = u64::from_be_bytes(digest[..8].try_into().expect("eight bytes"));
    #[expect(clippy::cast_precision_loss, reason = "53 bits are enough to place a device")]
    let place = bits as f64 / u64::MAX as f64;
    place < share
}

/// Decides on a stage by its reports and the share of failing devices that the running version has.
#[must_use]
pub fn decide(reports: Reports, baseline: f64) -> Decision {
    // one failing device may always be a broken device
    if reports.failing > 1 && chance_of(reports, baseline.clamp(0.001, 1.0)) < RISK {
        return Decision::Stop;
    }
    if reports.devices < DEVICES_MIN { Decision::Wait } else { Decision::Widen }
}

/// The probability of at least so many failing devices if each fails with probability `p`.
#[expect(clippy::cast_precision_loss, reason = "counts of devices")]
fn chance_of(reports: Reports, p: f64) -> f64 {
    let n = reports.devices as f64;
    let mut term = (1.0 - p).powf(n);
    let mut below = 0.0;
    for k in 0..reports.failing {
        below += term;
        let k = k as f64;
        term *= (n - k) / (k + 1.0) * p / (1.0 - p).max(1e-12);
    }
    (1.0 - below).max(0.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bad_bundle_is_stopped_in_its_first_stage_and_a_good_one_is_not() {
        let fleet: Vec<String> = (0..1000).map(|device| format!("device-{device}")).collect();
        let stage: Vec<&String> = fleet.iter().filter(|device| reaches("digits@2#7", device, 0.05)).collect();
        assert!((30..=70).contains(&stage.len()), "{}", stage.len());
        let wider = fleet.iter().filter(|device| reaches("digits@2#7", device, 0.2));
        assert!(stage.iter().all(|device| wider.clone().any(|other| other == *device)));
        let devices = stage.len();
        assert_eq!(decide(Reports { devices, failing: devices / 2 }, 0.01), Decision::Stop);
        assert_eq!(decide(Reports { devices, failing: 1 }, 0.01), Decision::Widen);
        assert_eq!(decide(Reports { devices: 3, failing: 0 }, 0.01), Decision::Wait);
        assert_eq!(decide(Reports { devices: 3, failing: 3 }, 0.01), Decision::Stop);
    }
}

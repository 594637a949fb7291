//! How much may be under way: bytes of bodies and answers, and whether new work is taken at all.
//! Must not know protocols.

use std::sync::{
    Arc,
    atomic::{AtomicBool, AtomicUsize, Ordering},
};

use crate::respond::{Kind, Refusal};

/// The byte budget for what is in flight, shared by all listeners.
#[derive(Debug)]
pub struct Admission {
    bytes_max: usize,
    bytes: AtomicUsize,
    draining: AtomicBool,
}

/// Bytes taken out of the budget; given back when dropped.
#[derive(Debug)]
pub struct Permit {
    admission: Arc<Admission>,
    bytes: usize,
}

impl Admission {
    /// With a budget of `bytes_max`.
    #[must_use]
    pub fn new(bytes_max: usize) -> Arc<Self> {
        Arc::new(Self { bytes_max, bytes: AtomicUsize::new(0), draining: AtomicBool::new(false) })
    }

    /// No new readiness from now on; what comes is still answered until the listeners close.
    pub fn drain(&self) {
        self.draining.store(true, Ordering::Release);
    }

    /// Whether the server is on its way out.
    #[must_use]
    pub fn is_draining(&self) -> bool {
        self.draining.load(Ordering::Acquire)
    }

    /// An empty permit, to be grown as bytes come in.
    #[must_use]
    pub fn permit(self: &Arc<Self>) -> Permit {
        Permit { admission: Arc::clone(self), bytes: 0 }
    }

    /// Bytes in flight now.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.bytes.load(Ordering::Relaxed)
    }
}

impl Permit {
    /// Takes `bytes` more out of the budget.
    ///
    /// # Errors
    /// [`Kind::Exhausted`] when the budget would be overdrawn.
    pub fn grow(&mut self, bytes: usize) -> Result<(), Refusal> {
        let before = self.admission.bytes.fetch_add(bytes, Ordering::Relaxed);
        self.bytes += bytes;
        let limit = self.admission.bytes_max;
        if before.saturating_add(bytes) > limit {
            let message = format!(
                "{before} bytes are in flight and {bytes} more would exceed the budget of {limit} \
                 (limits.inflight_bytes_max); try again"
            );
            return Err(Refusal { retry_after_ms: Some(1000), ..Refusal::new(Kind::Exhausted, message) });
        }
        Ok(())
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        self.admission.bytes.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_budget_is_kept_and_given_back() {
        let admission = Admission::new(100);
        let mut first = admission.permit();
        first.grow(60).unwrap();
        let mut second = admission.permit();
        assert_eq!(second.grow(60).unwrap_err().kind, Kind::Exhausted);
        drop(second);
        first.grow(40).unwrap();
        assert_eq!(admission.bytes(), 100);
        drop(first);
        assert_eq!(admission.bytes(), 0);
    }
}

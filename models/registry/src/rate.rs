//! Spreads bytes over time, for all downloads together. Must not know what is downloaded.

use std::{
    sync::{Mutex, PoisonError},
    time::Duration,
};

use tokio::time::Instant;

/// A bound on bytes a second.
#[derive(Debug)]
pub(crate) struct Rate {
    bytes_per_s: Option<u64>,
    /// When everything taken so far will have been worth its time.
    free_at: Mutex<Option<Instant>>,
}

impl Rate {
    /// `None`: no bound.
    pub(crate) fn new(bytes_per_s: Option<u64>) -> Self {
        Self { bytes_per_s: bytes_per_s.filter(|rate| *rate > 0), free_at: Mutex::default() }
    }

    /// Waits until `bytes` more are within the bound.
    pub(crate) async fn take(&self, bytes: usize) {
        let Some(rate) = self.bytes_per_s else { return };
        #[expect(clippy::cast_precision_loss, reason = "a wait need not be exact")]
        let worth = Duration::from_secs_f64(bytes as f64 / rate as f64);
        let until = {
            let mut free_at = self.free_at.lock().unwrap_or_else(PoisonError::into_inner);
            let now = Instant::now();
            let start = free_at.unwrap_or(now).max(now);
            *free_at = Some(start + worth);
            start
        };
        tokio::time::sleep_until(until).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_take_their_time() {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
        runtime.block_on(async {
            let rate = Rate::new(Some(1_000_000));
            let start = Instant::now();
            for _ in 0..5 {
                rate.take(10_000).await;
            }
            // the first is free, four wait 10 ms each
            assert!(start.elapsed() >= Duration::from_millis(39), "{:?}", start.elapsed());
        });
    }
}

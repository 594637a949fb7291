//! The rule by which something counts as settled: it looked the same for a while. Must not know what is looked at.

/// What was seen last, since when, and what of it has settled.
#[derive(Debug)]
pub(super) struct Settle<T> {
    seen: T,
    since_ms: u64,
    settled: bool,
}

impl<T: PartialEq> Settle<T> {
    /// Seen for the first time; `rested` when something else tells that it has been so for long enough.
    pub(super) fn new(seen: T, now_ms: u64, rested: bool) -> Self {
        Self { seen, since_ms: now_ms, settled: rested }
    }

    /// Seen again. A clock that went backwards begins the wait anew.
    pub(super) fn observe(&mut self, seen: T, now_ms: u64, settle_ms: u64) {
        if seen != self.seen || now_ms < self.since_ms {
            let settled = self.settled && seen == self.seen;
            *self = Self { seen, since_ms: now_ms, settled };
        }
        self.settled |= now_ms - self.since_ms >= settle_ms;
    }

    /// What was seen, if it has settled.
    pub(super) fn settled(&self) -> Option<&T> {
        self.settled.then_some(&self.seen)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_stays_the_same_long_enough_settles() {
        let check = |looks: &[(u64, char)], expected: Option<char>| {
            let mut settle = Settle::new(looks[0].1, looks[0].0, false);
            for &(now_ms, seen) in looks {
                settle.observe(seen, now_ms, 500);
            }
            assert_eq!(settle.settled().copied(), expected, "{looks:?}");
        };
        check(&[(1000, 'a')], None);
        check(&[(1000, 'a'), (1499, 'a')], None);
        check(&[(1000, 'a'), (1500, 'a')], Some('a'));
        check(&[(1000, 'a'), (1400, 'b'), (1800, 'b')], None);
        check(&[(1000, 'a'), (1400, 'b'), (1900, 'b')], Some('b'));
        check(&[(1000, 'a'), (1600, 'a'), (1700, 'b')], None);
        check(&[(1000, 'a'), (900, 'a'), (1399, 'a')], None);
        check(&[(1000, 'a'), (1600, 'a'), (100, 'a')], Some('a'));
        assert_eq!(Settle::new('a', 0, true).settled(), Some(&'a'));
    }
}

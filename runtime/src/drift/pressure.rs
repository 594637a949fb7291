//! How much is sampled so that looking at samples stays within a share of a core. A function of values.

/// The least that is left of a rate.
const FACTOR_MIN: f64 = 0.001;
/// How fast it comes back.
const GROWTH: f64 = 1.25;

/// The factor for the next while, after one in which the thread worked for `used_ns` of `elapsed_ns`.
pub(super) fn next_factor(factor: f64, used_ns: u64, elapsed_ns: u64, ratio_max: f64) -> f64 {
    let used = used_ns as f64 / elapsed_ns.max(1) as f64;
    let next =
        if used > ratio_max { factor * ratio_max / used } else { (factor * GROWTH).min(factor.max(1.0)) };
    next.clamp(FACTOR_MIN, 1.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn less_is_sampled_where_it_costs_too_much_and_more_where_not() {
        assert_eq!(next_factor(1.0, 20, 1000, 0.01), 0.5);
        assert_eq!(next_factor(0.5, 1, 1000, 0.01), 0.625);
        assert_eq!(next_factor(0.9, 1, 1000, 0.01), 1.0);
        assert_eq!(next_factor(1.0, 1000, 1000, 0.000_001), FACTOR_MIN);
        // the work that one sample causes settles where it fits
        let mut factor = 1.0;
        for _ in 0..50 {
            factor = next_factor(factor, (40.0 * factor) as u64 * 1000, 1_000_000, 0.01);
        }
        assert!((0.2..=0.35).contains(&factor), "{factor}");
    }
}

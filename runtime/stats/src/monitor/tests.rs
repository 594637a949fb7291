//! Delays and false alarms by seeded simulation. `GANNET_PROOF=full` multiplies the counts and nothing else.

use super::*;
use crate::random::Random;

const REFERENCE_ROWS: usize = 10_000;
/// A state of 36 bins, a window's counts, eleven experts over 16 bins each, and the reference.
const NUMERIC_BYTES_MAX: usize = 2 << 10;
/// With 256 names.
const CATEGORY_BYTES_MAX: usize = 24 << 10;

fn runs(small: u64, full: u64) -> u64 {
    if std::env::var("GANNET_PROOF").is_ok_and(|wish| wish == "full") { full } else { small }
}

fn monitor(random: &mut Random) -> FeatureMonitor {
    let values: Vec<Option<f64>> = (0..REFERENCE_ROWS).map(|_| Some(random.normal())).collect();
    FeatureMonitor::new(Reference::of_numbers(&values).unwrap()).unwrap()
}

/// For 100 features at ten rows a second, one false alarm in thirty days over all of them.
fn threshold() -> f64 {
    (100.0 * 30.0 * 10.0 * 86_400.0 / BATCH_ROWS as f64).ln()
}

/// Rows until an alarm once the values are shifted.
fn delay(seed: u64, shift: f64) -> u64 {
    let mut random = Random::new(seed);
    let mut monitor = monitor(&mut random);
    (0..20 * BATCH_ROWS).for_each(|_| monitor.push(Value::Number(random.normal())));
    (1..100_000)
        .find(|_| {
            monitor.push(Value::Number(random.normal() + shift));
            monitor.log_e() >= threshold()
        })
        .unwrap_or(u64::MAX)
}

#[test]
fn drift_is_seen_soon() {
    // of a normal distribution, the index is the square of the shift
    for (psi, most) in [(0.1f64, 1100), (0.25, 350)] {
        let mut delays: Vec<u64> = (0..runs(15, 300)).map(|seed| delay(seed, psi.sqrt())).collect();
        delays.sort_unstable();
        let median = delays[delays.len() / 2];
        println!("index {psi}: median {median} rows, p90 {}", delays[delays.len() * 9 / 10]);
        assert!(median <= most, "index {psi}: median {median} rows");
    }
}

#[test]
fn nothing_is_seen_where_nothing_changes() {
    // a feature-day at ten rows a second
    let rows = runs(200_000, 864_000);
    let days = runs(3, 300);
    let mut alarms = 0;
    for seed in 0..days {
        let mut random = Random::new(1000 + seed);
        let mut monitor = monitor(&mut random);
        for _ in 0..rows / BATCH_ROWS {
            (0..BATCH_ROWS).for_each(|_| monitor.push(Value::Number(random.normal())));
            if monitor.log_e() >= threshold() {
                alarms += 1;
                monitor.reset();
            }
        }
    }
    println!("{alarms} alarms in {days} stretches of {rows} rows");
    // the budget of a hundred features for thirty days is one
    assert!(alarms <= days / 300, "{alarms} alarms in {days} stretches");
}

#[test]
fn the_mean_distance_of_false_alarms_is_as_promised() {
    // the reference is drawn anew each time, so its own error is in it
    for h in [4.0f64, 6.0, 8.0] {
        let (mut batches, mut alarms) = (0u64, 0u64);
        for seed in 0..runs(10, 200) {
            let mut random = Random::new(5000 + seed);
            let mut monitor = monitor(&mut random);
            for _ in 0..runs(500, 3000) {
                (0..BATCH_ROWS).for_each(|_| monitor.push(Value::Number(random.normal())));
                batches += 1;
                if monitor.log_e() >= h {
                    alarms += 1;
                    monitor.reset();
                }
            }
        }
        println!(
            "h {h}: {alarms} alarms in {batches} batches, promised at most {:.0}",
            batches as f64 / h.exp()
        );
        assert!(alarms as f64 <= batches as f64 / h.exp(), "h {h}: {alarms} alarms in {batches} batches");
    }
}

#[test]
fn a_window_has_its_scores() {
    let mut random = Random::new(9);
    let mut monitor = monitor(&mut random);
    assert_eq!(monitor.end_window(&mut Thresholds::new(0.01)), None);
    (0..10_000).for_each(|_| monitor.push(Value::Number(random.normal())));
    let same = monitor.end_window(&mut Thresholds::new(0.01)).unwrap();
    assert!(same.scores.psi < same.psi_threshold && same.wasserstein.unwrap() < 0.05, "{same:?}");
    (0..10_000).for_each(|_| monitor.push(Value::Number(random.normal() + 0.5)));
    let moved = monitor.end_window(&mut Thresholds::new(0.01)).unwrap();
    assert!((moved.scores.psi - 0.25).abs() < 0.05 && moved.scores.psi > moved.psi_threshold, "{moved:?}");
    // the tails beyond the outer edges are not in it
    assert!((moved.wasserstein.unwrap() - 0.5).abs() < 0.03, "{moved:?}");
    assert!(moved.psi_smoothed > same.psi_smoothed && moved.psi_smoothed < moved.scores.psi);
    assert_eq!(monitor.rows(), 0);
}

#[test]
fn what_is_rare_is_seen_and_named() {
    let mut random = Random::new(11);
    let mut numbers = monitor(&mut random);
    (0..3000).for_each(|row| {
        numbers.push(if row % 20 == 0 { Value::Missing } else { Value::Number(random.normal()) })
    });
    assert!(numbers.log_e() > threshold());
    assert_eq!(numbers.rare_above(threshold()), ["missing"]);
    numbers.reset();
    assert!(numbers.log_e() < 0.1);
    let known: Vec<Option<&str>> = (0..1000).map(|row| Some(["a", "b", "c"][row % 3])).collect();
    let mut texts = FeatureMonitor::new(Reference::of_categories(&known)).unwrap();
    (0..3000).for_each(|row| {
        texts.push(Value::Text(if row % 20 == 0 { "new" } else { ["a", "b", "c"][row % 3] }))
    });
    assert_eq!(texts.rare_above(threshold()), ["unknown_category"]);
}

#[test]
fn a_change_is_no_correlation() {
    let mut random = Random::new(19);
    let mut monitor = monitor(&mut random);
    for row in 0..6000 {
        let shift = if row < 3000 { 0.0 } else { 3.0 };
        monitor.push(Value::Number(random.normal() + shift));
    }
    assert!(!monitor.is_correlated(), "{:?}", monitor.correlation.value());
}

#[test]
fn a_feature_takes_little_memory() {
    let mut random = Random::new(23);
    let mut numbers = monitor(&mut random);
    (0..1000).for_each(|_| numbers.push(Value::Number(random.normal())));
    numbers.end_window(&mut Thresholds::new(0.01));
    let names: Vec<String> = (0..256).map(|index| format!("category {index:03}")).collect();
    let known: Vec<Option<&str>> = (0..10_240).map(|row| Some(names[row % 256].as_str())).collect();
    let mut texts = FeatureMonitor::new(Reference::of_categories(&known)).unwrap();
    (0..1000).for_each(|row| texts.push(Value::Text(&names[row % 256])));
    texts.end_window(&mut Thresholds::new(0.01));
    println!("{} bytes a numeric feature, {} a categorical one of 256", numbers.bytes(), texts.bytes());
    assert!(texts.bytes() <= CATEGORY_BYTES_MAX, "{}", texts.bytes());
    assert!(numbers.bytes() <= NUMERIC_BYTES_MAX, "{}", numbers.bytes());
}

#[test]
fn values_that_follow_each_other_closely_are_noticed() {
    for (phi, expected) in [(0.0f64, false), (0.2, false), (0.9, true)] {
        let mut random = Random::new(17);
        let mut monitor = monitor(&mut random);
        let mut value = 0.0;
        for _ in 0..5000 {
            value = phi * value + (1.0 - phi * phi).sqrt() * random.normal();
            monitor.push(Value::Number(value));
        }
        assert_eq!(monitor.is_correlated(), expected, "phi {phi}: {:?}", monitor.correlation.value());
    }
}

//! Figures beside their bars. Must not know how they were measured.

use gannet_benches::rig::median;

/// What a figure is held against.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Bar {
    AtMost(f64),
    AtLeast(f64),
}

/// A figure of each round.
#[derive(Debug, Clone, Default)]
pub(crate) struct Rounds(Vec<f64>);

impl FromIterator<f64> for Rounds {
    fn from_iter<T: IntoIterator<Item = f64>>(values: T) -> Self {
        Self(values.into_iter().collect())
    }
}

impl Rounds {
    pub(crate) fn median(&self) -> f64 {
        median(&self.0)
    }

    fn spread(&self) -> (f64, f64) {
        let (low, high) = (f64::INFINITY, f64::NEG_INFINITY);
        self.0.iter().fold((low, high), |(low, high), &value| (low.min(value), high.max(value)))
    }
}

/// Prints one figure with its spread over the rounds, and its bar.
pub(crate) fn figure(name: &str, unit: &str, rounds: &Rounds, bar: Option<Bar>) {
    let (low, high) = rounds.spread();
    let value = rounds.median();
    let verdict = match bar {
        None => String::new(),
        Some(Bar::AtMost(bound)) => format!("  bar <= {bound}: {}", word(value <= bound)),
        Some(Bar::AtLeast(bound)) => format!("  bar >= {bound}: {}", word(value >= bound)),
    };
    println!("  {name:<58} {} {unit} ({} .. {}){verdict}", number(value), number(low), number(high));
}

fn word(met: bool) -> &'static str {
    if met { "met" } else { "MISSED" }
}

/// Three or four digits that matter.
fn number(value: f64) -> String {
    match value.abs() {
        size if size >= 1000.0 => format!("{value:.0}"),
        size if size >= 100.0 => format!("{value:.1}"),
        _ => format!("{value:.2}"),
    }
}

//! Random numbers that a seed repeats: splitmix64 (Steele, Lea and Flood, 2014). Must not know what they decide,
//! and never seeds itself.

use serde::{Deserialize, Serialize};

/// A sequence of random numbers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Random {
    state: u64,
}

impl Random {
    /// The sequence that belongs to `seed`.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        Self { state: seed }
    }

    /// The next 64 bits.
    pub fn bits(&mut self) -> u64 {
        self.state = self.state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.state;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// Evenly in [0, 1), 53 bits.
    pub fn uniform(&mut self) -> f64 {
        (self.bits() >> 11) as f64 / (1u64 << 53) as f64
    }

    /// Evenly in (0, 1], for logarithms.
    pub fn positive(&mut self) -> f64 {
        1.0 - self.uniform()
    }

    /// Evenly among 0 to `bound - 1`; 0 when `bound` is 0.
    pub fn below(&mut self, bound: u64) -> u64 {
        ((u128::from(self.bits()) * u128::from(bound)) >> 64) as u64
    }

    /// Normal, mean 0 and variance 1 (Box and Muller).
    pub fn normal(&mut self) -> f64 {
        (-2.0 * self.positive().ln()).sqrt() * (std::f64::consts::TAU * self.uniform()).cos()
    }

    /// Gamma with this shape > 0 and scale 1 (Marsaglia and Tsang, 2000).
    pub fn gamma(&mut self, shape: f64) -> f64 {
        if shape < 1.0 {
            // Γ(a) = Γ(a + 1) U^(1/a)
            return self.gamma(shape + 1.0) * self.positive().powf(1.0 / shape);
        }
        let d = shape - 1.0 / 3.0;
        let c = 1.0 / (9.0 * d).sqrt();
        loop {
            let x = self.normal();
            let v = (1.0 + c * x).powi(3);
            if v > 0.0 && self.positive().ln() < 0.5 * x * x + d - d * v + d * v.ln() {
                return d * v;
            }
        }
    }

    /// Beta with these shapes > 0.
    pub fn beta(&mut self, a: f64, b: f64) -> f64 {
        let (x, y) = (self.gamma(a), self.gamma(b));
        if x + y > 0.0 { x / (x + y) } else { 0.5 }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::moments::Moments;

    #[test]
    fn the_sequence_is_splitmix64() {
        // first output of the reference implementation for seed 0
        assert_eq!(Random::new(0).bits(), 0xe220_a839_7b1d_cdaf);
        assert_eq!(Random::new(7), Random::new(7));
    }

    #[test]
    fn laws_have_their_means_and_variances() {
        let mut random = Random::new(1);
        let mut check = |what: &str, mean: f64, variance: f64, draw: &mut dyn FnMut(&mut Random) -> f64| {
            let mut moments = Moments::default();
            (0..20_000).for_each(|_| moments.push(draw(&mut random)));
            let error = (variance / 20_000.0).sqrt();
            assert!((moments.mean() - mean).abs() < 5.0 * error, "{what}: mean {}", moments.mean());
            assert!((moments.variance() / variance - 1.0).abs() < 0.15, "{what}: {}", moments.variance());
        };
        check("uniform", 0.5, 1.0 / 12.0, &mut Random::uniform);
        check("normal", 0.0, 1.0, &mut Random::normal);
        check("gamma", 3.5, 3.5, &mut |r| r.gamma(3.5));
        check("small gamma", 0.5, 0.5, &mut |r| r.gamma(0.5));
        check("beta", 0.25, 0.25 * 0.75 / 9.0, &mut |r| r.beta(2.0, 6.0));
        check("below", 4.5, 8.25, &mut |r| r.below(10) as f64);
    }
}

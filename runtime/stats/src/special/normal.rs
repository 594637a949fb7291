//! The normal law. Must not know statistics.

use super::gamma::gamma_q;

/// P(Z > z), exact in both tails.
#[must_use]
pub fn normal_survival(z: f64) -> f64 {
    let tail = 0.5 * gamma_q(0.5, 0.5 * z * z);
    if z >= 0.0 { tail } else { 1.0 - tail }
}

/// P(Z <= z).
#[must_use]
pub fn normal_cdf(z: f64) -> f64 {
    normal_survival(-z)
}

/// The z with P(Z <= z) = p; infinite at 0 and 1 (Acklam's rational start, then Halley's method to full precision).
#[must_use]
pub fn normal_quantile(p: f64) -> f64 {
    if p <= 0.0 {
        return f64::NEG_INFINITY;
    }
    if p >= 1.0 {
        return f64::INFINITY;
    }
    let mut z = acklam(p);
    for _ in 0..3 {
        // from the smaller tail, so that the difference keeps its digits
        let off = if z < 0.0 { normal_cdf(z) - p } else { (1.0 - p) - normal_survival(z) };
        let density = (-0.5 * z * z).exp() / std::f64::consts::TAU.sqrt();
        let step = off / density;
        z -= step / (1.0 + 0.5 * z * step);
    }
    z
}

const LOW: f64 = 0.024_25;

/// Relative error 1.2e-9.
fn acklam(p: f64) -> f64 {
    const A: [f64; 6] = [
        -3.969_683_028_665_376e1,
        2.209_460_984_245_205e2,
        -2.759_285_104_469_687e2,
        1.383_577_518_672_69e2,
        -3.066_479_806_614_716e1,
        2.506_628_277_459_239,
    ];
    const B: [f64; 5] = [
        -5.447_609_879_822_406e1,
        1.615_858_368_580_409e2,
        -1.556_989_798_598_866e2,
        6.680_131_188_771_972e1,
        -1.328_068_155_288_572e1,
    ];
    const C: [f64; 6] = [
        -7.784_894_002_430_293e-3,
        -3.223_964_580_411_365e-1,
        -2.400_758_277_161_838,
        -2.549_732_539_343_734,
        4.374_664_141_464_968,
        2.938_163_982_698_783,
    ];
    const D: [f64; 4] =
        [7.784_695_709_041_462e-3, 3.224_671_290_700_398e-1, 2.445_134_137_142_996, 3.754_408_661_907_416];
    let polynomial = |coefficients: &[f64], x: f64| coefficients.iter().fold(0.0, |sum, c| sum * x + c);
    let tail = |q: f64| polynomial(&C, q) / (polynomial(&D, q) * q + 1.0);
    if p < LOW {
        tail((-2.0 * p.ln()).sqrt())
    } else if p > 1.0 - LOW {
        -tail((-2.0 * (1.0 - p).ln()).sqrt())
    } else {
        let q = p - 0.5;
        let r = q * q;
        polynomial(&A, r) * q / (polynomial(&B, r) * r + 1.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_normal_law_at_known_points() {
        let close = |got: f64, expected: f64| {
            assert!(
                (got - expected).abs() <= 1e-13 * expected.abs().max(1e-300),
                "{got:e} is not {expected:e}"
            );
        };
        // mpmath
        close(normal_survival(0.5), 0.308_537_538_725_986_9);
        close(normal_survival(3.0), 1.349_898_031_630_094_5e-3);
        close(normal_survival(10.0), 7.619_853_024_160_527e-24);
        close(normal_quantile(0.975), 1.959_963_984_540_054_2);
        close(normal_quantile(0.001), -3.090_232_306_167_813_5);
        close(normal_quantile(0.3), -0.524_400_512_708_041);
        close(normal_quantile(1e-20), -9.262_340_089_798_408);
        assert!(normal_quantile(0.5).abs() < 1e-16);
    }

    #[test]
    fn the_quantile_undoes_the_law() {
        for i in 1..1000 {
            let p = f64::from(i) / 1000.0;
            assert!((normal_cdf(normal_quantile(p)) - p).abs() < 1e-14, "{p}");
        }
    }
}

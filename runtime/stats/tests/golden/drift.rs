//! The drift scores against scipy's and our reference's values. Must not repeat the formulas.

use gannet_stats::{
    binning::quantile_edges,
    multiple::{benjamini_hochberg, bonferroni, e_benjamini_hochberg},
    score::{PsiThreshold, chi_squared, scores},
};

use super::file::{Golden, close};

fn check_histograms(golden: &Golden) {
    let [reference, current] = ["ref_counts", "cur_counts"].map(|name| golden.at(name).counts());
    let found = scores(&reference, &current).unwrap();
    close(found.psi, golden.number("psi"), "psi");
    close(found.psi_bias, golden.number("psi_bias_h0"), "bias");
    close(found.psi_debiased(), golden.number("psi_debiased").max(0.0), "debiased");
    close(found.js_divergence, golden.number("js_divergence_nats"), "js");
    close(found.js_distance(), golden.number("js_distance_nats"), "js distance");
    close(found.total_variation, golden.number("tv"), "tv");
    close(found.hellinger, golden.number("hellinger"), "hellinger");
    close(found.largest, golden.number("linf"), "largest");
    close(found.ks, golden.number("ks_on_bins"), "ks");
    let test = chi_squared(&reference, &current).unwrap();
    close(test.statistic, golden.number("chi2"), "chi2");
    close(test.p_value, golden.number("chi2_p"), "p");
    assert_eq!(test.degrees as f64, golden.number("chi2_dof"));
    for tolerated in [0.0, 0.02, 0.1] {
        let name = if tolerated == 0.0 { "psi0=0.0".to_owned() } else { format!("psi0={tolerated}") };
        let threshold = PsiThreshold {
            bins: reference.len() as u64,
            reference: reference.iter().sum(),
            current: current.iter().sum(),
            tolerated,
            alpha: 1e-3,
        };
        close(threshold.value().unwrap(), golden.at("psi_threshold_alpha_1e_3").number(&name), "threshold");
    }
}

#[test]
fn distances_of_histograms() {
    let golden = Golden::read("drift_two_sample.json");
    for pair in golden.at("numeric").items() {
        for bins in ["bins10", "bins16", "bins32"] {
            check_histograms(&pair.at("server").at(bins));
        }
    }
    for pair in golden.at("categorical").items() {
        check_histograms(&pair.at("server"));
    }
}

#[test]
fn quantiles_as_numpy_has_them() {
    for pair in Golden::read("drift_two_sample.json").at("numeric").items() {
        let mut sorted = pair.at("ref").numbers();
        sorted.sort_by(f64::total_cmp);
        for bins in [10, 16, 32] {
            let expected = pair.at("server").at(&format!("bins{bins}")).at("edges").numbers();
            let found = quantile_edges(&sorted, bins).unwrap();
            assert_eq!(found.len(), expected.len(), "{}", pair.text("name"));
            found.iter().zip(&expected).for_each(|(found, expected)| close(*found, *expected, "an edge"));
        }
    }
}

#[test]
fn many_tests_at_once() {
    for case in Golden::read("drift_two_sample.json").at("multiple_testing").items() {
        let indexes =
            |name: &str| case.at(name).counts().into_iter().map(|index| index as usize).collect::<Vec<_>>();
        let p = case.at("p").numbers();
        let log_e: Vec<f64> = case.at("e").numbers().into_iter().map(f64::ln).collect();
        assert_eq!(benjamini_hochberg(&p, 0.05).unwrap(), indexes("bh_0_05"));
        assert_eq!(bonferroni(&p, 0.05).unwrap(), indexes("bonferroni_0_05"));
        assert_eq!(e_benjamini_hochberg(&log_e, 0.05).unwrap(), indexes("ebh_0_05"));
    }
}

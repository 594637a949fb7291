//! The rollout statistics against values computed by scipy and hash libraries. Must not repeat the formulas.

use gannet_stats::{
    bounded::MeanAbove,
    event_share::{HarmTest, ShareTest},
    mean::{self, MeanDifference},
    moments::Moments,
    quantile, rank,
    split::Split,
};

use super::file::{Golden, close};

fn rollout() -> Golden {
    Golden::read("rollout.json")
}

#[test]
fn mixture_test_and_its_widths() {
    for case in rollout().at("msprt_normal").at("cases").items() {
        let arm = |name: &str| {
            let [n, mean, variance] = ["n", "mean", "var"].map(|what| case.number(&format!("{what}_{name}")));
            Moments::of(n as u64, mean, variance)
        };
        let difference = MeanDifference::between(&arm("a"), &arm("b")).unwrap();
        let tau2 = case.number("tau2");
        close(difference.difference, case.number("delta"), "delta");
        close(difference.variance, case.number("V"), "V");
        close(difference.log_e(0.0, tau2), case.number("log_lambda"), "log_lambda");
        close(difference.p_value(0.0, tau2), case.number("p_single"), "p");
        close(difference.half_width(tau2, 0.05), case.number("cs95_half"), "95 %");
        close(difference.half_width(tau2, 0.01), case.number("cs99_half"), "99 %");
    }
    for case in rollout().at("asymp_cs").at("difference").items() {
        let alpha = case.number("alpha");
        let tau2 = mean::tau2(alpha, case.number("V_star")).unwrap();
        close(tau2, case.number("tau2"), "tau2");
        let difference = MeanDifference { difference: 0.0, variance: case.number("V") };
        close(difference.half_width(tau2, alpha), case.number("half"), "half width");
    }
    for case in rollout().at("asymp_cs").at("one_mean").items() {
        let [t, t_best] = ["t", "t_star"].map(|name| case.number(name) as u64);
        let half = mean::one_mean_half_width(t, case.number("sd"), t_best, case.number("alpha")).unwrap();
        close(half, case.number("half"), "half width");
    }
}

#[test]
fn shares_of_events() {
    for case in rollout().at("dirichlet_multinomial").at("cases").items() {
        let strength = case.at("alpha_prior").numbers().iter().sum();
        let mut test = ShareTest::new(&case.at("rho").numbers(), strength).unwrap();
        let log_e = test.add(&case.at("counts").counts()).unwrap();
        close(log_e, case.number("log_e"), "log_e");
        close(test.p_value(), case.number("p_single"), "p");
    }
    for case in rollout().at("one_sided_event_share").at("cases").items() {
        let mut test = HarmTest::new(case.number("rho"), case.number("tol")).unwrap();
        let candidate = case.number("canary_events") as u64;
        test.add(candidate, case.number("total_events") as u64 - candidate);
        close(test.limit(), case.number("theta0"), "theta0");
        close(test.log_e(), case.number("log_e"), "log_e");
    }
}

#[test]
fn ranks_around_quantiles() {
    for case in rollout().at("quantile_cs").at("cases").items() {
        let (t, alpha) = (case.number("t") as u64, case.number("alpha"));
        let ranks = quantile::rank_bounds(t, case.number("p"), alpha).unwrap();
        close(ranks.lower, case.number("lower_rank"), "lower");
        close(ranks.upper, case.number("upper_rank"), "upper");
        close(quantile::distribution_bound(t, alpha).unwrap(), case.number("dkw_lil"), "distribution");
    }
}

#[test]
fn bets_value_by_value() {
    let betting = rollout().at("betting_mean_gt");
    for case in betting.at("cases").items() {
        let mut test = MeanAbove::new(0.0, 1.0, case.number("m"), 0.05).unwrap();
        for (x, expected) in betting.at("x").numbers().into_iter().zip(case.at("log_e").numbers()) {
            test.push(x);
            close(test.log_e(), expected, "log_e");
        }
        assert_eq!(test.n(), 40);
    }
}

#[test]
fn ranks_of_two_samples() {
    let golden = rollout().at("mann_whitney");
    let [control, experiment] = ["control", "experiment"].map(|name| golden.at(name).numbers());
    let result = rank::mann_whitney(&control, &experiment).unwrap();
    close(result.u_first, golden.number("U_control"), "U");
    close(result.p_value, golden.number("p"), "p");
    close(rank::shift(&control, &experiment).unwrap(), golden.number("hodges_lehmann"), "shift");
}

#[test]
fn keys_fall_into_the_same_buckets_as_elsewhere() {
    let golden = rollout().at("hash_split");
    for case in golden.at("cases").items() {
        let split = Split::new(&case.text("salt"));
        let key = case.text("key");
        assert_eq!(split.hash(key.as_bytes()).to_string(), case.text("hash"));
        assert_eq!(f64::from(split.bucket(key.as_bytes())), case.number("bucket"));
    }
    let population = golden.at("population");
    let split = Split::new(&population.text("salt"));
    for (weight, name) in [(100, "in_canary_at_100bp"), (1000, "at_1000bp"), (5000, "at_5000bp")] {
        let keys = (0..100_000).map(|i| format!("user-{i}"));
        let count = keys.filter(|key| split.is_candidate(key.as_bytes(), weight)).count();
        assert_eq!(count as f64, population.number(name));
    }
}

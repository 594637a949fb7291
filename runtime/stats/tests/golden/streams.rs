//! Detectors over streams, against river's alarms and our reference's traces. Must not repeat the formulas.

use gannet_stats::{
    adwin::Adwin,
    detector::{DriftDetector, closest_in_ball},
};

use super::file::{Golden, close};

/// The streams' own generator, in which every language rebuilds them bit by bit.
struct SplitMix(u64);

impl SplitMix {
    fn uniform(&mut self) -> f64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^= z >> 31;
        (z >> 11) as f64 * 2f64.powi(-53)
    }
}

fn stream(spec: &Golden) -> Vec<f64> {
    let mut random = SplitMix(spec.number("seed") as u64);
    let number = |name: &str| spec.number(name);
    let value = |t: f64| match spec.text("kind").as_str() {
        "bern" => {
            let p = if t < number("tc") { number("p0") } else { number("p1") };
            f64::from(u8::from(random.uniform() < p))
        }
        "unif" => random.uniform() + if t >= number("tc") { number("shift") } else { 0.0 },
        "ramp" => {
            let (from, to) = (number("t0"), number("t1"));
            random.uniform() + number("shift") * ((t - from) / (to - from)).clamp(0.0, 1.0)
        }
        "ih12" => {
            let mut sum = 0.0;
            (0..12).for_each(|_| sum += random.uniform());
            let (scale, shift) =
                if t >= number("tc") { (number("scale"), number("shift")) } else { (1.0, 0.0) };
            (sum - 6.0) * scale + shift
        }
        other => panic!("no stream of kind {other}"),
    };
    (0..number("n") as u64).map(|t| t as f64).map(value).collect()
}

#[test]
fn adwin_cuts_where_river_does() {
    for case in Golden::read("drift_streams.json").at("streams").items() {
        let values = stream(&case.at("spec"));
        close(values.iter().sum(), case.number("sum"), "the stream's sum");
        let detectors = case.at("detectors");
        let expected = detectors
            .at("river.ADWIN(delta=0.002,clock=32,max_buckets=5,min_window_length=5,grace_period=10)")
            .at("drift")
            .counts();
        let mut adwin = Adwin::new(0.002);
        let found: Vec<u64> =
            (0..).zip(&values).filter(|(_, value)| adwin.push(**value)).map(|(t, _)| t).collect();
        assert_eq!(found, expected, "{}", case.at("spec").text("name"));
        let last = detectors.at("river.ADWIN final");
        close(adwin.width(), last.number("width"), "width");
        close(adwin.mean(), last.number("estimation"), "mean");
    }
}

#[test]
fn laws_closest_in_the_ball() {
    for case in Golden::read("drift_streams.json").at("tv_projection").items() {
        let [p, q, expected] = ["p", "q", "p_star"].map(|name| case.at(name).numbers());
        let found = closest_in_ball(&p, &q, case.number("eps")).unwrap();
        found.iter().zip(&expected).for_each(|(found, expected)| close(*found, *expected, "p*"));
    }
}

#[test]
fn the_mixture_detector_goes_the_reference_trace() {
    for case in Golden::read("edetector.json").at("cases").items() {
        let mut detector = DriftDetector::<f64>::new(&case.at("p").numbers(), case.number("eps")).unwrap();
        let (h, expected, mut alarms) = (case.number("h"), case.at("log_stat").numbers(), Vec::new());
        for (index, batch) in case.at("batches").items().into_iter().enumerate() {
            let log_e = detector.add(&batch.counts()).unwrap();
            close(log_e, expected[index], &format!("batch {index}"));
            if log_e >= h {
                alarms.push(index as u64);
                detector.reset();
            }
        }
        assert_eq!(alarms, case.at("alarms").counts());
    }
}

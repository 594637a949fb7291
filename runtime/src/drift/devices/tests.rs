//! Fleets by seeded simulation: a thousand devices that see what the calibration saw, and others. `GANNET_PROOF=full`
//! multiplies the seeds and nothing else.

use gannet_stats::{clusters::Clusters, random::Random};

use super::*;
use crate::drift::{DriftConfig, State};

const DEVICES: u64 = 1000;
/// Time between two reports of a device.
const PERIOD_MS: u64 = 3_600_000;
/// Samples of a calibration, and values of one.
const SAMPLES: usize = 100;
const WIDTH: usize = 64;
/// Values of all samples.
const VALUES: u64 = (SAMPLES * WIDTH) as u64;

fn seeds(small: u64, full: u64) -> std::ops::Range<u64> {
    0..if std::env::var("GANNET_PROOF").is_ok_and(|wish| wish == "full") { full } else { small }
}

/// Draws what devices and calibrations see: values of one sample have a part in common, and a device has a part of its
/// own in all that it sees.
struct World {
    random: Random,
    /// Share of the variance that values of one sample have in common.
    common: f64,
    /// What each device's values have in common, to half of that share.
    devices: Vec<f64>,
}

impl World {
    fn new(seed: u64, common: f64) -> Self {
        let mut random = Random::new(seed);
        let devices = (0..DEVICES).map(|_| random.normal()).collect();
        Self { random, common, devices }
    }

    /// One value that a device sees.
    fn value(&mut self, device: u64, shift: f64) -> f64 {
        let of_device = self.devices[usize::try_from(device % DEVICES).unwrap()];
        let share = self.common / 2.0;
        share.sqrt() * of_device + (1.0 - share).sqrt() * self.random.normal() + shift
    }

    /// A bundle whose calibration is worth what its samples say, as the compiler has it, or so many rows.
    fn bundle(&mut self, sequence: u64, rows: Option<u64>) -> Arc<DeviceBundle> {
        let mut sample = || -> Vec<f64> {
            let common = self.random.normal();
            let own = std::iter::repeat_with(|| self.random.normal()).take(WIDTH);
            own.map(|own| self.common.sqrt() * common + (1.0 - self.common).sqrt() * own).collect()
        };
        let samples: Vec<Vec<f64>> = (0..SAMPLES).map(|_| sample()).collect();
        let values: Vec<Option<f64>> = samples.iter().flatten().copied().map(Some).collect();
        let reference = Arc::new(Reference::of_numbers(&values).unwrap());
        let mut clusters = Clusters::new(reference.bins.count());
        for sample in &samples {
            let mut counts = vec![0; reference.bins.count()];
            sample.iter().for_each(|value| counts[reference.bins.bin(Value::Number(*value))] += 1);
            clusters.push(&counts);
        }
        let rows = rows.unwrap_or_else(|| clusters.effective());
        let input = |name: &str| DeviceInput { name: name.into(), reference: Arc::clone(&reference), rows };
        Arc::new(DeviceBundle {
            model: ModelName::new("m").unwrap(),
            version: Version::new("1").unwrap(),
            sequence,
            inputs: vec![input("x"), input("y")],
        })
    }
}

fn shared(watch: &DeviceWatch, now_ms: u64) -> Shared {
    Shared { config: DriftConfig::default(), sources: watch.sources(), factor: 1.0, now_ms }
}

/// Reports of so many rounds of the fleet, and the last report; `y` alone is shifted.
fn fleet(world: &mut World, bundle: &Arc<DeviceBundle>, rounds: u64, shift: f64) -> Report {
    let mut watch = DeviceWatch::new(bundle, 0);
    for row in 0..rounds * DEVICES {
        let shared = shared(&watch, row * PERIOD_MS / DEVICES);
        watch.push(&[Some(world.value(row, 0.0)), Some(world.value(row, shift))], &shared);
    }
    let shared = shared(&watch, rounds * PERIOD_MS);
    watch.look(&shared);
    watch.report(&shared)
}

#[test]
fn a_fleet_that_sees_what_the_calibration_saw_raises_no_alarm() {
    // a day of hourly reports, for samples whose values are alike, somewhat alike, and independent
    for common in [1.0, 0.3, 0.0] {
        let days = seeds(4, 200);
        let alarms: Vec<u64> = days.clone().filter(|seed| day(*seed, common, None).alarms > 0).collect();
        println!("common {common}: {} of {} days with an alarm", alarms.len(), days.end);
        // the budget is one in thirty
        assert!(alarms.len() as u64 <= days.end / 30, "common {common}: seeds {alarms:?}");
    }
}

/// A day of hourly reports of a fleet that sees what its calibration saw.
fn day(seed: u64, common: f64, rows: Option<u64>) -> Report {
    let mut world = World::new(seed, common);
    let bundle = world.bundle(1, rows);
    let report = fleet(&mut world, &bundle, 24, 0.0);
    assert_eq!(report.rows, 24 * DEVICES);
    report
}

#[test]
fn values_of_one_sample_are_not_worth_as_many_samples() {
    // taken for 6,400 values, a hundred samples that say one thing each would be found to differ
    let alarms = seeds(4, 200).filter(|seed| day(*seed, 1.0, Some(VALUES)).alarms > 0).count();
    assert!(alarms >= 3, "{alarms}");
}

#[test]
fn a_fleet_that_sees_something_else_is_an_alarm_that_names_the_input() {
    for (common, shift) in [(1.0, 1.25), (0.0, 0.5)] {
        for seed in seeds(4, 200) {
            let mut world = World::new(seed, common);
            let bundle = world.bundle(1, None);
            let report = fleet(&mut world, &bundle, 2, shift);
            let alarm = report.alarm.unwrap_or_else(|| panic!("seed {seed}, common {common}: no alarm"));
            assert!(alarm.culprits.contains(&"y".to_owned()), "seed {seed}: {:?}", alarm.culprits);
            assert!(alarm.rows <= 2 * DEVICES, "seed {seed}, common {common}: after {} rows", alarm.rows);
            assert_eq!((report.source, report.baseline), (Source::Devices { sequence: 1 }, "calibration"));
        }
    }
}

#[test]
fn an_input_of_which_nothing_is_said_is_not_missing() {
    let mut world = World::new(3, 0.0);
    let bundle = world.bundle(1, None);
    let mut watch = DeviceWatch::new(&bundle, 0);
    for row in 0..2 * DEVICES {
        let shared = shared(&watch, row);
        let said = (row % 3 == 0).then(|| world.value(row, 0.0));
        watch.push(&[said, None], &shared);
    }
    let shared = shared(&watch, 2 * DEVICES);
    let report = watch.report(&shared);
    let looked_at = |at: usize| report.features[at].current.iter().sum::<f64>() > 0.5;
    assert_eq!((report.state, looked_at(0), looked_at(1)), (State::Ok, true, false), "{report:?}");
}

#[test]
fn a_watch_ends_with_its_bundle_or_once_a_newer_one_has_taken_its_place() {
    let mut world = World::new(1, 0.0);
    let bundles = [1, 2].map(|sequence| world.bundle(sequence, None));
    let heard_ms = [5, 1000];
    let watches = || -> BTreeMap<Key, DeviceWatch> {
        let one = |(bundle, at): (&Arc<DeviceBundle>, u64)| {
            let mut watch = DeviceWatch::new(bundle, 0);
            let shared = shared(&watch, at);
            watch.push(&[Some(0.0), Some(0.0)], &shared);
            ((bundle.model.clone(), bundle.sequence), watch)
        };
        bundles.iter().zip(heard_ms).map(one).collect()
    };
    let left = |mut watches: BTreeMap<Key, DeviceWatch>, now_ms: u64| -> Vec<u64> {
        end_replaced(&mut watches, now_ms);
        watches.keys().map(|(_, sequence)| *sequence).collect()
    };
    assert_eq!(left(watches(), REPLACED_MS + 4), [1, 2]);
    assert_eq!(left(watches(), REPLACED_MS + 5), [2]);
    // the newest stays, however silent it is
    assert_eq!(left(watches(), 100 * REPLACED_MS), [2]);
    let of_gone = watches();
    let [old, new] = bundles;
    drop(new);
    assert_eq!(left(of_gone, 6), [1]);
    assert_eq!(Arc::weak_count(&old), 0);
}

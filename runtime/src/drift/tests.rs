//! Baselines out of rows, what is found in a row, and rows of devices on their way through the thread.

use bytes::Bytes;
use gannet_models::{DType, Dim, Signature, TensorSpec, Version};
use gannet_stats::{
    monitor::{Bins, Reference, Value},
    random::Random,
};

use super::{
    baseline::{FORMAT, Of},
    plan::Found,
    row::TensorRow,
    *,
};
use crate::{Tensor, clock, tensor::Shape};

/// Bound of what is waited for.
const WAIT_NS_MAX: u64 = 60_000_000_000;

fn spec(name: &str, dtype: DType, dims: &[usize], labels: &[&str]) -> TensorSpec {
    let shape = std::iter::once(Dim::Dynamic(None)).chain(dims.iter().map(|dim| Dim::Fixed(*dim))).collect();
    let labels: Vec<String> = labels.iter().map(|label| (*label).to_owned()).collect();
    TensorSpec { name: name.into(), dtype, shape, labels: (!labels.is_empty()).then(|| labels.into()) }
}

fn signature() -> Signature {
    Signature {
        inputs: vec![spec("x", DType::Fp32, &[3], &[]), spec("city", DType::Bytes, &[1], &[])],
        outputs: vec![spec("label", DType::Int64, &[], &[]), spec("p", DType::Fp32, &[2], &["no", "yes"])],
        batched: true,
    }
}

fn floats(values: &[f32]) -> Tensor {
    let data: Vec<u8> = values.iter().flat_map(|value| value.to_le_bytes()).collect();
    Tensor { dtype: DType::Fp32, shape: Shape::from_slice(&[1, values.len()]), data: Bytes::from(data) }
}

fn builder(rows: usize) -> Builder {
    let mut random = Random::new(2);
    let mut builder = Builder::new(&signature());
    builder.name(0, vec!["a".into(), "b".into()]);
    for row in 0..rows {
        let mut number = |mean: f64| CellValue::Number(mean + random.normal());
        let x = vec![number(0.0), number(10.0), if row % 10 == 0 { CellValue::Missing } else { number(5.0) }];
        let p = if row % 4 == 0 { [0.8, 0.2] } else { [0.1, 0.9] };
        let label = Tensor {
            dtype: DType::Int64,
            shape: Shape::from_slice(&[1]),
            data: Bytes::copy_from_slice(&1i64.to_le_bytes()),
        };
        let outputs: Tensors = [label, floats(&p)].into_iter().collect();
        builder.push(vec![x, vec![CellValue::text(["Oslo", "Bern"][row % 2].into())]], Some(&outputs));
    }
    builder
}

#[test]
fn rows_become_a_baseline_that_is_read_as_it_was_written() {
    let baseline = builder(1000).finish(50).unwrap();
    let names = |tensors: &[baseline::TensorBaseline]| -> Vec<String> {
        tensors.iter().flat_map(|tensor| tensor.features.iter().map(|feature| feature.name.clone())).collect()
    };
    assert_eq!(names(&baseline.inputs), ["a", "b", "x[2]", "x distance", "city"]);
    assert_eq!(names(&baseline.outputs), ["p score", "p class"], "the label is the class once more");
    let of = |tensor: usize, feature: usize| &baseline.inputs[tensor].features[feature].reference;
    let Bins::Numeric(bins) = &of(0, 2).bins else { panic!("numbers") };
    assert_eq!(of(0, 2).counts.counts[bins.special()[2]], 100, "missing values have a bin");
    let Bins::Category(classes) = &baseline.outputs[0].features[1].reference.bins else { panic!("classes") };
    assert_eq!(classes.categories().collect::<Vec<_>>(), ["yes", "no"]);
    assert_eq!(baseline.samples.len(), 0, "rows with texts are not kept");
    let text = serde_json::to_string(&baseline).unwrap();
    assert_eq!(serde_json::from_str::<Baseline>(&text).unwrap(), baseline);
    assert_eq!(baseline.check(&signature()), Ok(()));
    let fault = |change: &dyn Fn(&mut Baseline)| {
        let mut wrong = baseline.clone();
        change(&mut wrong);
        wrong.check(&signature()).unwrap_err()
    };
    assert!(fault(&|b| b.format = FORMAT + 1).contains("format"));
    assert!(fault(&|b| b.inputs[0].name = "y".into()).contains("the model has x, city"));
    assert!(fault(&|b| b.inputs[0].features[0].reference.counts.counts.truncate(3)).contains("counts"));
    assert!(fault(&|b| b.inputs[0].features[0].of = Of::Component(0)).contains("component"));
}

#[test]
fn features_are_found_in_a_row() {
    let baseline = builder(1000).finish(0).unwrap();
    let features = plan::of_baseline(&signature(), &baseline);
    let find = |name: &str, row: &TensorRow| -> String {
        let feature = features.iter().find(|feature| feature.name == name).unwrap();
        match feature.find(row) {
            Found::Class(class) => class,
            Found::Borrowed(Value::Number(number)) => format!("{number:.1}"),
            Found::Borrowed(Value::Text(text)) => text.to_owned(),
            Found::Borrowed(Value::Missing) => "missing".into(),
        }
    };
    let row = TensorRow::Numbers(vec![0.0, 10.0, 5.0]);
    assert_eq!((find("b", &row), find("x distance", &row)), ("10.0".into(), "0.0".into()));
    assert_eq!(find("x distance", &TensorRow::Numbers(vec![30.0, 10.0, 5.0])), "17.3");
    assert_eq!(find("x[2]", &TensorRow::Numbers(vec![0.0])), "missing");
    let p = TensorRow::Numbers(vec![0.3, 0.7]);
    assert_eq!((find("p score", &p), find("p class", &p)), ("0.7".into(), "yes".into()));
    assert_eq!(find("city", &TensorRow::Texts(vec!["Bern".into()])), "Bern");
    assert_eq!(find("city", &TensorRow::Texts(vec![String::new()])), "missing");
}

#[test]
fn an_embedding_is_watched_by_its_directions() {
    let wide = Signature {
        inputs: vec![spec("e", DType::Fp32, &[64], &[])],
        outputs: vec![spec("y", DType::Fp32, &[1], &[])],
        batched: true,
    };
    let mut random = Random::new(5);
    let mut builder = Builder::new(&wide);
    builder.embed(0);
    for _ in 0..500 {
        let along = 5.0 * random.normal();
        let row = (0..64).map(|at| CellValue::Number(along * f64::from(at % 2) + random.normal())).collect();
        builder.push(vec![row], Some(&std::iter::once(floats(&[1.0])).collect()));
    }
    let baseline = builder.finish(10).unwrap();
    assert_eq!(baseline.inputs[0].features.len(), 33, "32 components and the distance");
    assert_eq!((baseline.samples.len(), baseline.samples[0][0].len()), (10, 64));
    assert_eq!(baseline.check(&wide), Ok(()));
    let features = plan::of_baseline(&wide, &baseline);
    let row = TensorRow::Numbers((0..64).map(|at| 5.0 * f64::from(at % 2)).collect());
    let Found::Borrowed(Value::Number(score)) = features[0].find(&row) else { panic!("a number") };
    assert!(score.abs() > 20.0, "{score}");
}

fn device_bundle(sequence: u64) -> Arc<DeviceBundle> {
    let values: Vec<Option<f64>> = (0..100).map(|at| Some(f64::from(at))).collect();
    let reference = Arc::new(Reference::of_numbers(&values).unwrap());
    let input = |name: &str| DeviceInput { name: name.into(), reference: Arc::clone(&reference), rows: 100 };
    Arc::new(DeviceBundle {
        model: ModelName::new("m").unwrap(),
        version: Version::new("1").unwrap(),
        sequence,
        inputs: vec![input("x"), input("y")],
    })
}

#[test]
fn rows_of_devices_are_taken_until_too_many_wait_and_the_others_are_counted() {
    let ((samples, _samples), (outcomes, _outcomes)) = (bounded(1), bounded(1));
    let (device_rows, waiting) = bounded(DEVICE_ROWS_MAX + 1);
    let shared = Arc::new(Shared::default());
    let drift = Drift { config: DriftConfig::default(), samples, outcomes, device_rows, shared };
    let bundle = device_bundle(1);
    let taken = (0..DEVICE_ROWS_MAX + 5).filter(|_| drift.device_row(&bundle, vec![Some(1.0), None])).count();
    assert_eq!((taken, waiting.len(), drift.device_rows_dropped()), (DEVICE_ROWS_MAX, DEVICE_ROWS_MAX, 5));
}

#[test]
fn devices_share_the_budget_and_end_with_their_bundle() {
    let (drift, thread) = Drift::start(DriftConfig { nice: 0, ..DriftConfig::default() }).unwrap();
    let [old, new] = [4, 7].map(device_bundle);
    let wait = |expected: &[(u64, u64, usize)]| {
        let until = clock::now().as_ns() + WAIT_NS_MAX;
        let found = || -> Vec<(u64, u64, usize)> {
            let of = |report: &Arc<Report>| match report.source {
                Source::Devices { sequence } => (sequence, report.rows, report.sources),
                Source::Requests => panic!("{report:?}"),
            };
            drift.reports().iter().map(of).collect()
        };
        while found() != expected {
            assert!(clock::now().as_ns() < until, "{:?}, expected {expected:?}", found());
            let _ = crossbeam::channel::after(std::time::Duration::from_millis(5)).recv();
        }
    };
    for _ in 0..3 {
        assert!(drift.device_row(&new, vec![Some(1.0), Some(2.0)]));
    }
    assert!(drift.device_row(&old, vec![Some(1.0), Some(2.0)]));
    // each report knows of all that can raise an alarm
    wait(&[(4, 1, 4), (7, 3, 4)]);
    drop(old);
    wait(&[(7, 3, 2)]);
    // published anew with its sequence: another bundle, of which nothing is known yet
    let newer = device_bundle(7);
    assert!(drift.device_row(&newer, vec![None, Some(2.0)]));
    wait(&[(7, 1, 2)]);
    assert_eq!((drift.device_rows_dropped(), drift.dropped()), (0, 0));
    drift.stop();
    thread.join().unwrap();
}

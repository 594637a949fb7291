//! What does watching for drift cost: a request that is not sampled, and a value of one that is, on the thread that looks?
//! Watches the countdown of the path, and the search for a value's bin, with one feature and with a hundred that take turns,
//! as a row's do. Expected before measuring: under 1 ns a request beyond an empty loop, 5 ns a number, 20 ns a category.

use std::hint::black_box;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use gannet_benches::plane::{MODEL, Plane};
use gannet_models::DType;
use gannet_runtime::{
    Tensor,
    drift::{Drift, DriftConfig, Sampled},
    tensor::Shape,
};
use gannet_stats::{
    monitor::{FeatureMonitor, Reference, Thresholds, Value},
    random::Random,
};

const VALUES: usize = 4096;
const FEATURES: usize = 100;

fn path(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("path");
    group.bench_function("empty", |bench| bench.iter(|| black_box(true)));
    for (name, rate) in [("off", None), ("rate_0.0001", Some(0.0001)), ("rate_0.01", Some(0.01))] {
        let drift = rate.map(|rate| {
            Drift::start(DriftConfig { rate, cpu_ratio_max: 1.0, ..DriftConfig::default() })
                .expect("a thread")
                .0
        });
        let plane = Plane::start_watched(drift.clone());
        plane.swap_to(1);
        let servable = plane.table().resolve(MODEL, None).expect("it serves");
        let input = &servable.signature.inputs[0];
        assert_eq!(input.dtype, DType::Fp32);
        let tensor =
            Tensor { dtype: DType::Fp32, shape: Shape::from_slice(&[1, 1]), data: vec![0; 4].into() };
        let checked = servable.contract().check([(input.name.as_str(), tensor)]);
        let checked = checked.expect("a request that fits");
        group.bench_function(name, |bench| {
            bench.iter(|| Sampled::new(black_box(&servable), &checked).is_some())
        });
        drift.inspect(|drift| drift.stop());
    }
    group.finish();
}

fn values(criterion: &mut Criterion) {
    let mut random = Random::new(7);
    let numbers: Vec<f64> = (0..VALUES).map(|_| random.normal()).collect();
    let reference: Vec<Option<f64>> = (0..10_000).map(|_| Some(random.normal())).collect();
    let reference = Reference::of_numbers(&reference).expect("numbers");
    let mut numeric = FeatureMonitor::new(reference).expect("a feature");
    let mut hundred: Vec<FeatureMonitor> = (0..FEATURES).map(|_| numeric.clone()).collect();
    let names: Vec<String> = (0..200).map(|index| format!("category {index}")).collect();
    let known: Vec<Option<&str>> = (0..10_000).map(|row| Some(names[row % 200].as_str())).collect();
    let mut category = FeatureMonitor::new(Reference::of_categories(&known)).expect("a feature");
    let mut group = criterion.benchmark_group("value");
    group.throughput(Throughput::Elements(VALUES as u64));
    group.bench_function("number", |bench| {
        bench.iter(|| numbers.iter().for_each(|value| numeric.push(Value::Number(black_box(*value)))));
    });
    group.throughput(Throughput::Elements((VALUES / FEATURES * FEATURES) as u64));
    group.bench_function("number_of_a_row", |bench| {
        bench.iter(|| {
            for row in numbers.as_chunks::<FEATURES>().0 {
                let values = hundred.iter_mut().zip(row);
                values.for_each(|(feature, value)| feature.push(Value::Number(black_box(*value))));
            }
        });
    });
    group.throughput(Throughput::Elements(VALUES as u64));
    group.bench_function("category", |bench| {
        bench.iter(|| {
            (0..VALUES).for_each(|row| category.push(Value::Text(black_box(&names[row * 7 % 200]))))
        });
    });
    group.finish();
    println!("{} bytes a number, {} bytes a category of 200", numeric.bytes(), category.bytes());
    let mut thresholds = Thresholds::new(0.0001);
    criterion.bench_function("scores_of_100_features", |bench| {
        bench.iter(|| (0..100).for_each(|_| drop(black_box(numeric.under_way(&mut thresholds)))));
    });
}

criterion_group!(benches, path, values);
criterion_main!(benches);

//! What do finding the model, counting the request and asking whether it is sampled cost together? They are on every
//! request's way. Expected before measuring: under 100 ns, clock reads excluded.

use std::hint::black_box;

use criterion::{Criterion, criterion_group, criterion_main};
use gannet_benches::plane::{MODEL, Plane};
use gannet_runtime::metrics::{BatchSample, ModelStats, Outcome};
use gannet_stats::gate::Gate;

/// Requests of one turn.
const TURN: u64 = 32;

fn request(criterion: &mut Criterion) {
    let plane = Plane::start();
    plane.swap_to(1);
    let table = plane.table();
    let stats = ModelStats::default();
    let mut gate = Gate::new(0.01, 7);
    let sample = BatchSample { requests: TURN, rows: 32, assemble_ns: 1, compute_ns: 9, scatter_ns: 1 };
    let mut group = criterion.benchmark_group("request");
    group.bench_function("counters", |bench| {
        bench.iter(|| {
            stats.queued(black_box(15_000));
            stats.finished(Outcome::Ok, black_box(40_000), 1);
        });
    });
    group.bench_function("batch_counters", |bench| bench.iter(|| stats.batch(black_box(&sample))));
    group.bench_function("table_counters_and_gate", |bench| {
        bench.iter(|| {
            let servable = table.resolve(black_box(MODEL), None);
            stats.queued(black_box(15_000));
            stats.finished(Outcome::Ok, black_box(40_000), 1);
            (servable, gate.admits())
        });
    });
    group.finish();
}

criterion_group!(benches, request);
criterion_main!(benches);

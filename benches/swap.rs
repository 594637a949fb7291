//! What does a swap cost the control plane, and what does it cost requests that look at the table meanwhile? Watches
//! the publishing of a table, not the loading of a model: that one is a fake. Expected before measuring: some hundred
//! microseconds a swap, most of it threads waking each other; 30 ns a look, swaps or not.

use std::{
    hint::black_box,
    sync::atomic::{AtomicBool, Ordering},
};

use criterion::{Criterion, criterion_group, criterion_main};
use gannet_benches::plane::{MODEL, Plane};

fn swap(criterion: &mut Criterion) {
    let plane = Plane::start();
    plane.swap_to(1);
    let mut group = criterion.benchmark_group("swap");
    group.sample_size(20);
    group.bench_function("reload", |bench| bench.iter(|| plane.reload(1)));
    let table = plane.table();
    let look = || table.resolve(black_box(MODEL), None).is_ok();
    group.bench_function("look_at_rest", |bench| bench.iter(look));
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !stop.load(Ordering::Relaxed) {
                plane.reload(1);
            }
        });
        group.bench_function("look_during_swaps", |bench| bench.iter(look));
        stop.store(true, Ordering::Relaxed);
    });
    group.finish();
}

criterion_group!(benches, swap);
criterion_main!(benches);

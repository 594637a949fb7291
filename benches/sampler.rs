//! What does it cost a request not to be sampled? Watches the gate that every request passes. Expected before
//! measuring: under 1 ns.

use criterion::{Criterion, criterion_group, criterion_main};
use gannet_stats::gate::Gate;

fn gate(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("gate");
    for rate in [0.0, 0.01, 1.0] {
        let mut gate = Gate::new(rate, 7);
        group.bench_function(format!("rate_{rate}"), |bench| bench.iter(|| gate.admits()));
    }
    group.finish();
}

criterion_group!(benches, gate);
criterion_main!(benches);

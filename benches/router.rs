//! What does it cost to find out what a request asks for? Watches paths into calls and names into loaded versions.
//! Expected before measuring: 30 ns for the path of an inference, 30 ns for the table.

use std::hint::black_box;

use criterion::{Criterion, criterion_group, criterion_main};
use gannet_benches::plane::{MODEL, Plane};
use gannet_server::http::route;
use http::Method;

fn find(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("path");
    for path in ["/v2/models/digits/infer", "/v2/models/digits/versions/12/infer", "/v2/health/ready"] {
        let method = if path.ends_with("infer") { Method::POST } else { Method::GET };
        group.bench_function(path, |bench| bench.iter(|| route::parse(&method, black_box(path)).is_ok()));
    }
    group.finish();
    let plane = Plane::start();
    plane.swap_to(1);
    let table = plane.table();
    let mut group = criterion.benchmark_group("table");
    group.bench_function("by_name", |bench| bench.iter(|| table.resolve(black_box(MODEL), None).is_ok()));
    group.bench_function("by_version", |bench| {
        bench.iter(|| table.resolve(black_box(MODEL), Some("1")).is_ok())
    });
    group.bench_function("unknown", |bench| bench.iter(|| table.resolve(black_box("nobody"), None).is_err()));
    group.finish();
}

criterion_group!(benches, find);
criterion_main!(benches);

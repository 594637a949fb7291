//! What does an inference body in JSON cost, against a library's tree of it? Watches the own scanner: it must stay at
//! least twice as fast as `serde_json::Value` on large tensors, which alone justifies it. Read the ratio of two lines
//! of one run; absolute figures drift with the machine. Expected before measuring: 14 ns a value against 34.

use std::{fmt::Write as _, hint::black_box};

use bytes::Bytes;
use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use gannet_runtime::clock;
use gannet_server::http::codec;

/// A body with `count` floats of 6 to 8 digits.
fn body(count: usize) -> Bytes {
    let mut text = format!(r#"{{"inputs":[{{"name":"x","shape":[1,{count}],"datatype":"FP32","data":["#);
    let mut state = 1u64;
    for index in 0..count {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        let value = f64::from(u32::try_from(state >> 40).unwrap_or(0)) / 1e7;
        let comma = if index == 0 { "" } else { "," };
        // writing into a String does not fail
        let _ = write!(text, "{comma}{value}");
    }
    text.push_str("]}]}");
    Bytes::from(text)
}

fn parse(criterion: &mut Criterion) {
    for count in [4, 1000, 150_528] {
        let body = body(count);
        let mut group = criterion.benchmark_group(format!("parse_{count}"));
        group.throughput(Throughput::Elements(count as u64));
        group.bench_function("gannet", |bench| {
            bench.iter(|| codec::decode(black_box(&body), body.len(), clock::now()).is_ok());
        });
        group.bench_function("serde_json_value", |bench| {
            bench.iter(|| serde_json::from_slice::<serde_json::Value>(black_box(&body)).is_ok());
        });
        group.finish();
    }
}

criterion_group!(benches, parse);
criterion_main!(benches);

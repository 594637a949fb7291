//! What does the queue cost a request? Watches the batcher's bookkeeping: a turn of 32 requests must stay far below the
//! microseconds that its kernel calls take. Expected before measuring: under 50 ns a request.

use std::hint::black_box;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use gannet_runtime::{
    Time,
    batch::queue::{Entry, GroupKey, Queue},
};

/// Requests of one turn.
const TURN: usize = 32;

fn queue(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("turn");
    group.throughput(Throughput::Elements(TURN as u64));
    group.bench_function("push_and_take", |bench| {
        let (mut batch, mut dropped) = (Vec::new(), Vec::new());
        bench.iter(|| {
            let mut queue = Queue::default();
            for payload in 0..TURN {
                let queued = Time::from_ns(payload as u64);
                let group = GroupKey::new();
                queue.push(Entry { rows: 1, group, priority: 0, queued, deadline: None, payload });
            }
            queue.take(64, &mut |_| false, &mut batch, &mut dropped);
            black_box(batch.drain(..).map(|entry| entry.payload).sum::<usize>())
        });
    });
    group.finish();
}

criterion_group!(benches, queue);
criterion_main!(benches);

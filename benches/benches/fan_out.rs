//! How long one batch takes to reach the outboxes of its subscribers, once it is stored.
//!
//! Every subscriber has a session of its own, which hears that the room grew, reads the batch from the tail and puts it
//! into its outbox; the write into the socket is left out. The throughput counts deliveries: messages times subscribers.

use std::time::{Duration, Instant};

use broker_benches::paths::FanOut;
use criterion::{Criterion, Throughput, criterion_group, criterion_main};

fn fan_out(c: &mut Criterion) {
    let mut group = c.benchmark_group("fan_out");
    for (subscribers, count, size) in [
        (1_u16, 1_u32, 128_usize),
        (1, 256, 128),
        (10, 64, 128),
        (100, 1, 128),
        (100, 64, 128),
        (100, 64, 1024),
        (1000, 64, 128),
        (1000, 64, 1024),
    ] {
        let mut room = FanOut::new(subscribers, count, size);
        group.throughput(Throughput::Elements(
            u64::from(subscribers) * u64::from(count),
        ));
        group.bench_function(format!("{subscribers}x{count}/{size}B"), |b| {
            b.iter_custom(|rounds| {
                let mut time = Duration::ZERO;
                for _ in 0..rounds {
                    room.store();
                    let began = Instant::now();
                    room.deliver();
                    time += began.elapsed();
                    room.credit();
                }
                time
            });
        });
    }
    group.finish();
}

criterion_group! {
    name = benches;
    config = Criterion::default().sample_size(20);
    targets = fan_out
}
criterion_main!(benches);

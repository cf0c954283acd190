//! How long the writer takes to decide on a batch and to build it, without a disk.
//!
//! `publishers x window` as in `append`, whose time for the same batch less this one's is what the disk costs.
//! `again` is a batch that was stored before: it is recognised and acknowledged, and not written.

use broker_benches::{Bench, Publisher};
use criterion::{Criterion, Throughput, criterion_group, criterion_main};

fn sequencer(c: &mut Criterion) {
    let mut group = c.benchmark_group("sequencer");
    for (publishers, window, size) in [
        (1_u8, 1_u32, 128_usize),
        (1, 256, 128),
        (64, 1, 128),
        (64, 16, 128),
        (64, 16, 1024),
    ] {
        let mut bench = Bench::nowhere();
        let mut all: Vec<Publisher> = (0..publishers)
            .map(|n| Publisher::new(n, "lobby", window, size))
            .collect();
        let messages = u64::from(publishers) * u64::from(window);
        group.throughput(Throughput::Elements(messages));
        let mut round = |send: fn(&mut Publisher, &Bench<_>)| {
            for publisher in &mut all {
                send(publisher, &bench);
            }
            bench.settle();
            let acked: u32 = all.iter_mut().map(Publisher::acked).sum();
            assert_eq!(u64::from(acked), messages);
        };
        let name = format!("{publishers}x{window}/{size}B");
        group.bench_function(&name, |b| {
            b.iter(|| round(|publisher, bench| publisher.send(&*bench.store)));
        });
        group.bench_function(format!("{name}/again"), |b| {
            round(|publisher, bench| publisher.send(&*bench.store));
            b.iter(|| round(|publisher, bench| publisher.send_again(&*bench.store)));
        });
    }
    group.finish();
}

criterion_group!(benches, sequencer);
criterion_main!(benches);

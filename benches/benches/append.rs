//! How many messages the log takes, written and synced on the disk of the temporary directory.
//!
//! `publishers x window`: so many publishers each hand in one publish of so many messages, then the
//! log writes and syncs them as one batch. `broker_step` counts nothing but the writer: no sockets.
//! Set `TMPDIR` to the disk that is to be measured; a temporary directory in memory says nothing.

use broker_benches::{Bench, Publisher};
use criterion::{Criterion, Throughput, criterion_group, criterion_main};

fn append(c: &mut Criterion) {
    let mut group = c.benchmark_group("append");
    for (publishers, window, size) in [
        (1_u8, 1_u32, 128_usize),
        (1, 256, 128),
        (64, 16, 128),
        (64, 16, 1024),
        (32, 16, 16 << 10),
    ] {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let mut bench = Bench::open(dir.path());
        let mut all: Vec<Publisher> = (0..publishers)
            .map(|n| Publisher::new(n, "lobby", window, size))
            .collect();
        let messages = u64::from(publishers) * u64::from(window);
        group.throughput(Throughput::ElementsAndBytes {
            elements: messages,
            bytes: messages * size as u64,
        });
        group.bench_function(format!("{publishers}x{window}/{size}B"), |b| {
            b.iter(|| {
                for publisher in &mut all {
                    publisher.send(&*bench.store);
                }
                bench.settle();
                let acked: u32 = all.iter_mut().map(Publisher::acked).sum();
                assert_eq!(u64::from(acked), messages);
            });
        });
    }
    group.finish();
}

criterion_group! {
    name = benches;
    config = Criterion::default().sample_size(20).measurement_time(std::time::Duration::from_secs(3));
    targets = append
}
criterion_main!(benches);

//! How long a store takes to open, and to be read from the start.

use std::time::{Duration, Instant};

use broker_benches::{Bench, Publisher};
use broker_core::store::{Hint, Mailbox, ReadRange, Store};
use broker_proto::{RoomName, StartAt};
use criterion::{Criterion, Throughput, criterion_group, criterion_main};

const MESSAGES: u64 = 100_000;
const ROOMS: u32 = 100_000;

fn fill(dir: &std::path::Path, size: usize) {
    let mut bench = Bench::open(dir);
    let mut publisher = Publisher::new(1, "lobby", 1000, size);
    for _ in 0..MESSAGES / 1000 {
        publisher.send(&*bench.store);
        bench.engine.step();
        bench.engine.keep_house();
    }
    bench.engine.close();
    bench.engine.keep_house();
}

/// Rooms with one message each.
fn fill_rooms(dir: &std::path::Path) {
    let mut bench = Bench::open(dir);
    let mut publisher = Publisher::new(1, "lobby", 1, 128);
    for room in 0..ROOMS {
        publisher.enter(&format!("room-{room}"));
        publisher.send(&*bench.store);
        if room % 200 == 0 {
            bench.settle();
        }
    }
    bench.settle();
    bench.engine.close();
    bench.engine.keep_house();
}

/// How long it takes to open a store that was closed, so many times.
fn open(dir: &std::path::Path, times: u64) -> Duration {
    let mut total = Duration::ZERO;
    for _ in 0..times {
        let begun = Instant::now();
        let mut bench = Bench::open(dir);
        total += begun.elapsed();
        bench.engine.close();
        bench.engine.keep_house();
    }
    total
}

fn recovery(c: &mut Criterion) {
    let mut group = c.benchmark_group("recovery");
    group.sample_size(20);
    let dir = tempfile::tempdir().expect("a temporary directory");
    fill(dir.path(), 128);
    group.bench_function("open/100k x 128B", |b| {
        b.iter_custom(|n| open(dir.path(), n))
    });
    group.throughput(Throughput::Elements(MESSAGES));
    let bench = Bench::open(dir.path());
    group.bench_function("read/100k x 128B", |b| b.iter(|| read_all(&bench)));
    let rooms = tempfile::tempdir().expect("a temporary directory");
    fill_rooms(rooms.path());
    group.throughput(Throughput::Elements(u64::from(ROOMS)));
    group.bench_function("open/100k rooms", |b| {
        b.iter_custom(|n| open(rooms.path(), n))
    });
    group.finish();
}

fn read_all(bench: &Bench) {
    let mailbox = Mailbox::new();
    let mut from = StartAt::START;
    let mut hint = Hint::default();
    let mut count = 0;
    loop {
        let range = ReadRange {
            room: RoomName::parse("lobby").expect("a good name"),
            from,
            count_max: u32::MAX,
            bytes_max: 256 << 10,
            hint,
        };
        let reply = bench
            .store
            .read(range, 0, &mailbox)
            .expect("driven by hand, it answers at once")
            .expect("the room is there");
        count += u64::from(reply.count);
        if reply.next > reply.head {
            assert_eq!(count, MESSAGES);
            return;
        }
        from = StartAt::seq(reply.next);
        hint = reply.hint;
    }
}

criterion_group!(benches, recovery);
criterion_main!(benches);

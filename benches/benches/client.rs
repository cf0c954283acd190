//! How long the client library takes to send and to receive, with a broker that does next to nothing.
//!
//! All of it runs on one thread, with a real socket in between: the call, the frame, the write, the ack, the future.

use broker_benches::clients::{Pipe, WINDOW};
use criterion::{Criterion, Throughput, criterion_group, criterion_main};

fn client(c: &mut Criterion) {
    let mut group = c.benchmark_group("client");
    for size in [128, 1024] {
        let mut pipe = Pipe::new(size);
        for window in [1, 16, WINDOW] {
            group.throughput(Throughput::Elements(window.into()));
            group.bench_function(format!("send_all/{window}x{size}B"), |b| {
                b.iter(|| pipe.send_all(window));
            });
            group.bench_function(format!("send_each/{window}x{size}B"), |b| {
                b.iter(|| pipe.send_each(window));
            });
        }
        group.throughput(Throughput::Elements(WINDOW.into()));
        group.bench_function(format!("receive/{WINDOW}x{size}B"), |b| {
            b.iter(|| pipe.receive());
        });
    }
    group.finish();
}

criterion_group!(benches, client);
criterion_main!(benches);

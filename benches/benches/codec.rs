//! How long frames and records take to encode and decode.

use std::hint::black_box;

use broker_proto::record::{encode_message_head, next_record};
use broker_proto::{Decoder, RoomName, SenderName, limits, publish};
use bytes::BytesMut;
use criterion::{Criterion, Throughput, criterion_group, criterion_main};

fn entries(count: u32, size: usize) -> BytesMut {
    let payload = vec![b'x'; size];
    let mut body = BytesMut::new();
    for _ in 0..count {
        publish::encode_entry(&mut body, &payload, &[], crc32c::crc32c(&payload));
    }
    body
}

fn publish_frames(c: &mut Criterion) {
    let room = RoomName::parse("lobby").expect("a good name");
    let mut group = c.benchmark_group("publish");
    for size in [128, 1024, 16 << 10] {
        let count = 16;
        group.throughput(Throughput::Elements(u64::from(count)));
        let payload = vec![b'x'; size];
        group.bench_function(format!("encode/{size}B"), |b| {
            let mut body = BytesMut::new();
            b.iter(|| {
                body.clear();
                for _ in 0..count {
                    publish::encode_entry(&mut body, &payload, &[], crc32c::crc32c(&payload));
                }
                black_box(body.len())
            });
        });
        let body = entries(count, size);
        let mut frame = BytesMut::new();
        publish::encode_head(
            &mut frame,
            &room,
            1,
            count,
            &broker_proto::PublishExtensions::NONE,
            body.len(),
        );
        frame.extend_from_slice(&body);
        let mut decoder = Decoder::new();
        group.bench_function(format!("decode_and_check/{size}B"), |b| {
            b.iter_batched(
                || frame.clone(),
                |mut bytes| {
                    let frame = decoder
                        .decode(&mut bytes, limits::FRAME_BYTES_MAX)
                        .expect("a good frame");
                    let Some(broker_proto::Frame::Publish(publish)) = frame else {
                        panic!("not a publish")
                    };
                    publish::check(&publish.body, publish.count, size).expect("a good body");
                },
                criterion::BatchSize::SmallInput,
            );
        });
    }
    group.finish();
}

fn records(c: &mut Criterion) {
    let sender = SenderName::parse("bench").expect("a good name");
    let mut head = Vec::new();
    encode_message_head(&mut head, &sender, 0, &[]);
    let mut group = c.benchmark_group("record");
    for size in [128, 1024] {
        let payload = vec![b'x'; size];
        let mut bytes = BytesMut::new();
        for seq in 1..=100 {
            broker_proto::record::encode_message(
                &mut bytes,
                broker_proto::RoomId::new(1),
                broker_proto::Seq::new(seq),
                broker_proto::Micros::new(1),
                &head,
                &payload,
                crc32c::crc32c(&payload),
            );
        }
        group.throughput(Throughput::Elements(100));
        group.bench_function(format!("verify/{size}B"), |b| {
            b.iter(|| {
                let mut rest = &bytes[..];
                while let Some((record, after)) = next_record(rest).expect("good records") {
                    record.verify_payload().expect("a good payload");
                    rest = after;
                }
            });
        });
    }
    group.finish();
}

criterion_group!(benches, publish_frames, records);
criterion_main!(benches);

//! The hot paths whose instructions are counted: each does its work for a number of messages, again and again.
//!
//! Messages have 128 bytes, frames of the server's side 16 messages, which is what many publishers with a window of 16
//! send; a batch of the writer then has 1,024.

use std::hint::black_box;

use broker_proto::limits::FRAME_BYTES_MAX;
use broker_proto::{
    AckWriter, Decoder, Epoch, Frame, Level, PublishExtensions, RoomName, Seq, ack, publish,
};
use bytes::{Bytes, BytesMut};

use crate::clients::{self, Pipe};
use crate::sessions::{Line, entries};
use crate::{Bench, Nowhere, Publisher};

/// Payload of a message, in bytes.
const SIZE: usize = 128;
/// Messages of a frame.
const FRAME: u32 = 16;
/// Publishers, each with one frame in a batch.
const PUBLISHERS: u8 = 64;
/// Messages of a batch.
const BATCH: u64 = FRAME as u64 * PUBLISHERS as u64;
/// Subscribers that a batch is delivered to.
const SUBSCRIBERS: u8 = 64;

/// A way that every message goes.
#[derive(Debug, Clone, Copy)]
pub struct Path {
    /// What it is called on the command line.
    pub name: &'static str,
    /// What is counted.
    pub what: &'static str,
    /// Messages that it is counted with, a multiple of what it does at a time; then with twice as many.
    pub messages: u64,
    /// Instructions a message when this was written down last, built by Rust 1.95 for x86-64.
    pub recorded: f64,
    /// Does it for so many messages.
    pub run: fn(u64),
}

/// All of them.
pub const PATHS: &[Path] = &[
    Path {
        name: "publish-decode",
        what: "server: a publish frame is decoded and its checksums are verified",
        messages: 32 * BATCH,
        recorded: 308.4,
        run: decode_publishes,
    },
    Path {
        name: "append",
        what: "server: a batch is sequenced and built, without the disk",
        messages: 32 * BATCH,
        recorded: 971.4,
        run: append,
    },
    Path {
        name: "ack-encode",
        what: "server: the ack of a frame is encoded",
        messages: 128 * BATCH,
        recorded: 17.7,
        run: encode_acks,
    },
    Path {
        name: "publish",
        what: "server: all of it, from the bytes of a frame to the bytes of its ack",
        messages: 32 * BATCH,
        recorded: 1397.6,
        run: publish_through_sessions,
    },
    Path {
        name: "publish-one",
        what: "server: the same with one message a frame",
        messages: 32 * BATCH,
        recorded: 7516.0,
        run: publish_one_by_one,
    },
    Path {
        name: "deliver",
        what: "server: one delivery of a live message, to 64 subscribers in batches of 64, with a 64th of its append",
        messages: 32 * DELIVERIES,
        recorded: 108.4,
        run: deliver,
    },
    Path {
        name: "client-send-all",
        what: "client: a message of a bulk send, from the call to its ack",
        messages: 32 * CLIENT,
        recorded: 858.4,
        run: send_all,
    },
    Path {
        name: "client-send-each",
        what: "client: a message with a future of its own, from the call to its ack",
        messages: 32 * CLIENT,
        recorded: 1571.1,
        run: send_each,
    },
    Path {
        name: "client-receive",
        what: "client: a message is received, verified and taken out of the subscription",
        messages: 32 * CLIENT,
        recorded: 1130.5,
        run: receive,
    },
];

/// Messages that a client sends or receives at a time.
const CLIENT: u64 = clients::WINDOW as u64;
/// Messages of a live batch.
const LIVE: u32 = 64;
/// Deliveries of a live batch.
const DELIVERIES: u64 = LIVE as u64 * SUBSCRIBERS as u64;

fn decode_publishes(messages: u64) {
    let mut bytes = BytesMut::new();
    let mut decoder = Decoder::new();
    let room = RoomName::parse("lobby").expect("a good name");
    let body = entries(FRAME, SIZE);
    let mut frame = BytesMut::new();
    let (first, extensions) = (1, PublishExtensions::NONE);
    publish::encode_head(&mut frame, &room, first, FRAME, &extensions, body.len());
    frame.extend_from_slice(&body);
    for _ in 0..messages / u64::from(FRAME) {
        bytes.extend_from_slice(&frame);
        let decoded = decoder.decode(&mut bytes, FRAME_BYTES_MAX);
        let Ok(Some(Frame::Publish(publish))) = decoded else {
            panic!("not a publish");
        };
        publish::check(&publish.body, publish.count, SIZE).expect("good entries");
        black_box(publish);
    }
}

fn append(messages: u64) {
    let mut bench = Bench::nowhere();
    let mut all: Vec<Publisher> = (0..PUBLISHERS)
        .map(|n| Publisher::new(n, "lobby", FRAME, SIZE))
        .collect();
    for _ in 0..messages / BATCH {
        for publisher in &mut all {
            publisher.send(&*bench.store);
        }
        bench.settle();
        let acked: u32 = all.iter_mut().map(Publisher::acked).sum();
        assert_eq!(u64::from(acked), BATCH);
    }
}

fn encode_acks(messages: u64) {
    let mut writer = AckWriter::new();
    let mut out = BytesMut::new();
    for n in 0..messages / u64::from(FRAME) {
        writer.push(&ack::Run {
            room: "lobby",
            epoch: Epoch::new(7),
            first_number: n,
            count: FRAME,
            first_seq: Seq::new(n),
        });
        writer.finish(&mut out, Level::SYNCED, None);
        black_box(&out);
        out.clear();
    }
}

fn publish_through_sessions(messages: u64) {
    publish_frames(messages, FRAME, &entries(FRAME, SIZE));
}

fn publish_one_by_one(messages: u64) {
    publish_frames(messages, 1, &entries(1, SIZE));
}

/// All publishers send as many frames as make a batch, the writer takes it, all are answered.
fn publish_frames(messages: u64, count: u32, body: &Bytes) {
    let mut bench = Bench::nowhere();
    let store = std::sync::Arc::clone(&bench.store);
    let mut lines: Vec<Line<_>> = (0..PUBLISHERS)
        .map(|n| Line::welcomed(&store, n, "lobby"))
        .collect();
    for _ in 0..messages / BATCH {
        for line in &mut lines {
            for _ in 0..FRAME / count {
                line.publish(count, body);
            }
        }
        bench.settle();
        for line in &mut lines {
            assert!(line.turn() > 0, "no ack");
        }
    }
}

/// A room with subscribers that wait for what comes.
#[derive(Debug)]
pub struct FanOut {
    bench: Bench<Nowhere>,
    publisher: Publisher,
    lines: Vec<Line<broker_core::store::EmbeddedStore<Nowhere>>>,
    bytes_least: usize,
}

impl FanOut {
    /// A room with so many subscribers, and batches of `count` messages of `size` bytes.
    #[must_use]
    pub fn new(subscribers: u16, count: u32, size: usize) -> Self {
        let mut bench = Bench::nowhere();
        let mut publisher = Publisher::new(255, "lobby", count, size);
        publisher.send(&*bench.store);
        bench.settle();
        let mut lines: Vec<Line<_>> = (0..subscribers)
            .map(|_| Line::welcomed(&bench.store, 0, "lobby"))
            .collect();
        for line in &mut lines {
            line.subscribe();
        }
        Self {
            bench,
            publisher,
            lines,
            bytes_least: count as usize * size,
        }
    }

    /// Stores a batch, which wakes the subscribers.
    pub fn store(&mut self) {
        self.publisher.send(&*self.bench.store);
        self.bench.settle();
        self.publisher.acked();
    }

    /// Delivers the batch to all subscribers.
    ///
    /// # Panics
    /// When one does not get all of it.
    pub fn deliver(&mut self) {
        for line in &mut self.lines {
            assert!(line.turn() > self.bytes_least, "not all was delivered");
        }
    }

    /// Lets the subscribers admit more.
    pub fn credit(&mut self) {
        self.lines.iter_mut().for_each(Line::credit);
    }
}

fn deliver(messages: u64) {
    let mut fan_out = FanOut::new(SUBSCRIBERS.into(), LIVE, SIZE);
    for _ in 0..messages / DELIVERIES {
        fan_out.store();
        fan_out.deliver();
        fan_out.credit();
    }
}

fn send_all(messages: u64) {
    let mut pipe = Pipe::new(SIZE);
    for _ in 0..messages / CLIENT {
        pipe.send_all(clients::WINDOW);
    }
}

fn send_each(messages: u64) {
    let mut pipe = Pipe::new(SIZE);
    for _ in 0..messages / CLIENT {
        pipe.send_each(clients::WINDOW);
    }
}

fn receive(messages: u64) {
    let mut pipe = Pipe::new(SIZE);
    for _ in 0..messages / CLIENT {
        pipe.receive();
    }
}

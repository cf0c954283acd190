//! What the fuzz targets and the tests of the scanner call: each function panics when an invariant
//! does not hold.
//!
//! Not part of the API.

use std::sync::Arc;

use broker_proto::{Micros, ProducerId, RoomId, RoomName, SenderName, Seq, StartAt, StoreId};
use bytes::{Bytes, BytesMut};

use super::batch::{BatchKind, BatchRun};
use super::builder::{BatchBuilder, Stamp};
use super::position::{LogPosition, Marker};
use super::scan::{Scanner, Step};
use super::segment::{DATA_OFFSET, SegmentHeader, SegmentId, SegmentName};
use super::state_record::RawRecord;
use super::storage::{AlignedBuf, MemoryStorage, Storage, StorageFile};
use super::window::Window;
use crate::clock::{ManualClock, SeededRandom};
use crate::store::{
    Append, EmbeddedConfig, EmbeddedStore, Engine, Hint, Mailbox, Notice, ProducerKey, ReadRange,
    SessionId, Store,
};

/// A message as the scanner sees it: room, seq, payload.
pub type Told = (RoomId, Seq, Bytes);

/// What the scanner found at a place.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Found {
    /// Where the batch begins.
    pub at: u64,
    /// Whether part of it had to be put together.
    pub damaged: bool,
    /// Its messages that are whole.
    pub messages: Vec<Told>,
}

/// Builds the batch that a writer with this marker would write at a place.
#[must_use]
pub fn batch(marker: u64, at: u64, messages: &[Told]) -> Vec<u8> {
    let mut buf = AlignedBuf::new();
    let mut builder = BatchBuilder::default();
    builder.begin(&mut buf);
    for (room, seq, payload) in messages {
        builder.record(&mut buf, *room, *seq, |buf| {
            let mut record = Vec::new();
            let crc = super::bytes::crc32c(&[payload]);
            let time = Micros::new(1);
            broker_proto::record::encode_message(
                &mut record,
                *room,
                *seq,
                time,
                b"\x03ann\x00",
                payload,
                crc,
            );
            buf.extend_from_slice(&record);
        });
    }
    let stamp = Stamp {
        marker: Marker(marker),
        position: LogPosition::new(at),
        durable_upto: LogPosition::new(at),
        term: 1,
        time: 1,
        checkpoint: LogPosition::NONE,
    };
    builder.finish(&mut buf, BatchKind::Records, &stamp);
    buf.as_slice().to_vec()
}

/// Scans a stretch of a log that begins at place 0, all of which was written.
///
/// # Panics
/// When the scanner does not get on, comes back to where it was, or allows itself more than is
/// there.
#[must_use]
pub fn scan_log(marker: u64, log: &[u8]) -> Vec<Found> {
    let storage = MemoryStorage::new();
    let file = storage.create("segment").expect("an empty directory");
    file.write_at(DATA_OFFSET, log).expect("memory");
    let header = SegmentHeader {
        store: StoreId::NONE,
        name: SegmentName {
            id: SegmentId(1),
            generation: 0,
        },
        covers_last: SegmentId(1),
        marker: Marker(marker),
        base: LogPosition::START,
        term: 1,
        created: 0,
        previous: SegmentId(0),
        checkpoint: LogPosition::NONE,
        batch_align: 8,
        feature_level: 0,
    };
    let limit = LogPosition::new(log.len() as u64);
    let window = Window::new(file, header, 0);
    let mut scanner = Scanner::new(window, LogPosition::START, limit);
    let mut found = Vec::new();
    let mut reached = LogPosition::START;
    for _ in 0..=log.len() {
        match scanner.step().expect("memory does not fail") {
            Step::End => return found,
            Step::Lost { from, upto } => {
                assert!(from >= reached && upto > from && upto <= limit);
                reached = upto;
            }
            Step::Batch(view) => {
                let at = view.head.position;
                assert!(at >= reached && view.head.end() <= limit && view.head.end() > at);
                reached = view.head.end();
                let mut messages = Vec::new();
                for run in view.runs() {
                    let lengths = view.lengths(&run);
                    messages.extend(whole_records(&mut scanner, at, &run, &lengths));
                }
                found.push(Found {
                    at: at.get(),
                    damaged: view.damaged,
                    messages,
                });
            }
        }
    }
    panic!("the scanner does not come to an end");
}

fn whole_records<F: StorageFile>(
    scanner: &mut Scanner<F>,
    at: LogPosition,
    run: &BatchRun,
    lengths: &[u32],
) -> Vec<Told> {
    let mut place = at.plus(u64::from(run.offset));
    let mut messages = Vec::new();
    for length in lengths {
        let read = scanner.window.bytes(place, *length as usize);
        let bytes = read.expect("memory does not fail");
        place = place.plus(u64::from(*length));
        let Some(bytes) = bytes else { continue };
        if let Some(record) = RawRecord::parse(&bytes)
            && record.head.room == run.room
            && record.payload_is_whole()
        {
            let payload = Bytes::copy_from_slice(record.payload());
            messages.push((record.head.room, record.head.seq, payload));
        }
    }
    messages
}

/// Any bytes as a log whose marker they begin with: the scanner ends, moves on only, and does not
/// read beyond. As they are, and as pieces of right batches with bytes of the input between them.
///
/// # Panics
/// When one of these does not hold.
pub fn scan(data: &[u8]) {
    let Some((marker, rest)) = data.split_first_chunk() else {
        return;
    };
    let marker = u64::from_le_bytes(*marker);
    let _ = scan_log(marker, data);
    let mut log = Vec::new();
    let mut seq = 1;
    for piece in rest.chunks(64) {
        let Some((what, piece)) = piece.split_first() else {
            break;
        };
        match what % 4 {
            0 => {
                let payload = Bytes::copy_from_slice(piece);
                let message = (
                    RoomId::new(1 + u32::from(*what) % 3),
                    Seq::new(seq),
                    payload,
                );
                log.extend_from_slice(&batch(marker, log.len() as u64, &[message]));
                seq += 1;
            }
            1 => log.extend_from_slice(piece),
            2 => {
                let back = usize::from(*what) * 2;
                let from = log.len().saturating_sub(back);
                log.extend_from_within(from..);
            }
            _ => {
                let length = log.len();
                for (at, byte) in (length.saturating_sub(usize::from(*what))..).zip(piece) {
                    if let Some(place) = log.get_mut(at) {
                        *place ^= byte;
                    }
                }
            }
        }
        let aligned = log.len().next_multiple_of(8);
        log.resize(aligned, 0);
    }
    let found = scan_log(marker, &log);
    assert!(
        found
            .windows(2)
            .all(|pair| matches!(pair, [a, b] if a.at < b.at))
    );
}

/// Any bytes as what happens to a store: messages, restarts, then changes of its files. However
/// these were damaged, the store opens or says why not; what it then takes, it has at the next
/// start.
///
/// # Panics
/// When one of these does not hold.
pub fn recovery(data: &[u8]) {
    let disk = MemoryStorage::new();
    let (story, damage) = data.split_at(data.len() / 2);
    let mut sitter = Sitter::default();
    for piece in story.chunks(12) {
        let Ok((store, mut engine)) = open(&disk) else {
            panic!("an undamaged store cannot be opened");
        };
        for byte in piece {
            let payload = vec![*byte; usize::from(*byte) * 7];
            assert!(sitter.send(&store, &mut engine, *byte % 3, &payload));
        }
        if piece.len() % 2 == 0 {
            engine.close();
        }
    }
    for step in damage.chunks_exact(6) {
        hurt(&disk, step);
    }
    let Ok((store, mut engine)) = open(&disk) else {
        return;
    };
    read_all(&store);
    if !sitter.send(&store, &mut engine, 0, b"after") {
        return;
    }
    let told = sitter.last;
    drop((store, engine));
    let (store, _engine) = open(&disk).unwrap_or_else(|error| panic!("opened once: {error}"));
    assert!(
        read_all(&store).contains(&told),
        "an acknowledged message is gone"
    );
}

fn open(
    disk: &MemoryStorage,
) -> Result<(Arc<EmbeddedStore<MemoryStorage>>, Engine<MemoryStorage>), super::RecoveryError> {
    let mut config = EmbeddedConfig::new(StoreId::new([1; 16]));
    config.clock = Arc::new(ManualClock::new(Micros::new(1_000_000)));
    config.random = Box::new(SeededRandom::new(1));
    config.segment_bytes_min = 16 << 10;
    config.segment_bytes_max = 16 << 10;
    config.checkpoint_bytes_min = 8 << 10;
    config.tail_bytes_max = 0;
    EmbeddedStore::open_manual(Arc::new(disk.clone()), config, &mut |_, _| {})
}

/// One change of one file: `[which, how, place, place, place, byte]`.
fn hurt(disk: &MemoryStorage, step: &[u8]) {
    let &[which, how, a, b, c, byte] = step else {
        return;
    };
    let names = disk.list().unwrap_or_default();
    let Some(name) = names.get(usize::from(which) % names.len().max(1)) else {
        return;
    };
    let Ok(file) = disk.open(name) else { return };
    let length = file.len().unwrap_or(0);
    let at = u64::from_le_bytes([a, b, c, 0, 0, 0, 0, 0]) % length.max(1);
    let mut block = vec![0; 512];
    let _ = match how % 6 {
        0 => file.write_at(at, &[byte]),
        1 => file.write_at(at, &[byte; 64]),
        2 => file.truncate(at),
        3 => file
            .read_at(at, &mut block)
            .and_then(|_| file.write_at(u64::from(byte) * 64, &block)),
        4 => disk.delete(name),
        _ => disk.rename(name, &format!("{name}x")),
    };
}

fn read_all(store: &EmbeddedStore<MemoryStorage>) -> Vec<(u8, Seq)> {
    let mailbox = Mailbox::new();
    let mut all = Vec::new();
    for number in 0..3 {
        let (mut from, mut hint) = (Seq::new(1), Hint::default());
        loop {
            let range = ReadRange {
                room: room(number),
                from: StartAt::seq(from),
                count_max: 100,
                bytes_max: 1 << 16,
                hint,
            };
            let Some(Ok(reply)) = store.read(range, 0, &mailbox) else {
                break;
            };
            for piece in &reply.records {
                let mut rest: &[u8] = piece;
                while let Ok(Some((record, after))) = broker_proto::record::next_record(rest) {
                    all.push((number, record.fixed.seq));
                    rest = after;
                }
                assert!(rest.is_empty(), "something that is no record was served");
            }
            if reply.next > reply.head {
                break;
            }
            assert!(reply.next > from, "a read makes no progress");
            (from, hint) = (reply.next, reply.hint);
        }
    }
    all
}

fn room(number: u8) -> RoomName {
    RoomName::parse(&format!("room{number}")).expect("a good name")
}

/// Somebody who publishes, one message after the other.
#[derive(Default)]
struct Sitter {
    number: u64,
    /// The newest message that was acknowledged.
    last: (u8, Seq),
}

impl Sitter {
    /// Whether it was acknowledged.
    fn send(
        &mut self,
        store: &EmbeddedStore<MemoryStorage>,
        engine: &mut Engine<MemoryStorage>,
        to: u8,
        payload: &[u8],
    ) -> bool {
        self.number += 1;
        let sender = SenderName::parse("ann").expect("a good name");
        let mut head = BytesMut::new();
        broker_proto::record::encode_message_head(&mut head, &sender, 0, &[]);
        let mut entries = BytesMut::new();
        let crc = super::bytes::crc32c(&[payload]);
        broker_proto::publish::encode_entry(&mut entries, payload, &[], crc);
        let append = Append {
            session: SessionId(0),
            key: ProducerKey {
                sender,
                // One of its own for each message, so that none is taken for another.
                producer: ProducerId::new(u128::from(self.number).to_le_bytes()),
            },
            claimed: false,
            room: room(to),
            first_number: 1,
            count: 1,
            head: head.freeze(),
            entries: entries.freeze(),
            expected_head: None,
            resend: false,
        };
        let mailbox = Mailbox::new();
        assert!(store.append(append, &mailbox).is_ok(), "the queue is empty");
        while engine.step() {}
        engine.keep_house();
        let mut notices = Vec::new();
        mailbox.drain(&mut notices);
        match notices.as_slice() {
            [Notice::Acked { run, .. }] => {
                self.last = (to, run.first_seq);
                true
            }
            [Notice::Refused { .. }] => false,
            other => panic!("{other:?}"),
        }
    }
}

/// The marker of this number.
#[must_use]
pub const fn marker(number: u64) -> Marker {
    Marker(number)
}

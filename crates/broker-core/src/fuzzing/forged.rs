//! Logs that tests put together themselves, and what the scanner finds in them.

use broker_proto::{Micros, RoomId, Seq, StoreId};
use bytes::Bytes;

use crate::log::batch::{BatchKind, BatchRun};
use crate::log::builder::{BatchBuilder, Stamp};
use crate::log::position::{LogPosition, Marker};
use crate::log::scan::{Scanner, Step};
use crate::log::segment::{DATA_OFFSET, SegmentHeader, SegmentId, SegmentName};
use crate::log::state_record::RawRecord;
use crate::log::storage::{AlignedBuf, MemoryStorage, Storage, StorageFile};
use crate::log::window::Window;

/// A message as the scanner sees it: room, seq, payload.
pub type Told = (RoomId, Seq, Bytes);

/// What the scanner found at a place.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Batch {
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
            let crc = crc32c::crc32c(payload);
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
pub fn scan_log(marker: u64, log: &[u8]) -> Vec<Batch> {
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
        data_end: LogPosition::START,
        sources: 0,
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
                found.push(Batch {
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

/// The marker of this number.
#[must_use]
pub const fn marker(number: u64) -> Marker {
    Marker(number)
}

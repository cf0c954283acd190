//! The durable queue: one log for all rooms, on a directory of segment files.

pub mod batch;
mod blocks;
pub(crate) mod builder;
mod bytes;
mod catalog;
pub(crate) mod check;
mod checkpoints;
pub mod damage;
pub(crate) mod early;
mod error;
#[cfg(test)]
mod filled;
pub(crate) mod find;
mod index;
pub mod inspect;
mod layouts;
mod making;
pub(crate) mod measure;
mod open_files;
mod pack;
pub mod position;
pub(crate) mod reader;
pub(crate) mod reclaim;
pub(crate) mod recovery;
mod replay;
pub(crate) mod scan;
pub mod segment;
mod segments;
mod spare;
pub(crate) mod state_record;
pub mod storage;
pub(crate) mod tail;
mod unclaimed;
pub(crate) mod walk;
pub(crate) mod window;
mod writer;

pub use error::RecoveryError;
pub use recovery::{FEATURE_LEVEL, LastLeader};

pub(crate) use builder::BatchBuilder;
pub(crate) use bytes::Fields;
pub(crate) use segments::{Segment, Segments};
pub(crate) use spare::{FILL_BYTES, Spare, delete_spares, make_spare};
pub(crate) use state_record as state;
pub(crate) use writer::{Chance, LogWriter, Start, WriteFault, Written, is_no_space};

use broker_proto::{Micros, PublishEntry, RoomId, Seq};

use state_record::MessageHead;

/// Appends the record of one message: the fixed head, what the session stamped, the publisher's
/// extensions and payload.
pub(crate) fn message_record(
    out: &mut Vec<u8>,
    room: RoomId,
    seq: Seq,
    time: Micros,
    head: &[u8],
    entry: &PublishEntry<'_>,
) {
    let record = MessageHead {
        room,
        seq,
        time,
        payload_crc: entry.crc,
        payload_bytes: entry.payload.len(),
        head,
        extensions: entry.extensions,
    };
    record.write_to_vec(entry.payload, out);
}

//! Finds the messages of a damaged batch that no producer answers for any more.

use std::io;

use broker_proto::record::next_record;
use broker_proto::{Micros, RoomId, SenderName, Seq};

use super::batch::BatchRun;
use super::scan::BatchView;
use super::state_record::{ProducerRunRecord, RawRecord, kind};
use super::storage::StorageFile;
use super::window::Window;
use crate::store::Doubtful;

/// Consecutive seqs of a room whose numbers are known: the first, and the one after the last.
struct Claim {
    room: RoomId,
    from: u64,
    end: u64,
}

/// Every message of the batch that a reader is served and that no producer run of the batch covers,
/// with the time at which it was stored.
///
/// # Errors
/// Those of the disk.
pub(super) fn unclaimed<F: StorageFile>(
    view: &BatchView,
    runs: &[BatchRun],
    window: &mut Window<F>,
    mut found: impl FnMut(Doubtful, Micros),
) -> io::Result<()> {
    let claims = match runs.first().filter(|run| run.room.is_none()) {
        Some(run) => claims(view, run, window)?,
        None => Vec::new(),
    };
    for run in runs.iter().filter(|run| !run.room.is_none()) {
        let at = view.head.position.plus(u64::from(run.offset));
        let bytes = window.up_to(at, run.bytes as usize)?;
        let mut offset = 0;
        for (seq, length) in (run.first_seq.get()..).zip(view.lengths(run)) {
            let record = bytes.get(offset..offset + length as usize);
            offset += length as usize;
            let is_claimed = claims
                .iter()
                .any(|claim| claim.room == run.room && (claim.from..claim.end).contains(&seq));
            if !is_claimed
                && let Some((message, time)) =
                    record.and_then(|record| message(record, run.room, Seq::new(seq)))
            {
                found(message, time);
            }
        }
    }
    Ok(())
}

/// What the producer runs of the batch that can be read answer for.
fn claims<F: StorageFile>(
    view: &BatchView,
    run: &BatchRun,
    window: &mut Window<F>,
) -> io::Result<Vec<Claim>> {
    let at = view.head.position.plus(u64::from(run.offset));
    let bytes = window.up_to(at, run.bytes as usize)?;
    let mut offset = 0;
    let mut claims = Vec::new();
    for length in view.lengths(run) {
        let record = bytes
            .get(offset..offset + length as usize)
            .and_then(|bytes| RawRecord::parse_state(bytes, view.head.position))
            .filter(|record| record.head.kind == kind::PRODUCER_RUN);
        offset += length as usize;
        let told = record.as_ref().and_then(|record| {
            let run = postcard::from_bytes::<ProducerRunRecord<'_>>(record.payload()).ok()?;
            SenderName::parse(run.sender).ok().map(|_| run)
        });
        if let Some(told) = told {
            claims.push(Claim {
                room: RoomId::new(told.room),
                from: told.first_seq,
                end: told.first_seq.saturating_add(u64::from(told.count)),
            });
        }
    }
    Ok(claims)
}

/// The message in these bytes, if all of it is right and it belongs here.
fn message(bytes: &[u8], room: RoomId, seq: Seq) -> Option<(Doubtful, Micros)> {
    let (record, rest) = next_record(bytes).ok()??;
    let belongs = rest.is_empty() && record.fixed.room == room && record.fixed.seq == seq;
    if !belongs || record.verify_payload().is_err() {
        return None;
    }
    let sender = SenderName::parse(record.message().ok()?.sender).ok()?;
    let message = Doubtful {
        crc: record.fixed.payload_crc,
        length: u32::try_from(record.payload.len()).ok()?,
        sender,
        room,
        seq,
    };
    Some((message, record.fixed.time))
}

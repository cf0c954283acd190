//! How many bytes a part of a room's history takes.

use std::io;

use broker_proto::Seq;

use super::position::LogPosition;
use super::reader::{Wanted, open};
use super::scan::{Scanner, Step};
use super::segments::{Segment, Segments};
use super::storage::Storage;
use crate::sync::Arc;

/// What a segment has of a room.
struct Part {
    first: Seq,
    last: Seq,
    bytes: u64,
    previous: LogPosition,
}

/// Bytes of the records from `wanted.from`, the oldest that is kept, to the one before `upto`.
///
/// # Errors
/// Those of the disk. A segment that was replaced meanwhile is [`io::ErrorKind::NotFound`].
pub(crate) fn bytes_before<S: Storage>(
    segments: &Segments<S>,
    wanted: &Wanted,
    upto: Seq,
) -> io::Result<u64> {
    let mut total = 0;
    let mut at = segments.holding(wanted.last_at);
    while let Some(segment) = at {
        let part = {
            let index = segments.index(&segment)?;
            index.room(wanted.room).map(|room| Part {
                first: room.first_seq(),
                last: room.last_seq,
                bytes: room.bytes,
                previous: room.previous,
            })
        };
        let Some(part) = part else {
            at = segments.before(&segment)?;
            continue;
        };
        if part.first < upto {
            let end = match part.last < upto {
                true => part.bytes,
                false => bytes_upto(segments, &segment, wanted, upto)?,
            };
            let begin = match part.first >= wanted.from {
                true => 0,
                false => bytes_upto(segments, &segment, wanted, wanted.from)?,
            };
            total += end.saturating_sub(begin);
        }
        if part.first <= wanted.from {
            break;
        }
        let earlier = segments.holding(part.previous);
        at = earlier.filter(|earlier| earlier.header.name < segment.header.name);
    }
    Ok(total)
}

/// Bytes of the room's records in a segment before a seq.
fn bytes_upto<S: Storage>(
    segments: &Segments<S>,
    segment: &Arc<Segment>,
    wanted: &Wanted,
    upto: Seq,
) -> io::Result<u64> {
    let entry = {
        let index = segments.index(segment)?;
        let room = index.room(wanted.room);
        room.and_then(|room| room.entry_for(upto))
    };
    let Some((entry, _)) = entry else {
        return Ok(0);
    };
    let limit = segment.end().unwrap_or(wanted.durable).min(wanted.durable);
    let window = open(segments, segment, wanted, limit)?;
    let mut scanner = Scanner::new(window, entry.at, limit);
    let mut bytes = entry.bytes_before;
    while let Some(view) = next_batch(&mut scanner)? {
        let Some(run) = view.run(wanted.room) else {
            continue;
        };
        for (seq, length) in (run.first_seq.get()..).zip(view.lengths(&run)) {
            if seq >= upto.get() {
                return Ok(bytes);
            }
            bytes += u64::from(length);
        }
        if run.last_seq().get() + 1 >= upto.get() {
            return Ok(bytes);
        }
    }
    Ok(bytes)
}

fn next_batch<F: super::storage::StorageFile>(
    scanner: &mut Scanner<F>,
) -> io::Result<Option<super::scan::BatchView>> {
    loop {
        match scanner.step()? {
            Step::Batch(view) => return Ok(Some(view)),
            Step::Lost { .. } => {}
            Step::End => return Ok(None),
        }
    }
}

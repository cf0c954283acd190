//! Goes through the log from its front, batch by batch, without reading messages: what is oldest goes first.

use std::io;

use super::position::LogPosition;
use super::scan::{BatchView, Scanner, Step};
use super::segment::SegmentName;
use super::segments::Segments;
use super::storage::Storage;
use super::window::Window;

/// Read this much at a time: heads and tables of batches.
const READ_AHEAD: usize = 64 << 10;

/// Where a walk has come to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Place {
    /// In this file: when the segment is written anew, its batches lie elsewhere.
    file: Option<SegmentName>,
    at: LogPosition,
}

impl Place {
    /// The front of the log.
    pub(crate) const START: Self = Self {
        file: None,
        at: LogPosition::START,
    };
}

/// Whether a walk goes on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Walk {
    /// Behind this batch.
    On,
    /// It stays in front of this batch.
    Stop,
}

/// Shows batches, from a place on and up to what is durable, until it is told to stop; gives the place of the first batch that
/// was not passed. Of a batch that cannot be read nothing is shown.
///
/// # Errors
/// Those of the disk. A segment that was deleted or written anew meanwhile is [`io::ErrorKind::NotFound`].
pub(crate) fn walk<S: Storage>(
    segments: &Segments<S>,
    from: Place,
    durable: LogPosition,
    take: &mut dyn FnMut(&BatchView) -> Walk,
) -> io::Result<Place> {
    let mut place = from;
    let Some(mut segment) = segments.holding(from.at).or_else(|| segments.oldest()) else {
        return Ok(from);
    };
    loop {
        let name = segment.header.name;
        let at = match place.file {
            Some(file) if file == name => place.at.max(segment.header.base),
            _ => segment.header.base,
        };
        let limit = segment.end().unwrap_or(durable).min(durable);
        let file = segments.files().get(segments.storage(), name)?;
        let window = Window::shared(file, segment.header.clone(), READ_AHEAD, limit);
        let mut scanner = Scanner::new(window.into_blocks(segments.blocks()).sparse(), at, limit);
        loop {
            let at = scanner.at();
            match scanner.step()? {
                Step::Batch(view) if take(&view) == Walk::Stop => {
                    let file = Some(name);
                    return Ok(Place { file, at });
                }
                Step::Batch(_) | Step::Lost { .. } => {}
                Step::End => break,
            }
        }
        place = Place {
            file: Some(name),
            at: limit,
        };
        if segment.end().is_none() {
            return Ok(place);
        }
        match segments.after(&segment)? {
            Some(next) => segment = next,
            None => return Ok(place),
        }
    }
}

//! Early footers: what the active segment holds up to a place within it, so that a start need not read the segment from its
//! beginning.
//!
//! ```text
//!   base                         E           end
//!    |  what the footer tells    |  walked    |
//!    [=========][======][========][====][=====]????
//!                                 ^ its head vouches for everything before E
//! ```
//!
//! It has the name and the form of the segment's footer, which takes its place when the segment is sealed, and is no more than
//! a hint: it is not synced, and may be missing, old, or newer than what the disk has kept of the segment.
//!
//! **Invariant:** it is believed only if the segment itself has a batch or a mark that begins at `E` and says that everything
//! before was on stable storage. That head is found in the file without the footer just as well, so the footer proves nothing;
//! it only saves the way there. What lies before `E` in a file with this marker is never written again. Whatever is replayed
//! is read and checked as ever, also before `E`.

use super::index::SegmentIndex;
use super::position::LogPosition;
use super::scan::head_at;
use super::segment::SegmentName;
use super::segments::read_whole;
use super::storage::{Storage, StorageFile};
use super::window::Window;
use crate::planted::{Bug, planted};

/// While publishing goes on, an early footer is written after so much log: the next one is then vouched for.
pub(crate) const EARLY_EVERY: u64 = 4 << 20;
/// And only while it is no larger than this: the writer waits while it is made.
const EARLY_BYTES_MAX: usize = 512 << 10;
/// It is not worth writing for less log than so many times its own size. Reading an index takes about as long as twice as much
/// log with small messages.
const WORTH_TIMES: u64 = 3;
/// While publishing goes on it is not worth more of the disk's time than a sixteenth.
const WORTH_TIMES_BUSY: u64 = 16;

/// When an early footer is wanted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Wanted {
    /// A mark ends the log and vouches for it. Otherwise publishing goes on, and it is kept until a later batch does.
    pub(crate) is_vouched: bool,
    /// However little it saves.
    pub(crate) always: bool,
}

/// A footer that is made, and not written yet.
#[derive(Debug)]
pub(super) struct Made {
    pub(super) name: SegmentName,
    pub(super) upto: LogPosition,
    pub(super) bytes: Vec<u8>,
}

/// Which early footers there are.
#[derive(Debug, Default)]
pub(super) struct Early {
    /// The newest one that was made, whether written or not.
    newest: Option<(SegmentName, LogPosition)>,
    waiting: Option<Made>,
}

impl Early {
    /// Notes one that is there already.
    pub(super) fn note(&mut self, name: SegmentName, upto: LogPosition) {
        self.newest = Some((name, upto));
    }

    /// Whether to make one of an index that tells of everything from `base` up to `upto`.
    pub(super) fn is_worth(
        &self,
        name: SegmentName,
        (base, upto): (LogPosition, LogPosition),
        index: &SegmentIndex,
        wanted: Wanted,
    ) -> bool {
        let last = match self.newest {
            Some((newest, upto)) if newest == name => upto,
            _ => base,
        };
        let new = upto.since(last);
        if wanted.always {
            return new > 0;
        }
        // Nobody waits for a log that a mark ends.
        let (every, bytes_max, times) = match wanted.is_vouched {
            true => (1, usize::MAX, WORTH_TIMES),
            false => (EARLY_EVERY, EARLY_BYTES_MAX, WORTH_TIMES_BUSY),
        };
        let is_worth =
            |bytes: usize| bytes <= bytes_max && new > times.saturating_mul(bytes as u64);
        new >= every && is_worth(index.footer_bytes())
    }

    /// Takes one that was made; gives the one that can be written now: this one, or the one before.
    pub(super) fn take(&mut self, made: Made, wanted: Wanted) -> Option<Made> {
        self.newest = Some((made.name, made.upto));
        if wanted.is_vouched {
            self.waiting = None;
            return Some(made);
        }
        let before = self.waiting.replace(made)?;
        let same = self
            .waiting
            .as_ref()
            .is_some_and(|made| made.name == before.name);
        same.then_some(before)
    }

    /// The segment is sealed, and has a footer of its own now.
    pub(super) fn forget(&mut self, name: SegmentName) {
        if self.waiting.as_ref().is_some_and(|made| made.name == name) {
            self.waiting = None;
        }
    }
}

/// The index of the active segment up to a place within it, if a footer tells it and the segment vouches for that place.
pub(super) fn read_early<S: Storage, F: StorageFile>(
    storage: &S,
    window: &mut Window<F>,
) -> Option<(SegmentIndex, LogPosition)> {
    let header = window.header().clone();
    // A packed segment has ended, and a header that was put together says little.
    if header.packed_end().is_some() || header.store.is_none() {
        return None;
    }
    let bytes = read_whole(storage, &header.name.footer())?;
    let (index, upto) = SegmentIndex::decode(bytes, header.name, header.marker)?;
    if upto <= header.base {
        return None;
    }
    // An error of the disk is met again by who reads on without the footer, and told there.
    let head = head_at(window, upto).ok()?;
    let is_vouched = head.is_some_and(|head| head.durable_upto >= upto);
    (is_vouched || planted(Bug::FooterBeyondProven)).then_some((index, upto))
}

#[cfg(test)]
mod tests;

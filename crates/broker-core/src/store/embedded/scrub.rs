//! The scrub: reads all sealed segments again and again, whole, so that a disk that rots is found
//! out while there are still backups, and not by the first reader.
//!
//! It goes in pieces of about a mebibyte, with pauses that spread all segments over the time that
//! is set, and never reads for more than half of the time. It stops between two batches when the
//! store closes. It changes nothing; what it finds goes into the registry of damage.
//!
//! Where it stands is not kept over a restart: every leader begins at another segment, so that
//! leaders that live shorter than a pass together cover them all.

use std::collections::VecDeque;
use std::io;
use std::time::Duration;

use broker_proto::Micros;

use super::shared::Shared;
use crate::clock::Clock;
use crate::log::Segment;
use crate::log::check::{Checked, SegmentCheck, header_block, header_damage, open_past_cache};
use crate::log::damage::{DamagePart, FoundBy, Place};
use crate::log::position::LogPosition;
use crate::log::storage::Storage;
use crate::store::ScrubInfo;
use crate::sync::{Arc, Condvar, Mutex, lock, wait_for};

/// One piece, in bytes; a larger batch is one piece too.
const PIECE_BYTES: u64 = 1 << 20;
/// Longest pause within a pass: a small store is done early, and rests then.
const PAUSE_MAX: Duration = Duration::from_secs(10);

/// How far the scrub is, and whether it has to stop; shared with those who ask.
#[derive(Debug, Default)]
pub(super) struct ScrubState {
    figures: Mutex<Figures>,
    stopped: Mutex<bool>,
    wake: Condvar,
}

#[derive(Debug, Default, Clone, Copy)]
struct Figures {
    every: Option<Duration>,
    bytes: u64,
    passes: u64,
    pass_ended: Option<Micros>,
}

impl ScrubState {
    /// Ends the scrub, also in the middle of a pause.
    pub(super) fn stop(&self) {
        *lock(&self.stopped) = true;
        self.wake.notify_all();
    }

    fn is_stopped(&self) -> bool {
        *lock(&self.stopped)
    }

    /// Waits; says whether the scrub has to stop.
    fn pause(&self, pause: Duration) -> bool {
        let mut stopped = lock(&self.stopped);
        while !*stopped {
            let (guard, is_over) = wait_for(&self.wake, stopped, pause);
            stopped = guard;
            if is_over {
                break;
            }
        }
        *stopped
    }

    pub(super) fn set_every(&self, every: Duration) {
        lock(&self.figures).every = Some(every);
    }

    pub(super) fn info(&self) -> ScrubInfo {
        let figures = *lock(&self.figures);
        ScrubInfo {
            every_secs: figures.every.map(|every| every.as_secs()),
            bytes: figures.bytes,
            passes: figures.passes,
            pass_ended: figures.pass_ended,
        }
    }
}

/// See the module's documentation.
pub(super) struct Scrub<S: Storage> {
    shared: Arc<Shared<S>>,
    clock: Arc<dyn Clock>,
    /// Decides where a pass begins.
    term: u64,
    /// What is still to be read in this pass.
    queue: VecDeque<Arc<Segment>>,
    check: Option<SegmentCheck<S::File>>,
    /// When this pass began, and what of its bytes is done.
    began: Duration,
    done: u64,
    total: u64,
}

impl<S: Storage> Scrub<S> {
    pub(super) fn new(shared: Arc<Shared<S>>, clock: Arc<dyn Clock>, term: u64) -> Self {
        Self {
            began: clock.monotonic(),
            shared,
            clock,
            term,
            queue: VecDeque::new(),
            check: None,
            done: 0,
            total: 0,
        }
    }

    /// Reads until the store closes, so that all is read once within `every`.
    pub(super) fn run(mut self, every: Duration) {
        let mut pause = PAUSE_MAX.min(every);
        while !self.shared.scrub.pause(pause) {
            let before = self.clock.monotonic();
            let goes_on = self.piece();
            let took = self.clock.monotonic().saturating_sub(before);
            pause = self.pause(every, goes_on).max(took);
        }
    }

    /// How long to wait before the next piece.
    fn pause(&self, every: Duration, goes_on: bool) -> Duration {
        let since = self.clock.monotonic().saturating_sub(self.began);
        if self.total == 0 {
            return PAUSE_MAX.min(every);
        }
        if !goes_on {
            return every.saturating_sub(since);
        }
        let nanos = every.as_nanos() * u128::from(self.done) / u128::from(self.total);
        let due = Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX));
        due.saturating_sub(since).min(PAUSE_MAX)
    }

    /// Reads one piece of the pass, or begins the next pass with its first; says whether the pass
    /// goes on.
    pub(super) fn piece(&mut self) -> bool {
        if self.check.is_none() && self.queue.is_empty() {
            self.begin_pass();
        }
        let mut read = 0;
        while read < PIECE_BYTES && !self.shared.scrub.is_stopped() {
            let Some(check) = self.check.take() else {
                match self.queue.pop_front() {
                    Some(segment) => self.begin_segment(&segment),
                    None => {
                        self.end_pass();
                        return false;
                    }
                }
                continue;
            };
            read += self.step(check);
        }
        true
    }

    fn begin_pass(&mut self) {
        self.began = self.clock.monotonic();
        let mut sealed = self.shared.segments.sealed();
        let bytes = |segment: &Arc<Segment>| {
            let end = segment.end().unwrap_or(segment.header.base);
            end.since(segment.header.base)
        };
        self.total = sealed.iter().map(bytes).sum();
        self.done = 0;
        // Steps of the golden section: wherever the leaders before began, this is elsewhere.
        let share = self.term.wrapping_mul(0x9e37_79b9_7f4a_7c15);
        let first = (u128::from(share) * sealed.len() as u128) >> 64;
        sealed.rotate_left(usize::try_from(first).unwrap_or(0));
        self.queue = sealed.into();
    }

    fn end_pass(&mut self) {
        if self.total == 0 {
            return;
        }
        let mut figures = lock(&self.shared.scrub.figures);
        figures.passes += 1;
        figures.pass_ended = Some(self.clock.now());
    }

    fn begin_segment(&mut self, segment: &Segment) {
        let header = &segment.header;
        let Some(end) = segment.end() else { return };
        let storage = &**self.shared.segments.storage();
        let opened = open_past_cache(storage, &header.name.file())
            .and_then(|file| header_block(&file))
            .and_then(|block| {
                let check = SegmentCheck::new(storage, header, header.base, end)?;
                Ok((block, check))
            });
        match opened {
            Ok((block, check)) => {
                for place in header_damage(&block, header) {
                    self.note(place);
                }
                self.check = Some(check);
            }
            Err(error) => self.failed(segment.header.base, end, &segment.header, &error),
        }
    }

    /// Checks the next batch, and keeps the check unless it is at its end; gives the bytes that it
    /// has passed.
    fn step(&mut self, mut check: SegmentCheck<S::File>) -> u64 {
        let before = check.at();
        let storage = &**self.shared.segments.storage();
        match check.step(storage) {
            Ok(Checked::Batch(batch)) => batch.damage.into_iter().for_each(|it| self.note(it)),
            Ok(Checked::Lost(place)) => self.note(place),
            Ok(Checked::End) => return 0,
            Err(error) => {
                let header = check.header().clone();
                self.failed(before, check.limit(), &header, &error);
                return 0;
            }
        }
        let read = check.at().since(before);
        self.done += read;
        lock(&self.shared.scrub.figures).bytes += read;
        self.check = Some(check);
        read
    }

    /// The disk did not give what was asked for: damage, if it said so, or a bad moment.
    fn failed(
        &self,
        from: LogPosition,
        upto: LogPosition,
        header: &crate::log::segment::SegmentHeader,
        error: &io::Error,
    ) {
        if error.kind() == io::ErrorKind::NotFound {
            if !self.shared.segments.lists(header.name) {
                // It was rewritten or deleted since the pass began.
                return;
            }
            self.note(Place::missing(header.name, header.base, upto));
        } else if is_of_medium(error) {
            self.note(Place::new(header, from, upto, DamagePart::ReadError));
        } else {
            tracing::warn!(file = header.name.file(), %error, "the scrub cannot read a segment and passes it over until the next pass");
        }
    }

    fn note(&self, place: Place) {
        self.shared.segments.damage().note(place, FoundBy::Scrub);
    }
}

/// Whether an error tells of the medium, and not of a limit of the process or the like: EIO,
/// ENODATA, EBADMSG, EUCLEAN, or no number at all.
fn is_of_medium(error: &io::Error) -> bool {
    error
        .raw_os_error()
        .is_none_or(|number| matches!(number, 5 | 61 | 74 | 117))
}

impl<S: Storage> std::fmt::Debug for Scrub<S> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Scrub")
            .field("done", &self.done)
            .field("total", &self.total)
            .finish_non_exhaustive()
    }
}

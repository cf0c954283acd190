//! The writer's side of a store on disk: takes what is queued, decides, writes once, syncs once,
//! tells everybody.
//!
//! ```text
//! drain -> decide -> build -> write + sync -> commit -> tell
//!            |                     |
//!            '---- roll back <-----'  when the disk refuses
//! ```
//!
//! The engine is a step function: a thread drives it in production, a simulator drives it by hand.
//! **Invariant:** nothing is told, and nothing is shown to a reader, before the sync.

mod asks;
mod assembly;
mod refusal;
mod renewal;

use std::time::Duration;

use broker_proto::record::RECORD_FIXED_BYTES;
use broker_proto::{ErrorCode, Micros, Position, RoomId, Seq};

use self::asks::Asked;
use self::assembly::STATE_BYTES_MAX;
use super::super::cursors::{Allowance, CursorKey};
use super::super::memory::post_decision;
use super::super::rooms::NO_TIME;
use super::super::sequencer::{Decision, Placed, Sequencer};
use super::super::{Append, Ask, Fullness, Mailbox, Notice, ProducerKey, StoreError, wake_all};
use super::checkpoint::{Checkpoint, Piece, RECORD_BYTES_MAX};
use super::inbox::{Done, Request};
use super::keep::Keeper;
use super::scrub::Scrub;
use super::shared::Shared;
use super::space::segment_bytes_max;
use crate::clock::{Clock, Random};
use crate::log::batch::{BatchKind, BatchRun};
use crate::log::position::LogPosition;
use crate::log::state::{self, kind};
use crate::log::storage::Storage;
use crate::log::tail::TailBatch;
use crate::log::{
    BatchBuilder, Chance, FILL_BYTES, LogWriter, Segment, Spare, WriteFault, Written, make_spare,
};
use crate::planted::{Bug, planted};
use crate::sync::{Arc, read, write};

/// How often the directory is checked to be the one that was opened, while there is traffic.
const IDENTITY_EVERY: Duration = Duration::from_secs(1);
/// Most state records that wait for the next batch, which readers believe in only up to a limit.
/// That a producer has left needs no telling: after a restart it is remembered until it expires.
const PENDING_MAX: usize = 4096;
/// Readers are taken to follow along while they have read within so much log.
const FOLLOW_BYTES: u64 = 64 << 20;
/// Space that publishes leave, at least, when the disk is full: for marks, checkpoints and trims.
const RESERVE_BYTES_MIN: u64 = 1 << 20;
/// Who wakes more than so many with a batch keeps their sockets' thread busy.
const CROWD: usize = 8;
/// New rooms that are worth a checkpoint: going through them, and what else comes with their messages, takes the next leader
/// some ten milliseconds. Other records are not counted: what they take in the log says enough of them.
const CHECKPOINT_ROOMS: usize = 12_500;
/// With less free on the disk than this, and two checkpoints, a leader that ends writes no last one.
const ENDS_WITH_FREE: u64 = 256 << 20;
/// Log that the next leader reads within a millisecond or two.
const SHORTEN_BYTES_MIN: u64 = 4 << 20;

/// An append of the batch in the making, and what becomes of it.
struct Admitted {
    append: Append,
    to: Arc<Mailbox>,
    decision: Decision,
}

/// A cursor request of the batch in the making.
struct CursorMove {
    tag: u64,
    to: Arc<Mailbox>,
    result: Result<Option<Position>, StoreError>,
    /// What is moved.
    key: Option<CursorKey>,
    /// What is only asked for.
    asked: Option<CursorKey>,
}

/// See the module's documentation.
pub struct Engine<S: Storage> {
    shared: Arc<Shared<S>>,
    writer: LogWriter<S>,
    sequencer: Sequencer,
    clock: Arc<dyn Clock>,
    random: Box<dyn Random>,
    batch_bytes_max: usize,
    checkpoint_bytes_min: u64,
    /// What was read at the start lay in many segments: leaders that are killed one after the other
    /// leave a small one each, and the next would have to read one more.
    scattered: bool,
    /// Less log than this is not worth a checkpoint out of turn.
    shorten_bytes_min: u64,
    checkpoint: Option<Checkpoint>,
    /// Size of the last checkpoint, and where it began.
    last_checkpoint: (u64, LogPosition),
    /// Numbers of rooms that the last checkpoint tells of: the next leader learns of the others one by one.
    rooms_told: usize,
    /// Those of all rooms.
    rooms_in_all: usize,
    /// Rooms whose newest message lies at or behind this place are named in the active segment.
    mentioned_from: LogPosition,
    /// State records that go with the next batch and need none of their own.
    pending: Vec<Vec<u8>>,
    backlog: std::collections::VecDeque<Request>,
    drained: Vec<Request>,
    admitted: Vec<Admitted>,
    cursor_moves: Vec<CursorMove>,
    /// Relaxed moves of cursors that the batch writes.
    relaxed_moves: Vec<CursorKey>,
    allowance: Allowance,
    asked: Vec<Asked>,
    /// Whose mailbox is no longer empty.
    wake: Vec<Arc<Mailbox>>,
    /// The same, because a room has grown.
    wake_readers: Vec<Arc<Mailbox>>,
    /// It hands over to somebody who waits.
    has_heir: bool,
    /// Who waits for the checkpoint that is being written.
    shortened: Vec<Done>,
    builder: BatchBuilder,
    identity_checked: Duration,
    /// Sealed segments whose footers have to be written.
    sealed: Vec<Arc<Segment>>,
    term: u64,
    /// Only when it is driven by hand; else a thread has it.
    scrub: Option<Scrub<S>>,
    /// Likewise.
    keeper: Option<Keeper<S>>,
    /// Draws the markers of segments that are written anew.
    markers: Option<Chance>,
    segment_bytes_max: u64,
}

/// What an engine starts with.
pub(super) struct EngineParts<S: Storage> {
    pub(super) shared: Arc<Shared<S>>,
    pub(super) writer: LogWriter<S>,
    pub(super) sequencer: Sequencer,
    pub(super) clock: Arc<dyn Clock>,
    pub(super) random: Box<dyn Random>,
    pub(super) batch_bytes_max: usize,
    pub(super) checkpoint_bytes_min: u64,
    pub(super) mentioned_from: LogPosition,
    pub(super) pending: Vec<Vec<u8>>,
    /// Whether what was replayed lay in many segments.
    pub(super) scattered: bool,
    /// Size of the last checkpoint.
    pub(super) checkpoint_bytes: u64,
    /// Rooms that the log made behind it.
    pub(super) rooms_made: usize,
    pub(super) sealed: Vec<Arc<Segment>>,
    pub(super) term: u64,
    pub(super) markers: Chance,
    pub(super) segment_bytes_max: u64,
}

impl<S: Storage> Engine<S> {
    pub(super) fn new(parts: EngineParts<S>) -> Self {
        let rooms_in_all = read(&parts.shared.rooms).numbers();
        let begin = parts.writer.checkpoint;
        let begin = if begin == LogPosition::NONE {
            LogPosition::START
        } else {
            begin
        };
        Self {
            shared: parts.shared,
            writer: parts.writer,
            sequencer: parts.sequencer,
            clock: parts.clock,
            random: parts.random,
            batch_bytes_max: parts.batch_bytes_max,
            shorten_bytes_min: SHORTEN_BYTES_MIN.min(parts.checkpoint_bytes_min / 8),
            checkpoint_bytes_min: parts.checkpoint_bytes_min,
            scattered: parts.scattered,
            checkpoint: None,
            last_checkpoint: (parts.checkpoint_bytes, begin),
            rooms_told: rooms_in_all.saturating_sub(parts.rooms_made),
            rooms_in_all,
            mentioned_from: parts.mentioned_from,
            pending: parts.pending,
            backlog: std::collections::VecDeque::new(),
            drained: Vec::new(),
            admitted: Vec::new(),
            cursor_moves: Vec::new(),
            relaxed_moves: Vec::new(),
            allowance: Allowance::default(),
            asked: Vec::new(),
            wake: Vec::new(),
            wake_readers: Vec::new(),
            has_heir: false,
            shortened: Vec::new(),
            builder: BatchBuilder::default(),
            identity_checked: Duration::ZERO,
            sealed: parts.sealed,
            term: parts.term,
            scrub: None,
            keeper: None,
            markers: Some(parts.markers),
            segment_bytes_max: parts.segment_bytes_max,
        }
    }

    /// Does what there is to do, at most one batch of it; says whether it did anything.
    pub fn step(&mut self) -> bool {
        if self.backlog.is_empty() {
            self.shared.inbox.drain(&mut self.drained);
            self.backlog.extend(self.drained.drain(..));
        }
        if !self.backlog.is_empty() {
            self.check_identity();
        }
        let now = self.clock.now();
        if self.sequencer.settings.settings.bytes_max.is_some() {
            self.sequencer.log_bytes = self.shared.log_bytes();
            self.sequencer.space_follows = self.shared.space.follows();
        }
        let took = self.take_requests(now);
        let settings = &self.sequencer.settings.settings;
        self.writer
            .limit_segments(segment_bytes_max(self.segment_bytes_max, settings));
        self.take_relaxed_moves();
        self.begin_checkpoint_if_due();
        self.leave_large_segment();
        let must_write = self.is_asked_to_write()
            || !self.relaxed_moves.is_empty()
            || !self.sequencer.changes().is_empty()
            || self.checkpoint.is_some();
        if must_write {
            self.write_batch(now);
        }
        self.tell();
        self.relaxed_moves.clear();
        took || must_write
    }

    /// Whether somebody waits for messages or cursors to be stored, which leave some space to what frees space.
    fn is_asked_to_write(&self) -> bool {
        self.admitted
            .iter()
            .any(|admitted| admitted.decision.placed.is_some())
            || self.cursor_moves.iter().any(|moved| moved.key.is_some())
    }

    /// What a batch has to leave of the prepared space when the disk is full: enough for two
    /// checkpoints, which may use it.
    fn reserve(&self) -> u64 {
        if !self.is_asked_to_write() {
            return 0;
        }
        let (checkpoint_bytes, _) = self.last_checkpoint;
        RESERVE_BYTES_MIN.max(checkpoint_bytes.saturating_mul(2))
    }

    /// Takes requests up to the size of a batch.
    fn take_requests(&mut self, now: Micros) -> bool {
        let mut bytes = 0;
        let mut took = false;
        while bytes < self.batch_bytes_max {
            let Some(request) = self.backlog.pop_front() else {
                break;
            };
            if is_change(&request) {
                // A change has a batch of its own.
                if self.is_asked_to_write() {
                    self.backlog.push_front(request);
                    break;
                }
                self.take_change(request, now);
                return true;
            }
            took = true;
            match request {
                Request::Append { append, to } => {
                    bytes += STATE_BYTES_MAX
                        + append.entries.len()
                        + append.count as usize * (RECORD_FIXED_BYTES + append.head.len());
                    let decision = self.decide(&append, now);
                    self.admitted.push(Admitted {
                        append,
                        to,
                        decision,
                    });
                }
                Request::Hole {
                    key,
                    session,
                    first_number,
                    count,
                } => self.sequencer.hole(&key, session, first_number, count),
                Request::Claim { key, session } => self.sequencer.claim(&key, session, now),
                Request::Release {
                    key,
                    session,
                    forget,
                } => {
                    if self.sequencer.release(&key, session, forget)
                        && self.pending.len() < PENDING_MAX
                    {
                        self.pending.push(drop_record(&key));
                    }
                }
                Request::Shorten { done } => self.shorten(done),
                Request::Checkpoint => self.ask_for_checkpoint(),
                Request::Ask { ask, tag, to } => self.answer(&ask, tag, to),
                Request::Trim { .. } => {}
                Request::Cursor {
                    room,
                    name,
                    tag,
                    to,
                } => {
                    let id = self.sequencer.room_id(&read(&self.shared.rooms), &room);
                    let asked = id.map(|room| CursorKey { room, name });
                    let result = match &asked {
                        Some(key) => Ok(self.sequencer.stand(key).map(|stand| stand.at)),
                        None => Err(StoreError::NoSuchRoom { room }),
                    };
                    self.cursor_moves.push(CursorMove {
                        tag,
                        to,
                        result,
                        key: None,
                        asked,
                    });
                }
                Request::SetCursor { set, tag, to } => {
                    bytes += RECORD_BYTES_MAX;
                    let moved = self.move_cursor(&set, now);
                    let (result, key) = match moved {
                        Ok(key) => (Ok(set.to), key),
                        Err(error) => (Err(error), None),
                    };
                    self.cursor_moves.push(CursorMove {
                        tag,
                        to,
                        result,
                        key,
                        asked: None,
                    });
                }
            }
        }
        took
    }

    /// Leaves little to read to an heir who waits for it.
    fn shorten(&mut self, done: Done) {
        self.leave_little(self.shorten_bytes_min);
        self.has_heir = true;
        self.shortened.push(done);
    }

    /// A new segment, and a checkpoint as the first thing in it, if there is so much log to read beside the last one.
    fn leave_little(&mut self, worth: u64) {
        if self.has_beside_checkpoint(worth) && !self.writer.has_failed() {
            self.writer.roll();
            self.rooms_told = self.rooms_in_all;
            self.checkpoint = Some(Checkpoint::begin(self.writer.end(), &self.sequencer));
        }
    }

    /// Whether there is so much log to read beside the last checkpoint, and no newer one is being written.
    fn has_beside_checkpoint(&self, bytes: u64) -> bool {
        let (size, begin) = self.last_checkpoint;
        let beside = self.writer.end().since(begin).saturating_sub(size);
        beside >= bytes && self.checkpoint.is_none()
    }

    fn decide(&mut self, append: &Append, now: Micros) -> Decision {
        let random = &mut self.random;
        let rooms = read(&self.shared.rooms);
        let mut decision = match self.shared.read_only() {
            Some(reason) => self.sequencer.recall(&rooms, append, now, reason),
            None => self
                .sequencer
                .append(&rooms, append, now, &mut || random.bits_64()),
        };
        if self.writer.is_uncut() {
            // What was given up may be found at the next start, so "not stored" would be a guess.
            for refusal in &mut decision.refused {
                if refusal.code == ErrorCode::NOT_STORED {
                    refusal.code = ErrorCode::IN_DOUBT;
                    "the disk failed or was full in the middle of a write; the message may appear after a restart".clone_into(&mut refusal.detail);
                }
            }
        }
        decision
    }

    fn begin_checkpoint_if_due(&mut self) {
        let (size, begin) = self.last_checkpoint;
        let due = self.checkpoint_bytes_min.max(4 * size);
        // As many new rooms as a checkpoint tells of cost the next leader as much as the checkpoint itself.
        let many = self.rooms_in_all - self.rooms_told >= CHECKPOINT_ROOMS.max(self.rooms_told);
        let much = self.writer.end().since(begin) >= due || many;
        if self.checkpoint.is_none() && !self.writer.has_failed() && (much || self.scattered) {
            self.scattered = false;
            self.rooms_told = self.rooms_in_all;
            self.checkpoint = Some(Checkpoint::begin(self.writer.end(), &self.sequencer));
        }
    }

    /// At its limit a store takes no messages, and so no batch would end a segment that is large for the limit, of which nothing
    /// can be freed before it ends.
    fn leave_large_segment(&mut self) {
        let limit = self.sequencer.settings.settings.bytes_max;
        let is_full = Fullness::of(self.sequencer.log_bytes, limit) >= Fullness::Trimming;
        let waits = limit.is_some() && is_full && self.writer.will_roll();
        if waits && self.checkpoint.is_none() && !self.writer.has_failed() {
            self.checkpoint = Some(Checkpoint::begin(self.writer.end(), &self.sequencer));
        }
    }

    /// Builds the batch, writes it, and commits or rolls back.
    fn write_batch(&mut self, now: Micros) {
        let bytes = self.bytes_needed();
        let reserve = self.reserve();
        let begun = self.writer.check_space(bytes, reserve).and_then(|()| {
            let first = self.writer.begin(bytes, now.get());
            // Nothing was written yet, so a new segment that could not be made is worth a second
            // try before the store stops writing for good.
            match first {
                Err(error) if !crate::log::is_no_space(&error) => {
                    tracing::warn!(%error, "cannot make a new segment, trying once more");
                    self.writer.begin(bytes, now.get())
                }
                other => other,
            }
        });
        if let Err(error) = begun {
            let fault = if crate::log::is_no_space(&error) {
                WriteFault::NoSpace(error)
            } else {
                WriteFault::Failed(error)
            };
            self.give_up(&fault);
            return;
        }
        let piece = self.build(now);
        let keep_tail = self.somebody_follows();
        match self
            .writer
            .commit(&mut self.builder, BatchKind::Records, keep_tail)
        {
            Ok(written) => {
                self.commit(written, piece.as_ref());
                if planted(Bug::DeliveredBeforeDurable)
                    && let Err(error) = self.writer.sync_too_late()
                {
                    self.give_up(&WriteFault::Failed(error));
                }
            }
            Err(fault) => self.give_up(&fault),
        }
    }

    /// Whether anybody reads close enough to the end to be served from memory.
    fn somebody_follows(&self) -> bool {
        self.shared.watched()
            || self
                .writer
                .end()
                .get()
                .saturating_sub(self.shared.followed_at())
                < FOLLOW_BYTES
    }

    /// The batch is durable: shows it to readers.
    fn commit(&mut self, written: Written, piece: Option<&Piece>) {
        let at = written.head.position;
        let time = Micros::new(written.head.time);
        self.pending.clear();
        self.note_segment();
        if let Some(piece) = piece {
            self.advance_checkpoint(piece);
        }
        let runs = self.builder.runs().iter().filter(|run| !run.room.is_none());
        let runs: Vec<BatchRun> = runs.copied().collect();
        let mut rooms = write(&self.shared.rooms);
        let before = |room: RoomId| {
            let slot = rooms.get(room).filter(|slot| !slot.head.is_none());
            slot.map_or((LogPosition::NONE, NO_TIME), |slot| {
                (LogPosition::new(slot.last_at), slot.last_time)
            })
        };
        let end = written.head.end();
        let tail = TailBatch::new(
            at,
            end,
            written.records.unwrap_or_default(),
            runs.iter().map(|run| (*run, before(run.room).0)),
            self.builder.message_lengths(),
        );
        self.shared.segments.note(
            runs.iter().map(|run| {
                let (previous, time_before) = before(run.room);
                (*run, previous, time_before)
            }),
            at,
            time,
        );
        let removed = self.removed_rooms();
        let awaited = self.cursor_moves.iter().filter(|moved| moved.key.is_some());
        let moves = awaited.count() + self.relaxed_moves.len();
        self.shared.space.note_moves(moves);
        self.shared
            .space
            .note_trimmed(self.messages_trimmed(&rooms));
        self.note_changes();
        self.sequencer.commit(&mut rooms, at.get());
        self.rooms_in_all = rooms.numbers();
        for run in &runs {
            rooms.add_bytes(run.room, u64::from(run.bytes));
        }
        self.shared.show(tail, end);
        drop(rooms);
        for room in &removed {
            // Whoever waits there is told that it is gone.
            self.shared
                .fire(room, Seq::new(u64::MAX), &mut self.wake_readers);
        }
        self.shared
            .count(runs.iter().map(|run| u64::from(run.count)).sum());
    }

    fn advance_checkpoint(&mut self, piece: &Piece) {
        if piece.is_last
            && let Some(done) = self.checkpoint.take()
        {
            // What lies before the older of two complete checkpoints is in both.
            let older = match self.writer.checkpoint {
                LogPosition::NONE => LogPosition::START,
                begin => begin,
            };
            self.shared.space.note_checkpoint(older, done.bytes());
            self.shared.keep.nudge();
            self.last_checkpoint = (done.bytes(), done.begin);
            self.writer.checkpoint = done.begin;
            // A good moment: what nobody will ask for again need not be copied the next time.
            let now = self.clock.now();
            let idle = self.sequencer.idle_secs;
            self.sequencer.producers.expire(now, idle);
            self.sequencer.in_doubt.expire(now, idle);
            self.sequencer.expire_cursors(now);
        }
    }

    /// Tells the readers of a segment that the writer has begun, with a batch, with a mark, or in
    /// place of a batch that was refused.
    fn note_segment(&mut self) {
        if let Some(begun) = self.writer.take_begun() {
            self.mentioned_from = begun.mentioned_from;
            self.sealed.extend(self.shared.segments.begin(begun.header));
            self.shared.keep.nudge();
        }
    }

    /// Posts the outcomes, and wakes every mailbox once: those who wait for an answer first, which then does not become later
    /// with every reader of the room.
    fn tell(&mut self) {
        for Admitted {
            append,
            to,
            decision,
        } in self.admitted.drain(..)
        {
            let grown = decision.placed.as_ref().map(Placed::last_seq);
            if post_decision(decision, &append, &to) {
                self.wake.push(to);
            }
            if let Some(head) = grown {
                self.shared.fire(&append.room, head, &mut self.wake_readers);
            }
        }
        for CursorMove {
            tag, to, result, ..
        } in self.cursor_moves.drain(..)
        {
            if to.post_quietly(Notice::Cursor { tag, result }) {
                self.wake.push(to);
            }
        }
        self.tell_asked();
        self.wake.append(&mut self.wake_readers);
        if self.wake.len() > CROWD {
            self.shared.inbox.note_crowd();
        }
        wake_all(&mut self.wake);
        if self.checkpoint.is_none() {
            self.shortened.drain(..).for_each(|done| (done.0)());
        }
    }

    /// Notices when the directory has been moved or replaced under the store.
    fn check_identity(&mut self) {
        let now = self.clock.monotonic();
        if now.saturating_sub(self.identity_checked) < IDENTITY_EVERY
            && self.identity_checked != Duration::ZERO
        {
            return;
        }
        self.identity_checked = now;
        if let Err(error) = self.shared.segments.storage().check_identity() {
            self.shared.set_read_only(format!("the data directory is no longer the one that was opened ({error}); put it back and start the broker again"));
            self.shared.set_moved();
        }
    }

    /// Nothing has come for a while: writes what waited for company, and proves to the next leader that nothing is missing.
    pub fn idle(&mut self) {
        if self.has_relaxed_moves() {
            self.step();
        } else {
            self.mark(BatchKind::IdleMark);
        }
    }

    fn mark(&mut self, kind: BatchKind) {
        let now = self.clock.now();
        match self.writer.mark(kind, now.get()) {
            Ok(()) => self.note_segment(),
            Err(fault) => self.give_up(&fault),
        }
    }

    /// Whether a last checkpoint takes nothing of the space that was prepared: on a full disk that is for the next leader.
    fn has_space_to_end(&mut self) -> bool {
        let (size, _) = self.last_checkpoint;
        let wanted = ENDS_WITH_FREE.saturating_add(size.saturating_mul(2));
        let free = self.shared.segments.storage().free_bytes();
        let is_free = free.is_ok_and(|free| free >= wanted);
        let may_write = self.shared.read_only().is_none() && !self.writer.is_starved();
        may_write && is_free && self.writer.secure_spare(Checkpoint::PIECE_BYTES_MAX as u64)
    }

    /// Whether there is more to do than what is queued.
    pub(super) fn is_busy(&self) -> bool {
        self.checkpoint.is_some() || !self.backlog.is_empty()
    }

    /// Whether a mark ends the log, and nothing waits to be written.
    #[must_use]
    pub fn is_marked(&self) -> bool {
        self.writer.is_marked() && !self.has_relaxed_moves()
    }

    /// Stores what is queued, takes nothing more, leaves little to read to whoever opens the store next, and ends the log with a
    /// mark.
    pub fn close(&mut self) {
        self.shared.inbox.close();
        while self.step() {}
        // An heir who waits was left little already. For anybody else a checkpoint must not be more than was written since the last.
        let (size, _) = self.last_checkpoint;
        let worth = self.shorten_bytes_min.max(size);
        if !self.has_heir && self.has_beside_checkpoint(worth) && self.has_space_to_end() {
            self.leave_little(worth);
            while self.step() {}
        }
        let now = self.clock.now();
        self.write_all_relaxed_moves(now);
        if !self.pending.is_empty() && self.shared.read_only().is_none() {
            self.write_batch(now);
        }
        self.mark(BatchKind::CloseMark);
        self.writer.drop_spare();
    }

    /// The size of a spare that should be made, if one should.
    pub(super) fn wants_spare(&mut self) -> Option<(String, u64)> {
        let bytes = self.writer.wants_spare()?;
        Some((self.writer.spare_name(), bytes))
    }

    /// The clock that it goes by.
    pub(super) fn clock(&self) -> Arc<dyn Clock> {
        Arc::clone(&self.clock)
    }

    /// Whether the spare that is being made will be waited for soon.
    pub(super) fn needs_spare_soon(&self) -> bool {
        self.writer.needs_spare_soon()
    }

    /// Hands in a spare.
    pub(super) fn offer_spare(&mut self, made: std::io::Result<Spare<S::File>>) {
        self.writer.offer_spare(made);
    }

    /// Segments whose footers have to be written.
    pub(super) fn take_sealed(&mut self) -> Vec<Arc<Segment>> {
        std::mem::take(&mut self.sealed)
    }

    /// Does by hand what threads do in production: spares and footers.
    pub fn keep_house(&mut self) {
        if let Some((name, bytes)) = self.wants_spare() {
            let storage = &**self.shared.segments.storage();
            let made = make_spare(storage, &name, bytes, &mut || Some(FILL_BYTES));
            self.offer_spare(made);
        }
        for segment in self.take_sealed() {
            // A footer is only a hint.
            let _ = self.shared.segments.write_footer(&segment);
        }
        self.shared.write_early(self.writer.is_marked(), true);
    }
}

impl<S: Storage> Engine<S> {
    /// What reads everything in the background.
    pub(super) fn scrubber(&self) -> Scrub<S> {
        Scrub::new(Arc::clone(&self.shared), Arc::clone(&self.clock), self.term)
    }

    /// What keeps the store within its bounds. There is one of them.
    pub(super) fn keeper(&mut self) -> Option<Keeper<S>> {
        let markers = self.markers.take()?;
        let (shared, clock) = (Arc::clone(&self.shared), Arc::clone(&self.clock));
        Some(Keeper::new(shared, clock, markers, self.segment_bytes_max))
    }

    /// Does by hand what a thread does in production: sees what is not to be kept any more, and gives its space back, at most
    /// one thing at a time. Says whether there is more to do at once.
    pub fn keep(&mut self) -> bool {
        let mut keeper = match self.keeper.take() {
            Some(keeper) => keeper,
            None => match self.keeper() {
                Some(keeper) => keeper,
                None => return false,
            },
        };
        let goes_on = keeper.step_by_hand();
        self.keeper = Some(keeper);
        goes_on
    }

    /// Does by hand what a thread does in production: reads and checks the next piece of the sealed
    /// segments, or the first one of the next pass. Says whether this pass goes on.
    pub fn scrub(&mut self) -> bool {
        let mut scrub = match self.scrub.take() {
            Some(scrub) => scrub,
            None => self.scrubber(),
        };
        let goes_on = scrub.piece();
        self.scrub = Some(scrub);
        goes_on
    }
}

/// Whether a request changes what rooms or the store are, beside messages.
fn is_change(request: &Request) -> bool {
    match request {
        Request::Trim { .. } => true,
        Request::Ask { ask, .. } => !matches!(ask, Ask::Cursors(_)),
        _ => false,
    }
}

impl<S: Storage> std::fmt::Debug for Engine<S> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Engine")
            .field("writer", &self.writer)
            .finish_non_exhaustive()
    }
}

fn drop_record(key: &ProducerKey) -> Vec<u8> {
    let mut record = Vec::new();
    let dropped = state::ProducerDropRecord {
        sender: key.sender.as_str(),
        producer: *key.producer.as_bytes(),
    };
    state::encode(kind::PRODUCER_DROP, RoomId::NONE, &dropped, &mut record);
    record
}

//! The deciding half of a store: which seq a message gets, whether it was stored before, and who
//! may publish as whom. No disk, no clock, no threads: time and chance come in as arguments.
//!
//! Decisions are *staged* while a batch forms. After the batch is on stable storage they are
//! [committed](Sequencer::commit) to the rooms that readers see; when it could not be written they
//! are [rolled back](Sequencer::rollback) and it is as if nobody had asked. So a reader never sees
//! what a crash could take back, and a refused batch leaves no hole in the seqs.

mod changes;
mod limits;
mod resend;

use std::collections::HashMap;

use broker_proto::record::RECORD_FIXED_BYTES;
use broker_proto::{
    Epoch, ErrorCode, Level, Micros, RoomId, RoomName, SenderName, Seq, StoreSettings, publish,
};

use super::cursors::{CURSORS_MAX, CursorKey, Cursors, Is, Relaxed, Stand};
use super::in_doubt::InDoubt;
use super::producers::{Known, Producer, Producers, Run};
use super::rooms::{
    NO_TIME, RoomSlot, RoomTable, Versioned, after, before, draw_epoch, is_nameless,
};
use super::{AckRun, Append, ProducerKey, SessionId, SetCursor, StoreError};

pub(crate) use changes::{Change, Trimming};
pub(crate) use limits::look_pause;

/// Why a number that was skipped is refused.
const PASSED_OVER: &str = "this number was passed over and can no longer be stored without breaking the order; it is not stored";

/// Where the entries of an append go.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Placed {
    pub(crate) room: RoomId,
    pub(crate) epoch: Epoch,
    /// Entries at the front that were stored before, or never will be.
    pub(crate) skip: u32,
    pub(crate) first_number: u64,
    pub(crate) count: u32,
    pub(crate) first_seq: Seq,
    /// Whether this append makes the room.
    pub(crate) new_room: bool,
    /// Whether nothing of this producer was remembered before.
    pub(crate) begins: bool,
}

impl Placed {
    /// The seq of the last entry.
    pub(crate) fn last_seq(&self) -> Seq {
        Seq::new(self.first_seq.get() + u64::from(self.count) - 1)
    }
}

/// Numbers that are not stored, and why.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Refusal {
    pub(crate) first_number: u64,
    pub(crate) count: u32,
    pub(crate) code: ErrorCode,
    pub(crate) detail: String,
    /// When to try again, in milliseconds; 0: no advice.
    pub(crate) retry_after_ms: u32,
}

/// Why numbers are not stored.
#[derive(Debug)]
struct Why {
    code: ErrorCode,
    detail: String,
    retry_after_ms: u32,
}

impl From<(ErrorCode, String)> for Why {
    fn from((code, detail): (ErrorCode, String)) -> Self {
        Self {
            code,
            detail,
            retry_after_ms: 0,
        }
    }
}

/// What becomes of an append. Together the parts name every number once.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Decision {
    /// Stored before; to be acknowledged again with the seqs of that time.
    pub(crate) known: Vec<AckRun>,
    /// Not stored.
    pub(crate) refused: Vec<Refusal>,
    /// To be stored now.
    pub(crate) placed: Option<Placed>,
}

/// What the highest number of a producer says about those of an append.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Numbers {
    /// All are above it.
    New,
    /// Some may be known.
    Seen,
}

#[derive(Debug)]
struct StagedRoom {
    next: Seq,
    last_time: Micros,
    /// How many bytes of records it grows by, if anything is limited.
    bytes: u64,
}

/// A room that the batch makes.
#[derive(Debug)]
struct NewRoom {
    name: RoomName,
    epoch: Epoch,
    created: Micros,
    created_by: SenderName,
}

impl NewRoom {
    fn slot(&self) -> RoomSlot {
        RoomSlot {
            created: self.created,
            ..RoomSlot::new(self.epoch)
        }
    }
}

#[derive(Debug)]
enum Undo {
    Producer {
        key: ProducerKey,
        before: ProducerMark,
    },
    Cursor {
        key: CursorKey,
        before: Option<Stand>,
    },
}

/// Enough of a producer to take back what a batch did to it.
#[derive(Debug)]
struct ProducerMark {
    highest: u64,
    runs: usize,
    last: Option<Run>,
}

/// See the module's documentation.
#[derive(Debug, Default)]
pub(crate) struct Sequencer {
    pub(crate) producers: Producers,
    pub(crate) cursors: Cursors,
    /// Stored messages that may be what is sent again; nearly always none.
    pub(crate) in_doubt: InDoubt,
    pub(crate) idle_secs: u32,
    /// What is set of the store.
    pub(crate) settings: Versioned<StoreSettings>,
    /// How long the log is, if it has a limit.
    pub(crate) log_bytes: u64,
    /// Whether some of it is about to be freed.
    pub(crate) space_follows: bool,
    /// Moves of cursors that are not written yet.
    pub(crate) relaxed: Relaxed,
    /// Rooms that had no place for so many bytes, and may lose messages for them; `NONE` for the store.
    pub(crate) short: HashMap<RoomId, u64>,
    staged: HashMap<RoomId, StagedRoom>,
    changes: Vec<Change>,
    new_rooms: Vec<NewRoom>,
    new_by_name: HashMap<RoomName, RoomId>,
    undo: Vec<Undo>,
    /// Noted moves that the batch writes, or passes over.
    in_flight: Vec<(CursorKey, Stand)>,
}

impl Sequencer {
    /// Knows nothing yet, and forgets idle producers after `idle_secs`.
    pub(crate) fn new(idle_secs: u32) -> Self {
        Self {
            idle_secs,
            ..Self::default()
        }
    }

    /// Decides on one append. `chance` draws the epoch of a new room.
    pub(crate) fn append(
        &mut self,
        rooms: &RoomTable,
        append: &Append,
        now: Micros,
        chance: &mut dyn FnMut() -> u64,
    ) -> Decision {
        let mut decision = Decision::default();
        let refuse = |decision: &mut Decision, from: u64, why: Why| {
            let count = u32::try_from(append.first_number + u64::from(append.count) - from)
                .unwrap_or(append.count);
            decision.refused.push(Refusal {
                first_number: from,
                count,
                code: why.code,
                detail: why.detail,
                retry_after_ms: why.retry_after_ms,
            });
        };
        let number = match self.admit(append, now) {
            Err(why) => {
                refuse(&mut decision, append.first_number, why.into());
                return decision;
            }
            Ok(Numbers::New) => append.first_number,
            Ok(Numbers::Seen) => self.recognise(rooms, append, &mut decision),
        };
        let number = self.refuse_doubtful(rooms, append, number, &mut decision);
        if number == append.first_number + u64::from(append.count) {
            return decision;
        }
        match self.place(rooms, append, number, now, chance) {
            Ok(placed) => decision.placed = Some(placed),
            Err(why) => {
                self.note_hole(
                    &append.key,
                    number,
                    append.first_number + u64::from(append.count) - 1,
                );
                refuse(&mut decision, number, why);
            }
        }
        decision
    }

    /// What became of an append, when nothing is written any more: a retry of what was stored hears
    /// its seq all the same.
    pub(crate) fn recall(
        &mut self,
        rooms: &RoomTable,
        append: &Append,
        now: Micros,
        reason: String,
    ) -> Decision {
        let mut decision = Decision::default();
        let end = append.first_number + u64::from(append.count);
        let (from, (code, detail)) = match self.admit(append, now) {
            Err(refusal) => (append.first_number, refusal),
            Ok(_) => (
                self.recognise(rooms, append, &mut decision),
                (ErrorCode::READ_ONLY, reason),
            ),
        };
        if from < end {
            decision.refused.push(Refusal {
                first_number: from,
                count: u32::try_from(end - from).unwrap_or(append.count),
                code,
                detail,
                retry_after_ms: 0,
            });
        }
        decision
    }

    /// Whether this session may publish with this producer, and whether its numbers make sense.
    fn admit(&mut self, append: &Append, now: Micros) -> Result<Numbers, (ErrorCode, String)> {
        if let Some(producer) = self.producers.get(&append.key) {
            let fenced = append.session != SessionId(0)
                && append.claimed
                && producer.owner != append.session;
            if fenced {
                return Err((ErrorCode::SUPERSEDED, "a newer connection of the same producer has taken over; this one may no longer publish".to_owned()));
            }
            if producer.highest >= append.first_number {
                return Ok(Numbers::Seen);
            }
            if producer.highest > 0 || append.first_number == 1 {
                return Ok(Numbers::New);
            }
        }
        if append.first_number > 1 {
            let detail = format!(
                "number {} of a producer that is not known here: it may have been stored and forgotten; nothing was stored now",
                append.first_number
            );
            return Err((ErrorCode::OUTCOME_UNKNOWN, detail));
        }
        if self.producers.get(&append.key).is_none()
            && !self.producers.make_room(now, self.idle_secs)
        {
            let detail = "too many producers are remembered; explicit keys are forgotten by age only, so try again later or without a key";
            return Err((ErrorCode::LIMIT, detail.to_owned()));
        }
        Ok(Numbers::New)
    }

    /// Sorts out the numbers that have been seen; gives the first one that has not.
    fn recognise(&self, rooms: &RoomTable, append: &Append, decision: &mut Decision) -> u64 {
        let end = append.first_number + u64::from(append.count);
        let Some(producer) = self.producers.get(&append.key) else {
            return append.first_number;
        };
        let mut number = append.first_number;
        while number < end {
            let span = |count: u64| u32::try_from(count.min(end - number)).unwrap_or(append.count);
            let count = match producer.look_up(number) {
                Known::New => break,
                Known::Stored { room, seq, count } => {
                    let count = span(count);
                    let known = self.name_of(rooms, room);
                    if let Some((name, epoch)) = known.filter(|(name, _)| !is_nameless(name)) {
                        decision.known.push(AckRun {
                            room: name,
                            epoch,
                            first_number: number,
                            count,
                            first_seq: seq,
                            level: Level::SYNCED,
                        });
                    } else {
                        let detail =
                            "stored before, in a room that was removed, or whose name is lost";
                        decision.refused.push(Refusal {
                            first_number: number,
                            count,
                            code: ErrorCode::DUPLICATE,
                            detail: detail.to_owned(),
                            retry_after_ms: 0,
                        });
                    }
                    count
                }
                Known::NotStored { count } if !self.in_doubt.is_empty() => {
                    let count = span(count);
                    self.refuse_passed_over(rooms, append, (number, count), decision);
                    count
                }
                Known::NotStored { count } => {
                    decision.refused.push(Refusal {
                        first_number: number,
                        count: span(count),
                        code: ErrorCode::NOT_STORED,
                        detail: PASSED_OVER.to_owned(),
                        retry_after_ms: 0,
                    });
                    span(count)
                }
                Known::Old { count } => {
                    let detail = "so old a number that its seq is no longer known";
                    decision.refused.push(Refusal {
                        first_number: number,
                        count: span(count),
                        code: ErrorCode::DUPLICATE,
                        detail: detail.to_owned(),
                        retry_after_ms: 0,
                    });
                    span(count)
                }
            };
            number += u64::from(count);
        }
        number
    }

    fn name_of(&self, rooms: &RoomTable, id: RoomId) -> Option<(RoomName, Epoch)> {
        if let Some(slot) = rooms.get(id) {
            return Some((rooms.room_name(id)?, slot.epoch));
        }
        let ahead = usize::try_from(id.get())
            .ok()?
            .checked_sub(rooms.numbers() + 1)?;
        let new = self.new_rooms.get(ahead)?;
        Some((new.name.clone(), new.epoch))
    }

    /// Gives the rest of an append its seqs.
    fn place(
        &mut self,
        rooms: &RoomTable,
        append: &Append,
        number: u64,
        now: Micros,
        chance: &mut dyn FnMut() -> u64,
    ) -> Result<Placed, Why> {
        let found = rooms
            .find(&append.room)
            .map(|(id, slot)| (id, slot.epoch, slot.head, slot.last_time));
        let made = || self.new_by_name.get(&append.room).copied();
        let known = match found {
            Some(found) => Some(found),
            None => {
                made().and_then(|id| Some((id, self.name_of(rooms, id)?.1, Seq::NONE, NO_TIME)))
            }
        };
        let head = match known {
            Some((id, _, head, _)) => self
                .staged
                .get(&id)
                .map_or(head, |staged| before(staged.next)),
            None => Seq::NONE,
        };
        if let Some(expected) = append.expected_head
            && expected != head
        {
            let detail = format!("the room's last seq is {head}, not {expected}");
            return Err((ErrorCode::WRONG_HEAD, detail).into());
        }
        let skip = u32::try_from(number - append.first_number).unwrap_or(append.count);
        let count = append.count - skip;
        let bytes = match self.is_limited(rooms) {
            true => record_bytes(append, skip),
            false => 0,
        };
        self.check_limit(rooms, known.map(|(id, ..)| id), bytes, now)?;
        let (id, epoch, last_time, new_room) = match known {
            Some((id, epoch, _, last_time)) => (id, epoch, last_time, false),
            None => {
                let Some(id) = rooms.next_id(self.new_rooms.len()) else {
                    let detail = "the store has as many rooms as it may have".to_owned();
                    return Err((ErrorCode::LIMIT, detail).into());
                };
                let epoch = draw_epoch(chance());
                self.new_rooms.push(NewRoom {
                    name: append.room.clone(),
                    epoch,
                    created: now,
                    created_by: append.key.sender.clone(),
                });
                self.new_by_name.insert(append.room.clone(), id);
                (id, epoch, NO_TIME, true)
            }
        };
        let first_seq = after(head);
        let staged = self.staged.entry(id).or_insert(StagedRoom {
            next: first_seq,
            last_time,
            bytes: 0,
        });
        staged.bytes += bytes;
        self.log_bytes = self.log_bytes.saturating_add(bytes);
        staged.next = Seq::new(first_seq.get() + u64::from(count));
        staged.last_time = staged.last_time.max(now);
        let begins = self.note_stored(
            append,
            Run {
                first: number,
                count,
                room: id,
                seq: first_seq,
            },
            now,
        );
        Ok(Placed {
            room: id,
            epoch,
            skip,
            first_number: number,
            count,
            first_seq,
            new_room,
            begins,
        })
    }

    /// Notes a run; says whether it is the first one that is remembered of its producer.
    fn note_stored(&mut self, append: &Append, run: Run, now: Micros) -> bool {
        let producer = self.producers.entry(&append.key);
        let begins = producer.runs.is_empty();
        self.undo.push(Undo::Producer {
            key: append.key.clone(),
            before: mark(producer),
        });
        producer.push(run);
        producer.used = now;
        producer.claimed = append.claimed;
        begins
    }

    fn note_hole(&mut self, key: &ProducerKey, first: u64, last: u64) {
        // Only what continues the known numbers: a stranger's high number must not vouch for the
        // ones below it.
        let known = self
            .producers
            .get(key)
            .map_or(0, |producer| producer.highest);
        if first <= known + 1 || known > 0 {
            let producer = self.producers.entry(key);
            producer.highest = producer.highest.max(last);
        }
    }

    /// Numbers that the session refused itself.
    pub(crate) fn hole(&mut self, key: &ProducerKey, session: SessionId, first: u64, count: u32) {
        let ours = match self.producers.get(key) {
            Some(producer) => producer.owner == session,
            // A hole is not worth more memory than there is: the numbers after it are then strangers.
            None => self.producers.has_room(),
        };
        if ours && first > 0 && count > 0 {
            self.note_hole(key, first, first.saturating_add(u64::from(count) - 1));
        }
    }

    /// Makes a session the owner of a producer.
    pub(crate) fn claim(&mut self, key: &ProducerKey, session: SessionId, now: Micros) {
        // A full table leaves the producer without an owner entry; its first append is then refused
        // with the limit, and not before, because a reader needs no producer.
        if self.producers.get(key).is_some() || self.producers.make_room(now, self.idle_secs) {
            let producer = self.producers.entry(key);
            producer.owner = session;
            producer.claimed = true;
            if producer.used == Micros::default() {
                producer.used = now;
            }
        }
    }

    /// Ends a session's ownership; true when the store had something to forget.
    pub(crate) fn release(&mut self, key: &ProducerKey, session: SessionId, forget: bool) -> bool {
        let Some(producer) = self.producers.get_mut(key) else {
            return false;
        };
        if producer.owner != session {
            return false;
        }
        producer.owner = SessionId(0);
        let stored = producer.highest > 0;
        if forget || !stored {
            self.producers.remove(key);
        }
        forget && stored
    }

    /// The number of a room, also of one that the batch makes.
    pub(crate) fn room_id(&self, rooms: &RoomTable, name: &RoomName) -> Option<RoomId> {
        rooms
            .id(name)
            .or_else(|| self.new_by_name.get(name).copied())
    }

    /// Moves a cursor; gives its key when something has to be written.
    pub(crate) fn set_cursor(
        &mut self,
        rooms: &RoomTable,
        set: &SetCursor,
        now: Micros,
    ) -> Result<CursorKey, StoreError> {
        let Some(room) = self.room_id(rooms, &set.room) else {
            return Err(StoreError::NoSuchRoom {
                room: set.room.clone(),
            });
        };
        let key = CursorKey {
            room,
            name: set.name.clone(),
        };
        let found = self.stand(&key).map(|stand| stand.at);
        if set.expected.is_some_and(|expected| expected != found) {
            return Err(StoreError::Conflict { found });
        }
        if found.is_none() && set.to.is_some() {
            self.has_room_for_cursor()?;
        }
        let to = set.to.map(|at| Stand { at, moved: now });
        self.stage_cursor(key.clone(), to);
        Ok(key)
    }

    /// Where a cursor stands, though it may not be stored yet.
    pub(crate) fn stand(&self, key: &CursorKey) -> Option<Stand> {
        self.relaxed.get(key).or_else(|| self.cursors.stand(key))
    }

    /// Notes a move that is written later.
    pub(crate) fn relax_cursor(
        &mut self,
        rooms: &RoomTable,
        set: &SetCursor,
        now: Micros,
    ) -> Result<(), StoreError> {
        let room = self
            .room_id(rooms, &set.room)
            .ok_or_else(|| StoreError::NoSuchRoom {
                room: set.room.clone(),
            })?;
        let key = CursorKey {
            room,
            name: set.name.clone(),
        };
        let Some(at) = set.to else { return Ok(()) };
        if self.stand(&key).is_none() {
            self.has_room_for_cursor()?;
        }
        let is = is_stored(&self.cursors, &key);
        self.relaxed.note(key, Stand { at, moved: now }, is);
        Ok(())
    }

    /// Stages the oldest moves that were noted, at most so many; gives their keys.
    pub(crate) fn stage_relaxed(&mut self, most: usize) -> Vec<CursorKey> {
        let taken = self.relaxed.take(most);
        let keys = taken.iter().map(|(key, _)| key.clone()).collect();
        for (key, stand) in taken {
            self.in_flight.push((key.clone(), stand));
            let before = self.cursors.set(key.clone(), Some(stand));
            self.undo.push(Undo::Cursor { key, before });
        }
        keys
    }

    /// Forgets cursors that have not moved for longer than is set.
    pub(crate) fn expire_cursors(&mut self, now: Micros) {
        if let Some(idle) = self.settings.settings.cursor_idle {
            self.cursors.expire(now, idle, &self.relaxed);
        }
    }

    fn has_room_for_cursor(&self) -> Result<(), StoreError> {
        if self.cursors.len() + self.relaxed.new_cursors() < CURSORS_MAX {
            return Ok(());
        }
        Err(StoreError::Limit {
            what: format!("the store keeps at most {CURSORS_MAX} cursors; delete some"),
        })
    }

    /// Stages a move that somebody waits for. One that was noted before is passed over.
    fn stage_cursor(&mut self, key: CursorKey, to: Option<Stand>) {
        if let Some(passed) = self.relaxed.get(&key) {
            self.relaxed.forget(&key);
            self.in_flight.push((key.clone(), passed));
        }
        let before = self.cursors.set(key.clone(), to);
        self.undo.push(Undo::Cursor { key, before });
    }

    /// The rooms that the batch makes, with their numbers.
    pub(crate) fn new_rooms(
        &self,
        rooms: &RoomTable,
    ) -> impl Iterator<Item = (RoomId, &RoomName, &SenderName, RoomSlot)> {
        let first = rooms.numbers() + 1;
        self.new_rooms
            .iter()
            .enumerate()
            .filter_map(move |(at, new)| {
                let id = u32::try_from(first + at).ok()?;
                Some((RoomId::new(id), &new.name, &new.created_by, new.slot()))
            })
    }

    /// Shows readers what the batch did. `at` is its place in the log.
    pub(crate) fn commit(&mut self, rooms: &mut RoomTable, at: u64) {
        for new in self.new_rooms.drain(..) {
            if let Some(id) = rooms.next_id(0) {
                let slot = RoomSlot {
                    last_at: at,
                    ..new.slot()
                };
                rooms.insert(id, &new.name, Some(&new.created_by), slot);
            }
        }
        self.new_by_name.clear();
        for (id, staged) in self.staged.drain() {
            rooms.grow(id, before(staged.next), staged.last_time, at);
        }
        self.commit_changes(rooms);
        self.in_flight.clear();
        for undo in self.undo.drain(..) {
            if let Undo::Producer { key, .. } = undo
                && let Some(producer) = self.producers.get_mut(&key)
            {
                producer.prune();
            }
        }
    }

    /// Takes everything back that the batch staged.
    pub(crate) fn rollback(&mut self) {
        self.new_rooms.clear();
        self.new_by_name.clear();
        self.staged.clear();
        self.changes.clear();
        while let Some(undo) = self.undo.pop() {
            match undo {
                Undo::Cursor { key, before } => {
                    self.cursors.set(key, before);
                }
                Undo::Producer { key, before } => {
                    if let Some(producer) = self.producers.get_mut(&key) {
                        restore(producer, before);
                    }
                }
            }
        }
        let (cursors, moves) = (&self.cursors, std::mem::take(&mut self.in_flight));
        self.relaxed.put_back(moves, |key| is_stored(cursors, key));
    }
}

/// How many bytes of records the entries of an append become, but for the first `skip`.
fn record_bytes(append: &Append, skip: u32) -> u64 {
    let head = RECORD_FIXED_BYTES + append.head.len();
    let entries = publish::entries(&append.entries).skip(skip as usize);
    entries
        .map(|entry| (head + entry.extensions.len() + entry.payload.len()) as u64)
        .sum()
}

fn is_stored(cursors: &Cursors, key: &CursorKey) -> Is {
    match cursors.stand(key) {
        Some(_) => Is::Stored,
        None => Is::New,
    }
}

fn mark(producer: &Producer) -> ProducerMark {
    ProducerMark {
        highest: producer.highest,
        runs: producer.runs.len(),
        last: producer.runs.back().copied(),
    }
}

/// Puts a producer back, except that its highest number stays known: the numbers of a batch that
/// was refused are holes, and a hole at the very beginning must not make the peer a stranger.
fn restore(producer: &mut Producer, mark: ProducerMark) {
    producer.runs.truncate(mark.runs);
    if let (Some(back), Some(last)) = (producer.runs.back_mut(), mark.last) {
        *back = last;
    }
    producer.highest = producer.highest.max(mark.highest);
}

//! The subscriptions of one session: positions over the store, pulled as far as their windows go.
//!
//! ```text
//!             pull, from memory                        caught up
//!   Ready ------------------------> (delivered) ---------------------> Watching
//!    ^ |                               |    ^                             |
//!    | | pull, from disk               |    | the reply came,             | it grew
//!    | +-----------> Reading ----------|----+ its turn too                v
//!    |                                 | window used up                 Ready
//!    +-------- Credit -------- Spent <-+
//! ```
//! History and live are this one loop: a reader that is behind reads again at once, one that has
//! caught up is woken by the store. Ready subscriptions take turns, and a turn of all of them
//! together is bounded in bytes, so that acks and pongs never stand behind more than that.
//!
//! **Invariants:** a subscription has at most one read or one watch at the store; replies that wait
//! for their turn are at most [`Terms::disk_reads_max`](super::Terms); a position only moves by what
//! was put into the outbox.

use std::collections::{HashMap, VecDeque};
use std::mem;

use broker_proto::record::RECORD_LENGTH_END;
use broker_proto::{
    Epoch, ErrorCode, Frame, Kind, Position, RoomName, Seq, Skip, StartAt, StartView, Subscribe,
    Subscribed, deliver,
};
use bytes::Bytes;

use super::credit::Window;
use super::turn::{Fault, Turn};
use crate::store::{Hint, ReadRange, ReadReply, Store, StoreError};

/// What looking at a subscription costs of a turn, in bytes, even if nothing is delivered: it bounds
/// how many are looked at before acks and pongs are.
const PULL_COST: usize = 64;

/// The least share of a turn, in bytes, however many subscriptions are ready: below it a read costs
/// more than what it reads. Who gets none in this turn is first in the next.
const SHARE_MIN: usize = 8 << 10;

/// Bytes of records that are read ahead from the disk at a time. Each read costs a hand-over to another thread and back, an
/// opened file and a batch's table: with 64 KiB, about as much as one turn delivers, that took half of the time of a replay.
const READ_AHEAD_BYTES: usize = 256 << 10;

/// Most messages in one deliver frame; small enough for any receiver to count.
const DELIVER_COUNT_MAX: u32 = 1 << 16;

/// One position over a room.
#[derive(Debug)]
struct Subscription {
    /// What the client calls it.
    sub: u32,
    room: RoomName,
    /// What to read next.
    start: StartAt,
    /// The history that the client was told of; none before the first reply.
    epoch: Epoch,
    window: Window,
    hint: Hint,
    phase: Phase,
    /// Whether the room may still be missing.
    wait: bool,
    /// Whether the client was told that it is.
    told_missing: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    /// In the queue for a turn.
    Ready,
    /// The store reads.
    Reading,
    /// The store will say when the room grows.
    Watching,
    /// Behind or not, the client admits nothing.
    Spent,
}

/// A reply from the disk, or what is left of one that was too much for one turn.
#[derive(Debug)]
struct Arrived {
    tag: u64,
    reply: ReadReply,
    /// Whether the position has moved behind it already, and its bytes are off the window.
    begun: bool,
    /// Whether the disk was waited for, so that it pays to have it go on.
    waited: bool,
}

/// All subscriptions of one connection.
#[derive(Debug, Default)]
pub(super) struct Subscriptions {
    /// By tag, which is never used again.
    by_tag: HashMap<u64, Subscription>,
    /// Tags by what the client calls them.
    tags: HashMap<u32, u64>,
    /// Tags that have a turn to come.
    ready: VecDeque<u64>,
    /// Replies from the disk that have a turn to come.
    arrived: VecDeque<Arrived>,
    /// Reads that the store still owes.
    reading: usize,
}

impl Subscriptions {
    /// Whether a turn would do something.
    pub(super) fn has_work(&self, disk_reads_max: usize) -> bool {
        !self.arrived.is_empty() || (!self.ready.is_empty() && self.reading < disk_reads_max)
    }

    /// Begins a subscription.
    pub(super) fn subscribe<S: Store>(
        &mut self,
        turn: &mut Turn<'_, S>,
        frame: Subscribe,
    ) -> Result<(), Fault> {
        if self.tags.contains_key(&frame.sub) {
            let detail = format!("subscription {} is open already", frame.sub);
            return Err(Fault::new(
                ErrorCode::UNEXPECTED_FRAME,
                Kind::Subscribe,
                detail,
            ));
        }
        if self.tags.len() >= turn.terms.subscriptions_max {
            let detail = format!(
                "this connection has {} subscriptions, the most allowed",
                self.tags.len()
            );
            turn.error(ErrorCode::LIMIT, frame.sub.into(), Kind::Subscribe, detail);
            return Ok(());
        }
        let tag = turn.tag();
        self.tags.insert(frame.sub, tag);
        let subscription = Subscription {
            sub: frame.sub,
            wait: frame.waits(),
            room: frame.room,
            start: frame.start,
            epoch: Epoch::NONE,
            window: Window::new(frame.window, turn.terms.window_bytes_max),
            hint: Hint::default(),
            phase: Phase::Ready,
            told_missing: false,
        };
        self.by_tag.insert(tag, subscription);
        self.ready.push_back(tag);
        Ok(())
    }

    /// Ends a subscription. One that is gone already crossed an error of ours: nothing to say.
    pub(super) fn unsubscribe<S: Store>(&mut self, turn: &Turn<'_, S>, sub: u32) {
        if let Some(tag) = self.tags.get(&sub) {
            self.remove(turn, *tag);
        }
    }

    /// Widens a window.
    pub(super) fn credit(&mut self, sub: u32, bytes: u32) {
        let Some((tag, subscription)) = self
            .tags
            .get(&sub)
            .and_then(|tag| Some((*tag, self.by_tag.get_mut(tag)?)))
        else {
            return;
        };
        subscription.window.grant(bytes);
        if subscription.phase == Phase::Spent && subscription.window.is_open() {
            subscription.phase = Phase::Ready;
            self.ready.push_back(tag);
        }
    }

    /// A watched room grew.
    pub(super) fn grown(&mut self, tag: u64) {
        if let Some(subscription) = self.by_tag.get_mut(&tag)
            && subscription.phase == Phase::Watching
        {
            subscription.phase = Phase::Ready;
            self.ready.push_back(tag);
        }
    }

    /// A read came back from the disk.
    pub(super) fn read<S: Store>(
        &mut self,
        turn: &mut Turn<'_, S>,
        tag: u64,
        result: Result<ReadReply, StoreError>,
    ) {
        self.reading = self.reading.saturating_sub(1);
        match result {
            Ok(reply) if self.by_tag.contains_key(&tag) => self.arrive(tag, reply, true),
            Ok(_) => {}
            Err(error) => self.failed(turn, tag, error),
        }
    }

    /// Delivers what is ready, up to about `budget` bytes; says how many it used.
    pub(super) fn turn<S: Store>(&mut self, turn: &mut Turn<'_, S>, budget: usize) -> usize {
        let mut used = 0;
        while used < budget
            && let Some(arrived) = self.arrived.pop_front()
        {
            let (tag, waited) = (arrived.tag, arrived.waited);
            used += self
                .reply_in_part(turn, arrived, budget - used)
                .max(PULL_COST);
            if waited {
                self.read_ahead(turn, tag);
            }
        }
        // Equal shares in bytes, not in reads: otherwise one reader takes nearly all of every turn.
        let share = (budget / self.ready.len().max(1)).max(SHARE_MIN);
        // A rest that is less than the least share waits for the next turn, too.
        while (used == 0 || budget.saturating_sub(used) >= SHARE_MIN)
            && self.reading < turn.terms.disk_reads_max
            && let Some(tag) = self.ready.pop_front()
        {
            used += self
                .pull(turn, tag, share.min(budget - used))
                .max(PULL_COST);
        }
        used
    }

    /// Takes all watches back: the session ends.
    pub(super) fn close<S: Store>(&mut self, turn: &Turn<'_, S>) {
        for (tag, subscription) in &self.by_tag {
            if subscription.phase == Phase::Watching {
                turn.store.unwatch(&subscription.room, *tag, turn.mailbox);
            }
        }
        *self = Self::default();
    }

    /// Reads for one subscription; says how many bytes it delivered.
    fn pull<S: Store>(&mut self, turn: &mut Turn<'_, S>, tag: u64, budget: usize) -> usize {
        let Some(subscription) = self.by_tag.get_mut(&tag) else {
            return 0;
        };
        if subscription.phase != Phase::Ready {
            return 0;
        }
        if !subscription.epoch.is_none() && !subscription.window.is_open() {
            subscription.phase = Phase::Spent;
            return 0;
        }
        subscription.phase = Phase::Reading;
        match turn
            .store
            .read(subscription.range(budget), tag, turn.mailbox)
        {
            None => {
                self.reading += 1;
                0
            }
            Some(Ok(reply)) => self.reply(turn, tag, &reply),
            Some(Err(error)) => {
                self.failed(turn, tag, error);
                0
            }
        }
    }

    /// After a reply from the disk, lets the disk go on while the bytes are written: the next reply
    /// waits in `arrived`. From memory nothing is read ahead, it is as fast later.
    fn read_ahead<S: Store>(&mut self, turn: &Turn<'_, S>, tag: u64) {
        if self.reading + self.arrived.len() >= turn.terms.disk_reads_max || self.ready.len() > 1 {
            return;
        }
        let Some(subscription) = self.by_tag.get_mut(&tag) else {
            return;
        };
        if subscription.phase != Phase::Ready || !subscription.window.is_open() {
            return;
        }
        self.ready.retain(|ready| *ready != tag);
        subscription.phase = Phase::Reading;
        match turn
            .store
            .read(subscription.range(READ_AHEAD_BYTES), tag, turn.mailbox)
        {
            None => self.reading += 1,
            Some(Ok(reply)) => self.arrive(tag, reply, false),
            Some(Err(_)) => {
                // Asked again in its turn, where the error is told behind what is on its way.
                subscription.phase = Phase::Ready;
                self.ready.push_back(tag);
            }
        }
    }

    fn arrive(&mut self, tag: u64, reply: ReadReply, waited: bool) {
        self.arrived.push_back(Arrived {
            tag,
            reply,
            begun: false,
            waited,
        });
    }

    /// Delivers a reply from the disk, not much more than `budget` bytes of it now: the rest is the first thing in the next
    /// turn. Says how many bytes it delivered.
    fn reply_in_part<S: Store>(
        &mut self,
        turn: &mut Turn<'_, S>,
        arrived: Arrived,
        budget: usize,
    ) -> usize {
        let Arrived {
            tag,
            mut reply,
            begun,
            waited,
        } = arrived;
        let Some(subscription) = self.by_tag.get(&tag) else {
            return 0;
        };
        let is_open = begun || subscription.window.is_open();
        let rest = if is_open {
            split(&mut reply, budget)
        } else {
            None
        };
        let bytes = if begun {
            deliver(turn, subscription, &reply)
        } else {
            self.begin_reply(turn, tag, &reply, rest.as_ref())
        };
        if let Some(rest) = rest {
            // Before anything else of this subscription: its position stands behind these bytes.
            self.arrived.push_front(Arrived {
                tag,
                reply: rest,
                begun: true,
                waited,
            });
        }
        bytes
    }

    /// Tells what a read found and moves the position; says how many bytes of records it was.
    fn reply<S: Store>(&mut self, turn: &mut Turn<'_, S>, tag: u64, reply: &ReadReply) -> usize {
        self.begin_reply(turn, tag, reply, None)
    }

    /// As [`Self::reply`], with what is put off: the position moves behind that too.
    fn begin_reply<S: Store>(
        &mut self,
        turn: &mut Turn<'_, S>,
        tag: u64,
        reply: &ReadReply,
        rest: Option<&ReadReply>,
    ) -> usize {
        let Some(subscription) = self.by_tag.get_mut(&tag) else {
            return 0;
        };
        let begin = begin(reply);
        if subscription.epoch != reply.epoch {
            subscription.epoch = reply.epoch;
            turn.send(&Frame::from(Subscribed {
                sub: subscription.sub,
                epoch: reply.epoch,
                first: reply.first,
                next: begin,
                head: reply.head,
            }));
        }
        subscription.hint = reply.hint;
        if !subscription.window.is_open() {
            // Asked only to learn where it begins; the records come when they are admitted.
            subscription.start = StartAt::position(Position::new(reply.epoch, begin));
            subscription.phase = Phase::Spent;
            return 0;
        }
        let bytes = deliver(turn, subscription, reply);
        subscription
            .window
            .spend(bytes + rest.map_or(0, record_bytes));
        let next = rest.map_or(reply.next, |rest| rest.next);
        subscription.start = StartAt::position(Position::new(reply.epoch, next));
        self.settle(turn, tag, next, reply.head);
        bytes
    }

    /// Decides what a subscription waits for now.
    fn settle<S: Store>(&mut self, turn: &mut Turn<'_, S>, tag: u64, next: Seq, head: Seq) {
        let Some(subscription) = self.by_tag.get_mut(&tag) else {
            return;
        };
        let caught_up = next > head;
        subscription.phase = if !subscription.window.is_open() {
            Phase::Spent
        } else if caught_up
            && turn
                .store
                .watch(&subscription.room, before(next), tag, turn.mailbox)
        {
            Phase::Watching
        } else {
            self.ready.push_back(tag);
            Phase::Ready
        };
    }

    /// A read did not succeed: the subscription waits for its room, or ends alone.
    fn failed<S: Store>(&mut self, turn: &mut Turn<'_, S>, tag: u64, error: StoreError) {
        let Some(subscription) = self.by_tag.get_mut(&tag) else {
            return;
        };
        if let StoreError::NoSuchRoom { .. } = error
            && subscription.wait
            && subscription.epoch.is_none()
        {
            self.await_room(turn, tag);
            return;
        }
        turn.error(
            error.code(),
            subscription.sub.into(),
            Kind::Subscribe,
            error.to_string(),
        );
        self.remove(turn, tag);
    }

    /// Waits for the room's first message. All of the room is then newer than the subscription, so
    /// one that asked for the end, or the last few, begins at the start.
    fn await_room<S: Store>(&mut self, turn: &mut Turn<'_, S>, tag: u64) {
        let Some(subscription) = self.by_tag.get_mut(&tag) else {
            return;
        };
        if let StartView::End | StartView::Last(_) = subscription.start.view() {
            subscription.start = StartAt::START;
        }
        if !mem::replace(&mut subscription.told_missing, true) {
            turn.send(&Frame::from(Subscribed {
                sub: subscription.sub,
                epoch: Epoch::NONE,
                first: Seq::FIRST,
                next: Seq::FIRST,
                head: Seq::NONE,
            }));
        }
        if turn
            .store
            .watch(&subscription.room, Seq::NONE, tag, turn.mailbox)
        {
            subscription.phase = Phase::Watching;
        } else {
            subscription.phase = Phase::Ready;
            self.ready.push_back(tag);
        }
    }

    fn remove<S: Store>(&mut self, turn: &Turn<'_, S>, tag: u64) {
        if let Some(subscription) = self.by_tag.remove(&tag) {
            self.tags.remove(&subscription.sub);
            if subscription.phase == Phase::Watching {
                turn.store.unwatch(&subscription.room, tag, turn.mailbox);
            }
        }
    }
}

impl Subscription {
    /// What to read now, with `budget` bytes left in the turn.
    fn range(&self, budget: usize) -> ReadRange {
        let open = self.window.is_open();
        let bytes = if open { self.window.admits(budget) } else { 1 };
        ReadRange {
            room: self.room.clone(),
            from: self.start,
            count_max: if open { DELIVER_COUNT_MAX } else { 1 },
            bytes_max: u32::try_from(bytes).unwrap_or(u32::MAX),
            hint: self.hint,
        }
    }
}

/// Puts what a read found into the outbox; says how many bytes of records it was.
fn deliver<S: Store>(
    turn: &mut Turn<'_, S>,
    subscription: &Subscription,
    reply: &ReadReply,
) -> usize {
    if let Some(range) = reply.skip {
        turn.send(&Frame::from(Skip {
            sub: subscription.sub,
            range,
            epoch: reply.epoch,
        }));
    }
    if reply.count == 0 {
        return 0;
    }
    let bytes = record_bytes(reply);
    deliver::encode_head(
        turn.out.control(),
        subscription.sub,
        reply.count,
        reply.next,
        bytes,
    );
    for records in &reply.records {
        turn.out.body(records.clone());
    }
    turn.out.mark_delivery();
    bytes
}

fn record_bytes(reply: &ReadReply) -> usize {
    reply.records.iter().map(Bytes::len).sum()
}

/// Cuts a reply before the record with which it would exceed `budget` bytes, and gives what is behind, if anything. One record
/// always stays, however large it is.
fn split(reply: &mut ReadReply, budget: usize) -> Option<ReadReply> {
    if record_bytes(reply) <= budget {
        return None;
    }
    let (mut count, mut left) = (0, budget);
    let (mut kept, mut behind) = (Vec::new(), Vec::new());
    for records in mem::take(&mut reply.records) {
        let mut at = 0;
        while behind.is_empty()
            && let Some(length) = record_len(&records, at)
            && (length <= left || count == 0)
        {
            at += length;
            count += 1;
            left = left.saturating_sub(length);
        }
        let (front, back) = (records.slice(..at), records.slice(at..));
        kept.extend((!front.is_empty()).then_some(front));
        behind.extend((!back.is_empty()).then_some(back));
    }
    reply.records = kept;
    if count == 0 {
        // No records at all: nobody can cut them, and the client says what is wrong with them.
        reply.records = behind;
        return None;
    }
    let count_behind = reply.count.saturating_sub(count);
    let rest = ReadReply {
        count: count_behind,
        records: behind,
        skip: None,
        ..*reply
    };
    reply.next = Seq::new(reply.next.get().saturating_sub(count_behind.into()));
    reply.count = count;
    (!rest.records.is_empty()).then_some(rest)
}

/// The length of the record that begins at `at`; `None` when it does not end within the bytes.
fn record_len(records: &[u8], at: usize) -> Option<usize> {
    let field = at.checked_add(RECORD_LENGTH_END)?;
    let length = records.get(at..field)?.last_chunk()?;
    let len = RECORD_LENGTH_END + u32::from_le_bytes(*length) as usize;
    (at + len <= records.len()).then_some(len)
}

/// The first seq that a reply tells of, as a record or as skipped.
pub(super) fn begin(reply: &ReadReply) -> Seq {
    match &reply.skip {
        Some(skip) => skip.from,
        None => Seq::new(reply.next.get().saturating_sub(reply.count.into())),
    }
}

/// The last seq that a reader at `next` has passed.
fn before(next: Seq) -> Seq {
    Seq::new(next.get().saturating_sub(1))
}

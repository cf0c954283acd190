//! [`Seen`]: verifies the messages of a room; [`Watch`]: a subscriber that does, shared with whoever looks at it.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

use anyhow::{Context, Result, bail};
use broker_core::{BatchItem, MessageBatch, StartAt, Subscription};
use broker_proto::{SkipRange, SkipReason};

use super::publisher::{Publisher, parse};
use crate::args::Soak as Options;
use crate::load::ours;

/// What was seen of one publisher.
#[derive(Debug, Clone, Copy, Default)]
struct Of {
    last: u64,
    /// Whether messages were trimmed since.
    may_jump: bool,
}

/// What was seen of a room.
#[derive(Debug)]
pub(super) struct Seen {
    room: u32,
    rooms: u32,
    /// Whether there is a limit beyond which messages are removed.
    may_trim: bool,
    /// The place that comes next; `None` when reading begins anywhere.
    next: Option<u64>,
    publishers: Vec<Of>,
    count: u64,
    trimmed: u64,
}

impl Seen {
    /// Nothing yet of a room.
    pub(super) fn new(options: &Options, room: u32) -> Self {
        Self::of(
            room,
            options.rooms,
            options.publishers,
            options.keep_bytes.is_some(),
        )
    }

    fn of(room: u32, rooms: u32, publishers: u32, may_trim: bool) -> Self {
        Self {
            room,
            rooms,
            may_trim,
            next: Some(1),
            publishers: vec![Of::default(); publishers as usize],
            count: 0,
            trimmed: 0,
        }
    }

    /// The first message may be any.
    pub(super) fn begin_anywhere(&mut self) {
        self.next = None;
        for of in &mut self.publishers {
            of.may_jump = true;
        }
    }

    fn batch(&mut self, batch: &MessageBatch) -> Result<()> {
        for message in batch {
            self.message(message.seq.get(), message.payload)?;
        }
        Ok(())
    }

    fn message(&mut self, seq: u64, payload: &[u8]) -> Result<()> {
        let room = self.room;
        if self.next.is_some_and(|next| next != seq) {
            bail!("room {room}: message {seq} came instead of {:?}", self.next);
        }
        let told = parse(payload).filter(|(publisher, _)| publisher % self.rooms == room);
        let (publisher, number) =
            told.with_context(|| format!("room {room}: message {seq} was not published to it"))?;
        let of = self.publishers.get_mut(publisher as usize);
        let of = of.with_context(|| format!("room {room}: there is no publisher {publisher}"))?;
        let follows = if of.may_jump {
            number > of.last
        } else {
            number == of.last + 1
        };
        if !follows {
            bail!(
                "room {room}: of publisher {publisher}, number {number} at {seq} follows {}",
                of.last
            );
        }
        *of = Of {
            last: number,
            may_jump: false,
        };
        self.next = Some(seq + 1);
        self.count += 1;
        Ok(())
    }

    fn skip(&mut self, skip: SkipRange) -> Result<()> {
        let (from, to) = (skip.from.get(), skip.to.get());
        let is_right = skip.reason == SkipReason::TRIMMED
            && self.may_trim
            && self.next.is_none_or(|next| next == from)
            && from <= to;
        if !is_right {
            bail!(
                "room {}: {from} to {to} are skipped as {:?} where {:?} is next",
                self.room,
                skip.reason,
                self.next
            );
        }
        self.next = Some(to + 1);
        self.trimmed += to + 1 - from;
        for of in &mut self.publishers {
            of.may_jump = true;
        }
        Ok(())
    }

    fn item(&mut self, item: &BatchItem) -> Result<()> {
        match item {
            BatchItem::Messages(batch) => self.batch(batch),
            BatchItem::Skip(skip) => self.skip(*skip),
            other => bail!("room {}: {other:?} came instead of messages", self.room),
        }
    }

    /// Reads up to a place, and tells how many messages came.
    pub(super) async fn take_until(mut self, mut messages: Subscription, last: u64) -> Result<u64> {
        while self.next.is_none_or(|next| next <= last) {
            let item = messages.next_batch().await;
            self.item(&item.context("the subscription ended")??)?;
        }
        Ok(self.count)
    }
}

/// A subscriber that verifies a room from its start.
#[derive(Debug)]
pub(super) struct Watch {
    room: u32,
    next: AtomicU64,
    count: AtomicU64,
    trimmed: AtomicU64,
    /// What it has seen, from time to time and whenever it has caught up.
    publishers: Mutex<Vec<Of>>,
}

impl Watch {
    pub(super) fn new(room: u32) -> Self {
        Self {
            room,
            next: AtomicU64::new(1),
            count: AtomicU64::new(0),
            trimmed: AtomicU64::new(0),
            publishers: Mutex::default(),
        }
    }

    pub(super) const fn room(&self) -> u32 {
        self.room
    }

    /// The place that it waits for.
    pub(super) fn next(&self) -> u64 {
        self.next.load(Ordering::Acquire)
    }

    /// How many messages it has seen.
    pub(super) fn count(&self) -> u64 {
        self.count.load(Ordering::Relaxed)
    }

    /// How many had been removed before it came to them.
    pub(super) fn trimmed(&self) -> u64 {
        self.trimmed.load(Ordering::Relaxed)
    }

    /// Follows the room until it is dropped.
    pub(super) async fn follow(self: Arc<Self>, address: SocketAddr, mut seen: Seen) -> Result<()> {
        let mut messages = ours::subscribe(address, self.room as usize, StartAt::START).await?;
        loop {
            let item = messages.next_batch().await;
            seen.item(&item.context("the subscription ended")??)?;
            self.publishers
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .clone_from(&seen.publishers);
            self.count.store(seen.count, Ordering::Relaxed);
            self.trimmed.store(seen.trimmed, Ordering::Relaxed);
            self.next.store(seen.next.unwrap_or(1), Ordering::Release);
        }
    }

    /// It has come to the end: the last of each publisher was the last one acknowledged, unless that was trimmed.
    pub(super) fn verify_all_seen(&self, publishers: &[Arc<Publisher>]) -> Result<()> {
        let seen = self
            .publishers
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        for publisher in publishers.iter().filter(|one| one.room() == self.room) {
            let of = seen
                .get(publisher.number() as usize)
                .copied()
                .unwrap_or_default();
            let acked = publisher.acked();
            if of.last != acked && !(of.may_jump && of.last < acked) {
                bail!(
                    "room {}: of publisher {} {acked} messages were acknowledged, and the last one seen is {}",
                    self.room,
                    publisher.number(),
                    of.last
                );
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test may panic")]

    use broker_proto::Seq;

    use super::*;

    fn payload(publisher: u32, number: u64) -> Vec<u8> {
        [&publisher.to_le_bytes()[..], &number.to_le_bytes()].concat()
    }

    fn skip(from: u64, to: u64, reason: SkipReason) -> SkipRange {
        SkipRange {
            from: Seq::new(from),
            to: Seq::new(to),
            reason,
        }
    }

    #[test]
    fn loss_disorder_and_strangers_are_noticed() {
        let seen = || {
            let mut seen = Seen::of(1, 2, 4, true);
            seen.message(1, &payload(1, 1)).unwrap();
            seen.message(2, &payload(3, 1)).unwrap();
            seen.message(3, &payload(1, 2)).unwrap();
            seen
        };
        assert!(seen().message(5, &payload(1, 3)).is_err(), "a gap");
        assert!(seen().message(3, &payload(1, 3)).is_err(), "twice");
        assert!(seen().message(4, &payload(1, 4)).is_err(), "one is missing");
        assert!(seen().message(4, &payload(1, 2)).is_err(), "again");
        assert!(
            seen().message(4, &payload(2, 1)).is_err(),
            "of another room"
        );
        assert!(seen().message(4, &payload(5, 1)).is_err(), "nobody's");
        assert!(seen().message(4, b"short").is_err());
        let mut good = seen();
        good.message(4, &payload(3, 2)).unwrap();
        assert_eq!(good.count, 4);
    }

    #[test]
    fn only_trimmed_ranges_may_be_skipped() {
        let mut seen = Seen::of(0, 1, 1, true);
        seen.message(1, &payload(0, 1)).unwrap();
        assert!(seen.skip(skip(2, 9, SkipReason::DAMAGED)).is_err());
        assert!(seen.skip(skip(3, 9, SkipReason::TRIMMED)).is_err());
        seen.skip(skip(2, 9, SkipReason::TRIMMED)).unwrap();
        seen.message(10, &payload(0, 10)).unwrap();
        assert!(seen.message(11, &payload(0, 12)).is_err(), "only once");
        assert_eq!((seen.count, seen.trimmed), (2, 8));
        let mut all_is_kept = Seen::of(0, 1, 1, false);
        assert!(all_is_kept.skip(skip(1, 2, SkipReason::TRIMMED)).is_err());
    }

    #[test]
    fn what_was_acknowledged_has_to_have_been_seen() {
        let publisher = Arc::new(Publisher::new(0, 0));
        let watch = Watch::new(0);
        watch.verify_all_seen(&[Arc::clone(&publisher)]).unwrap();
        *watch.publishers.lock().unwrap() = vec![Of {
            last: 1,
            may_jump: true,
        }];
        assert!(
            watch.verify_all_seen(&[publisher]).is_err(),
            "more than was acknowledged"
        );
    }
}

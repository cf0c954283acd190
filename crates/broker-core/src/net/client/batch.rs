//! [`Batch`]: how the messages of one publish frame ended, and who waits for it.
//!
//! The connection settles ranges of messages, the tickets of the senders look them up. One batch is shared by up to 512
//! messages, so that a message costs no allocation of its own: a waiting one costs a waker, an answered one nothing, since
//! one run usually answers the whole batch.
//!
//! **Invariant:** the settled ranges are sorted, do not overlap, and never change: the first answer counts.

use std::fmt;
use std::task::{Context, Poll, Waker};

use broker_proto::{Epoch, Level, RoomName, Seq};

use super::error::{Error, Result};
use super::frames::MESSAGES_MAX;
use super::message::{Ack, AckRun};
use crate::sync::{Mutex, lock};

/// Wakers that room is made for at first, when anybody waits.
const WAKERS_MIN: usize = 16;

/// The messages of one publish frame, from the senders' side.
pub(super) struct Batch {
    room: RoomName,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    settled: Vec<Settled>,
    /// By index; shorter than the batch while nobody waits for its end.
    wakers: Vec<Option<Waker>>,
}

/// How consecutive messages of a batch ended.
#[derive(Clone)]
struct Settled {
    first: u32,
    count: u32,
    outcome: Result<Stored>,
}

/// Where consecutive messages were stored.
#[derive(Debug, Clone, Copy)]
pub(super) struct Stored {
    pub(super) epoch: Epoch,
    pub(super) first_seq: Seq,
    pub(super) first_number: u64,
    pub(super) level: Level,
}

impl Stored {
    /// The same for the messages from the `count`th on.
    pub(super) fn skip(self, count: u64) -> Self {
        Self {
            first_seq: Seq::new(self.first_seq.get().saturating_add(count)),
            first_number: self.first_number.saturating_add(count),
            ..self
        }
    }
}

impl Settled {
    fn end(&self) -> u32 {
        self.first.saturating_add(self.count)
    }

    fn holds(&self, index: u32) -> bool {
        (self.first..self.end()).contains(&index)
    }

    fn stored_at(&self, index: u32) -> Result<Stored> {
        self.outcome
            .clone()
            .map(|stored| stored.skip(index.saturating_sub(self.first).into()))
    }
}

impl State {
    fn find(&self, index: u32) -> Option<&Settled> {
        self.settled.iter().find(|settled| settled.holds(index))
    }

    /// The parts of a range that are not settled, in order.
    fn gaps(&self, first: u32, count: u32) -> Vec<(u32, u32)> {
        let end = first.saturating_add(count);
        let mut at = first;
        let mut gaps = Vec::new();
        for settled in &self.settled {
            if settled.first >= end {
                break;
            }
            if settled.first > at {
                gaps.push((at, settled.first - at));
            }
            at = at.max(settled.end());
        }
        if at < end {
            gaps.push((at, end - at));
        }
        gaps
    }

    /// The first message of a range that is not settled.
    fn first_gap(&self, first: u32, count: u32) -> Option<u32> {
        let end = first.saturating_add(count);
        let mut at = first;
        for settled in &self.settled {
            if settled.first > at || at >= end {
                break;
            }
            at = at.max(settled.end());
        }
        (at < end).then_some(at)
    }

    fn take_wakers(&mut self, first: u32, count: u32, wakes: &mut Vec<Waker>) {
        let range = self
            .wakers
            .iter_mut()
            .skip(first as usize)
            .take(count as usize);
        wakes.extend(range.filter_map(Option::take));
    }

    fn wait(&mut self, index: u32, cx: &Context<'_>) {
        let index = index as usize;
        if self.wakers.len() <= index {
            if self.wakers.capacity() <= index {
                let most = MESSAGES_MAX as usize;
                let wanted = (2 * index).clamp(WAKERS_MIN, most).max(index + 1);
                self.wakers.reserve_exact(wanted - self.wakers.len());
            }
            self.wakers.resize(index + 1, None);
        }
        if let Some(waker) = self.wakers.get_mut(index) {
            match waker {
                Some(waker) => waker.clone_from(cx.waker()),
                None => *waker = Some(cx.waker().clone()),
            }
        }
    }
}

impl Batch {
    pub(super) fn new(room: RoomName) -> Self {
        Self {
            room,
            state: Mutex::default(),
        }
    }

    /// Settles what is not settled yet of a range and tells how many messages that were. Whoever waits for them is
    /// added to `wakes`, to be woken when no lock is held.
    pub(super) fn settle(
        &self,
        first: u32,
        count: u32,
        outcome: &Result<Stored>,
        wakes: &mut Vec<Waker>,
    ) -> u32 {
        let mut state = lock(&self.state);
        if state.settled.last().is_none_or(|last| last.end() <= first) {
            // Nearly always: answers come in the order of the sends.
            let outcome = outcome.clone();
            state.settled.push(Settled {
                first,
                count,
                outcome,
            });
            state.take_wakers(first, count, wakes);
            return count;
        }
        let mut fresh = 0;
        for (at, count) in state.gaps(first, count) {
            let part = Settled {
                first,
                count: u32::MAX,
                outcome: outcome.clone(),
            }
            .stored_at(at);
            let place = state.settled.partition_point(|settled| settled.first < at);
            state.settled.insert(
                place,
                Settled {
                    first: at,
                    count,
                    outcome: part,
                },
            );
            state.take_wakers(at, count, wakes);
            fresh += count;
        }
        fresh
    }

    /// The parts of a range that are not settled, in order.
    pub(super) fn unsettled(&self, first: u32, count: u32) -> Vec<(u32, u32)> {
        lock(&self.state).gaps(first, count)
    }

    /// How one message ended; wakes `cx` when it does.
    pub(super) fn poll_one(&self, index: u32, cx: &Context<'_>) -> Poll<Result<Ack>> {
        let mut state = lock(&self.state);
        let Some(settled) = state.find(index) else {
            state.wait(index, cx);
            return Poll::Pending;
        };
        Poll::Ready(settled.stored_at(index).map(|stored| Ack {
            room: self.room.clone(),
            epoch: stored.epoch,
            seq: stored.first_seq,
            level: stored.level,
            number: stored.first_number,
        }))
    }

    /// Whether a whole range has ended; wakes `cx` when its first open part does.
    pub(super) fn poll_range(&self, first: u32, count: u32, cx: &Context<'_>) -> Poll<()> {
        let mut state = lock(&self.state);
        match state.first_gap(first, count) {
            None => Poll::Ready(()),
            Some(open) => {
                state.wait(open, cx);
                Poll::Pending
            }
        }
    }

    /// How a range that has ended ended, run by run: index of the first message, how many, and where or why not.
    pub(super) fn outcomes(
        &self,
        first: u32,
        count: u32,
    ) -> Vec<(u32, u32, Result<AckRun, Error>)> {
        let end = first.saturating_add(count);
        let state = lock(&self.state);
        let mut outcomes = Vec::new();
        for settled in &state.settled {
            let (from, to) = (settled.first.max(first), settled.end().min(end));
            if from >= to {
                continue;
            }
            let run = settled.stored_at(from).map(|stored| AckRun {
                room: self.room.clone(),
                epoch: stored.epoch,
                first_seq: stored.first_seq,
                first_number: stored.first_number,
                count: to - from,
                level: stored.level,
            });
            outcomes.push((from, to - from, run));
        }
        outcomes
    }
}

impl fmt::Debug for Batch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Batch")
            .field("room", &self.room)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test may panic")]

    use super::{Batch, Stored};
    use crate::net::client::error::{Error, ErrorKind};
    use broker_proto::{Epoch, Level, RoomName, Seq};
    use std::task::{Context, Poll, Waker};

    fn stored(first_seq: u64, first_number: u64) -> Stored {
        Stored {
            epoch: Epoch::new(9),
            first_seq: Seq::new(first_seq),
            first_number,
            level: Level::SYNCED,
        }
    }

    fn seq_of(batch: &Batch, index: u32) -> Option<Result<u64, ErrorKind>> {
        match batch.poll_one(index, &Context::from_waker(Waker::noop())) {
            Poll::Pending => None,
            Poll::Ready(result) => Some(
                result
                    .map(|ack| ack.seq.get())
                    .map_err(|error| error.kind()),
            ),
        }
    }

    #[test]
    fn the_first_answer_counts_and_ranges_keep_their_seqs() {
        let batch = Batch::new(RoomName::parse("r").unwrap());
        let mut wakes = Vec::new();
        assert_eq!(batch.settle(2, 3, &Ok(stored(12, 102)), &mut wakes), 3);
        assert_eq!(batch.settle(0, 8, &Ok(stored(50, 100)), &mut wakes), 5);
        let refused = Err(Error::new(ErrorKind::Timeout, "late"));
        assert_eq!(batch.settle(0, 9, &refused, &mut wakes), 1);
        let seqs: Vec<_> = (0..10).map(|index| seq_of(&batch, index)).collect();
        let expected = [50, 51, 12, 13, 14, 55, 56, 57].map(|seq| Some(Ok(seq)));
        assert_eq!(seqs.split_at(8).0, expected);
        assert_eq!(seqs.split_at(8).1, [Some(Err(ErrorKind::Timeout)), None]);
        assert_eq!(batch.unsettled(0, 12), [(9, 3)]);
        let cx = Context::from_waker(Waker::noop());
        assert!(batch.poll_range(0, 9, &cx).is_ready());
        assert!(batch.poll_range(3, 7, &cx).is_pending());
        assert!(batch.poll_range(9, 0, &cx).is_ready());
        let runs = batch.outcomes(1, 4);
        let runs: Vec<_> = runs
            .into_iter()
            .map(|(first, count, run)| (first, count, run.unwrap().first_number))
            .collect();
        assert_eq!(runs, [(1, 1, 101), (2, 3, 102)]);
    }

    #[test]
    fn only_those_whose_message_ended_are_woken() {
        let batch = Batch::new(RoomName::parse("r").unwrap());
        let cx = Context::from_waker(Waker::noop());
        for index in 0..4 {
            assert!(batch.poll_one(index, &cx).is_pending());
        }
        let mut wakes = Vec::new();
        batch.settle(1, 2, &Ok(stored(1, 1)), &mut wakes);
        assert_eq!(wakes.len(), 2);
        assert!(batch.poll_range(0, 4, &cx).is_pending());
        batch.settle(0, 1, &Ok(stored(3, 3)), &mut wakes);
        batch.settle(3, 1, &Ok(stored(4, 4)), &mut wakes);
        assert_eq!(wakes.len(), 4);
        assert!(batch.poll_range(0, 4, &cx).is_ready());
    }
}

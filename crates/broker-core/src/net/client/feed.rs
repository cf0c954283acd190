//! [`Feed`]: one subscription as the connection sees it: where it stands, what is queued, how much may still come.
//!
//! Frames are queued as they arrive and taken apart by the reader, so a batch of hundreds of messages is one entry.
//!
//! **Invariants:** bytes admitted to the broker, queued, and read but not admitted again add up to the window at all times,
//! so the queue holds at most a window and one frame. `next` is the place after everything queued: a resumed subscription
//! goes on exactly there.

use std::collections::VecDeque;
use std::task::{Context, Poll, Waker};

use broker_proto::{
    Credit, Deliver, Epoch, Frame, Position, RoomName, Seq, Skip, SkipRange, StartAt, StartView,
    Subscribe, Subscribed,
};
use bytes::Bytes;

use super::error::{Error, Result};
use crate::planted::{Bug, planted};
use crate::sync::{Mutex, lock};

/// Most entries that wait for the reader. Messages are bounded by the window; this bounds what has no bytes.
const ENTRIES_MAX: usize = 1 << 17;

/// One subscription.
#[derive(Debug)]
pub(super) struct Feed {
    pub(super) id: u32,
    pub(super) room: RoomName,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    start: StartAt,
    waits: bool,
    /// The window in bytes, within what the broker allows.
    window: u32,
    /// What the broker may still deliver; at most one frame below zero.
    admitted: i64,
    queued: u64,
    /// Read, but not admitted again yet.
    read: u64,
    phase: Phase,
    epoch: Epoch,
    next: Seq,
    entries: VecDeque<Entry>,
    waker: Option<Waker>,
    opened: Option<Result<Opened>>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    /// The broker has not answered the first subscribe.
    Opening,
    /// It has; after a reconnect, it was asked to go on.
    Live,
    /// What comes from this connection is not wanted: part of it was damaged, the next connection resumes before it.
    Stale,
    /// No more will come.
    Ended,
}

/// What the broker said when the subscription began.
#[derive(Debug, Clone, Copy)]
pub(super) struct Opened {
    pub(super) epoch: Epoch,
    pub(super) next: Seq,
    pub(super) head: Seq,
}

/// What the reader takes.
#[derive(Debug)]
pub(super) enum Entry {
    /// Messages up to `next`, as they are stored.
    Records { body: Bytes, count: u32, next: Seq },
    /// A range that will not come.
    Skip(SkipRange),
    /// The history has this identity now.
    Epoch { epoch: Epoch, next: Seq },
    /// The end, and why.
    Failed(Error),
}

impl Feed {
    pub(super) fn new(id: u32, room: RoomName, start: StartAt, waits: bool, window: u32) -> Self {
        let state = State {
            start,
            waits,
            window,
            admitted: 0,
            queued: 0,
            read: 0,
            phase: Phase::Opening,
            epoch: Epoch::NONE,
            next: Seq::NONE,
            entries: VecDeque::new(),
            waker: None,
            opened: None,
        };
        Self {
            id,
            room,
            state: Mutex::new(state),
        }
    }

    /// Asks for the subscription on a new connection, from where it stands.
    pub(super) fn subscribe(&self, window_max: u32) -> Option<Frame> {
        let mut state = lock(&self.state);
        match state.phase {
            Phase::Ended => return None,
            Phase::Stale => state.phase = Phase::Live,
            Phase::Live if planted(Bug::ResumeOneLate) => {
                state.next = state.next.next().unwrap_or(state.next);
            }
            Phase::Opening | Phase::Live => {}
        }
        state.window = state.window.min(window_max.max(1));
        let free = u64::from(state.window).saturating_sub(state.queued);
        state.admitted = i64::try_from(free).unwrap_or(i64::MAX);
        state.read = 0;
        let start = state.resume_at();
        Some(Frame::Subscribe(Subscribe {
            sub: self.id,
            room: self.room.clone(),
            start,
            window: u32::try_from(free).unwrap_or(u32::MAX),
            // A room that was there may have gone; then that must be told.
            flags: if state.waits && state.epoch.is_none() {
                Subscribe::WAIT
            } else {
                0
            },
        }))
    }

    /// The broker has begun, or says that the room's history has an identity now.
    ///
    /// # Errors
    /// When the broker goes on elsewhere than it was asked to.
    pub(super) fn subscribed(&self, answer: &Subscribed, wakes: &mut Vec<Waker>) -> Result<()> {
        let mut state = lock(&self.state);
        let next = answer.next.max(Seq::FIRST);
        match state.phase {
            Phase::Ended | Phase::Stale => return Ok(()),
            Phase::Opening => {
                state.phase = Phase::Live;
                state.next = next;
                state.opened = Some(Ok(Opened {
                    epoch: answer.epoch,
                    next,
                    head: answer.head,
                }));
                wakes.extend(state.waker.take());
            }
            // A room that is waited for may begin later than its first message, when a time was asked for.
            Phase::Live if state.epoch.is_none() && next > state.next => state.next = next,
            Phase::Live if next != state.next => {
                return Err(Error::protocol(format!(
                    "the broker goes on with room \"{}\" at message {next} instead of {}",
                    self.room, state.next
                )));
            }
            Phase::Live => {}
        }
        if answer.epoch != state.epoch && !answer.epoch.is_none() {
            state.epoch = answer.epoch;
            let next = state.next;
            state.push(
                Entry::Epoch {
                    epoch: answer.epoch,
                    next,
                },
                wakes,
            );
        }
        Ok(())
    }

    /// Messages came.
    ///
    /// # Errors
    /// When the broker sends more than was admitted.
    pub(super) fn deliver(&self, deliver: Deliver, wakes: &mut Vec<Waker>) -> Result<()> {
        let mut state = lock(&self.state);
        match state.phase {
            Phase::Ended | Phase::Stale => return Ok(()),
            Phase::Opening => return Err(self.out_of_turn("messages")),
            Phase::Live => {}
        }
        if state.admitted <= 0 {
            let text = format!(
                "the broker sends more of room \"{}\" than the window of {} bytes",
                self.room, state.window
            );
            return Err(Error::protocol(text));
        }
        if deliver.next < state.next {
            return Err(self.out_of_turn("messages from before"));
        }
        if deliver.count == 0 || deliver.next == state.next {
            return Err(self.out_of_turn("no messages"));
        }
        let bytes = deliver.body.len() as u64;
        state.admitted = state.admitted.saturating_sub_unsigned(bytes);
        state.queued += bytes;
        state.next = deliver.next;
        let Deliver {
            count, next, body, ..
        } = deliver;
        state.push(Entry::Records { body, count, next }, wakes);
        Ok(())
    }

    /// A range will not come.
    pub(super) fn skip(&self, skip: &Skip, wakes: &mut Vec<Waker>) -> Result<()> {
        let mut state = lock(&self.state);
        match state.phase {
            Phase::Ended | Phase::Stale => return Ok(()),
            Phase::Opening => return Err(self.out_of_turn("a skip")),
            Phase::Live => {}
        }
        let after = skip
            .range
            .to
            .next()
            .ok_or_else(|| self.out_of_turn("a skip to the end of numbers"))?;
        if after <= state.next {
            return Err(self.out_of_turn("a skip of what was delivered"));
        }
        if state.entries.len() >= ENTRIES_MAX {
            return Err(self.out_of_turn("more skips than can be queued"));
        }
        state.next = after;
        state.push(Entry::Skip(skip.range), wakes);
        Ok(())
    }

    fn out_of_turn(&self, what: &str) -> Error {
        Error::protocol(format!(
            "the broker sends {what} for its subscription to room \"{}\" out of turn",
            self.room
        ))
    }

    /// The subscription has failed; what is queued can still be read.
    pub(super) fn fail(&self, error: &Error, wakes: &mut Vec<Waker>) {
        self.finish(error, true, wakes);
    }

    /// The client was shut down: no more will come, and nothing is wrong. Only who still waits for the beginning gets the
    /// error.
    pub(super) fn end(&self, error: &Error, wakes: &mut Vec<Waker>) {
        self.finish(error, false, wakes);
    }

    fn finish(&self, error: &Error, told: bool, wakes: &mut Vec<Waker>) {
        let mut state = lock(&self.state);
        match state.phase {
            Phase::Ended => return,
            Phase::Opening => state.opened = Some(Err(error.clone())),
            Phase::Live | Phase::Stale if told => {
                state.entries.push_back(Entry::Failed(error.clone()))
            }
            Phase::Live | Phase::Stale => {}
        }
        wakes.extend(state.waker.take());
        state.phase = Phase::Ended;
    }

    /// The last place that the broker has delivered or begun after.
    pub(super) fn known(&self) -> Option<Position> {
        let state = lock(&self.state);
        let last = state.next.get().checked_sub(1).map(Seq::new)?;
        (!state.epoch.is_none() && !last.is_none()).then(|| Position::new(state.epoch, last))
    }

    /// Whether the broker has not answered the first subscribe.
    pub(super) fn is_opening(&self) -> bool {
        lock(&self.state).phase == Phase::Opening
    }

    /// Waits for the broker's first answer.
    pub(super) fn poll_opened(&self, cx: &Context<'_>) -> Poll<Result<Opened>> {
        let mut state = lock(&self.state);
        match state.opened.take() {
            Some(opened) => Poll::Ready(opened),
            None => {
                state.wait(cx);
                Poll::Pending
            }
        }
    }

    /// Takes the next entry; `None` at the end.
    pub(super) fn poll_entry(&self, cx: &Context<'_>) -> Poll<Option<Entry>> {
        let mut state = lock(&self.state);
        if let Some(entry) = state.entries.pop_front() {
            return Poll::Ready(Some(entry));
        }
        if state.phase == Phase::Ended {
            return Poll::Ready(None);
        }
        state.wait(cx);
        Poll::Pending
    }

    /// The reader is done with these bytes. Tells whether it is time to [admit](Self::credit) them again.
    pub(super) fn consumed(&self, bytes: u64) -> bool {
        let mut state = lock(&self.state);
        state.queued = state.queued.saturating_sub(bytes);
        state.read += bytes;
        state.is_credit_due()
    }

    /// Admits again what was read. Called while the connection cannot be exchanged for another.
    pub(super) fn credit(&self) -> Option<Frame> {
        let mut state = lock(&self.state);
        if !state.is_credit_due() || !matches!(state.phase, Phase::Live) {
            return None;
        }
        let bytes = u32::try_from(state.read).unwrap_or(u32::MAX);
        state.read -= u64::from(bytes);
        state.admitted = state.admitted.saturating_add(bytes.into());
        Some(Frame::Credit(Credit {
            sub: self.id,
            bytes,
        }))
    }

    /// Gives up what is queued: the next connection resumes at this position.
    pub(super) fn rewind(&self, to: Position) {
        let mut state = lock(&self.state);
        if state.phase != Phase::Ended {
            state.phase = Phase::Stale;
            state.entries.clear();
            state.queued = 0;
            (state.epoch, state.next) = (to.epoch, to.seq);
        }
    }
}

impl State {
    /// Where a new connection has to go on.
    fn resume_at(&self) -> StartAt {
        match self.start.view() {
            _ if !self.epoch.is_none() => StartAt::position(Position::new(self.epoch, self.next)),
            // The room was not there yet when the subscription began, so all of it is wanted by now: "the end" or "the
            // last ten" of today would leave out what came while the connection was away.
            StartView::End | StartView::Last(_) if self.phase != Phase::Opening => {
                StartAt::seq(self.next)
            }
            _ => self.start,
        }
    }

    fn push(&mut self, entry: Entry, wakes: &mut Vec<Waker>) {
        self.entries.push_back(entry);
        wakes.extend(self.waker.take());
    }

    fn wait(&mut self, cx: &Context<'_>) {
        match &mut self.waker {
            Some(waker) => waker.clone_from(cx.waker()),
            None => self.waker = Some(cx.waker().clone()),
        }
    }

    fn is_credit_due(&self) -> bool {
        self.read.saturating_mul(2) >= self.window.into()
    }
}

//! [`Sends`]: the window of sends that have not been answered, in the order in which they were made.
//!
//! A state machine without I/O. Messages join the last frame until it is written; acks and refusals settle ranges of
//! numbers; after a reconnect everything not answered is written again with the same numbers, and marked as sent again.
//!
//! **Invariants:** frames stand in the order of the sends and their own numbers rise; the first `written` of them were
//! handed out on this connection; a message leaves only when it was answered or failed; own numbers in the window span
//! at most the limit of the welcome, so the broker can always tell a retry from a new message.

use std::collections::VecDeque;
use std::sync::Arc;
use std::task::Waker;
use std::time::Duration;

use broker_proto::limits::UNACKED_NUMBERS_MAX;
use broker_proto::{ErrorCode, Micros, ProducerId};

use super::batch::{Batch, Stored};
use super::error::{Error, ErrorKind, Result};
use super::frames::{Blocks, Frame, Key, Outgoing};
use super::outbox::Outbox;
use crate::planted::{Bug, planted};

/// Payload bytes that may be unacknowledged; one larger message is admitted alone.
pub(super) const UNACKED_BYTES_MAX: usize = 8 << 20;

/// Sends that have not been answered.
#[derive(Debug)]
pub(super) struct Sends {
    frames: VecDeque<Frame>,
    written: usize,
    blocks: Blocks,
    next_number: u64,
    /// Oldest own number in the window; `next_number` when there is none.
    own_floor: u64,
    /// Messages in the window under ids of the callers.
    given: u32,
    bytes: usize,
    numbers_max: u32,
    /// The broker does not know the producer: nothing is written until there is a new one.
    renewing: bool,
}

/// Numbers of one producer that were answered.
#[derive(Debug, Clone, Copy)]
pub(super) struct Range {
    /// `None` for the client's own.
    pub(super) producer: Option<ProducerId>,
    pub(super) first: u64,
    pub(super) count: u32,
}

/// A refusal as it came.
#[derive(Debug, Clone, Copy)]
pub(super) struct Refusal<'a> {
    pub(super) code: ErrorCode,
    pub(super) detail: &'a str,
    pub(super) retry_after_ms: u32,
}

/// What the connection has to do after an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Next {
    /// Nothing.
    GoOn,
    /// Connect again: this broker will not store anything more from this connection.
    Reconnect,
}

impl Sends {
    pub(super) fn new() -> Self {
        Self {
            frames: VecDeque::new(),
            written: 0,
            blocks: Blocks::default(),
            next_number: 1,
            own_floor: 1,
            given: 0,
            bytes: 0,
            numbers_max: UNACKED_NUMBERS_MAX,
            renewing: false,
        }
    }

    /// Nothing waits for an answer.
    pub(super) fn is_empty(&self) -> bool {
        self.frames.is_empty()
    }

    /// Whether there is something that this connection has not been given.
    pub(super) fn has_unwritten(&self) -> bool {
        !self.renewing && self.written < self.frames.len()
    }

    /// How many numbers may be unacknowledged, from the welcome.
    pub(super) fn set_numbers_max(&mut self, max: u32) {
        self.numbers_max = max.clamp(1, UNACKED_NUMBERS_MAX);
    }

    /// Whether a payload of this size may be sent now.
    pub(super) fn fits(&self, payload_bytes: usize) -> bool {
        let own = self.next_number.saturating_sub(self.own_floor);
        own.saturating_add(self.given.into()) < self.numbers_max.into()
            && (self.bytes == 0 || self.bytes + payload_bytes <= UNACKED_BYTES_MAX)
    }

    /// Takes a message that [fits](Self::fits) and tells its place in the [newest](Self::newest) batch.
    pub(super) fn push(&mut self, message: &Outgoing<'_>) -> u32 {
        let number = match message.key {
            Key::Own => self.next_number,
            Key::Given { number, .. } => number,
        };
        if !self
            .frames
            .back()
            .is_some_and(|back| back.takes(message, number))
        {
            self.close_last();
            self.blocks.rewind();
            self.frames.push_back(Frame::open(message, number));
        }
        match message.key {
            Key::Own => self.next_number = number.saturating_add(1),
            Key::Given { .. } => self.given += 1,
        }
        self.bytes += message.payload.len();
        let Some(frame) = self.frames.back_mut() else {
            unreachable!("a frame was pushed when there was none");
        };
        frame.push(message, &mut self.blocks)
    }

    /// Where the answer to the message that was [pushed](Self::push) last will be.
    pub(super) fn newest(&self) -> &Arc<Batch> {
        let Some(frame) = self.frames.back() else {
            unreachable!("a message was pushed");
        };
        &frame.batch
    }

    fn close_last(&mut self) {
        if let Some(frame) = self.frames.back_mut() {
            frame.close(&mut self.blocks);
        }
    }

    /// Hands out what this connection has not been given, until the outbox holds `budget` bytes.
    pub(super) fn write_into(&mut self, outbox: &mut Outbox, budget: usize, now: Micros) {
        if !self.has_unwritten() {
            return;
        }
        self.close_last();
        while outbox.len() < budget {
            let Some(frame) = self.frames.get_mut(self.written) else {
                return;
            };
            frame.attempts = frame.attempts.saturating_add(1);
            frame.first_sent.get_or_insert(now);
            for part in frame.parts() {
                outbox.push(part);
            }
            self.written += 1;
        }
    }

    /// Messages are stored. Numbers that nobody waits for any more are passed over. Tells how many messages it was news for.
    ///
    /// # Errors
    /// When the broker acknowledges a message for another room than it was sent to.
    pub(super) fn acked(
        &mut self,
        range: Range,
        room: &str,
        stored: Stored,
        wakes: &mut Vec<Waker>,
    ) -> Result<u32> {
        let mut foreign = None;
        let fresh = self.settle(range, wakes, |frame, skipped| {
            if *frame.room != *room {
                foreign = Some(Error::protocol(format!(
                    "the broker acknowledged message {} to room \"{}\" for room \"{}\"",
                    frame.first_number,
                    frame.room,
                    room.escape_debug()
                )));
                return None;
            }
            Some(Ok(stored.skip(skipped)))
        });
        foreign.map_or(Ok(fresh), Err)
    }

    /// Messages are refused: their senders are told, unless they will be sent again.
    pub(super) fn refused(
        &mut self,
        range: Range,
        refusal: Refusal<'_>,
        wakes: &mut Vec<Waker>,
    ) -> Next {
        let own = range.producer.is_none();
        match refusal.code {
            ErrorCode::GOING_AWAY | ErrorCode::NOT_LEADER => return Next::Reconnect,
            ErrorCode::OUTCOME_UNKNOWN if own => {
                let mut is_stranger = false;
                self.settle(range, wakes, |frame, _| {
                    // What was sent before may be in doubt alone. If the broker does not know the producer, it says so of the
                    // next new message too.
                    is_stranger |= frame.attempts == 1;
                    // Written once, refused once: it is certain that it was not stored, so a new producer may send it.
                    frame.parked = frame.attempts == 1 && frame.settled == 0 && !frame.renewed;
                    (!frame.parked).then(|| Err(refusal.error(frame)))
                });
                self.renewing |= is_stranger;
                return if self.is_renewal_due() {
                    Next::Reconnect
                } else {
                    Next::GoOn
                };
            }
            _ => {}
        }
        self.settle(range, wakes, |frame, _| Some(Err(refusal.error(frame))));
        if refusal.code == ErrorCode::SUPERSEDED && own {
            Next::Reconnect
        } else {
            Next::GoOn
        }
    }

    /// Whether all that keeps a new producer from being drawn has been answered.
    pub(super) fn is_renewal_due(&self) -> bool {
        let parked = |frame: &Frame| frame.parked || frame.producer.is_some();
        self.renewing && self.frames.iter().take(self.written).all(parked)
    }

    /// Settles a range as `outcome` says for each frame in it; `None` leaves the frame's messages waiting.
    fn settle(
        &mut self,
        range: Range,
        wakes: &mut Vec<Waker>,
        mut outcome: impl FnMut(&mut Frame, u64) -> Option<Result<Stored>>,
    ) -> u32 {
        let end = range.first.saturating_add(range.count.into());
        let (mut at, mut place, mut total) = (range.first, 0, 0);
        while at < end && place < self.written {
            let Some(frame) = self.frames.get_mut(place) else {
                break;
            };
            if frame.producer != range.producer || frame.end() <= at || frame.first_number >= end {
                place += 1;
                continue;
            }
            let from = at.max(frame.first_number);
            let to = end.min(frame.end());
            at = to;
            if let Some(outcome) = outcome(frame, from - range.first) {
                let index = frame.index + narrow(from - frame.first_number);
                let fresh = frame
                    .batch
                    .settle(index, narrow(to - from), &outcome, wakes);
                frame.settled += fresh;
                total += fresh;
            }
            if frame.settled >= frame.count {
                self.remove(place);
            } else {
                place += 1;
            }
        }
        total
    }

    /// Takes a frame whose messages were all answered out of the window.
    fn remove(&mut self, place: usize) {
        let Some(frame) = self.frames.remove(place) else {
            return;
        };
        if place < self.written {
            self.written -= 1;
        }
        self.bytes = self.bytes.saturating_sub(frame.payload_bytes);
        if frame.producer.is_some() {
            self.given = self.given.saturating_sub(frame.count);
        } else if frame.first_number <= self.own_floor {
            let next = self
                .frames
                .iter()
                .skip(place)
                .find(|frame| frame.producer.is_none());
            self.own_floor = next.map_or(self.next_number, |frame| frame.first_number);
        }
        self.blocks.recycle(frame);
    }

    /// Prepares for a new connection: everything not answered will be written again, in order and with the same numbers.
    ///
    /// What was first written more than `remembered` ago is not: the broker may have forgotten the producer and would
    /// store it twice. Tells whether a new producer is to be drawn; own messages have numbers from 1 then.
    pub(super) fn restart(
        &mut self,
        now: Micros,
        remembered: Duration,
        wakes: &mut Vec<Waker>,
    ) -> bool {
        self.close_last();
        let renew = std::mem::take(&mut self.renewing);
        let remembered = i64::try_from(remembered.as_micros()).unwrap_or(i64::MAX);
        let old = |frame: &Frame| {
            frame
                .first_sent
                .is_some_and(|sent| now.since(sent) >= remembered)
        };
        let mut frames = VecDeque::with_capacity(self.frames.len());
        for mut frame in std::mem::take(&mut self.frames) {
            let unanswered =
                renew && frame.producer.is_none() && frame.attempts > 0 && !frame.parked;
            if unanswered || old(&frame) {
                let error = Err(forgotten(&frame));
                frame.batch.settle(frame.index, frame.count, &error, wakes);
                continue;
            }
            if renew && frame.producer.is_none() {
                (
                    frame.parked,
                    frame.renewed,
                    frame.attempts,
                    frame.first_sent,
                ) = (false, true, 0, None);
            }
            let is_whole = frame.settled == 0;
            for mut piece in frame.without_settled(&mut self.blocks) {
                if is_whole && piece.attempts > 0 {
                    piece.write_head(&mut self.blocks);
                }
                frames.push_back(piece);
            }
        }
        self.frames = frames;
        self.written = 0;
        if renew {
            self.next_number = 1;
        }
        if renew || planted(Bug::ResendUnderNewNumber) {
            self.renumber();
        }
        self.recount();
        renew
    }

    /// Gives own messages the next numbers.
    fn renumber(&mut self) {
        for frame in self
            .frames
            .iter_mut()
            .filter(|frame| frame.producer.is_none())
        {
            frame.first_number = self.next_number;
            frame.write_head(&mut self.blocks);
            self.next_number = frame.end();
        }
    }

    fn recount(&mut self) {
        let own = self.frames.iter().find(|frame| frame.producer.is_none());
        self.own_floor = own.map_or(self.next_number, |frame| frame.first_number);
        self.given = self
            .frames
            .iter()
            .filter(|frame| frame.producer.is_some())
            .map(|frame| frame.count)
            .sum();
        self.bytes = self.frames.iter().map(|frame| frame.payload_bytes).sum();
    }

    /// Fails everything: with `unknown` what was written at least once, with `unsent` the rest.
    pub(super) fn fail_all(&mut self, unknown: &Error, unsent: &Error, wakes: &mut Vec<Waker>) {
        for frame in std::mem::take(&mut self.frames) {
            // A parked message was refused when it was sent, so it is certain that it was not stored.
            let sent = frame.attempts > 0 && !planted(Bug::SentSaidUnsent);
            let unsure = sent && !frame.parked;
            let error = Err(if unsure {
                unknown.clone()
            } else {
                unsent.clone()
            });
            frame.batch.settle(frame.index, frame.count, &error, wakes);
            if frame.attempts == 0 && frame.producer.is_none() {
                // No broker has seen these numbers. Using them again keeps a producer's first number 1.
                self.next_number = self.next_number.min(frame.first_number);
            }
        }
        self.blocks.clear();
        self.written = 0;
        self.recount();
    }
}

impl Refusal<'_> {
    fn error(&self, frame: &Frame) -> Error {
        let what = match frame.count {
            1 => format!("message {} to room \"{}\"", frame.first_number, frame.room),
            count => format!(
                "messages {} to {} to room \"{}\"",
                frame.first_number,
                frame.first_number + u64::from(count) - 1,
                frame.room
            ),
        };
        Error::refused(what, self.code, self.detail, self.retry_after_ms)
    }
}

/// What the senders of a frame are told when the broker may have forgotten its producer.
fn forgotten(frame: &Frame) -> Error {
    Error::new(
        ErrorKind::OutcomeUnknown,
        format!(
            "message {} to room \"{}\": the connection was lost before the answer and the broker no longer knows this \
             producer, so it was not sent again: read the room to see whether it was stored",
            frame.first_number, frame.room
        ),
    )
}

/// A count within one frame.
fn narrow(count: u64) -> u32 {
    u32::try_from(count).unwrap_or(u32::MAX)
}

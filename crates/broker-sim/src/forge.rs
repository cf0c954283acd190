//! Payloads that look like the log, and damage before them: none of their bytes may ever be served as a message of its own.
//!
//! A log of a few batches is built, one payload of which holds whole copies of its neighbours, batches that a writer would write
//! elsewhere, batches with another marker, tables, records, and the marker itself. Then the batch around it is damaged, so that the
//! scanner has to look for the next one, in or behind that payload. Whatever it takes for a message must be one that was written,
//! and the neighbours must be there as if nothing had happened.
//!
//! The marker is drawn for each segment and never told to anybody. Who knew it, and the place where his bytes will lie, could
//! forge a batch; the test therefore gives him the marker or the place, and not both.

use std::ops::{AddAssign, Range};

use broker_core::fuzzing::{Told, batch, scan_log};
use broker_core::log::batch::{BatchHead, HEAD_BYTES, TRAILER_BYTES};
use broker_proto::{RoomId, Seq};
use bytes::Bytes;

use crate::campaign::{Broken, Harm};
use crate::crash_matrix::Failure;
use crate::oracle::Verdict;
use crate::rng::Rng;
use crate::workers;

/// How much was tried.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Forged {
    /// Logs with such payloads.
    pub inputs: u64,
    /// Of them, those in which the batch around the payload could not be read as it is.
    pub damaged: u64,
    /// Payloads that hold a whole copy of a batch.
    pub copies: u64,
}

impl AddAssign for Forged {
    fn add_assign(&mut self, other: Self) {
        self.inputs += other.inputs;
        self.damaged += other.damaged;
        self.copies += other.copies;
    }
}

/// Tries so many inputs, or one case alone.
///
/// # Errors
/// The first [`Failure`].
pub fn explore(seed: u64, inputs: u64, only: Option<u64>) -> Result<Forged, Failure> {
    let case = |number| {
        let mut rng = workers::rng_of(seed.rotate_left(23), number);
        let mut done = Forged::default();
        for _ in 0..100 {
            done += Log::write(&mut rng)
                .try_it(&mut rng)
                .map_err(|what| Failure {
                    seed,
                    place: format!("case {number}, input {}", done.inputs),
                    what,
                    history: String::new(),
                })?;
        }
        Ok(done)
    };
    match only {
        Some(number) => case(number),
        None => workers::explore(seed, |done: &Forged| done.inputs >= inputs, case),
    }
}

/// The log of one input.
struct Log {
    marker: u64,
    bytes: Vec<u8>,
    batches: Vec<(Range<usize>, Vec<Told>)>,
    copied: bool,
}

/// The batch with the payload.
const VICTIM: usize = 1;

impl Log {
    fn write(rng: &mut Rng) -> Self {
        let mut log = Self {
            marker: rng.next(),
            bytes: Vec::new(),
            batches: Vec::new(),
            copied: false,
        };
        for n in 0..4 {
            let count = 1 + rng.below(3);
            let mut messages: Vec<Told> = (0..count)
                .map(|at| {
                    let payload: Vec<u8> = (0..rng.below(60))
                        .map(|_| rng.next().to_le_bytes()[0])
                        .collect();
                    (
                        RoomId::new(1 + u32::try_from(at / 2).unwrap_or(0)),
                        Seq::new(10 * n + at + 1),
                        payload.into(),
                    )
                })
                .collect();
            if log.batches.len() == VICTIM {
                let at = rng.index(messages.len());
                let payload = log.looks_like_a_log(rng);
                if let Some(message) = messages.get_mut(at) {
                    message.2 = payload;
                }
            }
            let from = log.bytes.len();
            let bytes = batch(log.marker, from as u64, &messages);
            log.bytes.extend_from_slice(&bytes);
            log.batches.push((from..from + bytes.len(), messages));
        }
        log
    }

    /// Pieces of a log, with a few bytes between them, so that they lie at all kinds of places.
    fn looks_like_a_log(&mut self, rng: &mut Rng) -> Bytes {
        let mut out = Vec::new();
        for _ in 0..1 + rng.below(4) {
            match rng.below(4) {
                0 => {}
                1 => out.resize(out.len() + rng.index(8), 0),
                // Mostly where a batch may begin.
                _ => out.resize(out.len().next_multiple_of(8), 0),
            }
            let here = (self.bytes.len() + HEAD_BYTES + out.len()) as u64;
            let message = (
                RoomId::new(1),
                Seq::new(11 + rng.below(5)),
                Bytes::from_static(b"forged"),
            );
            match rng.below(7) {
                // A neighbour, as it is.
                0 => {
                    out.extend_from_slice(&self.bytes);
                    self.copied = true;
                }
                // The right marker, and the place of somebody else.
                1 => {
                    let at = 8 * rng.below(200);
                    let near = here.saturating_sub(400)..here + 400;
                    let at = if near.contains(&at) { here + 4000 } else { at };
                    out.extend_from_slice(&batch(self.marker, at, &[message]));
                    self.copied = true;
                }
                // A place that may be right, and another marker.
                2 => {
                    let at = here.next_multiple_of(8) + 8 * rng.below(12);
                    out.extend_from_slice(&batch(rng.next(), at, &[message]));
                    self.copied = true;
                }
                // The marker alone.
                3 => (0..rng.below(20))
                    .for_each(|_| out.extend_from_slice(&self.marker.to_le_bytes())),
                // A record.
                4 => {
                    let whole = batch(self.marker, here + 8000, &[message]);
                    out.extend_from_slice(whole.get(HEAD_BYTES..).unwrap_or_default());
                }
                // A table, or the end of one.
                5 => {
                    let whole = self.bytes.len();
                    let from = whole.saturating_sub(TRAILER_BYTES + rng.index(60));
                    out.extend_from_slice(self.bytes.get(from..).unwrap_or_default());
                }
                // A head.
                _ => out.extend_from_slice(self.bytes.get(..HEAD_BYTES).unwrap_or_default()),
            }
        }
        out.into()
    }

    /// Damages the batch around the payload, and looks at what the scanner makes of it.
    fn try_it(&self, rng: &mut Rng) -> Verdict<Forged> {
        let mut log = self.bytes.clone();
        let victim = self
            .batches
            .get(VICTIM)
            .map_or(0..0, |batch| batch.0.clone());
        for _ in 0..1 + rng.below(3) {
            let span = match rng.below(4) {
                0 => victim.start..victim.start + HEAD_BYTES,
                1 => victim.end - TRAILER_BYTES..victim.end,
                2 => victim.end.saturating_sub(100).max(victim.start)..victim.end,
                _ => victim.clone(),
            };
            let at = span.start + rng.index(span.len());
            let end = if rng.coin() {
                at + 1
            } else {
                at + rng.index(64)
            };
            for byte in log.get_mut(at..end.min(victim.end)).unwrap_or_default() {
                *byte ^= 1 << rng.below(8);
            }
        }
        let found = scan_log(self.marker, &log);
        for one in &found {
            let right = self
                .batches
                .iter()
                .find(|(range, _)| range.start as u64 == one.at);
            let Some((_, written)) = right else {
                let what = format!("there is no batch at {}: {one:?}", one.at);
                return Err(Broken::new(Harm::Phantom, what));
            };
            if let Some(forged) = one.messages.iter().find(|told| !written.contains(told)) {
                let what = format!("never written to the batch at {}: {forged:?}", one.at);
                return Err(Broken::new(Harm::Phantom, what));
            }
        }
        for (n, (range, written)) in self.batches.iter().enumerate() {
            let there = found.iter().find(|one| one.at == range.start as u64);
            let whole = there.is_some_and(|one| one.messages == *written && !one.damaged);
            if n != VICTIM && !whole {
                let what = format!("batch {n} was not touched, and is {there:?}");
                return Err(Broken::new(Harm::LostAck, what));
            }
        }
        let head = log.get(victim.start..).and_then(|bytes| {
            BatchHead::parse_any(bytes, broker_core::fuzzing::marker(self.marker))
        });
        let read = found.iter().find(|one| one.at == victim.start as u64);
        let damaged = head.is_none() || read.is_none_or(|one| one.damaged);
        Ok(Forged {
            inputs: 1,
            damaged: u64::from(damaged),
            copies: u64::from(self.copied),
        })
    }
}

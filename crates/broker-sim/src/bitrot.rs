//! Turns every bit of a sealed segment, one at a time, and then blocks of it.
//!
//! The segment has neighbours on both sides, holds several rooms, the names of new ones, producers' runs and cursors, and messages
//! from nothing to several KiB. After each flip a leader opens the store and serves every room. What was hit is told as damaged,
//! all else is served byte for byte, in the segment itself and in its neighbours. Every 32nd flip is followed further:
//! more is stored, the power is cut, and the next leader serves the same.

use std::ops::AddAssign;

use broker_core::log::segment::SegmentName;
use broker_core::log::storage::Storage;
use broker_proto::{Position, Seq};
use bytes::Bytes;

use crate::crash_matrix::Failure;
use crate::disk::SimDisk;
use crate::oracle::{Ledger, MessageId, Verdict};
use crate::rig::{Limits, Rig};
use crate::rng::Rng;
use crate::rot::{Blow, Subject};
use crate::workers;

/// Size of the segment.
const SEGMENT_BYTES: u64 = 64 << 10;
/// So many bytes are one piece of work.
const PIECE_BYTES: u64 = 64;
/// One in so many flips is followed by more messages, a power cut and another leader.
const WHOLE_EVERY: u64 = 32;

const LIMITS: Limits = Limits {
    segment_bytes_min: SEGMENT_BYTES,
    segment_bytes_max: SEGMENT_BYTES,
    // None, so that every leader replays the segment.
    checkpoint_bytes_min: 1 << 30,
    batch_bytes_max: 16 << 10,
    tail_bytes_max: 0,
};

/// How much was tried.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Rotten {
    /// Bits that were turned, each alone.
    pub flips: u64,
    /// Of them, those that hit a message; all others must not be noticed by a reader.
    pub hits: u64,
    /// Blocks that were zeroed, repeated or swapped, and bits turned together.
    pub blocks: u64,
}

impl AddAssign for Rotten {
    fn add_assign(&mut self, other: Self) {
        self.flips += other.flips;
        self.hits += other.hits;
        self.blocks += other.blocks;
    }
}

/// The store with the segment that is to rot.
#[derive(Debug)]
pub struct Patient {
    subject: Subject,
    file: String,
    content: Vec<u8>,
}

impl Patient {
    /// Writes the store: a segment before it, the segment itself, and one after it.
    ///
    /// # Errors
    /// When the store breaks a promise.
    pub fn write(rng: &mut Rng) -> Verdict<Self> {
        let disk = SimDisk::new(rng.next());
        let mut ledger = Ledger::default();
        let mut rig = Rig::open(&disk, LIMITS, rng).map_err(|error| error.to_string())?;
        let mut number = 0;
        while segments(&disk)?.len() < 3 {
            number += 1;
            let id = MessageId {
                producer: u16::try_from(1 + number % 3).unwrap_or(1),
                number: 1 + number / 3,
            };
            // A room more now and then, so that each segment names some.
            let room = u16::try_from(1 + number % (3 + number / 60)).unwrap_or(1);
            let bytes = [0, 40, 700, 6000].get(rng.index(4)).copied().unwrap_or(0);
            let payload: Vec<u8> = (0..bytes).map(|_| rng.next().to_le_bytes()[0]).collect();
            ledger.send(id, room, Bytes::from(payload));
            rig.send(&ledger, id, 1)?;
            if number % 4 == 0 {
                rig.work();
                rig.answers(&mut ledger)?;
                rig.engine.keep_house();
                let epoch = ledger.rooms.get(&room).and_then(|room| room.epoch);
                if number % 12 == 0
                    && let Some(epoch) = epoch
                {
                    let to = Some(Position::new(epoch, Seq::new(1)));
                    ledger.move_cursor((room, 1), to);
                    rig.move_cursor((room, 1), to)?;
                }
            }
        }
        rig.work();
        rig.engine.close();
        rig.answers(&mut ledger)?;
        ledger.settle_cursors();
        let file = segments(&disk)?
            .get(1)
            .cloned()
            .ok_or("there is no second segment")?;
        let content = disk.content(&file).ok_or("the segment is not there")?;
        Ok(Self {
            subject: Subject::of(disk, ledger, LIMITS)?,
            file,
            content,
        })
    }

    /// Bits of the segment.
    #[must_use]
    pub fn bits(&self) -> u64 {
        self.content.len() as u64 * 8
    }

    fn blow(&self, at: u64, mask: u8) -> Blow {
        let byte = usize::try_from(at).ok().and_then(|at| self.content.get(at));
        Blow {
            file: self.file.clone(),
            at,
            bytes: vec![byte.copied().unwrap_or(0) ^ mask],
        }
    }

    /// Turns every bit of one piece.
    fn piece(&self, seed: u64, number: u64) -> Result<Rotten, Failure> {
        let mut rng = workers::rng_of(seed, number);
        let mut done = Rotten::default();
        let first = (number - 1) * PIECE_BYTES;
        for at in first..(first + PIECE_BYTES).min(self.content.len() as u64) {
            let byte = self.unit(at, 1).first().copied().unwrap_or(0);
            for bit in 0..8 {
                let blow = self.blow(at, 1 << bit);
                let result = if (done.flips + number).is_multiple_of(WHOLE_EVERY) {
                    let whole = self
                        .subject
                        .strike(std::slice::from_ref(&blow), false, &mut rng);
                    whole.and_then(|()| self.subject.glance(&blow, &[byte], &mut rng))
                } else {
                    self.subject.glance(&blow, &[byte], &mut rng)
                };
                let hit = result.map_err(|what| Failure {
                    seed,
                    place: format!(
                        "bit {bit} of byte {at}, {}",
                        self.subject.map.describe(&blow)
                    ),
                    what,
                    history: String::new(),
                })?;
                done.flips += 1;
                done.hits += u64::from(hit);
            }
        }
        Ok(done)
    }

    fn unit(&self, at: u64, unit: u64) -> Vec<u8> {
        let from = usize::try_from(at).unwrap_or(0);
        let to = (from + usize::try_from(unit).unwrap_or(0)).min(self.content.len());
        self.content.get(from..to).unwrap_or_default().to_vec()
    }

    /// Several bits, or one or two blocks.
    fn block(&self, seed: u64, number: u64) -> Result<Rotten, Failure> {
        let mut rng = workers::rng_of(!seed, number);
        let bytes = self.content.len() as u64;
        let unit = if rng.coin() { 512 } else { 4096 };
        let mut place = || rng.below(bytes / unit) * unit;
        let (one, other) = (place(), place());
        let put = |at, bytes| Blow {
            file: self.file.clone(),
            at,
            bytes,
        };
        let blows = match rng.below(4) {
            0 => (0..2 + rng.below(15))
                .map(|_| self.blow(rng.below(bytes), 1 << rng.below(8)))
                .collect(),
            1 => vec![put(one, vec![0; self.unit(one, unit).len()])],
            2 => vec![put(one, self.unit(other, unit))],
            _ => vec![
                put(one, self.unit(other, unit)),
                put(other, self.unit(one, unit)),
            ],
        };
        let live = rng.chance(1, 4);
        let result = self.subject.strike(&blows, live, &mut rng);
        result.map_err(|what| {
            let told: Vec<String> = blows
                .iter()
                .map(|blow| self.subject.map.describe(blow))
                .collect();
            Failure {
                seed,
                place: format!("block {number} (live: {live}) at {told:?}"),
                what,
                history: String::new(),
            }
        })?;
        Ok(Rotten {
            blocks: 1,
            ..Rotten::default()
        })
    }
}

fn segments(disk: &SimDisk) -> Verdict<Vec<String>> {
    let names = disk.list().map_err(|error| error.to_string())?;
    let is_segment = |name: &String| SegmentName::parse(name).is_some();
    Ok(names.into_iter().filter(is_segment).collect())
}

/// Turns every bit of the segment, and so many blocks of it.
///
/// # Errors
/// The first [`Failure`].
pub fn explore(seed: u64, blocks: u64) -> Result<Rotten, Failure> {
    let patient = Patient::write(&mut Rng::new(seed)).map_err(|what| Failure {
        seed,
        place: "writing the store".to_owned(),
        what,
        history: String::new(),
    })?;
    let bits = patient.bits();
    let mut done = workers::explore(
        seed,
        |done: &Rotten| done.flips >= bits,
        |number| patient.piece(seed, number),
    )?;
    done += workers::explore(
        seed,
        |done: &Rotten| done.blocks >= blocks,
        |number| patient.block(seed, number),
    )?;
    Ok(done)
}

//! Small histories of the store, of which every possible end is tried.
//!
//! A [`Script`] is a few things that a store does: its first segment, an append, a new segment, a checkpoint, a take-over with a tail to
//! copy, marks and what is written over them, cursors and producers that come and go, a write or a sync that fails. After each call to
//! the disk, some changes are not synced: each of them is kept or lost, and each write is also torn at every boundary of 512 bytes, on
//! either side of it, or has left nothing but its length. All combinations are tried, each is recovered from, checked, appended to, cut
//! again, recovered from and checked.
//!
//! Different combinations that leave the same bytes are one state. Where more changes are open than a history may have, the oldest of
//! them (files that only help, and are never synced) are all kept or all lost, and the moment is counted as not covered.

use std::collections::BTreeSet;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::{fmt, ops};

use broker_core::log::storage::Storage;
use broker_proto::{Position, Seq};
use bytes::Bytes;

use crate::crash_matrix::{Failure, unopened};
use crate::disk::{Errno, Fault, Outcome, SimDisk};
use crate::oracle::{Fate, Ledger, MessageId, Verdict, check};
use crate::rig::{Limits, Rig};
use crate::rng::Rng;
use crate::workers;

/// One thing that happens.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Act {
    /// A producer sends messages of so many bytes to a room.
    Send {
        /// Who.
        producer: u16,
        /// To which room.
        room: u16,
        /// How many.
        count: u32,
        /// How long each is.
        bytes: usize,
    },
    /// A producer sends its first message again.
    Again(u16),
    /// A cursor of a room is moved.
    Cursor(u16),
    /// A producer says goodbye.
    Goodbye(u16),
    /// A producer leaves a number out.
    Hole(u16),
    /// A second passes without traffic.
    Idle,
    /// The log goes on in a new segment that begins with a checkpoint.
    Shorten,
    /// The store is closed, and opened by another leader.
    Reopen,
    /// The leader is killed, and another one takes over.
    TakeOver,
    /// The next write or sync that a fault is made for fails.
    Fail(Fault),
}

/// A small history.
pub type Script = (&'static str, &'static [Act]);

const fn send(producer: u16, room: u16, count: u32, bytes: usize) -> Act {
    Act::Send {
        producer,
        room,
        count,
        bytes,
    }
}

/// Those that are played alone; longer histories are two of them, one after the other.
pub const SCRIPTS: [Script; 11] = [
    ("the first segment", &[send(1, 1, 1, 10)]),
    (
        "appends",
        &[send(1, 1, 2, 700), send(1, 2, 1, 10), send(2, 1, 1, 1500)],
    ),
    (
        "a new segment",
        &[send(1, 1, 1, 1000), send(1, 1, 1, 3000), send(2, 2, 1, 10)],
    ),
    (
        "a checkpoint",
        &[
            send(1, 1, 1, 10),
            Act::Cursor(1),
            Act::Shorten,
            send(1, 2, 1, 10),
        ],
    ),
    (
        "a checkpoint after much log",
        &[send(1, 1, 1, 3000), send(1, 2, 1, 3000), send(2, 1, 1, 10)],
    ),
    (
        "a take-over",
        &[
            send(1, 1, 1, 10),
            send(1, 1, 1, 600),
            Act::TakeOver,
            send(2, 1, 1, 10),
            Act::TakeOver,
        ],
    ),
    (
        "marks",
        &[
            send(1, 1, 1, 10),
            Act::Idle,
            send(1, 1, 1, 10),
            Act::Reopen,
            send(1, 1, 1, 10),
            Act::Reopen,
        ],
    ),
    (
        "cursors",
        &[
            send(1, 1, 1, 10),
            Act::Cursor(1),
            Act::Cursor(1),
            Act::TakeOver,
            Act::Cursor(1),
        ],
    ),
    (
        "producers",
        &[
            send(1, 1, 1, 10),
            Act::Hole(1),
            send(1, 1, 1, 10),
            Act::Goodbye(1),
            send(2, 1, 1, 10),
            Act::TakeOver,
            Act::Again(2),
        ],
    ),
    (
        "a sync that fails",
        &[
            send(1, 1, 1, 10),
            Act::Fail(Fault::LostSync),
            send(1, 1, 1, 10),
            send(1, 1, 1, 10),
            Act::Fail(Fault::LostSync),
            Act::Idle,
            send(1, 1, 1, 10),
        ],
    ),
    (
        "a disk that is full once",
        &[
            send(1, 1, 1, 10),
            Act::Fail(Fault::ShortWrite(Errno::NoSpace)),
            send(1, 1, 1, 900),
            send(1, 1, 1, 10),
        ],
    ),
];

/// As small as the store goes.
const LIMITS: Limits = Limits {
    segment_bytes_min: 8 << 10,
    segment_bytes_max: 8 << 10,
    checkpoint_bytes_min: 4 << 10,
    batch_bytes_max: 1 << 20,
    tail_bytes_max: 0,
};

/// How much was tried.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Done {
    /// Moments of all scripts.
    pub moments: u64,
    /// Of them, those of single scripts with more open changes than a history may have.
    pub uncovered: u64,
    /// The most changes that were open at once.
    pub open_max: u64,
    /// Combinations of what can become of all open changes.
    pub combinations: u64,
    /// Different disks that they left; all were recovered from and checked.
    pub states: u64,
}

impl ops::AddAssign for Done {
    fn add_assign(&mut self, other: Self) {
        self.moments += other.moments;
        self.uncovered += other.uncovered;
        self.open_max = self.open_max.max(other.open_max);
        self.combinations += other.combinations;
        self.states += other.states;
    }
}

impl fmt::Display for Done {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} states are all that {} combinations leave at {} moments; at most {} changes were open at once, at {} moments of single scripts more than \
             the histories may have",
            self.states, self.combinations, self.moments, self.open_max, self.uncovered
        )
    }
}

/// Pairs of scripts have many moments; of each, the newest so many open changes are combined.
const PAIR_OPEN_MAX: u64 = 3;

/// A moment of a script.
struct Moment {
    disk: SimDisk,
    is_of_pair: bool,
    ledger: Ledger,
    place: String,
}

/// Tries all ends of all scripts, with at most so many open changes; of all pairs of scripts, if `in_pairs`.
///
/// # Errors
/// The first [`Failure`].
pub fn explore(open_max: u64, in_pairs: bool) -> Result<Done, Failure> {
    let mut moments = Vec::new();
    let seconds = if in_pairs { SCRIPTS.as_slice() } else { &[] };
    for (name, acts) in &SCRIPTS {
        play(name, acts, &mut moments)?;
        for (second, more) in seconds {
            play(
                &format!("{name}, then {second}"),
                &[*acts, *more].concat(),
                &mut moments,
            )?;
        }
    }
    let all = moments.len() as u64;
    // More workers than moments find nothing to do.
    let case = |number: u64| {
        let moment = usize::try_from(number - 1)
            .ok()
            .and_then(|at| moments.get(at));
        moment.map_or_else(
            || Ok(Done::default()),
            |moment| {
                every_end(
                    moment,
                    if moment.is_of_pair {
                        open_max.min(PAIR_OPEN_MAX)
                    } else {
                        open_max
                    },
                )
            },
        )
    };
    workers::explore(0, |done: &Done| done.moments >= all, case)
}

fn failure(what: crate::campaign::Broken, place: String, disk: &SimDisk) -> Failure {
    Failure {
        seed: 0,
        place,
        what,
        history: disk.history(),
    }
}

/// Plays a script to its end, and collects its moments.
fn play(name: &str, acts: &[Act], moments: &mut Vec<Moment>) -> Result<(), Failure> {
    let mut disk = SimDisk::new(1);
    let is_of_pair = name.contains(", then ");
    let mut ledger = Ledger::default();
    let mut rig = None;
    for (at, act) in acts.iter().enumerate() {
        let before = ledger.clone();
        let acted = turn(*act, &mut disk, &mut rig, &mut ledger);
        acted.map_err(|what| failure(what, format!("{name}, act {at} ({act:?})"), &disk))?;
        let mut known = before;
        known.learn_what_was_sent(&ledger);
        for (number, moment) in disk.take_moments().into_iter().enumerate() {
            moments.push(Moment {
                disk: moment,
                is_of_pair,
                ledger: known.clone(),
                place: format!("{name}, act {at} ({act:?}), before call {number}"),
            });
        }
    }
    moments.push(Moment {
        disk: disk.kill(),
        is_of_pair,
        ledger,
        place: format!("{name}, the end"),
    });
    Ok(())
}

/// Does one thing, by the leader that there is, or a new one.
fn turn(act: Act, disk: &mut SimDisk, rig: &mut Option<Rig>, ledger: &mut Ledger) -> Verdict {
    match act {
        Act::Reopen => {
            if let Some(mut old) = rig.take() {
                old.engine.close();
                old.answers(ledger)?;
            }
        }
        // What the process before asked for is not forgotten by the kernel.
        Act::TakeOver => {
            *rig = None;
            *disk = disk.kill();
        }
        _ => {}
    }
    let leader = match rig {
        Some(leader) => leader,
        None => {
            disk.keep_moments();
            rig.insert(open(disk, ledger)?)
        }
    };
    one(act, leader, ledger)
}

fn open(disk: &SimDisk, ledger: &mut Ledger) -> Verdict<Rig> {
    let rig = Rig::open(disk, LIMITS, &mut Rng::new(disk.op_count()));
    let mut rig = rig.map_err(|error| unopened(&error))?;
    check::after_recovery(&mut rig, ledger, 1 << 20)?;
    Ok(rig)
}

fn one(act: Act, rig: &mut Rig, ledger: &mut Ledger) -> Verdict {
    match act {
        Act::Send {
            producer,
            room,
            count,
            bytes,
        } => {
            let first = next_of(ledger, producer);
            for n in 0..u64::from(count) {
                let id = MessageId {
                    number: first.number + n,
                    ..first
                };
                ledger.send(id, room, Bytes::from(vec![b'x'; bytes]));
            }
            rig.send(ledger, first, count)?;
        }
        Act::Again(producer) => {
            let first = MessageId {
                producer,
                number: 1,
            };
            rig.send(ledger, first, 1)?;
        }
        Act::Cursor(room) => {
            let epoch = ledger.rooms.get(&room).and_then(|room| room.epoch);
            let moves = ledger.cursors.get(&(room, 0));
            let seq = Seq::new(1 + moves.map_or(0, |cursor| cursor.history.len() as u64));
            let to = epoch.map(|epoch| Position::new(epoch, seq));
            ledger.move_cursor((room, 0), to);
            rig.move_cursor((room, 0), to)?;
        }
        Act::Goodbye(producer) => rig.forget(producer)?,
        Act::Hole(producer) => {
            let id = next_of(ledger, producer);
            ledger.hole(id);
            rig.hole(id)?;
        }
        Act::Idle => rig.engine.idle(),
        Act::Shorten => rig.store.shorten_replay(|| {}),
        Act::Fail(fault) => rig.disk.fail_next(rig.disk.op_count() + 1, fault),
        Act::Reopen | Act::TakeOver => {}
    }
    rig.work();
    rig.engine.keep_house();
    rig.answers(ledger)
}

fn next_of(ledger: &Ledger, producer: u16) -> MessageId {
    MessageId {
        producer,
        number: ledger.highest(producer) + 1,
    }
}

/// Cuts a moment off in every way.
fn every_end(moment: &Moment, open_max: u64) -> Result<Done, Failure> {
    let mut choices = moment.disk.choices();
    let open = choices.len() as u64;
    let old = choices.len()
        - choices
            .len()
            .min(usize::try_from(open_max).unwrap_or(usize::MAX));
    let mut done = Done {
        moments: 1,
        uncovered: u64::from(old > 0 && !moment.is_of_pair),
        open_max: open,
        ..Done::default()
    };
    let mut seen = BTreeSet::new();
    let young = choices.split_off(old);
    for old in [Outcome::Whole, Outcome::Lost] {
        let older = vec![old; choices.len()];
        for number in 0.. {
            let Some(outcomes) = combination(&young, number) else {
                break;
            };
            let outcomes = [older.clone(), outcomes].concat();
            done.combinations += 1;
            let left = moment.disk.crash_exactly(&outcomes);
            if !seen.insert(fingerprint(&left)) {
                continue;
            }
            done.states += 1;
            recover(&left, &moment.ledger).map_err(|what| {
                let mut shown = failure(what, format!("{}, {outcomes:?}", moment.place), &left);
                shown.history += &moment.disk.history();
                shown
            })?;
        }
        if choices.is_empty() {
            break;
        }
    }
    Ok(done)
}

/// The combination of this number, as a number whose digits have different bases.
fn combination(choices: &[Vec<Outcome>], mut number: usize) -> Option<Vec<Outcome>> {
    let mut chosen = Vec::with_capacity(choices.len());
    for choice in choices {
        chosen.push(*choice.get(number % choice.len())?);
        number /= choice.len();
    }
    (number == 0).then_some(chosen)
}

/// Tells disks with other files from each other.
fn fingerprint(disk: &SimDisk) -> u64 {
    let mut hasher = DefaultHasher::new();
    for name in disk.list().unwrap_or_default() {
        disk.content(&name).hash(&mut hasher);
        name.hash(&mut hasher);
    }
    hasher.finish()
}

/// Recovers, checks, appends, and does so once more after another power cut.
fn recover(left: &SimDisk, known: &Ledger) -> Verdict {
    let mut ledger = known.clone();
    let mut rig = open(left, &mut ledger)?;
    let id = next_of(&ledger, 7);
    ledger.send(id, 1, Bytes::from_static(b"after the power cut"));
    rig.send(&ledger, id, 1)?;
    rig.work();
    rig.answers(&mut ledger)?;
    let fate = ledger.sent.get(&id).map(|sent| sent.fate);
    if !matches!(fate, Some(Fate::Acked(_))) {
        return Err(format!("{id:?} is {fate:?} in place of stored").into());
    }
    drop(rig);
    open(&left.crash_exactly(&[]), &mut ledger).map(drop)
}

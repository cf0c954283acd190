//! A sync fails once, and the next one says that all is well although the data is gone.
//!
//! That is what Linux does: the pages count as clean, reads show them until the cache drops them, and nobody learns that the disk
//! has something else. The leader is killed right then, or some calls later; the one that stands by finds good bytes in the cache,
//! which are not on the disk. The cache is dropped while it leads. What it has shown and acknowledged must be there all the same,
//! for itself and after a power cut, so it must have written again whatever nothing proved to be on the disk.

use std::ops::AddAssign;

use broker_core::log::storage::Storage;

use crate::crash_matrix::{Failure, unopened};
use crate::disk::{CrashMode, Fault, Injury, Op, OpKind, SimDisk};
use crate::oracle::{Ledger, Verdict, check};
use crate::rig::{Limits, Rig};
use crate::rng::Rng;
use crate::workers;
use crate::workload::Workload;

/// How much was tried.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Lies {
    /// Syncs that failed once and kept nothing.
    pub cases: u64,
    /// Of them, syncs of the directory.
    pub names: u64,
    /// Cases in which the one that stood by found a tail and wrote it again.
    pub rewritten: u64,
    /// Cases in which the cache showed what the disk did not have.
    pub shown: u64,
    /// States recovered from and checked.
    pub states: u64,
}

impl AddAssign for Lies {
    fn add_assign(&mut self, other: Self) {
        self.cases += other.cases;
        self.names += other.names;
        self.rewritten += other.rewritten;
        self.shown += other.shown;
        self.states += other.states;
    }
}

/// Tries so many syncs that lie, or one case alone.
///
/// # Errors
/// The first [`Failure`].
pub fn explore(seed: u64, cases: u64, only: Option<u64>) -> Result<Lies, Failure> {
    let case = |number| {
        let mut story = Story::draw(&mut workers::rng_of(seed.rotate_left(7), number));
        let mut lies = Lies::default();
        let result = story.tell(&mut lies);
        result.map_err(|what| Failure {
            seed,
            place: format!("case {number}"),
            what,
            history: story.history,
        })?;
        Ok(lies)
    };
    match only {
        Some(number) => case(number),
        None => workers::explore(seed, |done: &Lies| done.cases >= cases, case),
    }
}

/// One leader whose sync lies, one that stands by, and one after a power cut.
struct Story {
    rng: Rng,
    limits: Limits,
    ledger: Ledger,
    workload: Workload,
    /// What each of them asked of the disk.
    history: String,
}

impl Story {
    fn draw(rng: &mut Rng) -> Self {
        Self {
            limits: Limits::draw(rng),
            ledger: Ledger::default(),
            workload: Workload::new(rng.fork()),
            rng: rng.fork(),
            history: String::new(),
        }
    }

    fn tell(&mut self, lies: &mut Lies) -> Verdict {
        let first = SimDisk::new(self.rng.next());
        let led = self.lead_until_killed(&first);
        self.note("the first leader", &first);
        let Some(left) = led? else {
            return Ok(());
        };
        lies.cases += 1;
        let on_names = |op: &Op| op.error.is_some() && op.kind == OpKind::SyncDir;
        lies.names += u64::from(first.ops().iter().any(on_names));
        lies.shown += u64::from(cache_lies(&left));
        self.workload.faults = false;
        self.ledger.faults = false;
        let second = self.meet_another_lie(left);
        lies.states += 1;
        let stood_by = self.stand_by(&second, lies);
        self.note("the one that stood by", &second);
        stood_by?;
        let mode = if self.rng.coin() {
            CrashMode::LoseAll
        } else {
            CrashMode::draw(&mut self.rng)
        };
        let third = second.crash(&mut self.rng, mode);
        lies.states += 1;
        let mut rig = self.open(&third)?;
        let checked = check::after_recovery(&mut rig, &mut self.ledger, 1 << 20);
        self.note(&format!("{mode:?}, and the one after"), &third);
        checked
    }

    fn note(&mut self, who: &str, disk: &SimDisk) {
        self.history += &format!("{who}:\n{}", disk.history());
    }

    fn open(&mut self, disk: &SimDisk) -> Verdict<Rig> {
        Rig::open(disk, self.limits, &mut self.rng).map_err(|error| unopened(&error))
    }

    /// Leads until a sync has failed, and is killed right then or some calls later; what is left. `None` if no sync was asked for.
    fn lead_until_killed(&mut self, disk: &SimDisk) -> Verdict<Option<SimDisk>> {
        let at = 1 + self.rng.below(60);
        disk.fail_next(at, Fault::LostSync);
        if self.rng.chance(1, 3) {
            // Another one, when it tries to go on elsewhere.
            disk.fail_next(at + 1 + self.rng.below(10), Fault::LostSync);
        }
        self.workload.faults = true;
        self.ledger.faults = true;
        let Ok(mut rig) = Rig::open(disk, self.limits, &mut self.rng) else {
            return Ok(None);
        };
        disk.keep_moments();
        for _ in 0..40 {
            let mut before = self.ledger.clone();
            self.workload.act(&mut rig, &mut self.ledger)?;
            let mut moments = disk.take_moments();
            if !disk.injuries().has(Injury::LostSync) {
                continue;
            }
            moments.retain(|moment| moment.injuries().has(Injury::LostSync));
            // The first of them is before the next call.
            let later = if self.rng.coin() {
                0
            } else {
                self.rng.index(moments.len() + 1)
            };
            if let Some(moment) = moments.into_iter().nth(later) {
                before.learn_what_was_sent(&self.ledger);
                self.ledger = before;
                moment.clear_faults();
                return Ok(Some(moment));
            }
            for _ in 0..self.rng.below(4) {
                self.workload.act(&mut rig, &mut self.ledger)?;
            }
            return Ok(Some(disk.kill()));
        }
        Ok(None)
    }

    /// Sometimes the first one that stands by meets a sync of the same kind, in its recovery, and fails.
    fn meet_another_lie(&mut self, left: SimDisk) -> SimDisk {
        if !self.rng.chance(1, 4) {
            return left;
        }
        left.fail_next(1 + self.rng.below(8), Fault::LostSync);
        let opened = Rig::open(&left, self.limits, &mut self.rng);
        self.note("one that tried", &left);
        left.clear_faults();
        drop(opened);
        left.kill()
    }

    /// Leads on what the cache shows, and goes on when the cache shows it no more.
    fn stand_by(&mut self, disk: &SimDisk, lies: &mut Lies) -> Verdict {
        let mut rig = self.open(disk)?;
        let wrote_anew = |op: &Op| matches!(&op.kind, OpKind::Rename(..));
        lies.rewritten += u64::from(disk.ops().iter().any(wrote_anew));
        check::after_recovery(&mut rig, &mut self.ledger, 1 << 20)?;
        let dropped_after = self.rng.below(5);
        self.workload
            .reconnect(&mut rig, &mut self.ledger, usize::MAX)?;
        for act in 0..4 {
            if act == dropped_after {
                disk.drop_cache();
                check::everything_is_there(&rig, &mut self.ledger, 1 << 20)?;
            }
            self.workload.act(&mut rig, &mut self.ledger)?;
        }
        rig.answers(&mut self.ledger)
    }
}

/// Whether reads show what even the kindest power cut would not leave.
fn cache_lies(disk: &SimDisk) -> bool {
    let after = disk.crash(&mut Rng::new(1), CrashMode::KeepAll);
    let names = |disk: &SimDisk| disk.list().unwrap_or_default();
    names(&after) != names(disk)
        || names(&after)
            .iter()
            .any(|name| after.content(name) != disk.content(name))
}

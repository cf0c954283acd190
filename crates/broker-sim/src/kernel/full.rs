//! A disk without space: real ones that fill up, and a simulated one that is full at one call, or from one call on.
//!
//! What must hold is P5: publishes are refused with a clear error, reading goes on, nothing that was acknowledged is lost, and as soon
//! as there is space the same process acknowledges again, without a person.

use std::fs;
use std::ops::AddAssign;
use std::path::Path;
use std::sync::Arc;

use anyhow::{Context, ensure};
use broker_core::log::storage::{FileStorage, Storage};
use broker_core::store::Store;
use bytes::Bytes;

use super::account::Account;
use super::machine::{FileSystem, LoopDevice, Mount, image, scratch};
use crate::campaign::Harm;
use crate::crash_matrix::{Failure, unopened};
use crate::disk::{CrashMode, Errno, Fault, OpKind, SimDisk};
use crate::oracle::{Fate, Ledger, MessageId, Verdict, broken, check};
use crate::rig::{Limits, Rig};
use crate::rng::Rng;
use crate::workers::{self, rng_of};
use crate::workload::Workload;

/// Bytes of a real disk.
const DISK_BYTES: u64 = 24 << 20;
/// Bytes that are freed when it is full: in the second round less than in the first, which has left something behind.
const BALLAST_BYTES: [usize; 2] = [8 << 20, 2 << 20];
/// Bytes of a message that fills a disk.
const MESSAGE_BYTES: usize = 20_000;
/// More messages than fit.
const MESSAGES_MAX: u64 = DISK_BYTES * 2 / 20_000;
/// Sends until one is to be acknowledged after there is space again.
const SENDS_TO_RESUME: u32 = 3;
/// Acts of a simulated workload.
const ACTS: u64 = 30;
/// Acts on a disk that stays full.
const ACTS_WHILE_FULL: u64 = 6;

/// What real disks showed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Filled {
    /// How often there was no space left.
    pub times: u64,
    /// Messages refused for it.
    pub refused: u64,
    /// Messages acknowledged.
    pub acks: u64,
}

impl AddAssign for Filled {
    fn add_assign(&mut self, other: Self) {
        self.times += other.times;
        self.refused += other.refused;
        self.acks += other.acks;
    }
}

/// Fills a real disk twice: one in memory, or one of a kind of file system.
///
/// # Errors
/// A promise that was broken, or the machine fails.
pub fn fill(kind: Option<FileSystem>, seed: u64) -> anyhow::Result<Filled> {
    let dir = scratch()?;
    let at = dir.path().join("mount");
    fs::create_dir(&at)?;
    let Some(kind) = kind else {
        let mount = Mount::memory(&at, DISK_BYTES)?;
        return fill_at(mount.path(), seed);
    };
    let file = dir.path().join("image");
    image(&file, DISK_BYTES.max(kind.bytes() / 4))?;
    kind.make(&file)?;
    let device = LoopDevice::attach(&file)?;
    let mount = Mount::device(device.path(), kind, &at)?;
    fill_at(mount.path(), seed)
}

fn fill_at(mount: &Path, seed: u64) -> anyhow::Result<Filled> {
    let store = mount.join("store");
    fs::create_dir(&store)?;
    let mut rng = Rng::new(seed);
    let mut account = Account::new(seed);
    let mut done = Filled::default();
    for (round, bytes) in (0..).zip(BALLAST_BYTES) {
        let ballast = mount.join("ballast");
        fs::write(&ballast, vec![1; bytes]).context("the ballast")?;
        let disk = Arc::new(FileStorage::open(&store)?);
        let limits = Limits::draw(&mut rng);
        let mut rig = Rig::open_on(disk, limits, &mut rng).map_err(|error| unopened(&error))?;
        let mut filler = Filler::new(round + 1);
        done += filler.fill(&mut rig, &mut account.ledger)?;
        check::everything_is_there(&rig, &mut account.ledger, 1 << 20)?;
        fs::remove_file(&ballast)?;
        done.acks += filler.resume(&mut rig, &mut account.ledger)?;
        check::everything_is_there(&rig, &mut account.ledger, 1 << 20)?;
        drop(rig);
        // The next leader begins in what space is left.
        account.check(&store, &mut rng)?;
    }
    ensure!(
        done.times == 2 && done.acks > 20,
        "it was not filled: {done:?}"
    );
    Ok(done)
}

/// A publisher that takes all space.
struct Filler {
    next: MessageId,
}

impl Filler {
    fn new(producer: u16) -> Self {
        let number = 1;
        Self {
            next: MessageId { producer, number },
        }
    }

    /// Sends one message, and says what became of it.
    fn send<S: Storage>(
        &mut self,
        rig: &mut Rig<S>,
        ledger: &mut Ledger,
        bytes: usize,
    ) -> Verdict<Fate> {
        let id = self.next;
        self.next.number += 1;
        ledger.send(id, 1, Bytes::from(vec![7; bytes]));
        rig.send(ledger, id, 1)?;
        rig.work();
        rig.engine.keep_house();
        rig.answers(ledger)?;
        Ok(ledger.sent.get(&id).map_or(Fate::Open, |sent| sent.fate))
    }

    fn fill<S: Storage>(&mut self, rig: &mut Rig<S>, ledger: &mut Ledger) -> Verdict<Filled> {
        let mut done = Filled::default();
        for _ in 0..MESSAGES_MAX {
            match self.send(rig, ledger, MESSAGE_BYTES)? {
                Fate::Acked(_) => done.acks += 1,
                Fate::Refused => {
                    done.refused += 1;
                    // Not only once: it says so as long as it is so.
                    if done.refused > 5 {
                        done.times = 1;
                        return Ok(done);
                    }
                }
                other => {
                    let what = format!("on a full disk a message is {other:?}");
                    return broken(Harm::Other, what);
                }
            }
            still_writes(rig)?;
        }
        broken(Harm::Other, "more was acknowledged than fits on the disk")
    }

    /// There is space again. How many were acknowledged.
    fn resume<S: Storage>(&mut self, rig: &mut Rig<S>, ledger: &mut Ledger) -> Verdict<u64> {
        for _ in 0..SENDS_TO_RESUME {
            if let Fate::Acked(_) = self.send(rig, ledger, 100)? {
                return Ok(1);
            }
        }
        let what = "there is space again and it does not acknowledge";
        broken(Harm::Other, what)
    }
}

/// A full disk is no failure.
fn still_writes<S: Storage>(rig: &Rig<S>) -> Verdict {
    match rig.store.info().read_only {
        Some(reason) => broken(
            Harm::Other,
            format!("a full disk made it read-only: {reason}"),
        ),
        None => Ok(()),
    }
}

/// What was tried on the simulated disk.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Sites {
    /// Calls that failed, each in a run of its own.
    pub sites: u64,
    /// Of them, writes and zero fills.
    pub writes: u64,
    /// Of them, files that were made.
    pub creates: u64,
    /// Of them, renames.
    pub renames: u64,
    /// Of them, syncs of the directory.
    pub names: u64,
    /// Of them, syncs of files.
    pub syncs: u64,
    /// Messages that were refused for it.
    pub refused: u64,
}

impl AddAssign for Sites {
    fn add_assign(&mut self, other: Self) {
        self.sites += other.sites;
        self.writes += other.writes;
        self.creates += other.creates;
        self.renames += other.renames;
        self.names += other.names;
        self.syncs += other.syncs;
        self.refused += other.refused;
    }
}

/// Workloads that are done, and what they tried.
#[derive(Default)]
struct Part {
    workloads: u64,
    sites: Sites,
}

impl AddAssign for Part {
    fn add_assign(&mut self, other: Self) {
        self.workloads += other.workloads;
        self.sites += other.sites;
    }
}

/// How a simulated disk is full: the error, whether a write does a part of its work before, and whether it stays full for a while.
const FULL: [(Errno, bool, bool); 6] = [
    (Errno::NoSpace, false, false),
    (Errno::NoSpace, true, false),
    (Errno::NoSpace, false, true),
    (Errno::Quota, false, false),
    (Errno::Quota, true, false),
    (Errno::Quota, false, true),
];

/// Makes the disk full at every call of so many workloads, in every way.
///
/// # Errors
/// The first [`Failure`].
pub fn every_site(seed: u64, workloads: u64) -> Result<Sites, Failure> {
    let case = |number| {
        let mut part = Part {
            workloads: 1,
            ..Part::default()
        };
        for full in FULL {
            for site in 1.. {
                let mut run = Run::new(seed, number, site, full);
                let tried = run.play(&mut part.sites);
                let more = tried.map_err(|what| Failure {
                    seed,
                    place: format!("workload {number}, full at call {site} as {full:?}"),
                    what,
                    history: run.history,
                })?;
                if !more {
                    break;
                }
            }
        }
        Ok(part)
    };
    let part = workers::explore(seed, |part: &Part| part.workloads >= workloads, case)?;
    Ok(part.sites)
}

/// One workload, and one call at which there is no space.
struct Run {
    rng: Rng,
    limits: Limits,
    ledger: Ledger,
    workload: Workload,
    site: u64,
    full: (Errno, bool, bool),
    history: String,
}

impl Run {
    fn new(seed: u64, number: u64, site: u64, full: (Errno, bool, bool)) -> Self {
        let mut rng = rng_of(seed, number);
        Self {
            limits: Limits::draw(&mut rng),
            ledger: Ledger::default(),
            workload: Workload::new(rng.fork()),
            rng: rng.fork(),
            site,
            full,
            history: String::new(),
        }
    }

    /// False when the workload makes fewer calls.
    fn play(&mut self, sites: &mut Sites) -> Verdict<bool> {
        let disk = SimDisk::new(self.rng.next());
        let played = self.on(&disk, sites);
        self.history = disk.history();
        played
    }

    fn on(&mut self, disk: &SimDisk, sites: &mut Sites) -> Verdict<bool> {
        let (errno, short, stays) = self.full;
        let fault = if short {
            Fault::ShortWrite(errno)
        } else {
            Fault::Error(errno)
        };
        if stays {
            disk.fail_ops_from(self.site, fault);
        } else {
            disk.fail_op(self.site, fault);
        }
        self.workload.faults = true;
        self.ledger.faults = true;
        let opened = Rig::open(disk, self.limits, &mut self.rng);
        let mut rig = match opened {
            Ok(rig) => rig,
            Err(_) if disk.op_count() >= self.site => {
                // It may not begin without space, and says so; it does as soon as there is some.
                disk.clear_faults();
                Rig::open(disk, self.limits, &mut self.rng).map_err(|error| unopened(&error))?
            }
            Err(error) => return Err(unopened(&error)),
        };
        let mut while_full = 0;
        for _ in 0..ACTS {
            self.workload.act(&mut rig, &mut self.ledger)?;
            while_full += u64::from(disk.op_count() >= self.site);
            if while_full > ACTS_WHILE_FULL {
                break;
            }
        }
        if disk.op_count() < self.site {
            return Ok(false);
        }
        count(disk, self.site, sites);
        still_writes(&rig)?;
        check::everything_is_there(&rig, &mut self.ledger, 1 << 20)?;
        disk.clear_faults();
        let mut filler = Filler::new(u16::MAX);
        filler.resume(&mut rig, &mut self.ledger)?;
        check::everything_is_there(&rig, &mut self.ledger, 1 << 20)?;
        let refused = |fate: Fate| matches!(fate, Fate::Refused);
        let sent = self.ledger.sent.values();
        sites.refused += sent
            .filter(|sent| refused(sent.fate) && sent.had_fault)
            .count() as u64;
        let left = disk.crash(&mut self.rng, CrashMode::LoseAll);
        drop(rig);
        let mut rig =
            Rig::open(&left, self.limits, &mut self.rng).map_err(|error| unopened(&error))?;
        self.ledger.faults = false;
        check::after_recovery(&mut rig, &mut self.ledger, 1 << 20)?;
        Ok(true)
    }
}

/// What was asked for at the site.
fn count(disk: &SimDisk, site: u64, sites: &mut Sites) {
    sites.sites += 1;
    let ops = disk.ops();
    let kind = ops.iter().find(|op| op.number == site).map(|op| &op.kind);
    match kind {
        Some(OpKind::Write { .. } | OpKind::ZeroFill { .. }) => sites.writes += 1,
        Some(OpKind::Create(_)) => sites.creates += 1,
        Some(OpKind::Rename(..)) => sites.renames += 1,
        Some(OpKind::SyncDir) => sites.names += 1,
        Some(OpKind::Sync(_) | OpKind::SyncAll(_)) => sites.syncs += 1,
        _ => {}
    }
}

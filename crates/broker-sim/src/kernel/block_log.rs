//! A log of all that a file system asks of its disk, and every end that a power cut could make of it.
//!
//! A writer works on a file system on a [`BlockDisk`]. Then states are drawn: a place in the log, all that was flushed before it, and
//! of what came after the last flush all, nothing, any part, or all with the last write torn. Each becomes a disk again, is mounted,
//! and has to hold what was acknowledged up to its place. The same disk fails a flush for [`lie`], and loses what it should have kept.

use std::ops::AddAssign;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::Duration;

use anyhow::{Context, ensure};
use broker_proto::ErrorCode;
use tempfile::TempDir;

use super::account::{Account, Line};
use super::block_disk::{BlockDisk, Entry, Served, put};
use super::machine::{FileSystem, LoopDevice, Mount, Process, image, scratch};
use super::power_cut::{PATIENCE, careless_kept};
use super::writer::Args;
use crate::campaign::{Broken, Harm};
use crate::fleet::drop_cache;
use crate::rng::Rng;
use crate::workers::rng_of;

/// States of one log, before another one is made.
const STATES_OF_A_LOG: u64 = 30;
/// How long a writer works for a log.
const WORK: Duration = Duration::from_millis(250);
/// What a disk writes at once.
const SECTOR: usize = 512;
/// Threads of a writer.
const THREADS: u16 = 2;

/// What was tried.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct States {
    /// States that were mounted and checked.
    pub states: u64,
    /// Messages that were acknowledged, in all states together.
    pub acks: u64,
    /// Logs.
    pub logs: u64,
    /// Writes and flushes in them.
    pub entries: u64,
}

impl AddAssign for States {
    fn add_assign(&mut self, other: Self) {
        self.states += other.states;
        self.acks += other.acks;
        self.logs += other.logs;
        self.entries += other.entries;
    }
}

/// A file system on a disk that remembers.
struct Stack {
    // In the order in which they have to go.
    mount: Option<Mount>,
    _device: LoopDevice,
    _served: Served,
    disk: BlockDisk,
    base: Vec<u8>,
    at: PathBuf,
    _dir: TempDir,
}

impl Stack {
    fn new(kind: FileSystem) -> anyhow::Result<Self> {
        let dir = scratch()?;
        let path = |name: &str| dir.path().join(name);
        for name in ["mount", "fuse"] {
            std::fs::create_dir(path(name))?;
        }
        image(&path("image"), kind.bytes())?;
        kind.make(&path("image"))?;
        let base = std::fs::read(path("image"))?;
        std::fs::remove_file(path("image"))?;
        let disk = BlockDisk::new(base.clone());
        let served = disk.serve(&path("fuse"))?;
        let device = LoopDevice::attach(served.file())?;
        let at = path("mount");
        let mount = Mount::device(device.path(), kind, &at)?;
        Ok(Self {
            mount: Some(mount),
            _device: device,
            _served: served,
            disk,
            base,
            at,
            _dir: dir,
        })
    }

    fn start(&self, program: &Path, seed: u64, careless: bool) -> anyhow::Result<Process> {
        let args = Args {
            dir: self.at.clone(),
            seed,
            life: 0,
            threads: THREADS,
            runs: 0,
            again: Vec::new(),
            careless,
        };
        let disk = self.disk.clone();
        let process = Process::start_stamped(&mut args.command(program), move || disk.asked())?;
        let first = process.next(PATIENCE)?;
        ensure!(first == Some(Line::Ready), "it does not begin: {first:?}");
        Ok(process)
    }
}

/// What a disk was asked while a writer worked, and what the writer said when.
struct Recording {
    base: Vec<u8>,
    log: Vec<Entry>,
    lines: Vec<(u64, Line)>,
}

fn record(
    program: &Path,
    kind: FileSystem,
    seed: u64,
    careless: bool,
) -> anyhow::Result<Recording> {
    let stack = Stack::new(kind)?;
    let process = stack.start(program, seed, careless)?;
    thread::sleep(WORK);
    let lines = process.kill_stamped()?;
    Ok(Recording {
        log: stack.disk.log(),
        base: stack.base.clone(),
        lines,
    })
}

/// Makes the disk of a state a file system again.
struct Bench {
    kind: FileSystem,
    dir: TempDir,
}

impl Bench {
    fn new(kind: FileSystem) -> anyhow::Result<Self> {
        let dir = scratch()?;
        std::fs::create_dir(dir.path().join("mount"))?;
        Ok(Self { kind, dir })
    }

    fn look<T>(
        &self,
        content: &[u8],
        look: impl FnOnce(&Path) -> anyhow::Result<T>,
    ) -> anyhow::Result<T> {
        let (file, at) = (self.dir.path().join("image"), self.dir.path().join("mount"));
        std::fs::write(&file, content)?;
        let device = LoopDevice::attach(&file)?;
        let mount = Mount::device(device.path(), self.kind, &at)?;
        let looked = look(mount.path())?;
        mount.unmount()?;
        Ok(looked)
    }
}

/// What becomes of the writes after the last flush.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Rest {
    All,
    Nothing,
    Some,
    Torn,
}

const RESTS: [Rest; 4] = [Rest::All, Rest::Nothing, Rest::Some, Rest::Torn];

/// Tries so many states of logs of a kind of file system, with one log on each core at a time.
///
/// # Errors
/// A promise that was broken, as [`Broken`], with its state; or the machine fails.
pub fn replay_many(
    program: &Path,
    kind: FileSystem,
    states: u64,
    seed: u64,
) -> anyhow::Result<States> {
    let logs = states.div_ceil(STATES_OF_A_LOG);
    let mut total = States::default();
    // Two at a time: a log with what was there before takes much memory.
    for pair in 0..logs.div_ceil(2) {
        let pair = pair * 2..(pair * 2 + 2).min(logs);
        let done = thread::scope(|scope| {
            let replay = |log: u64| {
                let states = STATES_OF_A_LOG.min(states - log * STATES_OF_A_LOG);
                let seed = rng_of(seed, log).next();
                let done = replay(program, kind, states, seed);
                done.with_context(|| format!("{} log {log} of seed {seed}", kind.name()))
            };
            let workers: Vec<_> = pair.map(|log| scope.spawn(move || replay(log))).collect();
            let done = workers.into_iter().map(|worker| worker.join());
            done.collect::<Result<Vec<_>, _>>()
        });
        let done = done.map_err(|_| anyhow::anyhow!("a worker panicked"))?;
        for done in done {
            total += done?;
        }
    }
    Ok(total)
}

fn replay(program: &Path, kind: FileSystem, states: u64, seed: u64) -> anyhow::Result<States> {
    let recording = record(program, kind, seed, false)?;
    let bench = Bench::new(kind)?;
    let mut rng = Rng::new(seed);
    let mut ends: Vec<usize> = (0..states)
        .map(|_| rng.index(recording.log.len() + 1))
        .collect();
    ends.sort_unstable();
    let mut done = States {
        logs: 1,
        entries: u64::try_from(recording.log.len())?,
        ..States::default()
    };
    // All that was flushed before `from`.
    let (mut flushed, mut from) = (recording.base.clone(), 0);
    for end in ends {
        let before = recording.log.get(..end).unwrap_or_default();
        let flush = before.iter().rposition(|entry| *entry == Entry::Flush);
        let upto = flush.map_or(from, |flush| (flush + 1).max(from));
        apply(
            &mut flushed,
            recording.log.get(from..upto).unwrap_or_default(),
        );
        from = upto;
        let rest = rng.pick(&RESTS).copied().unwrap_or(Rest::All);
        let mut content = flushed.clone();
        let open = recording.log.get(upto..end).unwrap_or_default();
        apply_rest(&mut content, open, rest, &mut rng);
        let mut account = Account::new(seed);
        for (stamp, line) in &recording.lines {
            // What was said later need not be there, but may be on its way.
            if matches!(line, Line::Sent { .. }) || *stamp <= u64::try_from(end)? {
                account.hear(line)?;
            }
        }
        let checked = bench.look(&content, |at| Ok(account.check(at, &mut rng)?));
        checked.with_context(|| format!("at {end} of {}, {rest:?}", recording.log.len()))?;
        done.states += 1;
        done.acks += account.acks;
    }
    Ok(done)
}

fn apply(content: &mut [u8], entries: &[Entry]) {
    for entry in entries {
        if let Entry::Write { at, bytes, .. } = entry {
            put(content, *at, bytes);
        }
    }
}

fn apply_rest(content: &mut [u8], open: &[Entry], rest: Rest, rng: &mut Rng) {
    match rest {
        Rest::All => apply(content, open),
        Rest::Nothing => {}
        Rest::Some => {
            for entry in open {
                if rng.coin() {
                    apply(content, std::slice::from_ref(entry));
                }
            }
        }
        Rest::Torn => {
            let Some((last, others)) = open.split_last() else {
                return;
            };
            apply(content, others);
            if let Entry::Write { at, bytes, .. } = last {
                let sectors = rng.index(bytes.len() / SECTOR + 1);
                put(content, *at, bytes.get(..sectors * SECTOR).unwrap_or(bytes));
            }
        }
    }
}

/// Cuts off the writer that syncs nothing: how many lines it called safe, and how many of them are there.
///
/// # Errors
/// The machine fails.
pub fn replay_careless(program: &Path, kind: FileSystem, seed: u64) -> anyhow::Result<(u64, u64)> {
    let recording = record(program, kind, seed, true)?;
    let said = recording.lines.iter().rev();
    let mut said = said.filter_map(|(_, line)| match line {
        Line::Careless(lines) => Some(*lines),
        _ => None,
    });
    let said = said.next().context("it said nothing")?;
    let mut content = recording.base;
    let flush = recording
        .log
        .iter()
        .rposition(|entry| *entry == Entry::Flush);
    let flushed = flush.map_or(0, |flush| flush + 1);
    apply(
        &mut content,
        recording.log.get(..flushed).unwrap_or_default(),
    );
    let kept = Bench::new(kind)?.look(&content, |at| Ok(careless_kept(at)))?;
    Ok((said, kept))
}

/// What flushes that lied showed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Lies {
    /// Flushes that failed once and kept nothing.
    pub cases: u64,
    /// Of them, those after which the writer went on by itself.
    pub went_on: u64,
    /// Of them, those after which it was read-only.
    pub read_only: u64,
    /// Of them, those after which another leader went on, on the same file system.
    pub stood_by: u64,
    /// Messages acknowledged.
    pub acks: u64,
}

impl AddAssign for Lies {
    fn add_assign(&mut self, other: Self) {
        self.cases += other.cases;
        self.went_on += other.went_on;
        self.read_only += other.read_only;
        self.stood_by += other.stood_by;
        self.acks += other.acks;
    }
}

/// Fails one flush of the disk below ext4, which loses what it should have kept, and then goes on as if nothing had been. The leader
/// is killed right then or later, the cache is dropped, another one leads, and in the end the power is cut.
///
/// # Errors
/// A promise that was broken, as [`Broken`]; or the machine fails.
pub fn lie(program: &Path, seed: u64) -> anyhow::Result<Lies> {
    let mut rng = Rng::new(seed);
    let mut stack = Stack::new(FileSystem::Ext4)?;
    let process = stack.start(program, seed, false)?;
    thread::sleep(Duration::from_millis(rng.below(60)));
    stack.disk.lie_after(rng.below(40));
    ensure!(
        stack.disk.wait_for_the_lie(PATIENCE),
        "the disk is not asked to flush"
    );
    let at = stack.disk.asked();
    if rng.coin() {
        thread::sleep(Duration::from_millis(rng.below(150)));
    }
    let mut account = Account::new(seed);
    let mut done = Lies {
        cases: 1,
        ..Lies::default()
    };
    for (stamp, line) in process.kill_stamped()? {
        account.hear(&line)?;
        // Some writes later: those that were under way when it lied are done.
        if stamp > at + 8 && matches!(line, Line::Acked { .. }) {
            done.went_on = 1;
        }
    }
    for (code, why) in &account.refusals {
        done.read_only |= u64::from(*code == ErrorCode::READ_ONLY);
        if why.is_empty() {
            return Err(Broken::new(Harm::Other, "a refusal without a reason").into());
        }
    }
    // A file system whose own writes were hit gives up, and nobody can lead on it.
    let _ = drop_cache(&stack.at);
    if is_writable(&stack.at) {
        account.check(&stack.at, &mut rng)?;
        done.stood_by = 1;
    }
    let left = stack.disk.flushed();
    stack.mount = None;
    let bench = Bench::new(FileSystem::Ext4)?;
    bench.look(&left, |at| Ok(account.check(at, &mut rng)?))?;
    done.acks = account.acks;
    Ok(done)
}

fn is_writable(at: &Path) -> bool {
    let file = std::fs::File::create(at.join("writable"));
    file.and_then(|file| file.sync_all()).is_ok()
}

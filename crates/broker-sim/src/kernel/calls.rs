//! A fault at each system call that writes: the process is killed there, or the call fails, or it lies.
//!
//! A writer without threads makes the same calls each time. One run is watched, by strace, and names every call that changes
//! something in the directory of the store; then there is one run for each call and fault. What is left is opened again, by the
//! rules of the [`account`](super::account): after a kill or an error everything that was acknowledged is there; after a write that
//! never came although the kernel said so, what is served is right, and the loss is told. After an error the process either goes on by
//! itself or says why it does not.

use std::collections::HashMap;
use std::fmt;
use std::ops::AddAssign;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use anyhow::{Context, anyhow, ensure};
use broker_proto::ErrorCode;

use super::account::{Account, Line};
use super::machine::{Missing, Process, needs, scratch};
use super::writer::Args;
use crate::campaign::{Broken, Harm};
use crate::fleet::Tracer;
use crate::rng::Rng;

/// Calls that change something.
const CALLS: [&str; 7] = [
    "pwrite64",
    "fdatasync",
    "fsync",
    "ftruncate",
    "renameat",
    "unlinkat",
    "openat",
];

/// What the store says of a segment without a beginning.
const BEYOND_READING: &str = "is damaged beyond reading";

/// One call of a run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Call {
    /// Its name.
    pub name: String,
    /// Which of its name it is, from 1.
    pub nth: u32,
    /// What it returned: for a write, how many bytes.
    pub returned: u64,
}

/// What happens at a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// The process is killed before it.
    Kill,
    /// It fails: `EIO`.
    Io,
    /// It fails: `ENOSPC`.
    NoSpace,
    /// It fails: `EDQUOT`.
    Quota,
    /// A write does nothing, and says that it took a few bytes, fewer than a block.
    Short,
    /// A write does nothing, and says that it took everything.
    Lie,
    /// It takes long.
    Delay,
}

impl Fault {
    /// All of them.
    pub const ALL: [Self; 7] = [
        Self::Kill,
        Self::Io,
        Self::NoSpace,
        Self::Quota,
        Self::Short,
        Self::Lie,
        Self::Delay,
    ];

    /// Whether a call of this name can have it.
    fn is_for(self, call: &str) -> bool {
        match self {
            Self::Kill | Self::Io | Self::NoSpace => true,
            Self::Short | Self::Lie => call == "pwrite64",
            // The same code decides about it as about a full disk; where bytes are taken it is tried all the same.
            Self::Quota => ["pwrite64", "openat"].contains(&call),
            Self::Delay => call == "fdatasync",
        }
    }

    /// As strace calls it.
    fn injection(self, call: &Call) -> String {
        let what = match self {
            Self::Kill => "signal=SIGKILL".to_owned(),
            Self::Io => "error=EIO".to_owned(),
            Self::NoSpace => "error=ENOSPC".to_owned(),
            Self::Quota => "error=EDQUOT".to_owned(),
            Self::Short => "retval=37".to_owned(),
            Self::Lie => format!("retval={}", call.returned),
            Self::Delay => "delay_exit=30000".to_owned(),
        };
        format!("inject={}:{what}:when={}", call.name, call.nth)
    }
}

/// What was tried, and what became of the process.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Tried {
    /// Calls of the run that was watched.
    pub calls: u64,
    /// Faults, each in a run of its own.
    pub faults: u64,
    /// Of them, runs that were killed.
    pub kills: u64,
    /// Of them, runs that went on by themselves to the end, with the last message acknowledged.
    pub went_on: u64,
    /// Of them, runs that ended as read-only.
    pub read_only: u64,
    /// Of them, runs that did not begin, or ended with an error.
    pub gave_up: u64,
    /// Lies that cost something that was acknowledged: the looks afterwards are not blind.
    pub lost_by_lies: u64,
    /// Messages acknowledged.
    pub acks: u64,
}

impl AddAssign for Tried {
    fn add_assign(&mut self, other: Self) {
        self.calls += other.calls;
        self.faults += other.faults;
        self.kills += other.kills;
        self.went_on += other.went_on;
        self.read_only += other.read_only;
        self.gave_up += other.gave_up;
        self.lost_by_lies += other.lost_by_lies;
        self.acks += other.acks;
    }
}

/// One run with a fault.
struct Point<'a> {
    call: &'a Call,
    fault: Fault,
}

impl fmt::Display for Point<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{:?} at {} {}",
            self.fault, self.call.name, self.call.nth
        )
    }
}

/// Whether runs can be followed here.
///
/// # Errors
/// There is no strace, or it may not follow.
pub fn needs_strace() -> Result<(), Missing> {
    needs(&["strace"])?;
    if Tracer::is_available() {
        Ok(())
    } else {
        Err(Missing("ptrace".to_owned()))
    }
}

/// Tries every fault at every call of a workload that sends so many times.
///
/// # Errors
/// A promise that was broken, as [`Broken`], with the call and the fault; or the machine fails.
pub fn try_all(program: &Path, sends: u32, seed: u64) -> anyhow::Result<Tried> {
    let calls = watch(program, sends, seed)?;
    let again = watch(program, sends, seed)?;
    ensure!(calls == again, "the workload does not repeat its calls");
    for name in CALLS {
        let is_there = calls.iter().any(|call| call.name == name);
        ensure!(is_there, "the workload makes no {name}");
    }
    let points: Vec<Point<'_>> = calls
        .iter()
        .flat_map(|call| Fault::ALL.map(|fault| Point { call, fault }))
        .filter(|point| point.fault.is_for(&point.call.name))
        .collect();
    let next = AtomicUsize::new(0);
    let work = || {
        let mut total = Tried::default();
        while let Some(point) = points.get(next.fetch_add(1, Ordering::Relaxed)) {
            let tried = try_one(program, sends, seed, point);
            total += tried.with_context(|| format!("{point}, seed {seed}"))?;
        }
        anyhow::Ok(total)
    };
    let cores = thread::available_parallelism()
        .map_or(1, usize::from)
        .min(4);
    let mut total = thread::scope(|scope| {
        let workers: Vec<_> = (0..cores).map(|_| scope.spawn(work)).collect();
        let mut total = Tried::default();
        for worker in workers {
            total += worker.join().map_err(|_| anyhow!("a worker panicked"))??;
        }
        anyhow::Ok(total)
    })?;
    total.calls = u64::try_from(calls.len())?;
    Ok(total)
}

fn args(dir: &Path, sends: u32, seed: u64) -> Args {
    Args {
        dir: dir.to_owned(),
        seed,
        life: 0,
        threads: 0,
        runs: sends,
        again: Vec::new(),
        careless: false,
    }
}

/// A writer below strace.
fn traced(args: &Args, program: &Path, options: &[String]) -> Command {
    let writer = args.command(program);
    let mut strace = Command::new("strace");
    strace.arg("-qq").args(options).arg("--");
    strace.arg(writer.get_program()).args(writer.get_args());
    strace.stderr(Stdio::null());
    strace
}

/// The calls of a run, in their order.
fn watch(program: &Path, sends: u32, seed: u64) -> anyhow::Result<Vec<Call>> {
    let parent = scratch()?;
    let (dir, log) = (parent.path().join("store"), parent.path().join("log"));
    std::fs::create_dir(&dir)?;
    let options = [
        "-y".to_owned(),
        format!("--output={}", log.display()),
        format!("--trace={}", CALLS.join(",")),
    ];
    let process = Process::start(&mut traced(&args(&dir, sends, seed), program, &options))?;
    let (lines, succeeded) = process.end()?;
    ensure!(succeeded, "without a fault it fails: {:?}", lines.last());
    let mut counts: HashMap<&str, u32> = HashMap::new();
    let mut calls = Vec::new();
    let log = std::fs::read_to_string(log)?;
    for line in log.lines() {
        let Some((name, rest)) = line.split_once('(') else {
            continue;
        };
        let nth = counts.entry(name).or_default();
        *nth += 1;
        // Only what is made is a change, not what is opened.
        let changes = name != "openat" || rest.contains("O_CREAT");
        if changes && rest.contains(&*dir.to_string_lossy()) {
            let returned = rest.rsplit_once("= ").map_or("", |(_, returned)| returned);
            calls.push(Call {
                name: name.to_owned(),
                nth: *nth,
                returned: returned.parse().unwrap_or(0),
            });
        }
    }
    Ok(calls)
}

fn try_one(program: &Path, sends: u32, seed: u64, point: &Point<'_>) -> anyhow::Result<Tried> {
    let dir = scratch()?;
    let options = [
        "--output=/dev/null".to_owned(),
        format!("--trace={}", point.call.name),
        format!("-e{}", point.fault.injection(point.call)),
    ];
    let mut command = traced(&args(dir.path(), sends, seed), program, &options);
    let (lines, succeeded) = Process::start(&mut command)?.end()?;
    let mut account = Account::new(seed);
    for line in &lines {
        account.hear(line)?;
    }
    let mut tried = Tried {
        faults: 1,
        acks: account.acks,
        ..Tried::default()
    };
    let how = judge(point, &lines, succeeded, &account)?;
    match how {
        End::Killed => tried.kills = 1,
        End::WentOn => tried.went_on = 1,
        End::ReadOnly => tried.read_only = 1,
        End::GaveUp => tried.gave_up = 1,
    }
    account.ledger.lied_to = point.fault == Fault::Lie;
    let mut rng = Rng::new(seed);
    match account.check(dir.path(), &mut rng) {
        // The write was the whole beginning of a file: the loss is told, and no leader goes on over it.
        Err(broken) if point.fault == Fault::Lie && broken.what.contains(BEYOND_READING) => {
            tried.lost_by_lies = 1;
            return Ok(tried);
        }
        checked => checked?,
    }
    account.send_open_again(dir.path(), &mut rng)?;
    if point.fault == Fault::Lie && !account.has_everything(dir.path(), &mut rng)? {
        tried.lost_by_lies = 1;
    }
    Ok(tried)
}

/// How a run ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum End {
    Killed,
    WentOn,
    ReadOnly,
    GaveUp,
}

/// Whether a process may end so.
fn judge(
    point: &Point<'_>,
    lines: &[Line],
    succeeded: bool,
    account: &Account,
) -> Result<End, Broken> {
    let wrong = |what: &str| {
        Err(Broken::new(Harm::Other, {
            let last = lines.iter().skip(lines.len().saturating_sub(6));
            format!("{what}: {:?}", last.collect::<Vec<_>>())
        }))
    };
    let read_only = account
        .refusals
        .iter()
        .any(|(code, _)| *code == ErrorCode::READ_ONLY);
    if account.refusals.iter().any(|(_, why)| why.is_empty()) {
        return wrong("a refusal without a reason");
    }
    let end = match lines.last() {
        Some(Line::Acked { .. }) if succeeded => End::WentOn,
        Some(Line::Refused { .. }) if succeeded && read_only => End::ReadOnly,
        Some(Line::Refused { .. }) if succeeded => return wrong("it does not resume"),
        Some(Line::Stopped(why)) if !why.is_empty() => End::GaveUp,
        _ if point.fault == Fault::Kill && !succeeded => End::Killed,
        _ => return wrong("it ends without a word"),
    };
    match (point.fault, end) {
        (Fault::Kill, End::Killed) => Ok(end),
        (Fault::Kill, _) => wrong("it was not killed"),
        // The store may refuse to open while there is no space. Once it serves, it goes on when there is some.
        (Fault::NoSpace | Fault::Quota, End::ReadOnly) => wrong("a full disk makes it read-only"),
        (Fault::Delay, End::WentOn) => Ok(end),
        (Fault::Delay, _) => wrong("a slow call is taken for a failure"),
        _ if end == End::GaveUp && lines.contains(&Line::Ready) => {
            wrong("it serves, and then ends by an error")
        }
        _ => Ok(end),
    }
}

//! Who is in the way: the process that keeps a store's lock, or listens at an address.
//!
//! Only to name it in an error: nothing is decided here. `DIR/lock` says who holds the lock, but it outlives its holder, and a
//! child that was forked without exec keeps the descriptor, and with it the lock, after its parent is gone. The kernel knows
//! better: `/proc/PID/fdinfo/N` tells whether the lock is held through that very descriptor.
//!
//! **Limits:** only processes whose descriptors this user may see, at most [`PROCESSES_MAX`] of them and [`DESCRIPTORS_MAX`]
//! descriptors; what is beyond is not found. Linux alone; elsewhere nothing is ever found.

mod tcp_table;
#[cfg(all(test, target_os = "linux"))]
mod tests;

use std::fmt;
use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use rustix::fs::AtFlags;

use super::{Holder, LOCK_NAME, Liveness, ProcessId, StoreDir};

/// Most processes that are looked at.
const PROCESSES_MAX: usize = 32_768;

/// Most descriptors that are looked at, of all processes together.
const DESCRIPTORS_MAX: usize = 262_144;

/// Most processes that are named.
const NAMED_MAX: usize = 8;

/// A process that keeps something.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Keeper {
    /// Its number, in the namespace of this process.
    pub pid: u32,
    /// Its name, as the kernel has it: at most 15 bytes of the program's, without control characters.
    pub name: String,
}

impl Keeper {
    fn of(pid: u32) -> Self {
        let name = fs::read(format!("/proc/{pid}/comm")).unwrap_or_default();
        let name = String::from_utf8_lossy(&name);
        let shown = |c: char| if c.is_control() { '?' } else { c };
        Self {
            pid,
            name: name.trim_end_matches('\n').chars().map(shown).collect(),
        }
    }
}

impl fmt::Display for Keeper {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.name.is_empty() {
            return write!(f, "process {}", self.pid);
        }
        write!(f, "process {} ({})", self.pid, self.name)
    }
}

/// The processes that hold the lock of a store, by rising number, at most 8; this one among them if it does.
///
/// Where the kernel does not say which descriptor holds it: those that have the file open.
#[must_use]
pub fn keepers(dir: &StoreDir) -> Vec<Keeper> {
    let Ok(lock) = rustix::fs::statat(dir, LOCK_NAME, AtFlags::SYMLINK_NOFOLLOW) else {
        return Vec::new();
    };
    let (mut holding, mut open) = (Vec::new(), Vec::new());
    for_each_descriptor(|pid, number| {
        if !leads_to_lock(pid, number, &lock) {
            return true;
        }
        push_once(&mut open, pid);
        if fs::read_to_string(format!("/proc/{pid}/fdinfo/{number}")).is_ok_and(|i| holds_lock(&i))
        {
            push_once(&mut holding, pid);
        }
        holding.len() < NAMED_MAX
    });
    let found = if holding.is_empty() { open } else { holding };
    found.into_iter().take(NAMED_MAX).map(Keeper::of).collect()
}

fn push_once(pids: &mut Vec<u32>, pid: u32) {
    if !pids.contains(&pid) {
        pids.push(pid);
    }
}

/// Whether a descriptor is of this very file. The name is looked at first: asking for more of a file on a file system that hangs
/// would hang too.
fn leads_to_lock(pid: u32, number: u32, lock: &rustix::fs::Stat) -> bool {
    use std::os::unix::fs::MetadataExt;

    let link = descriptor(pid, number);
    let named = fs::read_link(&link).is_ok_and(|target| has_lock_name(&target));
    named
        && fs::metadata(&link).is_ok_and(|file| {
            u128::from(file.ino()) == u128::from(lock.st_ino)
                && u128::from(file.dev()) == u128::from(lock.st_dev)
        })
}

fn has_lock_name(target: &Path) -> bool {
    target.file_name().is_some_and(|name| name == LOCK_NAME)
}

/// Whether `/proc/PID/fdinfo/N` has a line like `lock:\t1: FLOCK  ADVISORY  WRITE 812 08:01:1234 0 EOF`.
fn holds_lock(fdinfo: &str) -> bool {
    fdinfo.lines().any(|line| {
        line.strip_prefix("lock:")
            .is_some_and(|lock| lock.split_whitespace().any(|word| word == "FLOCK"))
    })
}

/// The process that listens at an address, or at one that takes the same port from it: a wildcard, or any where `address` is one.
///
/// `None` if nobody does, or another user's process.
#[must_use]
pub fn listener_at(address: SocketAddr) -> Option<Keeper> {
    let sockets = tcp_table::listening_at(address);
    if sockets.is_empty() {
        return None;
    }
    let mut best: Option<(usize, u32)> = None;
    for_each_descriptor(|pid, number| {
        let rank = socket_inode(pid, number)
            .and_then(|inode| sockets.iter().position(|socket| *socket == inode));
        if let Some(rank) = rank
            && best.is_none_or(|(so_far, _)| rank < so_far)
        {
            best = Some((rank, pid));
        }
        best.is_none_or(|(rank, _)| rank > 0)
    });
    best.map(|(_, pid)| Keeper::of(pid))
}

fn socket_inode(pid: u32, number: u32) -> Option<u64> {
    parse_socket(fs::read_link(descriptor(pid, number)).ok()?.to_str()?)
}

/// Finds 1234 in `socket:[1234]`.
fn parse_socket(target: &str) -> Option<u64> {
    let inode = target.strip_prefix("socket:[")?.strip_suffix(']')?;
    inode.parse().ok()
}

fn descriptor(pid: u32, number: u32) -> PathBuf {
    PathBuf::from(format!("/proc/{pid}/fd/{number}"))
}

/// Shows the descriptors of the processes that can be seen, by rising process number, until it is told to stop.
fn for_each_descriptor(mut look: impl FnMut(u32, u32) -> bool) {
    let mut left = DESCRIPTORS_MAX;
    for pid in numbers(Path::new("/proc"), PROCESSES_MAX) {
        for number in numbers(&PathBuf::from(format!("/proc/{pid}/fd")), left) {
            left = left.saturating_sub(1);
            if !look(pid, number) {
                return;
            }
        }
        if left == 0 {
            return;
        }
    }
}

/// The names in a directory that are numbers, rising; none where it cannot be read, or is not the kernel's.
fn numbers(dir: &Path, max: usize) -> Vec<u32> {
    if !cfg!(target_os = "linux") {
        return Vec::new();
    }
    let Ok(entries) = fs::read_dir(dir) else {
        return Vec::new();
    };
    let names = entries.map_while(Result::ok);
    let mut numbers: Vec<u32> = names
        .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
        .take(max)
        .collect();
    numbers.sort_unstable();
    numbers
}

/// Says who keeps a store's lock and what a person can do about it; to be read after "is held by".
pub(super) fn explain(dir: &StoreDir, holder: Option<&Holder>) -> String {
    reason(holder, &keepers(dir))
}

/// What is known of a held lock: what its file says, and whom the kernel shows.
fn reason(holder: Option<&Holder>, keepers: &[Keeper]) -> String {
    let Some(holder) = holder else {
        return match listed(keepers) {
            Some(names) => format!("{names}, which has not said what it is; wait, or end it"),
            None => format!("somebody who has not said who; {UNSEEN}"),
        };
    };
    let holds = keepers
        .iter()
        .any(|keeper| keeper.pid == holder.process.pid);
    match (holder.process.liveness(), listed(keepers)) {
        (Liveness::Running, names) if holds || names.is_none() => holder.to_string(),
        (Liveness::Running, Some(names)) => {
            format!("{names}, and not by {holder}, which led last: end it")
        }
        (Liveness::Gone, Some(names)) => {
            format!("{names}, and not by {holder}, which led last and is gone: end it")
        }
        (Liveness::Gone, None) => {
            format!("somebody else than {holder}, which led last and is gone; {UNSEEN}")
        }
        (Liveness::Unknown, Some(names)) => format!("{names}; {holder} led last"),
        _ if elsewhere(&holder.process) => {
            format!("{holder}, by the numbers of another process id namespace (a container?)")
        }
        _ => holder.to_string(),
    }
}

/// Said when the kernel shows nobody.
const UNSEEN: &str = "this user can see no process that does: look for one of another user or container (fuser, lsof)";

/// Whether a process lives by other numbers than this one sees.
fn elsewhere(process: &ProcessId) -> bool {
    let here = ProcessId::current();
    process.pid_namespace != 0 && here.pid_namespace != process.pid_namespace
}

/// The keepers as people list them; `None` if there are none.
fn listed(keepers: &[Keeper]) -> Option<String> {
    let names: Vec<String> = keepers.iter().map(ToString::to_string).collect();
    (!names.is_empty()).then(|| names.join(", "))
}

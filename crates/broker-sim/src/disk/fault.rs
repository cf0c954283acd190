//! What a disk is told to do wrong, and its record of what it was asked.

use std::collections::BTreeMap;
use std::error::Error;
use std::{fmt, io};

use super::injury::Injury;

/// An error of the operating system.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Errno {
    /// `EIO`: the disk is broken.
    Io,
    /// `ENOSPC`: the disk is full.
    NoSpace,
    /// `EDQUOT`: this user has no space left.
    Quota,
}

impl Errno {
    /// The error as a program gets it, with the number that the system gives.
    #[must_use]
    pub fn error(self) -> io::Error {
        let quota = if cfg!(target_os = "linux") { 122 } else { 69 };
        io::Error::from_raw_os_error(match self {
            Self::Io => 5,
            Self::NoSpace => 28,
            Self::Quota => quota,
        })
    }
}

/// What happens to one op.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Fault {
    /// It fails, and nothing was done.
    Error(Errno),
    /// A write or zero fill does a part of its work, then fails. Other ops fail as with [`Fault::Error`].
    ShortWrite(Errno),
    /// A sync fails with `EIO`, and what it should have made durable never will be: reads show it, and later syncs say that all is
    /// well. Only writing the same bytes again helps. That is what Linux does. Other ops fail with `EIO`.
    LostSync,
    /// A write or zero fill succeeds, and reads show it, but it never reaches the disk, whatever is synced. No effect on other ops.
    DroppedWrite,
    /// A write succeeds, and reads show it, but the disk puts it at the beginning of another block, of the same file or of another
    /// one, over what was durable there; its own place keeps what it had. What would land behind the end of that file is lost. The
    /// page cache may or may not show the harm. No effect on other ops, and on the first file that is written.
    MisdirectedWrite,
    /// The power is cut before this op: it and every later call fail with an error that [`is_crash`] knows.
    Crash,
}

/// Faults by the number of the call that they hit.
#[derive(Debug, Clone, Default)]
pub(super) struct Plan {
    pub(super) ops: BTreeMap<u64, Fault>,
    pub(super) ops_from: Option<(u64, Fault)>,
    /// Faults that wait for an op that they are made for.
    pub(super) aimed: Vec<(u64, Fault)>,
    pub(super) reads: BTreeMap<u64, Errno>,
    pub(super) reads_from: Option<(u64, Errno)>,
}

impl Plan {
    pub(super) fn of_op(&mut self, n: u64, kind: &OpKind) -> Option<Fault> {
        let aimed = self.aimed.iter().position(|(from, fault)| {
            n >= *from && Injury::of(*fault, kind).is_some_and(|injury| injury.is_of(*fault))
        });
        if let Some(aimed) = aimed {
            return Some(self.aimed.remove(aimed).1);
        }
        self.ops.get(&n).copied().or_else(|| {
            self.ops_from
                .filter(|(from, _)| n >= *from)
                .map(|(_, fault)| fault)
        })
    }

    pub(super) fn of_read(&self, n: u64) -> Option<Errno> {
        self.reads.get(&n).copied().or_else(|| {
            self.reads_from
                .filter(|(from, _)| n >= *from)
                .map(|(_, errno)| errno)
        })
    }
}

/// What a program asked for. Files are called as they were at that moment; a file without a name is `(deleted)`.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum OpKind {
    /// Make a file.
    Create(String),
    /// Rename the first to the second.
    Rename(String, String),
    /// Remove a name.
    Delete(String),
    /// Make names durable.
    SyncDir,
    /// Write so many bytes at an offset.
    Write {
        /// The file.
        name: String,
        /// Where.
        at: u64,
        /// How many bytes.
        len: u64,
    },
    /// Write zeros.
    ZeroFill {
        /// The file.
        name: String,
        /// First byte.
        from: u64,
        /// The byte after the last.
        to: u64,
    },
    /// Set the length.
    Truncate {
        /// The file.
        name: String,
        /// The new length.
        len: u64,
    },
    /// `fdatasync`.
    Sync(String),
    /// `fsync`.
    SyncAll(String),
}

impl fmt::Display for OpKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Create(name) => write!(f, "create {name}"),
            Self::Rename(from, to) => write!(f, "rename {from} -> {to}"),
            Self::Delete(name) => write!(f, "delete {name}"),
            Self::SyncDir => write!(f, "sync directory"),
            Self::Write { name, at, len } => write!(f, "write {name} {at}+{len}"),
            Self::ZeroFill { name, from, to } => write!(f, "zero {name} {from}..{to}"),
            Self::Truncate { name, len } => write!(f, "truncate {name} {len}"),
            Self::Sync(name) => write!(f, "sync {name}"),
            Self::SyncAll(name) => write!(f, "sync all {name}"),
        }
    }
}

/// One call that changes something.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Op {
    /// Its number, from 1.
    pub number: u64,
    /// What was asked for.
    pub kind: OpKind,
    /// How it failed, if it did.
    pub error: Option<io::ErrorKind>,
}

impl fmt::Display for Op {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:>5} {}", self.number, self.kind)?;
        match self.error {
            Some(error) => write!(f, ": {error}"),
            None => Ok(()),
        }
    }
}

/// What every call gets after the power was cut.
#[derive(Debug)]
struct PowerCut;

impl fmt::Display for PowerCut {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the simulated power was cut")
    }
}

impl Error for PowerCut {}

pub(super) fn power_cut() -> io::Error {
    io::Error::other(PowerCut)
}

/// Whether an error comes from a [`Fault::Crash`]: the program under test is to stop, not to cope.
#[must_use]
pub fn is_crash(error: &io::Error) -> bool {
    error.get_ref().is_some_and(|inner| inner.is::<PowerCut>())
}

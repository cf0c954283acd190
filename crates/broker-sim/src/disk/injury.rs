//! What a disk has gone through: which kinds of trouble it really had, not only which were planned.

use super::fault::{Errno, Fault, OpKind};

/// One kind of trouble.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
#[non_exhaustive]
pub enum Injury {
    /// The process died; the kernel still had everything.
    Killed,
    /// A power cut left a change that was not synced.
    Kept,
    /// A power cut took one.
    Lost,
    /// Changes reached the disk in another order than they were asked for.
    Reordered,
    /// A write was torn between sectors of 512 bytes.
    TornAtSector,
    /// A write was torn at any byte.
    TornAtByte,
    /// A file is longer than its data.
    Longer,
    /// A power cut took the name of a new file.
    CreateLost,
    /// A power cut took a rename.
    RenameLost,
    /// A power cut brought a deleted file back.
    DeleteLost,
    /// `EIO` at a call that changes something.
    Io,
    /// `EIO` at a read.
    ReadIo,
    /// `ENOSPC`, also by a disk that is really full.
    NoSpace,
    /// `EDQUOT`.
    Quota,
    /// A write that did a part of its work and failed.
    ShortWrite,
    /// A sync that failed once, and what it should have kept is gone.
    LostSync,
    /// A write that succeeded and never arrived.
    DroppedWrite,
    /// A write that succeeded and arrived at another place.
    MisdirectedWrite,
}

impl Injury {
    /// All of them.
    pub const ALL: [Self; 18] = [
        Self::Killed,
        Self::Kept,
        Self::Lost,
        Self::Reordered,
        Self::TornAtSector,
        Self::TornAtByte,
        Self::Longer,
        Self::CreateLost,
        Self::RenameLost,
        Self::DeleteLost,
        Self::Io,
        Self::ReadIo,
        Self::NoSpace,
        Self::Quota,
        Self::ShortWrite,
        Self::LostSync,
        Self::DroppedWrite,
        Self::MisdirectedWrite,
    ];

    /// Whether a fault is made for this, and does not only fall back on it.
    pub(super) const fn is_of(self, fault: Fault) -> bool {
        match fault {
            Fault::ShortWrite(_) => matches!(self, Self::ShortWrite),
            Fault::LostSync => matches!(self, Self::LostSync),
            _ => true,
        }
    }

    /// What a fault does to a call of a kind; `None` if it does nothing there.
    pub(super) const fn of(fault: Fault, kind: &OpKind) -> Option<Self> {
        let is_write = matches!(kind, OpKind::Write { .. } | OpKind::ZeroFill { .. });
        let is_sync = matches!(kind, OpKind::Sync(_) | OpKind::SyncAll(_) | OpKind::SyncDir);
        match fault {
            Fault::ShortWrite(_) if is_write => Some(Self::ShortWrite),
            Fault::Error(errno) | Fault::ShortWrite(errno) => Some(match errno {
                Errno::Io => Self::Io,
                Errno::NoSpace => Self::NoSpace,
                Errno::Quota => Self::Quota,
            }),
            Fault::LostSync if is_sync => Some(Self::LostSync),
            Fault::LostSync => Some(Self::Io),
            Fault::DroppedWrite if is_write => Some(Self::DroppedWrite),
            Fault::MisdirectedWrite if is_write => Some(Self::MisdirectedWrite),
            Fault::DroppedWrite | Fault::MisdirectedWrite | Fault::Crash => None,
        }
    }
}

/// Some kinds of trouble.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Injuries(u32);

impl Injuries {
    /// Adds one.
    pub const fn add(&mut self, injury: Injury) {
        self.0 |= 1 << injury as u32;
    }

    /// Whether it is among them.
    #[must_use]
    pub const fn has(self, injury: Injury) -> bool {
        self.0 & (1 << injury as u32) != 0
    }

    /// The disk said that something was stored, and it was not: what was acknowledged may be gone.
    #[must_use]
    pub const fn lied(self) -> bool {
        self.has(Injury::DroppedWrite) || self.has(Injury::MisdirectedWrite)
    }

    /// All that are among them.
    pub fn iter(self) -> impl Iterator<Item = Injury> {
        Injury::ALL
            .into_iter()
            .filter(move |injury| self.has(*injury))
    }
}

//! Why a log cannot be opened.

use std::io;

use broker_proto::StoreId;

use super::position::LogPosition;
use crate::dir::ExitClass;

/// Why a log cannot be opened. Nothing has been changed or deleted when one of these is returned.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RecoveryError {
    /// A segment was written by a newer program.
    #[error(
        "{file} has format version {version}, this program reads up to {known}; use the program that wrote it, nothing was changed"
    )]
    Newer {
        /// The segment file.
        file: String,
        /// What it has.
        version: u16,
        /// What this program knows.
        known: u16,
    },
    /// A segment needs features that this program does not have.
    #[error(
        "{file} needs feature level {level}, this program has {known}; use the program that wrote it, nothing was changed"
    )]
    NewerFeatures {
        /// The segment file.
        file: String,
        /// What it needs.
        level: u32,
        /// What this program has.
        known: u32,
    },
    /// A segment belongs to another store.
    #[error("{file} belongs to store {found} and not to {expected}; move it out of the directory")]
    Foreign {
        /// The segment file.
        file: String,
        /// Whose it is.
        found: StoreId,
        /// Whose it should be.
        expected: StoreId,
    },
    /// Neither header nor first batch of a segment can be read, so that nobody knows where its
    /// content belongs.
    #[error(
        "{file} is damaged beyond reading: neither its header nor its first batch is whole; restore the file from a backup, nothing was changed"
    )]
    Unreadable {
        /// The segment file.
        file: String,
    },
    /// Two segments claim the same part of the log.
    #[error(
        "{file} begins at position {base}, before its predecessor does; one of them does not belong here, nothing was changed"
    )]
    Overlap {
        /// The later segment file.
        file: String,
        /// Where it begins.
        base: LogPosition,
    },
    /// Two segment files stand for some of the same segments, and neither for all of the other's.
    #[error(
        "{file} and {other} stand for the same part of the log; one of them does not belong here, nothing was changed"
    )]
    Ambiguous {
        /// The later segment file.
        file: String,
        /// The other one.
        other: String,
    },
    /// The log holds a record that this program must understand and does not.
    #[error(
        "the log has a record of kind {kind} at position {at} that this program does not know and may not skip; use a newer program, nothing was changed"
    )]
    UnknownRecord {
        /// Its kind.
        kind: u16,
        /// The batch that holds it.
        at: LogPosition,
    },
    /// The log says that it was led by the last leader that there can be; no store gets there by being used.
    #[error(
        "the log says that its term is the highest there is; a segment or the store's terms were not written by this program, nothing was changed"
    )]
    TermsUsedUp,
    /// The disk.
    #[error("cannot read {file}")]
    Io {
        /// Which file, or the directory.
        file: String,
        /// What the operating system said.
        source: io::Error,
    },
    /// The disk, while something was made safe.
    #[error("cannot write {file}")]
    Write {
        /// Which file, or what.
        file: String,
        /// What the operating system said.
        source: io::Error,
    },
}

impl RecoveryError {
    /// How a daemon that meets it ends.
    #[must_use]
    pub const fn exit_class(&self) -> ExitClass {
        match self {
            Self::Newer { .. } | Self::NewerFeatures { .. } | Self::UnknownRecord { .. } => {
                ExitClass::NewerFormat
            }
            Self::Foreign { .. }
            | Self::Unreadable { .. }
            | Self::Overlap { .. }
            | Self::Ambiguous { .. }
            | Self::TermsUsedUp
            | Self::Io { .. }
            | Self::Write { .. } => ExitClass::Disk,
        }
    }
}

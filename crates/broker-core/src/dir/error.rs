//! Why a data directory cannot be used, and what to do about it.

use std::io;
use std::path::PathBuf;

use super::LockError;

/// Why a data directory cannot be used.
///
/// Each message says what is wrong, where, and what to do. Nothing was changed, except that a directory that was asked for may
/// have been made.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DirError {
    /// It did not exist, and could not be made.
    #[error(
        "cannot create the data directory {path:?}; check its parent directory, or choose another data directory"
    )]
    Create {
        /// The directory that could not be made.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// It could not be opened or examined.
    #[error("cannot examine the data directory {path:?}")]
    Examine {
        /// The data directory.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// Something else has that name.
    #[error("{path:?} is not a directory; choose another data directory")]
    NotADirectory {
        /// The path as it was given.
        path: PathBuf,
    },
    /// A link could be pointed elsewhere while the store is in use.
    #[error("{path:?} is a symbolic link; name the directory that it leads to")]
    SymbolicLink {
        /// The path as it was given.
        path: PathBuf,
    },
    /// It belongs to another user, who could replace every file in it.
    #[error(
        "{path:?} belongs to user {owner}, but this process runs as user {user}; run as user {owner}, or choose a data directory of your own"
    )]
    ForeignOwner {
        /// The data directory.
        path: PathBuf,
        /// User id of the owner.
        owner: u32,
        /// User id of this process.
        user: u32,
    },
    /// Others could replace every file in it.
    #[error("other users may write to {path:?} (mode {mode:04o}); run: chmod 700 {path:?}")]
    TooOpen {
        /// The data directory.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
    },
    /// The owner's own permissions are missing.
    #[error("{path:?} cannot be used by its owner (mode {mode:04o}); run: chmod 700 {path:?}")]
    NoPermission {
        /// The data directory.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
    },
    /// It cannot be written to, though its permissions allow it: a file system that is mounted read-only, for example.
    #[error("cannot write to {path:?}; make it writable, or choose another data directory")]
    Unwritable {
        /// The data directory.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A folder that everybody shares and that is emptied at will.
    #[error(
        "{path:?} is a temporary folder that everybody shares; use a folder of its own inside it, or better a lasting place"
    )]
    SharedTemporary {
        /// The path as it was given.
        path: PathBuf,
    },
    /// Another machine could lead the same store: locks there do not keep it out.
    #[error(
        "{path:?} is on {name} (file system type {magic:#x}), where a lock may not keep a second machine out; choose a data directory on a local disk, and reach it from other machines over TCP"
    )]
    NetworkFileSystem {
        /// The data directory.
        path: PathBuf,
        /// The file system, as people call it.
        name: String,
        /// Its type, as `statfs` says it.
        magic: u32,
    },
    /// The path leads to another directory than before: it was moved, restored or remounted.
    #[error(
        "{path:?} is another directory than the one that was opened: it was moved, replaced or remounted; start again"
    )]
    Replaced {
        /// The data directory.
        path: PathBuf,
    },
    /// There are files, but not the one that says what they are.
    #[error(
        "{path:?} holds {found:?} but no file `store`; if this is a broker's data directory, restore `store` from a backup, otherwise choose an empty directory; nothing was changed"
    )]
    StoreMissing {
        /// The data directory.
        path: PathBuf,
        /// One of the other files.
        found: String,
    },
    /// The identity cannot be trusted. It is never made anew, as that would hide a damaged disk.
    #[error("{path:?} is damaged: {problem}; restore this file from a backup; nothing was changed")]
    StoreDamaged {
        /// The file `store`.
        path: PathBuf,
        /// What is wrong with it.
        problem: String,
    },
    /// A newer broker wrote the store, in another format.
    #[error(
        "the store in {path:?} has format version {found}, and this build understands versions up to {understood}; use a newer build; nothing was changed"
    )]
    NewerFormat {
        /// The data directory.
        path: PathBuf,
        /// Format version of the store.
        found: u16,
        /// Highest format version of this build.
        understood: u16,
    },
    /// A newer broker uses the store in a way that this build does not know.
    #[error(
        "the store in {path:?} has feature level {found}, and this build understands levels up to {understood}; use a newer build; nothing was changed"
    )]
    NewerFeatureLevel {
        /// The data directory.
        path: PathBuf,
        /// Feature level of the store.
        found: u32,
        /// Highest feature level of this build.
        understood: u32,
    },
    /// The file `store` could not be read or made.
    #[error("cannot {action} {path:?}")]
    StoreIo {
        /// The file `store`.
        path: PathBuf,
        /// What failed: "read" or "write".
        action: &'static str,
        /// Why.
        source: io::Error,
    },
    /// The lock could not be had.
    #[error(transparent)]
    Lock(#[from] LockError),
}

impl DirError {
    /// How a daemon that meets this should end.
    #[must_use]
    pub fn exit_class(&self) -> ExitClass {
        match self {
            Self::Create { source, .. }
            | Self::Examine { source, .. }
            | Self::Unwritable { source, .. } => ExitClass::of(source),
            Self::StoreIo { .. }
            | Self::StoreDamaged { .. }
            | Self::StoreMissing { .. }
            | Self::Replaced { .. } => ExitClass::Disk,
            Self::NotADirectory { .. }
            | Self::SymbolicLink { .. }
            | Self::ForeignOwner { .. }
            | Self::TooOpen { .. }
            | Self::NoPermission { .. }
            | Self::SharedTemporary { .. }
            | Self::NetworkFileSystem { .. } => ExitClass::RefusedConfig,
            Self::NewerFormat { .. } | Self::NewerFeatureLevel { .. } => ExitClass::NewerFormat,
            Self::Lock(error) => error.exit_class(),
        }
    }
}

/// Kinds of failure that scripts and service managers tell apart, by exit code.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum ExitClass {
    /// The store was made by a newer build (65).
    NewerFormat,
    /// The disk or what is on it (74).
    Disk,
    /// Somebody else leads the store; trying again may work (75).
    Held,
    /// What was asked for is refused; it will be the next time too (78).
    RefusedConfig,
}

impl ExitClass {
    /// The exit code of the process.
    #[must_use]
    pub const fn code(self) -> u8 {
        match self {
            Self::NewerFormat => 65,
            Self::Disk => 74,
            Self::Held => 75,
            Self::RefusedConfig => 78,
        }
    }

    /// Whether a failed call is the disk's fault, or that of the path that was asked for.
    pub(super) fn of(error: &io::Error) -> Self {
        use io::ErrorKind as Kind;
        match error.kind() {
            Kind::PermissionDenied
            | Kind::NotFound
            | Kind::NotADirectory
            | Kind::ReadOnlyFilesystem
            | Kind::InvalidInput
            | Kind::InvalidFilename
            | Kind::Unsupported => Self::RefusedConfig,
            _ => Self::Disk,
        }
    }
}

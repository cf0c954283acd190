//! The lock that decides who leads: `flock` on `DIR/lock`.
//!
//! - The file is never deleted: two processes could each hold the lock of another file of that name.
//! - Nobody ever unlocks. Closing the last descriptor of an open file releases its lock, so a lock that was passed to another
//!   process stays held while either has it open, and a process that is killed holds nothing.
//! - The descriptor is closed on exec: a child that kept it would keep the lock.

use std::fs::{File, TryLockError};
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;

use rustix::fs::{AtFlags, OFlags};

use super::block::Block;
use super::keepers::explain;
use super::{DirError, ExitClass, Holder, LOCK_NAME, StoreDir};
use crate::planted::{Bug, planted};

/// How often a reader looks again when the holder is just writing the block.
const READ_TRIES: usize = 3;

/// The right to lead a store, for as long as this value lives.
#[derive(Debug)]
pub struct Lock {
    file: File,
}

impl Lock {
    /// Takes the lock if it is free at this moment; never waits.
    ///
    /// # Errors
    /// [`LockError::Held`] names the holder; [`LockError::Replaced`] means that the path leads elsewhere by now.
    pub fn try_acquire(dir: &StoreDir) -> Result<Self, LockError> {
        let io = |source| LockError::Io {
            path: dir.lock_path(),
            source,
        };
        let file = dir
            .open_file(LOCK_NAME, OFlags::RDWR | OFlags::CREATE)
            .map_err(io)?;
        Self::lock_file(dir, file)
    }

    /// Takes over a lock that another process holds and has passed as a descriptor.
    ///
    /// # Errors
    /// As [`try_acquire`](Self::try_acquire): the descriptor may be of another file, or the lock not held by it.
    pub fn adopt(dir: &StoreDir, passed: OwnedFd) -> Result<Self, LockError> {
        Self::lock_file(dir, File::from(passed))
    }

    fn lock_file(dir: &StoreDir, file: File) -> Result<Self, LockError> {
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock)
                if planted(Bug::PortAsArbiter)
                    && std::os::unix::net::UnixStream::connect(dir.socket_path()).is_err() => {}
            Err(TryLockError::WouldBlock) => {
                let holder = read_holder(&file).ok().flatten().map(Box::new);
                return Err(LockError::Held {
                    path: dir.lock_path(),
                    holder,
                    explanation: None,
                });
            }
            Err(TryLockError::Error(source)) => {
                return Err(LockError::Io {
                    path: dir.lock_path(),
                    source,
                });
            }
        }
        check_in_place(dir, &file)?;
        Ok(Self { file })
    }

    /// Says in the file who holds the lock, on stable storage.
    ///
    /// # Errors
    /// [`io::ErrorKind::InvalidInput`] if a text does not fit, otherwise the disk's.
    pub fn publish(&self, holder: &Holder) -> io::Result<()> {
        self.announce(holder)?;
        self.file.sync_data()
    }

    /// Says in the file who holds the lock, for those who look now: nothing waits for the disk.
    ///
    /// # Errors
    /// As [`publish`](Self::publish).
    pub fn announce(&self, holder: &Holder) -> io::Result<()> {
        holder.encode()?.seal_and_write(&self.file)
    }

    /// The descriptor, to pass it on. The lock is held for as long as anybody has it open.
    #[must_use]
    pub fn into_fd(self) -> OwnedFd {
        self.file.into()
    }

    /// Reads who holds the lock, or held it last; `None` if nobody has said so yet, or the block is not whole.
    ///
    /// # Errors
    /// The file cannot be read.
    pub fn holder(dir: &StoreDir) -> io::Result<Option<Holder>> {
        match dir.open_file(LOCK_NAME, OFlags::RDONLY) {
            Ok(file) => read_holder(&file),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Fails if `DIR/lock` is no longer the file that is locked, or `DIR` no longer the directory that is open.
    ///
    /// # Errors
    /// [`LockError::Replaced`]: somebody else may lead under this path, so stop writing.
    pub fn check(&self, dir: &StoreDir) -> Result<(), LockError> {
        check_in_place(dir, &self.file)
    }
}

/// The descriptor, to pass it on to a successor.
impl AsFd for Lock {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }
}

fn read_holder(file: &File) -> io::Result<Option<Holder>> {
    for _ in 0..READ_TRIES {
        if let Some(holder) = Block::read(file)?.as_ref().and_then(Holder::decode) {
            return Ok(Some(holder));
        }
    }
    Ok(None)
}

/// Between looking the name up and locking, the file or the whole directory may have been replaced.
fn check_in_place(dir: &StoreDir, file: &File) -> Result<(), LockError> {
    let replaced = || LockError::Replaced {
        path: dir.lock_path(),
    };
    let io = |source| LockError::Io {
        path: dir.lock_path(),
        source,
    };
    let held = file.metadata().map_err(io)?;
    let named = match rustix::fs::statat(dir, LOCK_NAME, AtFlags::SYMLINK_NOFOLLOW) {
        Ok(named) => named,
        Err(rustix::io::Errno::NOENT) => return Err(replaced()),
        Err(errno) => return Err(io(errno.into())),
    };
    if u128::from(named.st_ino) != u128::from(held.ino())
        || u128::from(named.st_dev) != u128::from(held.dev())
    {
        return Err(replaced());
    }
    dir.check_identity().map_err(|error| match error {
        DirError::Examine { source, .. } => io(source),
        _ => replaced(),
    })
}

/// Why the lock could not be had.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LockError {
    /// Another process leads.
    #[error("the store is in use: {path:?} is held by {}", shown(holder.as_deref(), explanation.as_deref()))]
    Held {
        /// The file `lock`.
        path: PathBuf,
        /// Who, if it has said so. It may be gone, and another process keep the lock.
        holder: Option<Box<Holder>>,
        /// Who keeps it, as the kernel tells, and what to do; see [`LockError::explained`].
        explanation: Option<Box<str>>,
    },
    /// The path leads to another file by now.
    #[error(
        "{path:?} is another file than the one that was locked: the data directory was moved or replaced; start again"
    )]
    Replaced {
        /// The file `lock`.
        path: PathBuf,
    },
    /// The file could not be opened or locked.
    #[error("cannot lock {path:?}")]
    Io {
        /// The file `lock`.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
}

/// Who holds the lock, in the best words there are.
fn shown(holder: Option<&Holder>, explanation: Option<&str>) -> String {
    match (explanation, holder) {
        (Some(explanation), _) => explanation.to_owned(),
        (None, Some(holder)) => holder.to_string(),
        (None, None) => "another process".to_owned(),
    }
}

impl LockError {
    /// The same, with what the kernel tells of who keeps the lock. It looks at all processes of this user, so it is for an error that
    /// a person will read.
    #[must_use]
    pub fn explained(self, dir: &StoreDir) -> Self {
        match self {
            Self::Held { path, holder, .. } => {
                let explanation = explain(dir, holder.as_deref()).into_boxed_str();
                Self::Held {
                    path,
                    holder,
                    explanation: Some(explanation),
                }
            }
            other => other,
        }
    }

    /// How a daemon that meets this should end.
    #[must_use]
    pub fn exit_class(&self) -> ExitClass {
        match self {
            Self::Held { .. } => ExitClass::Held,
            Self::Replaced { .. } => ExitClass::Disk,
            Self::Io { source, .. } => ExitClass::of(source),
        }
    }
}

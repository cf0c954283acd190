//! A data directory that has passed its checks and is held open.
//!
//! The checks, in this order: it is a directory and no link; not a shared temporary folder; on a local file system; of this user;
//! writable by nobody else; usable by its owner; on a file system that is mounted for writing.

use std::fs::{DirBuilder, File};
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::{Path, PathBuf};

use rustix::fs::{Access, AtFlags, Mode, OFlags};

use super::probe::{Probe, network_name};
use super::{DirError, HEALTH_SOCKET_NAME, LOCK_NAME, SOCKET_NAME, STORE_NAME};

/// Longest path of a Unix socket, in bytes: the kernel's 108 without the final zero.
const SOCKET_PATH_BYTES_MAX: usize = 107;

/// Folders that everybody shares. A private folder inside one is fine.
const SHARED_TEMPORARY: [&str; 3] = ["/tmp", "/var/tmp", "/dev/shm"];

/// A data directory that has passed its checks and is held open.
#[derive(Debug)]
pub struct StoreDir {
    path: PathBuf,
    dir: File,
}

impl StoreDir {
    /// Opens the data directory, and makes it (0700, and its parents) if it does not exist.
    ///
    /// # Errors
    /// The directory may not be used; the message says why and what to do.
    pub fn open(path: impl AsRef<Path>, probe: &dyn Probe) -> Result<Self, DirError> {
        let given = path.as_ref();
        let examine = |source| DirError::Examine {
            path: given.to_owned(),
            source,
        };
        // Without a final slash, which would lead through a link.
        let path: PathBuf = std::path::absolute(given)
            .map_err(examine)?
            .components()
            .collect();
        match path.symlink_metadata() {
            Ok(metadata) if metadata.is_symlink() => return Err(DirError::SymbolicLink { path }),
            Ok(metadata) if !metadata.is_dir() => return Err(DirError::NotADirectory { path }),
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::NotFound => make(&path, probe)?,
            Err(source) => return Err(DirError::Examine { path, source }),
        }
        let dir = open_dir(&path).map_err(examine)?;
        check(&path, &dir, probe)?;
        Ok(Self { path, dir })
    }

    /// The directory, as an absolute path.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Fails if the path no longer leads to the directory that is open.
    ///
    /// # Errors
    /// [`DirError::Replaced`] when it was moved, replaced, removed or remounted.
    pub fn check_identity(&self) -> Result<(), DirError> {
        let examine = |source| DirError::Examine {
            path: self.path.clone(),
            source,
        };
        let held = self.dir.metadata().map_err(examine)?;
        match self.path.symlink_metadata() {
            Ok(named) if (named.dev(), named.ino()) == (held.dev(), held.ino()) => Ok(()),
            Ok(_) => Err(DirError::Replaced {
                path: self.path.clone(),
            }),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Err(DirError::Replaced {
                path: self.path.clone(),
            }),
            Err(error) => Err(examine(error)),
        }
    }

    /// Path of the leader's Unix socket, to bind or connect to; see [`bindable`](Self::bindable).
    #[must_use]
    pub fn socket_path(&self) -> PathBuf {
        self.bindable(SOCKET_NAME)
    }

    /// Path of the socket that answers how the leader is; see [`bindable`](Self::bindable).
    #[must_use]
    pub fn health_socket_path(&self) -> PathBuf {
        self.bindable(HEALTH_SOCKET_NAME)
    }

    /// Path of a name in this directory that fits into the address of a Unix socket (107 bytes).
    ///
    /// A longer one goes through `/proc/self/fd/`, and is good only in this process and while this value lives.
    #[must_use]
    pub fn bindable(&self, name: &str) -> PathBuf {
        let path = self.path.join(name);
        if path.as_os_str().len() <= SOCKET_PATH_BYTES_MAX || !cfg!(target_os = "linux") {
            return path;
        }
        PathBuf::from(format!("/proc/self/fd/{}/{name}", self.dir.as_raw_fd()))
    }

    pub(super) fn file(&self) -> &File {
        &self.dir
    }

    /// Path of one of the files here, for messages.
    pub(super) fn store_path(&self) -> PathBuf {
        self.path.join(STORE_NAME)
    }

    pub(super) fn lock_path(&self) -> PathBuf {
        self.path.join(LOCK_NAME)
    }

    /// Opens a file here: never through a link, closed on exec, for the owner alone.
    #[expect(
        clippy::disallowed_methods,
        reason = "`store` and `lock` are opened here and nowhere else"
    )]
    pub(super) fn open_file(&self, name: &str, flags: OFlags) -> io::Result<File> {
        // Without NONBLOCK, opening a pipe that somebody put there would hang.
        let flags = flags | OFlags::NOFOLLOW | OFlags::CLOEXEC | OFlags::NONBLOCK;
        let mode = Mode::RUSR | Mode::WUSR;
        let file = File::from(rustix::io::retry_on_intr(|| {
            rustix::fs::openat(&self.dir, name, flags, mode)
        })?);
        if file.metadata()?.is_file() {
            Ok(file)
        } else {
            Err(io::Error::new(
                io::ErrorKind::InvalidInput,
                format!("{name} is not a plain file"),
            ))
        }
    }
}

impl AsFd for StoreDir {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.dir.as_fd()
    }
}

#[expect(
    clippy::disallowed_methods,
    reason = "the data directory is opened here and nowhere else"
)]
pub(super) fn open_dir(path: &Path) -> io::Result<File> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let fd = rustix::io::retry_on_intr(|| rustix::fs::open(path, flags, Mode::empty()))?;
    Ok(File::from(fd))
}

/// Makes the missing directories from the top, each one's name on stable storage before the next is made in it.
fn make(path: &Path, probe: &dyn Probe) -> Result<(), DirError> {
    let mut missing = vec![path];
    for parent in path.ancestors().skip(1) {
        // Refuse a network file system before anything is made on it. Whether the parent is fit otherwise, `mkdir` decides.
        match open_parent(parent) {
            Ok(dir) => {
                check_file_system(path, &dir, probe)?;
                break;
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => missing.push(parent),
            Err(_) => break,
        }
    }
    for path in missing.into_iter().rev() {
        let create = |source| DirError::Create {
            path: path.to_owned(),
            source,
        };
        match DirBuilder::new().mode(0o700).create(path) {
            Ok(()) => sync_name(path).map_err(create)?,
            // Another process was faster; what it made is checked as if it had always been there.
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            Err(source) => return Err(create(source)),
        }
    }
    Ok(())
}

/// Makes the name of a directory survive a power cut.
pub(super) fn sync_name(path: &Path) -> io::Result<()> {
    let parent = path.parent().unwrap_or(path);
    match open_parent(parent) {
        Ok(parent) => parent.sync_all(),
        // A parent that may be passed but not read. Syncing the child takes its name along on the usual file systems.
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => open_dir(path)?.sync_all(),
        Err(error) => Err(error),
    }
}

#[expect(
    clippy::disallowed_methods,
    reason = "the data directory's parent is opened here and nowhere else"
)]
fn open_parent(path: &Path) -> io::Result<File> {
    // A parent may be reached through links; only the data directory itself may not.
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let fd = rustix::io::retry_on_intr(|| rustix::fs::open(path, flags, Mode::empty()))?;
    Ok(File::from(fd))
}

fn check(path: &Path, dir: &File, probe: &dyn Probe) -> Result<(), DirError> {
    let metadata = dir.metadata().map_err(|source| DirError::Examine {
        path: path.to_owned(),
        source,
    })?;
    let path = || path.to_owned();
    // By what they are, not by their names, which may lead through links.
    let shared = SHARED_TEMPORARY
        .iter()
        .filter_map(|shared| std::fs::metadata(shared).ok());
    if shared
        .into_iter()
        .any(|shared| (shared.dev(), shared.ino()) == (metadata.dev(), metadata.ino()))
    {
        return Err(DirError::SharedTemporary { path: path() });
    }
    check_file_system(&path(), dir, probe)?;
    let user = rustix::process::geteuid().as_raw();
    if metadata.uid() != user {
        return Err(DirError::ForeignOwner {
            path: path(),
            owner: metadata.uid(),
            user,
        });
    }
    let mode = metadata.mode() & 0o7777;
    if mode & 0o022 != 0 {
        return Err(DirError::TooOpen { path: path(), mode });
    }
    if mode & 0o700 != 0o700 {
        return Err(DirError::NoPermission { path: path(), mode });
    }
    rustix::fs::accessat(
        dir,
        c".",
        Access::WRITE_OK | Access::EXEC_OK,
        AtFlags::EACCESS,
    )
    .map_err(|errno| DirError::Unwritable {
        path: path(),
        source: errno.into(),
    })
}

fn check_file_system(path: &Path, dir: &File, probe: &dyn Probe) -> Result<(), DirError> {
    let found = probe
        .file_system(dir.as_fd())
        .map_err(|source| DirError::Examine {
            path: path.to_owned(),
            source,
        })?;
    match network_name(&found) {
        Some(name) => Err(DirError::NetworkFileSystem {
            path: path.to_owned(),
            name,
            magic: found.magic,
        }),
        None => Ok(()),
    }
}

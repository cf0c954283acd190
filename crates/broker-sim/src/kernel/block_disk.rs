//! A disk that writes down what it is given: a FUSE file system of one file, for a loop device.
//!
//! It knows every write and every flush in their order, so that what a power cut could leave can be made afterwards: all that was
//! flushed, and any part of the rest. When told, it fails a flush once, loses what the flush should have made durable, and then goes
//! on as if nothing had been.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, UNIX_EPOCH};

use anyhow::{Context, ensure};
use fuser::{
    BackgroundSession, FileAttr, FileType, Filesystem, MountOption, ReplyAttr, ReplyData,
    ReplyEmpty, ReplyEntry, ReplyOpen, ReplyWrite, Request,
};
use rustix::io::Errno;

use super::machine::{Missing, needs_mounts, scratch};

/// The name of the file.
const NAME: &str = "disk";
const ROOT: u64 = 1;
const FILE: u64 = 2;
/// How long the kernel may remember what it was told.
const TTL: Duration = Duration::from_secs(60);
/// `FOPEN_DIRECT_IO`: the page cache keeps nothing of it.
const DIRECT: u32 = 1;

/// What the disk was asked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Entry {
    /// Write these bytes.
    Write {
        /// Where.
        at: usize,
        /// What.
        bytes: Vec<u8>,
        /// What was there before.
        before: Vec<u8>,
    },
    /// Make all before it durable.
    Flush,
}

/// A flush that fails once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Lie {
    None,
    /// After so many more flushes.
    In(u64),
    Told,
}

#[derive(Debug)]
struct State {
    content: Vec<u8>,
    log: Vec<Entry>,
    lie: Lie,
    /// Bytes that no lie takes, as the file system could not bear it: its journal.
    kept: std::ops::Range<usize>,
}

/// See the module's documentation. A clone is the same disk.
#[derive(Debug, Clone)]
pub struct BlockDisk(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    state: Mutex<State>,
    has_lied: Condvar,
}

impl BlockDisk {
    /// A disk with this content.
    #[must_use]
    pub fn new(content: Vec<u8>) -> Self {
        let kept = journal(&content);
        Self(Arc::new(Shared {
            state: Mutex::new(State {
                content,
                log: Vec::new(),
                lie: Lie::None,
                kept,
            }),
            has_lied: Condvar::new(),
        }))
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// How much it was asked so far.
    #[must_use]
    pub fn asked(&self) -> u64 {
        u64::try_from(self.lock().log.len()).unwrap_or(u64::MAX)
    }

    /// Everything it was asked.
    #[must_use]
    pub fn log(&self) -> Vec<Entry> {
        self.lock().log.clone()
    }

    /// What a power cut leaves now if nothing survives that was not flushed.
    #[must_use]
    pub fn flushed(&self) -> Vec<u8> {
        let state = self.lock();
        let mut content = state.content.clone();
        for entry in state.log.iter().rev() {
            match entry {
                Entry::Flush => break,
                Entry::Write { at, before, .. } => put(&mut content, *at, before),
            }
        }
        content
    }

    /// Fails the flush after `others` more.
    pub fn lie_after(&self, others: u64) {
        self.lock().lie = Lie::In(others);
    }

    /// Fails a flush if it is time to.
    fn flush(&self) -> bool {
        let is_kept = self.lock().flush();
        if !is_kept {
            self.0.has_lied.notify_all();
        }
        is_kept
    }

    /// Waits until it has lied; false when it has not after so long.
    #[must_use]
    pub fn wait_for_the_lie(&self, patience: Duration) -> bool {
        let waiting = self
            .0
            .has_lied
            .wait_timeout_while(self.lock(), patience, |state| state.lie != Lie::Told);
        let (state, _) = waiting.unwrap_or_else(PoisonError::into_inner);
        state.lie == Lie::Told
    }

    /// Mounts it; the file is there as long as the result lives.
    ///
    /// # Errors
    /// The kernel does not let this process.
    pub fn serve(&self, at: &Path) -> anyhow::Result<Served> {
        let options = [MountOption::FSName("broker-disk".to_owned())];
        let session = fuser::spawn_mount2(OneFile(self.clone()), at, &options);
        Ok(Served {
            file: at.join(NAME),
            _session: session.context("mounting FUSE")?,
        })
    }
}

/// Whether such a disk can be served here, by doing so.
///
/// # Errors
/// What is missing.
pub fn needs_fuse() -> Result<(), Missing> {
    needs_mounts()?;
    let served = scratch().map_err(anyhow::Error::from).and_then(|dir| {
        let served = BlockDisk::new(vec![0; 4096]).serve(dir.path())?;
        let len = std::fs::metadata(served.file())?.len();
        drop(served);
        ensure!(len == 4096, "the disk has {len} bytes");
        Ok(())
    });
    served.map_err(|_| Missing("/dev/fuse".to_owned()))
}

/// A disk that is a file.
pub struct Served {
    file: PathBuf,
    _session: BackgroundSession,
}

impl std::fmt::Debug for Served {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Served").field("file", &self.file).finish()
    }
}

impl Served {
    /// The file.
    #[must_use]
    pub fn file(&self) -> &Path {
        &self.file
    }
}

/// Changes bytes that are there.
pub(super) fn put(content: &mut [u8], at: usize, bytes: &[u8]) {
    if let Some(place) = content.get_mut(at..at.saturating_add(bytes.len())) {
        place.copy_from_slice(bytes);
    }
}

/// Where the journal of an ext4 file system lies, by its first block; nowhere for others.
fn journal(content: &[u8]) -> std::ops::Range<usize> {
    /// The magic number of the journal, and the kind of its first block.
    const HEAD: [u8; 8] = [0xc0, 0x3b, 0x39, 0x98, 0, 0, 0, 4];
    const BLOCK: usize = 1024;
    let number = |bytes: &[u8], at: usize| {
        let field = bytes
            .get(at..at + 4)
            .and_then(|field| field.try_into().ok());
        usize::try_from(u32::from_be_bytes(field.unwrap_or_default())).unwrap_or(0)
    };
    for (n, block) in content.chunks(BLOCK).enumerate() {
        if block.starts_with(&HEAD) {
            let bytes = number(block, 12).saturating_mul(number(block, 16));
            return n * BLOCK..(n * BLOCK).saturating_add(bytes);
        }
    }
    0..0
}

impl State {
    fn write(&mut self, at: usize, bytes: &[u8]) -> bool {
        let Some(place) = self.content.get_mut(at..at.saturating_add(bytes.len())) else {
            return false;
        };
        let before = place.to_vec();
        place.copy_from_slice(bytes);
        self.log.push(Entry::Write {
            at,
            bytes: bytes.to_vec(),
            before,
        });
        true
    }

    /// False when it fails. Only a flush that the log asked for fails, and so none behind a write to the journal: what a flush for
    /// somebody else loses of the log, nobody is told.
    fn flush(&mut self) -> bool {
        match self.lie {
            // One that has nothing to lose is no lie.
            Lie::In(0) => {
                if !self.is_for_the_journal() && self.lose() > 0 {
                    self.lie = Lie::Told;
                    return false;
                }
            }
            Lie::In(others) => self.lie = Lie::In(others - 1),
            Lie::None | Lie::Told => {}
        }
        self.log.push(Entry::Flush);
        true
    }

    /// Whether the journal was written to since the last flush.
    fn is_for_the_journal(&self) -> bool {
        let since = self.log.iter().rev();
        since
            .take_while(|entry| **entry != Entry::Flush)
            .any(|entry| matches!(entry, Entry::Write { at, .. } if self.kept.contains(at)))
    }

    /// Takes back what was written since the last flush; how many writes.
    fn lose(&mut self) -> usize {
        let since = self.log.iter().rposition(|entry| *entry == Entry::Flush);
        let since = since.map_or(0, |flush| flush + 1);
        let (mut kept, mut lost) = (Vec::new(), 0);
        for entry in self.log.split_off(since).into_iter().rev() {
            match entry {
                Entry::Write { at, before, .. } if !self.kept.contains(&at) => {
                    put(&mut self.content, at, &before);
                    lost += 1;
                }
                entry => kept.push(entry),
            }
        }
        self.log.extend(kept.into_iter().rev());
        lost
    }
}

/// The file system.
struct OneFile(BlockDisk);

impl OneFile {
    fn attr(&self, inode: u64) -> FileAttr {
        let size = match inode {
            FILE => u64::try_from(self.0.lock().content.len()).unwrap_or(0),
            _ => 0,
        };
        FileAttr {
            ino: inode,
            size,
            blocks: size / 512,
            atime: UNIX_EPOCH,
            mtime: UNIX_EPOCH,
            ctime: UNIX_EPOCH,
            crtime: UNIX_EPOCH,
            kind: if inode == FILE {
                FileType::RegularFile
            } else {
                FileType::Directory
            },
            perm: if inode == FILE { 0o600 } else { 0o700 },
            nlink: 1,
            uid: 0,
            gid: 0,
            rdev: 0,
            blksize: 4096,
            flags: 0,
        }
    }
}

fn place(offset: i64) -> usize {
    usize::try_from(offset).unwrap_or(usize::MAX)
}

impl Filesystem for OneFile {
    fn lookup(&mut self, _: &Request<'_>, parent: u64, name: &OsStr, reply: ReplyEntry) {
        if parent == ROOT && name == NAME {
            reply.entry(&TTL, &self.attr(FILE), 0);
        } else {
            reply.error(Errno::NOENT.raw_os_error());
        }
    }

    fn getattr(&mut self, _: &Request<'_>, inode: u64, _: Option<u64>, reply: ReplyAttr) {
        reply.attr(&TTL, &self.attr(inode));
    }

    fn open(&mut self, _: &Request<'_>, _: u64, _: i32, reply: ReplyOpen) {
        reply.opened(0, DIRECT);
    }

    fn read(
        &mut self,
        _: &Request<'_>,
        _: u64,
        _: u64,
        offset: i64,
        size: u32,
        _: i32,
        _: Option<u64>,
        reply: ReplyData,
    ) {
        let state = self.0.lock();
        let from = place(offset).min(state.content.len());
        let to = from
            .saturating_add(usize::try_from(size).unwrap_or(0))
            .min(state.content.len());
        reply.data(state.content.get(from..to).unwrap_or_default());
    }

    fn write(
        &mut self,
        _: &Request<'_>,
        _: u64,
        _: u64,
        offset: i64,
        data: &[u8],
        _: u32,
        _: i32,
        _: Option<u64>,
        reply: ReplyWrite,
    ) {
        if self.0.lock().write(place(offset), data) {
            reply.written(u32::try_from(data.len()).unwrap_or(u32::MAX));
        } else {
            reply.error(Errno::NOSPC.raw_os_error());
        }
    }

    fn flush(&mut self, _: &Request<'_>, _: u64, _: u64, _: u64, reply: ReplyEmpty) {
        // A descriptor is closed, which is no flush of a disk.
        reply.ok();
    }

    fn fsync(&mut self, _: &Request<'_>, _: u64, _: u64, _: bool, reply: ReplyEmpty) {
        if self.0.flush() {
            reply.ok();
        } else {
            reply.error(Errno::IO.raw_os_error());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_not_flushed_can_be_taken_back() {
        let disk = BlockDisk::new(vec![0; 8]);
        assert!(disk.lock().write(0, &[1, 1]) && disk.flush());
        assert!(disk.lock().write(1, &[2, 2]));
        assert!(!disk.lock().write(7, &[9, 9]), "it ends there");
        assert_eq!(disk.flushed(), [1, 1, 0, 0, 0, 0, 0, 0]);
        assert_eq!(disk.asked(), 3);
    }

    #[test]
    fn a_flush_that_fails_loses_what_it_should_have_kept_and_the_next_one_lies() {
        let disk = BlockDisk::new(vec![0; 4]);
        disk.lie_after(1);
        assert!(disk.lock().write(0, &[1]) && disk.flush());
        assert!(disk.lock().write(0, &[2]) && !disk.flush());
        assert!(disk.wait_for_the_lie(Duration::ZERO) && disk.flush());
        assert_eq!(disk.flushed(), [1, 0, 0, 0]);
    }
}

//! The disk as the operating system gives it: the only code of the log that opens files.
//!
//! - The directory is held by a file descriptor and every name is looked up from there, without following links, so nobody can
//!   lead the log to another place by renaming a parent.
//! - Files are made for their owner alone (0600) and close on exec: a forked child keeps nothing.
//! - Direct I/O is asked for with `fcntl` after opening, not with the flags of `open`: a file system that refuses the flag has
//!   already made the file by then. Refused there or later (`EINVAL`), the file goes on through the page cache, and
//!   [`StorageFile::is_direct`] says so.
//! - `EINTR` is retried, a short write continues, and a write of nothing is an error.
//!
//! Direct writes that are not aligned are read, changed and written back by whole blocks. That is slow, is not atomic, and is safe
//! only while nobody else writes to the same blocks through another handle; the log writes aligned, tools and repairs may not.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, OnceLock, PoisonError};

use rustix::fs::{AtFlags, FileType, Mode, OFlags};
use rustix::io::Errno;

use super::{AlignedBuf, Storage, StorageFile, check_file_name};
use crate::planted::{Bug, planted};

#[cfg(test)]
mod tests;

/// Bytes of one write of zeros, and of the buffer for accesses that are not aligned.
const CHUNK_BYTES: usize = 1 << 20;

/// Unit of writes where the kernel does not say: right for every disk in use.
const BLOCK_BYTES: u32 = 4096;

/// A directory on a disk.
#[derive(Debug)]
pub struct FileStorage {
    dir: File,
    path: PathBuf,
}

impl FileStorage {
    /// Opens a directory that exists.
    ///
    /// # Errors
    /// The path does not lead to a directory, its last component is a symbolic link, or it may not be read.
    #[expect(
        clippy::disallowed_methods,
        reason = "the log opens its directory and files here and nowhere else"
    )]
    pub fn open(dir: impl AsRef<Path>) -> io::Result<Self> {
        let path = std::path::absolute(dir)?;
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let dir = rustix::io::retry_on_intr(|| rustix::fs::open(&path, flags, Mode::empty()))?;
        Ok(Self {
            dir: File::from(dir),
            path,
        })
    }

    #[expect(
        clippy::disallowed_methods,
        reason = "the log opens its directory and files here and nowhere else"
    )]
    fn open_file(&self, name: &str, flags: OFlags) -> io::Result<File> {
        check_file_name(name)?;
        // Without NONBLOCK, opening a pipe that somebody put there would hang.
        let flags = flags | OFlags::NOFOLLOW | OFlags::CLOEXEC | OFlags::NONBLOCK;
        let mode = Mode::RUSR | Mode::WUSR;
        let fd = rustix::io::retry_on_intr(|| rustix::fs::openat(&self.dir, name, flags, mode))?;
        let file = File::from(fd);
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

impl Storage for FileStorage {
    type File = DiskFile;

    fn list(&self) -> io::Result<Vec<String>> {
        let mut names = Vec::new();
        for entry in rustix::fs::Dir::read_from(&self.dir)? {
            let entry = entry?;
            let Ok(name) = entry.file_name().to_str() else {
                continue;
            };
            if check_file_name(name).is_err() {
                continue;
            }
            let kind = match entry.file_type() {
                FileType::Unknown => {
                    let stat = rustix::fs::statat(&self.dir, name, AtFlags::SYMLINK_NOFOLLOW)?;
                    FileType::from_raw_mode(stat.st_mode)
                }
                kind => kind,
            };
            if kind == FileType::RegularFile {
                names.push(name.to_owned());
            }
        }
        names.sort_unstable();
        Ok(names)
    }

    fn create(&self, name: &str) -> io::Result<DiskFile> {
        self.open_file(name, OFlags::RDWR | OFlags::CREATE | OFlags::EXCL)
            .map(DiskFile::direct)
    }

    fn open(&self, name: &str) -> io::Result<DiskFile> {
        self.open_file(name, OFlags::RDWR).map(DiskFile::direct)
    }

    fn open_read(&self, name: &str) -> io::Result<DiskFile> {
        self.open_file(name, OFlags::RDONLY).map(DiskFile::buffered)
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        check_file_name(from)?;
        check_file_name(to)?;
        Ok(rustix::fs::renameat(&self.dir, from, &self.dir, to)?)
    }

    fn delete(&self, name: &str) -> io::Result<()> {
        check_file_name(name)?;
        Ok(rustix::fs::unlinkat(&self.dir, name, AtFlags::empty())?)
    }

    #[expect(
        clippy::disallowed_methods,
        reason = "the log opens its directory and files here and nowhere else"
    )]
    fn sync_dir(&self) -> io::Result<()> {
        self.dir.sync_all()?;
        // XFS that has just shut itself down, after an error of its disk, may say that a directory is safe although it never will
        // be. It opens nothing any more then, and so what can be opened after the sync was safe before.
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        rustix::io::retry_on_intr(|| rustix::fs::openat(&self.dir, ".", flags, Mode::empty()))?;
        Ok(())
    }

    fn free_bytes(&self) -> io::Result<u64> {
        let space = rustix::fs::fstatvfs(&self.dir)?;
        Ok(space.f_bavail.saturating_mul(space.f_frsize))
    }

    fn check_identity(&self) -> io::Result<()> {
        let held = rustix::fs::fstat(&self.dir)?;
        let named = rustix::fs::lstat(&self.path)?;
        if (held.st_dev, held.st_ino) == (named.st_dev, named.st_ino) {
            return Ok(());
        }
        let path = self.path.display();
        Err(io::Error::other(format!(
            "{path} is another directory than the one that was opened"
        )))
    }
}

/// An open file on a disk.
#[derive(Debug)]
pub struct DiskFile {
    file: File,
    direct: AtomicBool,
    block_bytes: u32,
    /// Held while blocks are read, changed and written back.
    slow_path: Mutex<()>,
}

impl DiskFile {
    fn direct(file: File) -> Self {
        let unit = enter_direct(&file);
        Self {
            direct: AtomicBool::new(unit.is_some()),
            block_bytes: unit.unwrap_or(BLOCK_BYTES),
            ..Self::buffered(file)
        }
    }

    fn buffered(file: File) -> Self {
        Self {
            file,
            direct: AtomicBool::new(false),
            block_bytes: BLOCK_BYTES,
            slow_path: Mutex::new(()),
        }
    }

    /// One system call, repeated after `EINTR`. `EINVAL` of a direct file means that the file system took the flag but not the
    /// call: the file goes on through the page cache.
    fn call(&self, mut call: impl FnMut(&File) -> io::Result<usize>) -> io::Result<usize> {
        loop {
            match call(&self.file) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if is(&error, Errno::INVAL) && self.is_direct() => {
                    leave_direct(&self.file)?;
                    self.direct.store(false, Ordering::Relaxed);
                }
                other => return other,
            }
        }
    }

    fn block(&self) -> u64 {
        u64::from(self.block_bytes)
    }

    /// Whether direct I/O takes this access as it is.
    fn is_aligned(&self, offset: u64, buf: &[u8]) -> bool {
        let whole = |n: u64| n.is_multiple_of(self.block());
        whole(offset)
            && whole(bytes(buf))
            && usize::try_from(self.block_bytes)
                .is_ok_and(|block| buf.as_ptr().addr().is_multiple_of(block))
    }

    /// Reads until `buf` is full or the file ends. A direct file needs an aligned access.
    fn read_full(&self, offset: u64, buf: &mut [u8]) -> io::Result<usize> {
        let mut done = 0;
        while let Some(rest) = buf.get_mut(done..).filter(|rest| !rest.is_empty()) {
            let at = offset.saturating_add(u64_of(done));
            let count = self.call(|file| file.read_at(rest, at))?;
            done = done.saturating_add(count);
            // A direct read that ends within a block has met the end of the file, and cannot go on from there.
            if count == 0 || (self.is_direct() && !u64_of(count).is_multiple_of(self.block())) {
                break;
            }
        }
        Ok(done)
    }

    /// Reads what an access that is not aligned asks for through an aligned buffer.
    fn read_unaligned(&self, offset: u64, buf: &mut [u8]) -> io::Result<usize> {
        let mut scratch = AlignedBuf::new();
        let mut done = 0;
        while let Some(rest) = buf.get_mut(done..).filter(|rest| !rest.is_empty()) {
            let at = offset.saturating_add(u64_of(done));
            let window = Window::around(at, rest.len(), self.block());
            scratch.resize(window.len);
            let count = self.read_full(window.start, scratch.as_mut_slice())?;
            let found = scratch
                .as_slice()
                .get(window.skip..count)
                .unwrap_or_default();
            let taken = copy(found, rest);
            done = done.saturating_add(taken);
            if taken == 0 || count < window.len {
                break;
            }
        }
        Ok(done)
    }

    /// Writes all of `buf`. A direct file needs an aligned access.
    fn write_full(&self, offset: u64, buf: &[u8]) -> io::Result<()> {
        write_all(offset, buf, |rest, at| {
            let count = self.call(|file| file.write_at(rest, at))?;
            // A direct write that ended within a block goes on from the start of that block, with the same bytes again.
            Ok(if self.is_direct() {
                floor(u64_of(count), self.block())
            } else {
                u64_of(count)
            })
        })
    }

    /// Reads the blocks at the edges, changes them and writes all blocks back.
    fn write_unaligned(&self, offset: u64, mut buf: &[u8]) -> io::Result<()> {
        let _alone = self
            .slow_path
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        let len_before = self.len()?;
        let len_after = len_before.max(offset.saturating_add(bytes(buf)));
        let mut scratch = AlignedBuf::new();
        let (mut at, mut written_to) = (offset, 0);
        while !buf.is_empty() {
            let window = Window::around(at, buf.len(), self.block());
            scratch.clear();
            scratch.resize(window.len);
            if window.start < len_before {
                let found = self.read_full(window.start, scratch.as_mut_slice())?;
                // Beyond the end of the file a direct read may leave anything.
                scratch
                    .as_mut_slice()
                    .get_mut(found..)
                    .unwrap_or_default()
                    .fill(0);
            }
            let count = copy(
                buf,
                scratch
                    .as_mut_slice()
                    .get_mut(window.skip..)
                    .unwrap_or_default(),
            );
            self.write_full(window.start, scratch.as_slice())?;
            buf = buf.get(count..).unwrap_or_default();
            at = at.saturating_add(u64_of(count));
            written_to = window.start.saturating_add(u64_of(window.len));
        }
        if written_to > len_after {
            self.file.set_len(len_after)?;
        }
        Ok(())
    }
}

impl StorageFile for DiskFile {
    fn len(&self) -> io::Result<u64> {
        Ok(self.file.metadata()?.len())
    }

    fn read_at(&self, offset: u64, buf: &mut [u8]) -> io::Result<usize> {
        check_end(offset, bytes(buf))?;
        if self.is_direct() && !self.is_aligned(offset, buf) {
            self.read_unaligned(offset, buf)
        } else {
            self.read_full(offset, buf)
        }
    }

    #[cfg(target_os = "linux")]
    fn read_cached_at(&self, offset: u64, buf: &mut [u8]) -> io::Result<usize> {
        use rustix::io::ReadWriteFlags;

        check_end(offset, bytes(buf))?;
        let mut done = 0;
        while let Some(rest) = buf.get_mut(done..).filter(|rest| !rest.is_empty()) {
            let at = offset.saturating_add(u64_of(done));
            let mut rest = [io::IoSliceMut::new(rest)];
            // Of what is not in memory it tells at once, and has the disk fetch it meanwhile.
            match rustix::io::preadv2(&self.file, &mut rest, at, ReadWriteFlags::NOWAIT) {
                Ok(0) => break,
                Ok(count) => done = done.saturating_add(count),
                Err(Errno::INTR) => {}
                // Not every file system can tell.
                Err(Errno::AGAIN | Errno::OPNOTSUPP | Errno::NOSYS | Errno::INVAL) => break,
                Err(error) => return Err(error.into()),
            }
        }
        Ok(done)
    }

    fn write_at(&self, offset: u64, buf: &[u8]) -> io::Result<()> {
        check_end(offset, bytes(buf))?;
        if self.is_direct() && !self.is_aligned(offset, buf) {
            self.write_unaligned(offset, buf)
        } else {
            self.write_full(offset, buf)
        }
    }

    fn sync(&self) -> io::Result<()> {
        // On macOS the standard library asks for F_FULLFSYNC here; a plain fsync does not reach the disk there.
        self.file.sync_data()
    }

    fn sync_all(&self) -> io::Result<()> {
        self.file.sync_all()
    }

    fn zero_fill(&self, from: u64, to: u64) -> io::Result<()> {
        // Never written, so the kernel maps its single zero page here: the megabyte costs no memory.
        static ZEROS: OnceLock<AlignedBuf> = OnceLock::new();
        let zeros = ZEROS
            .get_or_init(|| AlignedBuf::zeroed(CHUNK_BYTES))
            .as_slice();
        let mut at = from;
        while at < to {
            // The first write ends at a multiple of its size, so that all others are aligned.
            let count = (bytes(zeros) - at % bytes(zeros)).min(to - at);
            let count = usize::try_from(count).unwrap_or(zeros.len());
            self.write_at(at, zeros.get(..count).unwrap_or(zeros))?;
            at = at.saturating_add(u64_of(count));
        }
        Ok(())
    }

    fn truncate(&self, len: u64) -> io::Result<()> {
        self.file.set_len(len)
    }

    fn block_bytes(&self) -> u32 {
        self.block_bytes
    }

    fn is_direct(&self) -> bool {
        self.direct.load(Ordering::Relaxed)
    }
}

/// Calls `write` until all of `buf` is written.
fn write_all(
    offset: u64,
    mut buf: &[u8],
    mut write: impl FnMut(&[u8], u64) -> io::Result<u64>,
) -> io::Result<()> {
    let mut at = offset;
    while !buf.is_empty() {
        let count = write(buf, at)?;
        if count == 0 {
            return Err(io::Error::new(
                io::ErrorKind::WriteZero,
                "the disk took no byte of a write",
            ));
        }
        buf = usize::try_from(count)
            .ok()
            .and_then(|count| buf.get(count..))
            .unwrap_or_default();
        if planted(Bug::ShortWriteIgnored) {
            return Ok(());
        }
        at = at.saturating_add(count);
    }
    Ok(())
}

/// The whole blocks around one step of an access that is not aligned, at most [`CHUNK_BYTES`] long.
struct Window {
    /// Where the first block starts in the file.
    start: u64,
    /// Bytes from there to the byte asked for.
    skip: usize,
    /// Bytes of all blocks.
    len: usize,
}

impl Window {
    fn around(at: u64, count: usize, block: u64) -> Self {
        let start = floor(at, block);
        let skip = usize::try_from(at - start).unwrap_or(0);
        let end = skip.saturating_add(count).min(CHUNK_BYTES);
        let block = usize::try_from(block).unwrap_or(CHUNK_BYTES);
        Self {
            start,
            skip,
            len: end.next_multiple_of(block),
        }
    }
}

/// Turns direct I/O on, and gives the unit that it asks for; `None` where the file system has none, or a unit beyond 4096 bytes.
#[cfg(target_os = "linux")]
fn enter_direct(file: &File) -> Option<u32> {
    use rustix::fs::StatxFlags;

    let unit = match rustix::fs::statx(file, c"", AtFlags::EMPTY_PATH, StatxFlags::DIOALIGN) {
        Ok(stat) if stat.stx_mask & StatxFlags::DIOALIGN.bits() != 0 => {
            match stat.stx_dio_offset_align.max(stat.stx_dio_mem_align) {
                _ if stat.stx_dio_offset_align == 0 => return None,
                1..=512 => 512,
                513..=4096 => 4096,
                _ => return None,
            }
        }
        _ => BLOCK_BYTES,
    };
    let flags = rustix::fs::fcntl_getfl(file).ok()?;
    rustix::fs::fcntl_setfl(file, flags | OFlags::DIRECT).ok()?;
    Some(unit)
}

/// Other systems have no such flag.
#[cfg(not(target_os = "linux"))]
fn enter_direct(_file: &File) -> Option<u32> {
    None
}

#[cfg(target_os = "linux")]
fn leave_direct(file: &File) -> io::Result<()> {
    let flags = rustix::fs::fcntl_getfl(file)?;
    Ok(rustix::fs::fcntl_setfl(file, flags - OFlags::DIRECT)?)
}

#[cfg(not(target_os = "linux"))]
fn leave_direct(_file: &File) -> io::Result<()> {
    Ok(())
}

/// The kernel counts in `i64`; beyond that it answers `EINVAL`, which would be taken for a refusal of direct I/O.
fn check_end(offset: u64, len: u64) -> io::Result<()> {
    match offset.checked_add(len).map(i64::try_from) {
        Some(Ok(_)) => Ok(()),
        _ => Err(io::Error::new(
            io::ErrorKind::FileTooLarge,
            format!("no file reaches {offset} + {len} bytes"),
        )),
    }
}

fn is(error: &io::Error, errno: Errno) -> bool {
    error.raw_os_error() == Some(errno.raw_os_error())
}

/// Copies as much as fits, and says how much that was.
fn copy(from: &[u8], to: &mut [u8]) -> usize {
    let count = from.len().min(to.len());
    if let (Some(from), Some(to)) = (from.get(..count), to.get_mut(..count)) {
        to.copy_from_slice(from);
    }
    count
}

const fn floor(n: u64, block: u64) -> u64 {
    n - n % block
}

fn bytes(buf: &[u8]) -> u64 {
    u64_of(buf.len())
}

fn u64_of(n: usize) -> u64 {
    u64::try_from(n).unwrap_or(u64::MAX)
}

//! The disk as the log sees it: one flat directory of plain files.
//!
//! Everything above this module is written against [`Storage`] and [`StorageFile`], so that the same code runs on
//! [`FileStorage`] (the real thing, and the only code of the log that opens files), on [`MemoryStorage`] (a well-behaved twin)
//! and on the simulated disk of `broker-sim` (a hostile one).
//!
//! What a caller may rely on, on every implementation:
//!
//! - bytes written are seen by the next read through any handle of the same file, but survive a power cut only after
//!   [`StorageFile::sync`] on **some** handle of that file returned `Ok`; after a failed sync nothing is known about any byte
//!   written since the last good one, whatever a later sync says;
//! - a name made, changed or removed survives a power cut only after [`Storage::sync_dir`];
//! - bytes that are not being written are not harmed by writes beside them;
//! - a rename is atomic and replaces the target.
//!
//! What is left out: locking (see `dir`), and retrying: an error is returned as the operating system gave it, so that the log can
//! tell a full disk ([`io::ErrorKind::StorageFull`], [`io::ErrorKind::QuotaExceeded`]) from a broken one.

use std::{fmt, io};

mod aligned;
mod file;
mod memory;

pub use aligned::{ALIGN_BYTES, AlignedBuf};
pub use file::{DiskFile, FileStorage};
pub use memory::{MemoryFile, MemoryStorage};

/// Longest file name, in bytes.
pub const FILE_NAME_BYTES_MAX: usize = 128;

/// One flat directory; names are plain file names, see [`check_file_name`].
pub trait Storage: fmt::Debug + Send + Sync + 'static {
    /// A file that is open.
    type File: StorageFile;

    /// Names of all plain files, sorted. Entries that are not plain files, or whose name [`check_file_name`] refuses, are left out.
    fn list(&self) -> io::Result<Vec<String>>;

    /// Makes a new, empty file for reading and writing, with direct I/O where possible; fails if the name is taken.
    fn create(&self, name: &str) -> io::Result<Self::File>;

    /// Opens a file for reading and writing, with direct I/O where possible.
    fn open(&self, name: &str) -> io::Result<Self::File>;

    /// Opens a file for reading through the page cache.
    fn open_read(&self, name: &str) -> io::Result<Self::File>;

    /// Renames a file, replacing the target if there is one. Open handles stay valid.
    fn rename(&self, from: &str, to: &str) -> io::Result<()>;

    /// Removes a name. Open handles stay valid.
    fn delete(&self, name: &str) -> io::Result<()>;

    /// Makes all names made, changed and removed until now survive a power cut.
    fn sync_dir(&self) -> io::Result<()>;

    /// Bytes that this user can still allocate.
    fn free_bytes(&self) -> io::Result<u64>;

    /// Fails if the directory that is open is no longer the one that its path leads to: it was moved, replaced or removed.
    fn check_identity(&self) -> io::Result<()>;
}

/// An open file. All methods take `&self`: a file has one writer and any number of readers.
pub trait StorageFile: fmt::Debug + Send + Sync + 'static {
    /// Length in bytes.
    fn len(&self) -> io::Result<u64>;

    /// Whether the file holds no byte.
    fn is_empty(&self) -> io::Result<bool> {
        Ok(self.len()? == 0)
    }

    /// Reads until `buf` is full or the file ends; the count is smaller than `buf` only at the end of the file.
    /// What the rest of `buf` holds then is not said: a direct read may change it.
    ///
    /// Any alignment is fine; a direct file reads into an aligned buffer inside and copies when the caller is not aligned.
    fn read_at(&self, offset: u64, buf: &mut [u8]) -> io::Result<usize>;

    /// As [`read_at`](Self::read_at), and never waits for the disk: ends before the first byte that is not in memory. Reads nothing
    /// where that cannot be known, as here.
    fn read_cached_at(&self, _offset: u64, _buf: &mut [u8]) -> io::Result<usize> {
        Ok(0)
    }

    /// Writes all of `buf`, or fails, and then any part of it may have been written.
    ///
    /// When offset, length and address are multiples of [`block_bytes`](Self::block_bytes), direct I/O happens without a copy
    /// ([`AlignedBuf`] gives such addresses). Anything else is right but slow.
    fn write_at(&self, offset: u64, buf: &[u8]) -> io::Result<()>;

    /// Makes content and length survive a power cut (`fdatasync`). Never retry it on the same file after a failure.
    fn sync(&self) -> io::Result<()>;

    /// As [`sync`](Self::sync), with all metadata (`fsync`).
    fn sync_all(&self) -> io::Result<()>;

    /// Writes real zeros to `from..to`, allocating the space; the file grows to `to` if it was shorter.
    fn zero_fill(&self, from: u64, to: u64) -> io::Result<()>;

    /// Sets the length; a longer one reads as zeros, without allocating space.
    fn truncate(&self, len: u64) -> io::Result<()>;

    /// Unit of writes, in bytes: 512 or 4096.
    fn block_bytes(&self) -> u32;

    /// Whether writes bypass the page cache.
    fn is_direct(&self) -> bool;
}

/// Accepts 1 to [`FILE_NAME_BYTES_MAX`] ASCII letters, digits, `.`, `-` and `_`, not starting with `.`.
///
/// # Errors
/// [`io::ErrorKind::InvalidInput`], naming the file: the caller made the name up, so it is a mistake in the program.
pub fn check_file_name(name: &str) -> io::Result<()> {
    let plain = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'-' | b'_');
    if name.is_empty()
        || name.len() > FILE_NAME_BYTES_MAX
        || name.starts_with('.')
        || !name.bytes().all(plain)
    {
        return Err(io::Error::new(
            io::ErrorKind::InvalidInput,
            format!(
                "{:?} is not a plain file name",
                name.chars().take(FILE_NAME_BYTES_MAX).collect::<String>()
            ),
        ));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::check_file_name;

    #[test]
    fn plain_names_are_accepted() {
        for name in ["a", "seg-00000001.g1.tmp", "store", "A_1", &"x".repeat(128)] {
            assert!(check_file_name(name).is_ok(), "{name}");
        }
    }

    #[test]
    fn names_that_could_become_paths_are_refused() {
        for name in [
            "",
            ".",
            "..",
            ".hidden",
            "a/b",
            "/a",
            "a\0",
            "ä",
            "a b",
            "a\n",
            &"x".repeat(129),
        ] {
            let error = check_file_name(name).expect_err(name);
            assert_eq!(error.kind(), std::io::ErrorKind::InvalidInput);
        }
    }
}

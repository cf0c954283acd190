//! [`Nowhere`]: a disk that forgets, so that a benchmark of what comes before the disk neither waits for one nor fills
//! the memory.
//!
//! A store on it can be written and followed, since readers that follow are served from memory. It cannot be opened again.

use std::collections::BTreeMap;
use std::io;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use broker_core::log::storage::{Storage, StorageFile};

/// Says that it has so much space.
const FREE_BYTES: u64 = 1 << 50;

/// See the module's documentation.
#[derive(Debug, Default)]
pub struct Nowhere {
    /// Lengths of the files.
    files: Mutex<BTreeMap<String, Length>>,
}

type Length = Arc<AtomicU64>;

/// A file of which only the length is known.
#[derive(Debug)]
pub struct NoFile(Length);

impl Nowhere {
    fn files(&self) -> MutexGuard<'_, BTreeMap<String, Length>> {
        self.files.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn find(&self, name: &str) -> io::Result<NoFile> {
        let found = self.files().get(name).cloned();
        found
            .map(NoFile)
            .ok_or_else(|| io::ErrorKind::NotFound.into())
    }
}

impl Storage for Nowhere {
    type File = NoFile;

    fn list(&self) -> io::Result<Vec<String>> {
        Ok(self.files().keys().cloned().collect())
    }

    fn create(&self, name: &str) -> io::Result<NoFile> {
        let length = Length::default();
        self.files().insert(name.to_owned(), Arc::clone(&length));
        Ok(NoFile(length))
    }

    fn open(&self, name: &str) -> io::Result<NoFile> {
        self.find(name)
    }

    fn open_read(&self, name: &str) -> io::Result<NoFile> {
        self.find(name)
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        let mut files = self.files();
        let length = files.remove(from).ok_or(io::ErrorKind::NotFound)?;
        files.insert(to.to_owned(), length);
        Ok(())
    }

    fn delete(&self, name: &str) -> io::Result<()> {
        let deleted = self.files().remove(name);
        deleted
            .map(drop)
            .ok_or_else(|| io::ErrorKind::NotFound.into())
    }

    fn sync_dir(&self) -> io::Result<()> {
        Ok(())
    }

    fn free_bytes(&self) -> io::Result<u64> {
        Ok(FREE_BYTES)
    }

    fn check_identity(&self) -> io::Result<()> {
        Ok(())
    }
}

impl StorageFile for NoFile {
    fn len(&self) -> io::Result<u64> {
        Ok(self.0.load(Ordering::Relaxed))
    }

    fn read_at(&self, _: u64, _: &mut [u8]) -> io::Result<usize> {
        Err(io::Error::other("what was written is gone"))
    }

    fn write_at(&self, offset: u64, buf: &[u8]) -> io::Result<()> {
        self.0
            .fetch_max(offset + buf.len() as u64, Ordering::Relaxed);
        Ok(())
    }

    fn sync(&self) -> io::Result<()> {
        Ok(())
    }

    fn sync_all(&self) -> io::Result<()> {
        Ok(())
    }

    fn zero_fill(&self, _: u64, to: u64) -> io::Result<()> {
        self.0.fetch_max(to, Ordering::Relaxed);
        Ok(())
    }

    fn truncate(&self, len: u64) -> io::Result<()> {
        self.0.store(len, Ordering::Relaxed);
        Ok(())
    }

    fn block_bytes(&self) -> u32 {
        4096
    }

    fn is_direct(&self) -> bool {
        true
    }
}

//! An open file of the simulated disk.

use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use broker_core::log::storage::StorageFile;

use super::state::{Data, Ino, State, count, index};

/// An open file of the simulated disk.
#[derive(Debug)]
pub struct SimFile {
    state: Arc<Mutex<State>>,
    ino: Ino,
    writable: bool,
    /// Keeps a deleted file alive; see `Inode::handles`.
    _handle: Arc<()>,
}

impl SimFile {
    /// Opens a file of `state`, which the caller has locked.
    pub(super) fn new(
        disk: &Arc<Mutex<State>>,
        state: &mut State,
        ino: Ino,
        writable: bool,
    ) -> io::Result<Self> {
        let handle = Arc::clone(&state.inode(ino)?.handles);
        Ok(Self {
            state: Arc::clone(disk),
            ino,
            writable,
            _handle: handle,
        })
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn lock_to_write(&self) -> io::Result<MutexGuard<'_, State>> {
        if self.writable {
            return Ok(self.lock());
        }
        Err(io::Error::new(
            io::ErrorKind::PermissionDenied,
            "the file is open for reading only",
        ))
    }
}

impl StorageFile for SimFile {
    fn len(&self) -> io::Result<u64> {
        let mut state = self.lock();
        state.begin_read()?;
        Ok(state.inode(self.ino)?.cache.len())
    }

    fn read_at(&self, offset: u64, buf: &mut [u8]) -> io::Result<usize> {
        let mut state = self.lock();
        state.begin_read()?;
        Ok(state.inode(self.ino)?.cache.read(offset, buf))
    }

    fn read_cached_at(&self, offset: u64, buf: &mut [u8]) -> io::Result<usize> {
        self.read_at(offset, buf)
    }

    fn write_at(&self, offset: u64, buf: &[u8]) -> io::Result<()> {
        let mut state = self.lock_to_write()?;
        if buf.is_empty() {
            return Ok(());
        }
        let block = u64::from(state.block_bytes);
        let aligned = [offset, count(buf)].iter().all(|n| n.is_multiple_of(block))
            && buf.as_ptr().addr().is_multiple_of(index(block));
        if !aligned {
            state.unaligned_writes = state.unaligned_writes.saturating_add(1);
        }
        state.write(self.ino, offset, Data::Bytes(buf))
    }

    fn sync(&self) -> io::Result<()> {
        self.lock().sync(self.ino, false)
    }

    fn sync_all(&self) -> io::Result<()> {
        self.lock().sync(self.ino, true)
    }

    fn zero_fill(&self, from: u64, to: u64) -> io::Result<()> {
        let mut state = self.lock_to_write()?;
        match to.checked_sub(from) {
            None | Some(0) => Ok(()),
            Some(len) => state.write(self.ino, from, Data::Zeros(len)),
        }
    }

    fn truncate(&self, len: u64) -> io::Result<()> {
        self.lock_to_write()?.truncate(self.ino, len)
    }

    fn block_bytes(&self) -> u32 {
        self.lock().block_bytes
    }

    fn is_direct(&self) -> bool {
        self.writable
    }
}

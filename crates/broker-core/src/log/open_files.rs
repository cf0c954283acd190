//! The segment files that are read from now, kept open: opening one for every read costs as much as reading 64 KiB.
//!
//! **Invariant:** at most [`FILES_KEPT`] stay open here, the ones that were used last, however many readers there are.
//! A file that a read is using stays open until that read ends.

use std::io;

use super::segment::SegmentName;
use super::storage::Storage;
use crate::sync::{Arc, Mutex, lock};

/// Files that stay open: with segments of 64 MiB, two gigabytes of history.
const FILES_KEPT: usize = 32;

/// See the module's documentation.
#[derive(Debug)]
pub(crate) struct OpenFiles<S: Storage> {
    /// The one that was used last at the end.
    kept: Mutex<Vec<(SegmentName, Arc<S::File>)>>,
}

impl<S: Storage> OpenFiles<S> {
    pub(crate) fn new() -> Self {
        Self {
            kept: Mutex::new(Vec::new()),
        }
    }

    /// A segment's file, if it is open.
    pub(crate) fn find(&self, name: SegmentName) -> Option<Arc<S::File>> {
        let mut kept = lock(&self.kept);
        let at = kept.iter().rposition(|(other, _)| *other == name)?;
        kept.get_mut(at..)?.rotate_left(1);
        kept.last().map(|(_, file)| Arc::clone(file))
    }

    /// A segment's file, opened when it is not.
    ///
    /// # Errors
    /// Those of the disk.
    pub(crate) fn get(&self, storage: &S, name: SegmentName) -> io::Result<Arc<S::File>> {
        if let Some(file) = self.find(name) {
            return Ok(file);
        }
        let file = Arc::new(storage.open_read(&name.file())?);
        let mut kept = lock(&self.kept);
        // Another reader may have been faster.
        kept.retain(|(other, _)| *other != name);
        kept.push((name, Arc::clone(&file)));
        let beyond = kept.len().saturating_sub(FILES_KEPT);
        let closed: Vec<_> = kept.drain(..beyond).collect();
        drop(kept);
        drop(closed);
        Ok(file)
    }

    /// Closes a file, so that whoever reads it next opens it anew: something is wrong with it.
    pub(crate) fn close(&self, name: SegmentName) {
        lock(&self.kept).retain(|(other, _)| *other != name);
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test may panic")]

    use super::super::segment::SegmentId;
    use super::super::storage::{MemoryStorage, StorageFile};
    use super::*;

    fn name(id: u64) -> SegmentName {
        SegmentName {
            id: SegmentId(id),
            generation: 0,
        }
    }

    #[test]
    fn the_files_that_were_used_last_stay_open_and_no_more_than_the_limit() {
        let storage = MemoryStorage::new();
        let files = OpenFiles::<MemoryStorage>::new();
        let count = FILES_KEPT as u64 + 10;
        for id in 0..count {
            let made = storage.create(&name(id).file()).unwrap();
            made.write_at(0, &id.to_le_bytes()).unwrap();
        }
        for id in 0..count {
            let file = files.get(&storage, name(id)).unwrap();
            let mut read = [0; 8];
            assert_eq!(file.read_at(0, &mut read).unwrap(), 8);
            assert_eq!(u64::from_le_bytes(read), id);
            // The first one is used all the time.
            assert!(files.find(name(0)).is_some());
        }
        assert_eq!(lock(&files.kept).len(), FILES_KEPT);
        assert!(files.find(name(1)).is_none());
        assert!(files.find(name(count - 1)).is_some());
        files.close(name(0));
        assert!(files.find(name(0)).is_none());
    }

    #[test]
    fn a_file_in_use_outlives_its_place() {
        let storage = MemoryStorage::new();
        let files = OpenFiles::<MemoryStorage>::new();
        storage.create(&name(0).file()).unwrap();
        let held = files.get(&storage, name(0)).unwrap();
        files.close(name(0));
        assert_eq!(Arc::strong_count(&held), 1);
        assert!(held.is_empty().unwrap());
        assert!(files.get(&storage, name(1)).is_err());
    }
}

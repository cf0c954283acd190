//! The process is killed at every operation that changes the disk, and a disk that is full at each of them.

use super::*;
use crate::log::storage::MemoryFile;
use crate::sync::{AtomicU64, Ordering};

/// A disk that does so many changes, and then none.
#[derive(Debug, Clone)]
struct Ending {
    disk: MemoryStorage,
    left: Arc<AtomicU64>,
}

#[derive(Debug)]
struct EndingFile {
    file: MemoryFile,
    left: Arc<AtomicU64>,
}

/// Takes one of the changes that are left.
fn change(left: &AtomicU64) -> io::Result<()> {
    let taken = left.fetch_update(Ordering::AcqRel, Ordering::Acquire, |left| {
        left.checked_sub(1)
    });
    taken
        .map(|_| ())
        .map_err(|_| io::ErrorKind::StorageFull.into())
}

impl Ending {
    fn file(&self, file: MemoryFile) -> EndingFile {
        EndingFile {
            file,
            left: Arc::clone(&self.left),
        }
    }
}

impl Storage for Ending {
    type File = EndingFile;

    fn list(&self) -> io::Result<Vec<String>> {
        self.disk.list()
    }

    fn create(&self, name: &str) -> io::Result<EndingFile> {
        change(&self.left)?;
        Ok(self.file(self.disk.create(name)?))
    }

    fn open(&self, name: &str) -> io::Result<EndingFile> {
        Ok(self.file(self.disk.open(name)?))
    }

    fn open_read(&self, name: &str) -> io::Result<EndingFile> {
        Ok(self.file(self.disk.open_read(name)?))
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        change(&self.left)?;
        self.disk.rename(from, to)
    }

    fn delete(&self, name: &str) -> io::Result<()> {
        change(&self.left)?;
        self.disk.delete(name)
    }

    fn sync_dir(&self) -> io::Result<()> {
        change(&self.left)
    }

    fn free_bytes(&self) -> io::Result<u64> {
        self.disk.free_bytes()
    }

    fn check_identity(&self) -> io::Result<()> {
        Ok(())
    }
}

impl StorageFile for EndingFile {
    fn len(&self) -> io::Result<u64> {
        self.file.len()
    }

    fn read_at(&self, offset: u64, buf: &mut [u8]) -> io::Result<usize> {
        self.file.read_at(offset, buf)
    }

    fn write_at(&self, offset: u64, buf: &[u8]) -> io::Result<()> {
        change(&self.left)?;
        self.file.write_at(offset, buf)
    }

    fn sync(&self) -> io::Result<()> {
        change(&self.left)
    }

    fn sync_all(&self) -> io::Result<()> {
        change(&self.left)
    }

    fn zero_fill(&self, from: u64, to: u64) -> io::Result<()> {
        change(&self.left)?;
        self.file.zero_fill(from, to)
    }

    fn truncate(&self, len: u64) -> io::Result<()> {
        change(&self.left)?;
        self.file.truncate(len)
    }

    fn block_bytes(&self) -> u32 {
        self.file.block_bytes()
    }

    fn is_direct(&self) -> bool {
        false
    }
}

/// Another disk with the same files.
fn copy(disk: &MemoryStorage) -> MemoryStorage {
    let other = MemoryStorage::new();
    for name in disk.list().unwrap() {
        let file = disk.open_read(&name).unwrap();
        let mut bytes = vec![0; file.len().unwrap() as usize];
        file.read_at(0, &mut bytes).unwrap();
        other.create(&name).unwrap().write_at(0, &bytes).unwrap();
    }
    other
}

#[test]
fn at_every_moment_what_is_kept_is_there_and_the_rest_goes_later() {
    let whole = filled();
    let kept = Kept::from([("hall", 20), ("cellar", 1)]);
    let expected = all_of(&log_of(&whole), &kept);
    let last = copy(&whole);
    check(&last, &kept);
    let mut changes = 0;
    loop {
        let disk = copy(&whole);
        let ending = Arc::new(Ending {
            disk: disk.clone(),
            left: Arc::new(AtomicU64::new(u64::MAX)),
        });
        let running = log(&ending);
        ending.left.store(changes, Ordering::Release);
        let mut reclaimer = Reclaimer::new(SEGMENT_BYTES);
        let result = reclaim(&running, &kept, &mut reclaimer);
        // Whoever goes on reading finds all of it.
        assert_eq!(all_of(&running, &kept), expected, "after {changes}");
        if ending.left.load(Ordering::Acquire) > 0 {
            assert!(result.is_ok());
            break;
        }
        // The disk has space again: nothing is lost, and what was begun is done or left for the next start.
        if changes % 7 == 0 {
            ending.left.store(u64::MAX, Ordering::Release);
            reclaim(&running, &kept, &mut reclaimer).unwrap();
            assert_eq!(all_of(&running, &kept), expected, "after {changes}");
        }
        drop(running);
        let again = log_of(&disk);
        assert!(again.found.state.places.is_empty(), "after {changes}");
        assert_eq!(all_of(&again, &kept), expected, "after {changes}");
        assert_clean(&disk);
        check(&disk, &kept);
        let left_over = segment_files(&disk)
            .iter()
            .any(|it| it.starts_with("pack-"));
        assert!(!left_over, "after {changes}");
        changes += 1;
    }
    assert!(changes > 20);
}

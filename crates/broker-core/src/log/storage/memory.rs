//! A directory in memory that behaves: the twin of [`FileStorage`](super::FileStorage) for tests and for stores without a disk.
//!
//! Syncing does nothing, nothing fails but wrong use, and a clone is the same disk. A file that was deleted lives on in its open
//! handles, as on a real disk.

use std::collections::BTreeMap;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::{Storage, StorageFile, check_file_name};

/// Longest file, in bytes. A wrong offset is an error, not an attempt to allocate the whole memory.
const FILE_BYTES_MAX: u64 = 1 << 30;

/// Bytes that the memory "disk" says it can hold.
const CAPACITY_BYTES: u64 = 1 << 40;

type Content = Arc<Mutex<Vec<u8>>>;

/// A directory in memory; a clone is the same directory.
#[derive(Debug, Clone, Default)]
pub struct MemoryStorage {
    files: Arc<Mutex<BTreeMap<String, Content>>>,
}

impl MemoryStorage {
    /// An empty directory.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    fn find(&self, name: &str) -> io::Result<Content> {
        check_file_name(name)?;
        lock(&self.files)
            .get(name)
            .cloned()
            .ok_or_else(|| absent(name))
    }
}

impl Storage for MemoryStorage {
    type File = MemoryFile;

    fn list(&self) -> io::Result<Vec<String>> {
        Ok(lock(&self.files).keys().cloned().collect())
    }

    fn create(&self, name: &str) -> io::Result<MemoryFile> {
        check_file_name(name)?;
        let mut files = lock(&self.files);
        if files.contains_key(name) {
            return Err(io::Error::new(
                io::ErrorKind::AlreadyExists,
                format!("{name} exists"),
            ));
        }
        let content = Content::default();
        files.insert(name.to_owned(), Arc::clone(&content));
        Ok(MemoryFile {
            content,
            writable: true,
        })
    }

    fn open(&self, name: &str) -> io::Result<MemoryFile> {
        Ok(MemoryFile {
            content: self.find(name)?,
            writable: true,
        })
    }

    fn open_read(&self, name: &str) -> io::Result<MemoryFile> {
        Ok(MemoryFile {
            content: self.find(name)?,
            writable: false,
        })
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        check_file_name(from)?;
        check_file_name(to)?;
        let mut files = lock(&self.files);
        let content = files.remove(from).ok_or_else(|| absent(from))?;
        files.insert(to.to_owned(), content);
        Ok(())
    }

    fn delete(&self, name: &str) -> io::Result<()> {
        check_file_name(name)?;
        lock(&self.files)
            .remove(name)
            .map(drop)
            .ok_or_else(|| absent(name))
    }

    fn sync_dir(&self) -> io::Result<()> {
        Ok(())
    }

    fn free_bytes(&self) -> io::Result<u64> {
        let used = lock(&self.files)
            .values()
            .map(|content| byte_count(&lock(content)))
            .sum();
        Ok(CAPACITY_BYTES.saturating_sub(used))
    }

    fn check_identity(&self) -> io::Result<()> {
        Ok(())
    }
}

/// An open file in memory.
#[derive(Debug)]
pub struct MemoryFile {
    content: Content,
    writable: bool,
}

impl MemoryFile {
    /// The content to change, grown with zeros to `len` if it is shorter.
    fn grown(&self, len: u64) -> io::Result<MutexGuard<'_, Vec<u8>>> {
        if !self.writable {
            return Err(io::Error::new(
                io::ErrorKind::PermissionDenied,
                "the file is open for reading only",
            ));
        }
        let len = file_index(len)?;
        let mut content = lock(&self.content);
        if content.len() < len {
            content.resize(len, 0);
        }
        Ok(content)
    }
}

impl StorageFile for MemoryFile {
    fn len(&self) -> io::Result<u64> {
        Ok(byte_count(&lock(&self.content)))
    }

    fn read_at(&self, offset: u64, buf: &mut [u8]) -> io::Result<usize> {
        let content = lock(&self.content);
        let rest = usize::try_from(offset)
            .ok()
            .and_then(|offset| content.get(offset..))
            .unwrap_or_default();
        let count = rest.len().min(buf.len());
        if let (Some(to), Some(from)) = (buf.get_mut(..count), rest.get(..count)) {
            to.copy_from_slice(from);
        }
        Ok(count)
    }

    fn read_cached_at(&self, offset: u64, buf: &mut [u8]) -> io::Result<usize> {
        self.read_at(offset, buf)
    }

    fn write_at(&self, offset: u64, buf: &[u8]) -> io::Result<()> {
        let end = offset.checked_add(byte_count(buf)).ok_or_else(too_large)?;
        if buf.is_empty() {
            return Ok(());
        }
        let mut content = self.grown(end)?;
        if let Some(to) = content.get_mut(file_index(offset)?..file_index(end)?) {
            to.copy_from_slice(buf);
        }
        Ok(())
    }

    fn sync(&self) -> io::Result<()> {
        Ok(())
    }

    fn sync_all(&self) -> io::Result<()> {
        Ok(())
    }

    fn zero_fill(&self, from: u64, to: u64) -> io::Result<()> {
        if from >= to {
            return Ok(());
        }
        if let Some(range) = self.grown(to)?.get_mut(file_index(from)?..file_index(to)?) {
            range.fill(0);
        }
        Ok(())
    }

    fn truncate(&self, len: u64) -> io::Result<()> {
        self.grown(len)?.truncate(file_index(len)?);
        Ok(())
    }

    fn block_bytes(&self) -> u32 {
        4096
    }

    fn is_direct(&self) -> bool {
        false
    }
}

/// A panic of another thread cannot leave a file half changed in a way that a reader would not also see on a real disk.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn byte_count(bytes: &[u8]) -> u64 {
    u64::try_from(bytes.len()).unwrap_or(u64::MAX)
}

fn file_index(offset: u64) -> io::Result<usize> {
    usize::try_from(offset)
        .ok()
        .filter(|_| offset <= FILE_BYTES_MAX)
        .ok_or_else(too_large)
}

fn too_large() -> io::Error {
    io::Error::new(
        io::ErrorKind::FileTooLarge,
        format!("a file in memory holds at most {FILE_BYTES_MAX} bytes"),
    )
}

fn absent(name: &str) -> io::Error {
    io::Error::new(io::ErrorKind::NotFound, format!("{name} does not exist"))
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test may panic")]

    use std::io::ErrorKind;

    use super::{FILE_BYTES_MAX, MemoryStorage};
    use crate::log::storage::{Storage, StorageFile};

    #[test]
    fn a_clone_is_the_same_disk() {
        let disk = MemoryStorage::new();
        disk.create("a").unwrap().write_at(3, b"xyz").unwrap();
        let mut buf = [9; 8];
        assert_eq!(
            disk.clone()
                .open_read("a")
                .unwrap()
                .read_at(1, &mut buf)
                .unwrap(),
            5
        );
        assert_eq!(&buf, b"\0\0xyz\x09\x09\x09");
        assert_eq!(disk.clone().list().unwrap(), ["a"]);
    }

    #[test]
    fn names_follow_the_rules_of_a_directory() {
        let disk = MemoryStorage::new();
        let a = disk.create("a").unwrap();
        assert_eq!(
            disk.create("a").unwrap_err().kind(),
            ErrorKind::AlreadyExists
        );
        assert_eq!(disk.open("b").unwrap_err().kind(), ErrorKind::NotFound);
        assert_eq!(disk.delete("b").unwrap_err().kind(), ErrorKind::NotFound);
        assert_eq!(
            disk.rename("b", "c").unwrap_err().kind(),
            ErrorKind::NotFound
        );
        assert_eq!(
            disk.create("../a").unwrap_err().kind(),
            ErrorKind::InvalidInput
        );

        disk.create("b").unwrap().write_at(0, b"old").unwrap();
        a.write_at(0, b"new!").unwrap();
        disk.rename("a", "b").unwrap();
        assert_eq!(disk.list().unwrap(), ["b"]);
        assert_eq!(disk.open("b").unwrap().len().unwrap(), 4);

        disk.delete("b").unwrap();
        assert_eq!(a.len().unwrap(), 4, "an open handle outlives its name");
        assert!(disk.list().unwrap().is_empty());
    }

    #[test]
    fn zero_fill_and_truncate_set_the_length() {
        let disk = MemoryStorage::new();
        let file = disk.create("a").unwrap();
        file.write_at(0, &[7; 10]).unwrap();
        file.zero_fill(5, 20).unwrap();
        file.zero_fill(3, 3).unwrap();
        let mut buf = [1; 30];
        assert_eq!(file.read_at(0, &mut buf).unwrap(), 20);
        assert_eq!(
            buf[..20],
            [7, 7, 7, 7, 7, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]
        );
        file.truncate(2).unwrap();
        file.truncate(4).unwrap();
        assert_eq!(file.read_at(0, &mut buf).unwrap(), 4);
        assert_eq!(buf[..4], [7, 7, 0, 0]);
        assert_eq!(file.read_at(100, &mut buf).unwrap(), 0);
    }

    #[test]
    fn wrong_use_is_an_error_not_a_panic() {
        let disk = MemoryStorage::new();
        let file = disk.create("a").unwrap();
        let reader = disk.open_read("a").unwrap();
        assert_eq!(
            reader.write_at(0, b"x").unwrap_err().kind(),
            ErrorKind::PermissionDenied
        );
        assert_eq!(
            reader.truncate(0).unwrap_err().kind(),
            ErrorKind::PermissionDenied
        );
        assert_eq!(
            file.write_at(u64::MAX, b"x").unwrap_err().kind(),
            ErrorKind::FileTooLarge
        );
        assert_eq!(
            file.truncate(FILE_BYTES_MAX + 1).unwrap_err().kind(),
            ErrorKind::FileTooLarge
        );
        assert_eq!(file.read_at(u64::MAX, &mut [0; 4]).unwrap(), 0);
    }
}

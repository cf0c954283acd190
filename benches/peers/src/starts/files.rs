//! The files of a store: how many, how large, and out of the system's memory.

use std::fs::{self, File};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use rustix::fs::{Advice, fadvise};
use serde::{Deserialize, Serialize};

/// What the kernel counts a file's space in.
const BLOCK_BYTES: u64 = 512;

/// The files of a store.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Files {
    pub(crate) count: u64,
    /// What they take of the disk.
    pub(crate) disk_bytes: u64,
}

impl Files {
    /// Of the regular files in a directory. One that is removed meanwhile does not count.
    pub(crate) fn of(dir: &Path) -> Result<Self> {
        let mut files = Self::default();
        for path in regular(dir)? {
            if let Ok(metadata) = fs::metadata(&path) {
                files.count += 1;
                files.disk_bytes += metadata.blocks() * BLOCK_BYTES;
            }
        }
        Ok(files)
    }
}

/// Has the system forget what it has in memory of the files. They are synced first: what is still to be written stays.
pub(crate) fn make_cold(dir: &Path) -> Result<()> {
    for path in regular(dir)? {
        let name = || format!("cannot put {} out of memory", path.display());
        let file = File::open(&path).with_context(name)?;
        file.sync_all().with_context(name)?;
        fadvise(&file, 0, None, Advice::DontNeed).with_context(name)?;
    }
    Ok(())
}

fn regular(dir: &Path) -> Result<Vec<PathBuf>> {
    let mut paths = Vec::new();
    let entries = fs::read_dir(dir).with_context(|| format!("cannot list {}", dir.display()))?;
    for entry in entries {
        let entry = entry?;
        if entry.file_type()?.is_file() {
            paths.push(entry.path());
        }
    }
    Ok(paths)
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test may panic")]

    use super::*;

    #[test]
    fn files_are_counted_with_their_space_and_can_be_forgotten() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(Files::of(dir.path()).unwrap(), Files::default());
        fs::write(dir.path().join("a"), [7; 10_000]).unwrap();
        fs::write(dir.path().join("b"), b"").unwrap();
        fs::create_dir(dir.path().join("c")).unwrap();
        make_cold(dir.path()).unwrap();
        let files = Files::of(dir.path()).unwrap();
        assert_eq!(files.count, 2);
        assert!(files.disk_bytes >= 10_000, "{files:?}");
        assert_eq!(fs::read(dir.path().join("a")).unwrap(), [7; 10_000]);
        assert!(make_cold(&dir.path().join("none")).is_err());
    }
}

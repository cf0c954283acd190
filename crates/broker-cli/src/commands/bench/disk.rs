//! The files of the store that is measured: how fast their disk is by itself, and their pages in memory.

use std::fs::{self, File};
use std::io;
use std::path::Path;
use std::time::{Duration, Instant};

use broker_core::log::segment::SegmentName;
use broker_core::log::storage::{AlignedBuf, FileStorage, Storage, StorageFile};
use serde_json::{Value, json};

use super::figures::{Latencies, micros, readable};
use crate::exit::{Exit, Failure};

/// Bytes of a write, as of a small batch of the log.
const WRITE_BYTES: usize = 4096;
/// How many writes, unless they take too long.
const WRITES: u64 = 200;
const TIME_MAX: Duration = Duration::from_secs(3);

/// What the disk takes for a write and its sync, with nothing of the broker in between: the way that the
/// log writes too.
#[derive(Debug)]
pub(crate) struct DiskProbe {
    latencies: Latencies,
    is_direct: bool,
}

impl DiskProbe {
    /// Writes to a file of its own in this directory, over bytes that are there already, so that the
    /// file system has no space to find.
    pub(crate) fn measure(dir: &Path) -> io::Result<Self> {
        let storage = FileStorage::open(dir)?;
        let name = format!("bench-{}.probe", std::process::id());
        let file = storage.create(&name)?;
        // The file goes on without its name, and nothing is left if this process is killed.
        storage.delete(&name)?;
        Self::write(&file)
    }

    fn write(file: &impl StorageFile) -> io::Result<Self> {
        let bytes = WRITE_BYTES as u64;
        file.zero_fill(0, WRITES * bytes)?;
        file.sync_all()?;
        let mut buffer = AlignedBuf::zeroed(WRITE_BYTES);
        buffer.as_mut_slice().fill(b'.');
        let mut latencies = Latencies::new();
        let began = Instant::now();
        for number in 0..WRITES {
            let sent = Instant::now();
            file.write_at(number * bytes, buffer.as_slice())?;
            file.sync()?;
            latencies.record(sent.elapsed());
            if began.elapsed() > TIME_MAX {
                break;
            }
        }
        Ok(Self {
            latencies,
            is_direct: file.is_direct(),
        })
    }

    /// For people.
    pub(crate) fn text(&self) -> String {
        let how = if self.is_direct {
            "direct"
        } else {
            "through the page cache"
        };
        format!(
            "4 KiB written and synced, {how}: p50 {}, p99 {} of {} before the run",
            readable(self.latencies.at(0.5)),
            readable(self.latencies.at(0.99)),
            self.latencies.len()
        )
    }

    /// For scripts.
    pub(crate) fn json(&self) -> Value {
        json!({
            "write_bytes": WRITE_BYTES,
            "writes": self.latencies.len(),
            "direct_io": self.is_direct,
            "p50_us": micros(self.latencies.at(0.5)),
            "p99_us": micros(self.latencies.at(0.99)),
        })
    }
}

/// Refuses a store that has no disk to be read from.
pub(crate) fn check_cold(dir: &Path) -> Result<(), Failure> {
    if is_memory(dir) {
        return Err(Failure::usage(format!(
            "--cold: {} is in memory (tmpfs) and cannot be cold: name a store on a disk with --data DIR",
            dir.display()
        )));
    }
    Ok(())
}

/// Drops the log in this directory from the page cache. Its bytes are synced, so that none has to stay.
pub(crate) fn drop_pages(dir: &Path) -> Result<(), Failure> {
    let failed = |what: &Path, error: io::Error| {
        let words = format!("--cold: cannot read {}: {error}", what.display());
        Failure::new(Exit::Unreachable, words)
    };
    let (mut segments, entries) = (0, fs::read_dir(dir).map_err(|error| failed(dir, error))?);
    for entry in entries {
        let entry = entry.map_err(|error| failed(dir, error))?;
        let is_segment = entry.file_name().to_str().and_then(SegmentName::parse);
        if is_segment.is_none() {
            continue;
        }
        let path = entry.path();
        match File::open(&path).and_then(|file| drop_pages_of(&file)) {
            Ok(()) => segments += 1,
            // The broker deletes segments that it needs no more.
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(failed(&path, error)),
        }
    }
    if segments == 0 {
        let words = format!("--cold: there is no log in {}", dir.display());
        return Err(Failure::new(Exit::Unreachable, words));
    }
    Ok(())
}

/// Whether a directory is of a file system that has no disk.
#[cfg(target_os = "linux")]
fn is_memory(dir: &Path) -> bool {
    /// `TMPFS_MAGIC` of `linux/magic.h`.
    const TMPFS: u64 = 0x0102_1994;
    rustix::fs::statfs(dir).is_ok_and(|found| u64::try_from(found.f_type) == Ok(TMPFS))
}

#[cfg(not(target_os = "linux"))]
fn is_memory(_dir: &Path) -> bool {
    false
}

#[cfg(target_os = "linux")]
fn drop_pages_of(file: &File) -> io::Result<()> {
    Ok(rustix::fs::fadvise(
        file,
        0,
        None,
        rustix::fs::Advice::DontNeed,
    )?)
}

#[cfg(not(target_os = "linux"))]
fn drop_pages_of(_file: &File) -> io::Result<()> {
    Err(io::Error::new(
        io::ErrorKind::Unsupported,
        "this system has no way to drop a file's pages",
    ))
}

#[cfg(test)]
mod tests {
    #![expect(
        clippy::unwrap_used,
        clippy::indexing_slicing,
        reason = "a test may panic"
    )]

    use super::*;

    #[test]
    fn the_disk_is_measured_without_a_trace() {
        let dir = tempfile::tempdir().unwrap();
        let probe = DiskProbe::measure(dir.path()).unwrap();
        let writes = probe.json()["writes"].as_u64().unwrap();
        assert!((1..=WRITES).contains(&writes), "{writes}");
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
        DiskProbe::measure(&dir.path().join("none")).unwrap_err();
    }

    #[test]
    fn only_a_log_can_be_cold() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("store"), "x").unwrap();
        let failure = drop_pages(dir.path()).unwrap_err();
        assert!(failure.words.unwrap().contains("no log"));
        fs::write(dir.path().join("0000000000000001-0000.seg"), "x").unwrap();
        drop_pages(dir.path()).unwrap();
        assert!(drop_pages(&dir.path().join("none")).is_err());
    }
}

//! What the bare machine does, measured beside the brokers: one write made durable, and one round trip over loopback.
//!
//! A publish that waits for its acknowledgement cannot be faster than these two together.

use std::fs::{File, OpenOptions};
use std::io::{Read, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow};
use rustix::fs::OFlags;
use serde::{Deserialize, Serialize};

use crate::stats::{Latencies, Quantiles, nanos};

/// Bytes of one write.
const BLOCK_BYTES: usize = 4096;
/// The file's size: written once before, so that only data is synced.
const BLOCKS: u64 = 4096;
/// Bytes of one round trip.
const PING_BYTES: usize = 128;
/// How long each is measured.
const DURATION: Duration = Duration::from_millis(400);

/// What the bare machine does.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Limits {
    /// Writing 4 KiB over old bytes of a file and `fdatasync`.
    pub(crate) write_sync: Quantiles,
    /// Whether the writes went past the page cache.
    pub(crate) direct: bool,
    /// 128 bytes there and back between two threads.
    pub(crate) round_trip: Quantiles,
}

impl Limits {
    /// Measures this machine, with a file in `dir`.
    pub(crate) fn measure(dir: &Path) -> Result<Self> {
        let path = dir.join("limits");
        let written = write_sync(&path).context("cannot measure the disk");
        // It may not even have been made.
        let _ = std::fs::remove_file(&path);
        let (write_sync, direct) = written?;
        Ok(Self {
            write_sync,
            direct,
            round_trip: round_trip().context("cannot measure the loopback")?,
        })
    }
}

fn write_sync(path: &Path) -> Result<(Quantiles, bool)> {
    let zeros = vec![0; BLOCK_BYTES];
    let mut file = File::create(path)?;
    for _ in 0..BLOCKS {
        file.write_all(&zeros)?;
    }
    file.sync_all()?;
    drop(file);
    // Blocks past the page cache have to lie at a multiple of their size.
    let mut room = vec![b'x'; 2 * BLOCK_BYTES];
    let offset = room.as_ptr().align_offset(BLOCK_BYTES);
    let block = room
        .get_mut(offset..offset + BLOCK_BYTES)
        .context("no aligned memory")?;
    let flags = i32::try_from(OFlags::DIRECT.bits())?;
    let direct = OpenOptions::new()
        .write(true)
        .custom_flags(flags)
        .open(path);
    if let Ok(file) = direct
        && file.write_all_at(block, 0).is_ok()
    {
        return Ok((write_and_sync(&file, block)?, true));
    }
    let file = OpenOptions::new().write(true).open(path)?;
    Ok((write_and_sync(&file, block)?, false))
}

fn write_and_sync(file: &File, block: &[u8]) -> Result<Quantiles> {
    let mut latencies = Latencies::new();
    let began = Instant::now();
    let mut at = 0;
    while began.elapsed() < DURATION {
        let start = Instant::now();
        file.write_all_at(block, at % BLOCKS * BLOCK_BYTES as u64)?;
        file.sync_data()?;
        latencies.record(nanos(start.elapsed()), 1);
        at += 1;
    }
    latencies.quantiles().context("nothing was written")
}

fn round_trip() -> Result<Quantiles> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
    let address = listener.local_addr()?;
    let echo = thread::spawn(move || -> Result<()> {
        let (mut stream, _) = listener.accept()?;
        stream.set_nodelay(true)?;
        let mut bytes = [0; PING_BYTES];
        // Ends with the other side.
        while stream.read_exact(&mut bytes).is_ok() {
            stream.write_all(&bytes)?;
        }
        Ok(())
    });
    let mut stream = TcpStream::connect(address)?;
    stream.set_nodelay(true)?;
    let mut latencies = Latencies::new();
    let mut bytes = [0; PING_BYTES];
    let began = Instant::now();
    while began.elapsed() < DURATION {
        let start = Instant::now();
        stream.write_all(&bytes)?;
        stream.read_exact(&mut bytes)?;
        latencies.record(nanos(start.elapsed()), 1);
    }
    drop(stream);
    echo.join().map_err(|_| anyhow!("the echo broke off"))??;
    latencies.quantiles().context("nothing came back")
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test may panic")]

    use super::*;

    #[test]
    fn the_machine_does_something_and_nothing_stays() {
        let dir = tempfile::tempdir().unwrap();
        let limits = Limits::measure(dir.path()).unwrap();
        for quantiles in [limits.write_sync, limits.round_trip] {
            assert!(quantiles.p50 > 0.0 && quantiles.p50 <= quantiles.p999);
        }
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0);
    }
}

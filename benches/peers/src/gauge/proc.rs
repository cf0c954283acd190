//! Meters in `/proc`.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result};

/// The kernel counts processor time in hundredths of a second, whatever its own clock is.
const TICKS_PER_SECOND: u64 = 100;

/// User and system time of a process, its dead threads included. `process` is its number or `self`.
pub(crate) fn cpu_time(process: &str) -> Result<Duration> {
    let path = format!("/proc/{process}/stat");
    let text = fs::read_to_string(&path).with_context(|| format!("cannot read {path}"))?;
    parse_cpu_time(&text).with_context(|| format!("cannot make sense of {path}"))
}

fn parse_cpu_time(stat: &str) -> Option<Duration> {
    // The name, second and in brackets, may hold blanks and brackets.
    let (_, rest) = stat.rsplit_once(')')?;
    let mut fields = rest.split_ascii_whitespace().skip(11);
    let user: u64 = fields.next()?.parse().ok()?;
    let system: u64 = fields.next()?.parse().ok()?;
    Some(Duration::from_millis(
        (user + system) * 1000 / TICKS_PER_SECOND,
    ))
}

/// The memory that a process has, in bytes.
pub(crate) fn rss(process: u32) -> Option<u64> {
    let status = fs::read_to_string(format!("/proc/{process}/status")).ok()?;
    kibibytes(&status, "VmRSS:")
}

/// The most memory that a process ever had, in bytes.
pub(crate) fn rss_peak(process: u32) -> Option<u64> {
    let status = fs::read_to_string(format!("/proc/{process}/status")).ok()?;
    kibibytes(&status, "VmHWM:")
}

/// What a process has had written to disks, in bytes, by all its threads since it began.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Written {
    /// Handed to a disk, or left in the page cache to be written later.
    pub(crate) bytes: u64,
    /// Of what was left there, what went with its file before it was written.
    pub(crate) cancelled: u64,
}

/// What a process has had written to disks.
pub(crate) fn written(process: u32) -> Result<Written> {
    let path = format!("/proc/{process}/io");
    let text = fs::read_to_string(&path).with_context(|| format!("cannot read {path}"))?;
    parse_written(&text).with_context(|| format!("cannot make sense of {path}"))
}

fn parse_written(io: &str) -> Option<Written> {
    let number = |key: &str| {
        let number = io.lines().find_map(|line| line.strip_prefix(key))?;
        number.trim().parse().ok()
    };
    Some(Written {
        bytes: number("write_bytes:")?,
        cancelled: number("cancelled_write_bytes:")?,
    })
}

/// A line such as `VmHWM:  1234 kB`, in bytes.
pub(crate) fn kibibytes(text: &str, key: &str) -> Option<u64> {
    let line = text.lines().find_map(|line| line.strip_prefix(key))?;
    let kibibytes: u64 = line.split_ascii_whitespace().next()?.parse().ok()?;
    Some(kibibytes * 1024)
}

/// A disk, by its numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Device {
    major: u64,
    minor: u64,
}

impl Device {
    /// The disk of a directory; `None` when its file system does not say.
    pub(crate) fn of(dir: &Path) -> Option<Self> {
        let dev = fs::metadata(dir).ok()?.dev();
        let device = Self {
            major: rustix::fs::major(dev).into(),
            minor: rustix::fs::minor(dev).into(),
        };
        device.line(&fs::read_to_string("/proc/diskstats").ok()?)?;
        Some(device)
    }

    /// Its name, and how many flushes it has completed since the machine started.
    fn line(self, diskstats: &str) -> Option<(String, u64)> {
        diskstats.lines().find_map(|line| {
            let mut fields = line.split_ascii_whitespace();
            let major: u64 = fields.next()?.parse().ok()?;
            let minor: u64 = fields.next()?.parse().ok()?;
            let name = fields.next()?;
            // Eleven fields of reads and writes, four of discards, then flushes: since Linux 5.5.
            let flushes = fields.nth(15)?.parse().ok()?;
            (major == self.major && minor == self.minor).then(|| (name.to_owned(), flushes))
        })
    }

    /// How many flushes it has completed.
    pub(crate) fn flushes(self) -> Option<u64> {
        let diskstats = fs::read_to_string("/proc/diskstats").ok()?;
        self.line(&diskstats).map(|(_, flushes)| flushes)
    }

    /// Its name.
    pub(crate) fn name(self) -> Option<String> {
        let diskstats = fs::read_to_string("/proc/diskstats").ok()?;
        self.line(&diskstats).map(|(name, _)| name)
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test may panic")]

    use super::*;

    #[test]
    fn times_are_found_behind_any_name() {
        let stat =
            "42 (a ) b) S 1 42 42 0 -1 4194560 1 2 3 4 150 75 9 9 20 0 3 0 100 1000 200 18446744";
        assert_eq!(parse_cpu_time(stat), Some(Duration::from_millis(2250)));
        assert_eq!(parse_cpu_time("42 (a"), None);
        assert!(cpu_time("self").is_ok());
        assert!(cpu_time("none").is_err());
    }

    #[test]
    fn what_was_written_is_not_what_was_asked_to_be() {
        let io = "rchar: 1\nwchar: 2\nsyscr: 3\nsyscw: 4\nread_bytes: 5\nwrite_bytes: 6144\n\
                  cancelled_write_bytes: 4096\n";
        let expected = Written {
            bytes: 6144,
            cancelled: 4096,
        };
        assert_eq!(parse_written(io), Some(expected));
        assert_eq!(parse_written("write_bytes: 1\n"), None);
        assert_eq!(
            parse_written("write_bytes: x\ncancelled_write_bytes: 0\n"),
            None
        );
        assert!(written(std::process::id()).is_ok());
        assert!(written(u32::MAX).is_err());
    }

    #[test]
    fn flushes_are_those_of_the_device() {
        let diskstats = "   7       0 loop0 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 306874 17\n \
             254       0 vda 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 3152639 17\n   8 0 old 1 2 3 4 5 6 7 8 9 10 11\n";
        let vda = Device {
            major: 254,
            minor: 0,
        };
        assert_eq!(vda.line(diskstats), Some(("vda".to_owned(), 3_152_639)));
        let old = Device { major: 8, minor: 0 };
        assert_eq!(old.line(diskstats), None, "this kernel did not count them");
    }

    #[test]
    fn sizes_are_in_bytes() {
        assert_eq!(
            kibibytes("A: 1 kB\nVmHWM:\t  12 kB\n", "VmHWM:"),
            Some(12288)
        );
        assert_eq!(kibibytes("A: 1 kB\n", "VmHWM:"), None);
        assert!(rss_peak(std::process::id()).unwrap() > 0);
    }
}

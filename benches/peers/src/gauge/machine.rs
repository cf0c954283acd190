//! What the machine is, in words for the page.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::thread;

use serde::{Deserialize, Serialize};

use super::proc::{Device, kibibytes};

/// A machine.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Machine {
    /// Its processor.
    pub(crate) processor: String,
    /// How many threads it runs at once.
    pub(crate) cores: usize,
    /// Its memory, in bytes.
    pub(crate) memory: u64,
    /// Its kernel.
    pub(crate) kernel: String,
    /// The distribution.
    pub(crate) system: String,
    /// The file system of the data, and its disk.
    pub(crate) disk: String,
}

impl Machine {
    /// This one, with data in `dir`.
    pub(crate) fn here(dir: &Path) -> Self {
        let cpuinfo = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
        let models: BTreeSet<&str> = cpuinfo
            .lines()
            .filter_map(|line| line.strip_prefix("model name")?.split_once(": "))
            .map(|(_, model)| model.trim())
            .collect();
        let meminfo = fs::read_to_string("/proc/meminfo").unwrap_or_default();
        let kernel = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
        let release = fs::read_to_string("/etc/os-release").unwrap_or_default();
        let system = release
            .lines()
            .find_map(|line| line.strip_prefix("PRETTY_NAME="))
            .unwrap_or("Linux");
        Self {
            processor: models.into_iter().collect::<Vec<_>>().join(", "),
            cores: thread::available_parallelism().map_or(1, usize::from),
            memory: kibibytes(&meminfo, "MemTotal:").unwrap_or(0),
            kernel: kernel.trim().to_owned(),
            system: system.trim_matches('"').to_owned(),
            disk: disk(dir),
        }
    }
}

fn disk(dir: &Path) -> String {
    let system = file_system(dir).unwrap_or_else(|| "unknown file system".to_owned());
    match Device::of(dir).and_then(Device::name) {
        Some(name) => {
            let cache = fs::read_to_string(format!("/sys/block/{name}/queue/write_cache"));
            let cache = cache.map_or_else(
                |_| String::new(),
                |cache| format!(", write cache: {}", cache.trim()),
            );
            format!("{system} on {name}{cache}")
        }
        None => system,
    }
}

/// The type of the file system that a directory is on.
pub(crate) fn file_system(dir: &Path) -> Option<String> {
    let dir = fs::canonicalize(dir).ok()?;
    let mounts = fs::read_to_string("/proc/self/mounts").ok()?;
    file_system_in(&mounts, &dir)
}

fn file_system_in(mounts: &str, dir: &Path) -> Option<String> {
    let mounts = mounts.lines().filter_map(|line| {
        let mut fields = line.split(' ').skip(1);
        let (place, kind) = (fields.next()?, fields.next()?);
        dir.starts_with(place).then_some((place.len(), kind))
    });
    // The deepest one counts, and of several at one place the last.
    mounts
        .max_by_key(|(depth, _)| *depth)
        .map(|(_, kind)| kind.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_deepest_mount_counts() {
        let mounts =
            "/dev/vda / ext4 rw 0 0\ntmpfs /tmp tmpfs rw 0 0\n/dev/vdb /tmp/disk xfs rw 0 0\n";
        let kind = |dir: &str| file_system_in(mounts, Path::new(dir));
        assert_eq!(kind("/tmp/x").as_deref(), Some("tmpfs"));
        assert_eq!(kind("/tmp/disk/x").as_deref(), Some("xfs"));
        assert_eq!(kind("/tmpx").as_deref(), Some("ext4"));
        assert_eq!(file_system_in("", Path::new("/")), None);
    }
}

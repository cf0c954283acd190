//! What kind of file system a directory is on.
//!
//! On a network file system a lock may be known to one machine only, and two leaders would write to one log. Such file systems are
//! refused by the type that `statfs` gives. FUSE has one type for local and remote ones alike; there the name in
//! `/proc/self/mountinfo` decides, and a name that is not listed counts as local.

use std::fmt;
use std::io;
use std::os::fd::BorrowedFd;

/// What the kernel says about a file system.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct FileSystem {
    /// Its type, as `statfs` gives it; 0 where there is none to be had.
    pub magic: u32,
    /// Its type in words, as in `/proc/self/mountinfo` (`fuse.sshfs`); asked for with FUSE only.
    pub kind: Option<String>,
}

/// Says what file system a directory is on; a test injects its own.
pub trait Probe: fmt::Debug {
    /// The file system of an open directory.
    ///
    /// # Errors
    /// As the operating system gave it.
    fn file_system(&self, dir: BorrowedFd<'_>) -> io::Result<FileSystem>;
}

/// Asks the kernel.
///
/// In debug builds the environment variable `BROKER_TEST_STATFS_MAGIC` (`0x6969`, or decimal) replaces the type that the kernel
/// gives, so that a test can lead a real binary onto a "network file system". Release builds do not look at it.
#[derive(Debug, Clone, Copy, Default)]
pub struct SystemProbe;

impl Probe for SystemProbe {
    fn file_system(&self, dir: BorrowedFd<'_>) -> io::Result<FileSystem> {
        if cfg!(debug_assertions)
            && let Some(magic) = std::env::var("BROKER_TEST_STATFS_MAGIC")
                .ok()
                .as_deref()
                .and_then(parse_magic)
        {
            return Ok(FileSystem { magic, kind: None });
        }
        ask_kernel(dir)
    }
}

fn parse_magic(text: &str) -> Option<u32> {
    match text.strip_prefix("0x") {
        Some(digits) => u32::from_str_radix(digits, 16).ok(),
        None => text.parse().ok(),
    }
}

#[cfg(target_os = "linux")]
fn ask_kernel(dir: BorrowedFd<'_>) -> io::Result<FileSystem> {
    let [a, b, c, d, ..] = rustix::fs::fstatfs(dir)?.f_type.to_le_bytes();
    let magic = u32::from_le_bytes([a, b, c, d]);
    let kind = if magic == FUSE { mount_kind(dir) } else { None };
    Ok(FileSystem { magic, kind })
}

/// Other systems have no such numbers; they are built for without a promise.
#[cfg(not(target_os = "linux"))]
fn ask_kernel(_dir: BorrowedFd<'_>) -> io::Result<FileSystem> {
    Ok(FileSystem::default())
}

/// The type in words of the mount that a directory is on.
#[cfg(target_os = "linux")]
fn mount_kind(dir: BorrowedFd<'_>) -> Option<String> {
    use rustix::fs::{AtFlags, StatxFlags};

    let stat = rustix::fs::statx(dir, c"", AtFlags::EMPTY_PATH, StatxFlags::MNT_ID).ok()?;
    let mounts = std::fs::read_to_string("/proc/self/mountinfo").ok()?;
    find_mount_kind(&mounts, stat.stx_mnt_id)
}

/// Finds `fuse.sshfs` in `36 35 0:98 / /mnt rw,noatime shared:1 - fuse.sshfs host:/ rw`.
fn find_mount_kind(mounts: &str, id: u64) -> Option<String> {
    let line = mounts
        .lines()
        .find(|line| line.split(' ').next().and_then(|field| field.parse().ok()) == Some(id))?;
    let (_, tail) = line.split_once(" - ")?;
    tail.split(' ').next().map(str::to_owned)
}

const FUSE: u32 = 0x6573_5546;

/// File systems by which machines share files, from `linux/magic.h` and the list of coreutils' `stat`.
const NETWORK: [(u32, &str); 23] = [
    (0x0000_6969, "NFS"),
    (0x0000_517B, "SMB"),
    (0xFE53_4D42, "SMB2"),
    (0xFF53_4D42, "CIFS"),
    (0x0102_1997, "9P"),
    (0x5346_414F, "AFS"),
    (0x6B41_4653, "AFS"),
    (0x00C3_6400, "Ceph"),
    (0x7375_7245, "Coda"),
    (0x0000_564C, "NCP"),
    (0x0BD0_0BD0, "Lustre"),
    (0x4750_4653, "GPFS"),
    (0x1983_0326, "BeeGFS"),
    (0x2003_0528, "OrangeFS"),
    (0x0116_1970, "GFS2"),
    (0x7461_636F, "OCFS2"),
    (0x786F_4256, "VirtualBox shared folders"),
    (0xBACB_ACBC, "VMware shared folders"),
    (0x7C7C_6673, "Parallels shared folders"),
    (0x0131_11A8, "IBRIX"),
    (0x6163_6673, "ACFS"),
    (0xAAD7_AAEA, "PanFS"),
    (0xBEEF_DEAD, "SNFS"),
];

/// FUSE file systems whose files live on another machine, or are shared with one.
const NETWORK_FUSE: [&str; 25] = [
    "virtiofs",
    "fuse.sshfs",
    "fuse.glusterfs",
    "fuse.ceph",
    "fuse.ceph-fuse",
    "fuse.s3fs",
    "fuse.goofys",
    "fuse.mountpoint-s3",
    "fuse.gcsfuse",
    "fuse.blobfuse",
    "fuse.blobfuse2",
    "fuse.rclone",
    "fuse.davfs",
    "fuse.davfs2",
    "fuse.curlftpfs",
    "fuse.smbnetfs",
    "fuse.juicefs",
    "fuse.seaweedfs",
    "fuse.mfs",
    "fuse.moosefs",
    "fuse.lizardfs",
    "fuse.hdfs",
    "fuse.fuse_dfs",
    "fuse.grpcfuse",
    "fuse.vmhgfs-fuse",
];

/// What people call the file system, if it is one that other machines can share.
pub(super) fn network_name(found: &FileSystem) -> Option<String> {
    if let Some((_, name)) = NETWORK.iter().find(|(magic, _)| *magic == found.magic) {
        return Some((*name).to_owned());
    }
    let kind = found.kind.as_deref().filter(|_| found.magic == FUSE)?;
    NETWORK_FUSE
        .contains(&kind)
        .then(|| kind.trim_start_matches("fuse.").to_owned())
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test may panic")]
    #![expect(clippy::disallowed_methods, reason = "a test opens what it probes")]

    use std::fs::File;
    use std::os::fd::AsFd;

    use super::*;

    const EXT4: u32 = 0xEF53;

    #[test]
    fn network_file_systems_are_named() {
        for (magic, name) in [
            (0x6969, "NFS"),
            (0x517B, "SMB"),
            (0xFE53_4D42, "SMB2"),
            (0xFF53_4D42, "CIFS"),
            (0x0102_1997, "9P"),
        ] {
            assert_eq!(
                network_name(&FileSystem { magic, kind: None }).as_deref(),
                Some(name)
            );
        }
        // ext, btrfs, xfs, tmpfs, overlayfs, zfs.
        for magic in [
            EXT4,
            0x9123_683E,
            0x5846_5342,
            0x0102_1994,
            0x794C_7630,
            0x2FC1_2FC1,
            0,
        ] {
            assert_eq!(
                network_name(&FileSystem {
                    magic,
                    kind: Some("fuse.sshfs".into())
                }),
                None,
                "{magic:#x}"
            );
        }
    }

    #[test]
    fn fuse_is_told_apart_by_name() {
        let fuse = |kind: Option<&str>| {
            network_name(&FileSystem {
                magic: FUSE,
                kind: kind.map(Into::into),
            })
        };
        assert_eq!(fuse(Some("fuse.sshfs")).as_deref(), Some("sshfs"));
        assert_eq!(fuse(Some("virtiofs")).as_deref(), Some("virtiofs"));
        assert_eq!(fuse(Some("fuse.lazyfs")), None);
        assert_eq!(fuse(Some("fuseblk")), None);
        assert_eq!(fuse(None), None);
    }

    #[test]
    fn mount_lines_are_found_by_their_number() {
        let mounts = "1 2 0:9 / / rw - ext4 /dev/vda rw\n36 35 0:98 / /mnt rw,noatime shared:1 - fuse.sshfs host:/ rw\n361 1 0:1 / /x rw - tmpfs x rw\n";
        assert_eq!(find_mount_kind(mounts, 36).as_deref(), Some("fuse.sshfs"));
        assert_eq!(find_mount_kind(mounts, 1).as_deref(), Some("ext4"));
        assert_eq!(find_mount_kind(mounts, 3), None);
        assert_eq!(find_mount_kind("36 broken", 36), None);
    }

    #[test]
    fn magic_numbers_parse() {
        assert_eq!(parse_magic("0x6969"), Some(0x6969));
        assert_eq!(parse_magic("26985"), Some(0x6969));
        assert_eq!(parse_magic("nfs"), None);
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn the_kernel_answers_for_proc() {
        let proc = File::open("/proc").unwrap();
        assert_eq!(ask_kernel(proc.as_fd()).unwrap().magic, 0x9FA0);
        assert_eq!(mount_kind(proc.as_fd()).as_deref(), Some("proc"));
    }
}

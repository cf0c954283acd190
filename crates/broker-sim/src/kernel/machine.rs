//! What tests ask of the machine: tools, file systems in files, and processes, all of which go when they are dropped.

use std::ffi::OsStr;
use std::fmt;
use std::fs::File;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, bail, ensure};
use tempfile::TempDir;

use super::account::Line;

/// `FS_IOC_SHUTDOWN` without a flush of the journal: from then on nothing reaches the disk, and the file system only gives errors.
const SHUT_DOWN: &str = r#"my $how = pack("I",2); open(F,"<",$ARGV[0]) or die $!; ioctl(F,0x8004587D,$how) or die "$!\n""#;

/// How long a file system may be in use by nobody that one knows of.
const BUSY_MAX: Duration = Duration::from_secs(5);

/// A tool or a right that this machine does not have.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Missing(pub String);

impl fmt::Display for Missing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SKIPPED({})", self.0)
    }
}

impl std::error::Error for Missing {}

/// Whether all of these programs are there.
///
/// # Errors
/// The first one that is not.
pub fn needs(programs: &[&str]) -> Result<(), Missing> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let is_there = |name: &&str| std::env::split_paths(&path).any(|dir| dir.join(name).is_file());
    match programs.iter().find(|name| !is_there(name)) {
        Some(name) => Err(Missing((*name).to_owned())),
        None => Ok(()),
    }
}

/// Whether this process may mount, by doing so.
///
/// # Errors
/// It is not root, or has no such right all the same.
pub fn needs_mounts() -> Result<(), Missing> {
    if !rustix::process::geteuid().is_root() {
        return Err(Missing("root".to_owned()));
    }
    needs(&["mount", "umount"])?;
    let mounted = scratch().map_err(anyhow::Error::from);
    let mounted = mounted.and_then(|dir| Mount::memory(dir.path(), 1 << 20)?.unmount());
    mounted.map_err(|_| Missing("the right to mount".to_owned()))
}

/// Runs a program to its end and gives its output.
///
/// # Errors
/// It cannot be started, or fails; what it said is in the text.
pub fn run<I: IntoIterator<Item: AsRef<OsStr>>>(program: &str, args: I) -> anyhow::Result<String> {
    let mut command = Command::new(program);
    let out = command.args(args).stdin(Stdio::null()).output();
    let out = out.with_context(|| format!("starting {program}"))?;
    let words = String::from_utf8_lossy(&out.stderr);
    ensure!(out.status.success(), "{command:?}: {}", words.trim());
    Ok(String::from_utf8_lossy(&out.stdout).trim().to_owned())
}

/// A kind of file system.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FileSystem {
    /// The journal that most machines have.
    Ext4,
    /// Another journal.
    Xfs,
    /// Trees that are written elsewhere.
    Btrfs,
}

impl FileSystem {
    /// As `mount` calls it.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Ext4 => "ext4",
            Self::Xfs => "xfs",
            Self::Btrfs => "btrfs",
        }
    }

    /// Whether it can be made and mounted here, by doing so.
    ///
    /// # Errors
    /// What is missing.
    pub fn needs(self) -> Result<(), Missing> {
        needs_mounts()?;
        needs(&["losetup", "perl", &format!("mkfs.{}", self.name())])?;
        let mounted = self.try_mount();
        // A container may have the device and not the right, a kernel not this file system.
        mounted.map_err(|_| Missing(format!("mount -t {}", self.name())))
    }

    fn try_mount(self) -> anyhow::Result<()> {
        let dir = scratch()?;
        let (file, at) = (dir.path().join("image"), dir.path().join("mount"));
        std::fs::create_dir(&at)?;
        image(&file, self.bytes())?;
        self.make(&file)?;
        let device = LoopDevice::attach(&file)?;
        Mount::device(device.path(), self, &at)?.unmount()
    }

    /// The smallest that its tools make, or a little more.
    #[must_use]
    pub const fn bytes(self) -> u64 {
        match self {
            Self::Ext4 => 64 << 20,
            Self::Xfs => 300 << 20,
            Self::Btrfs => 160 << 20,
        }
    }

    /// Makes one.
    ///
    /// # Errors
    /// Its tool fails.
    pub fn make(self, on: &Path) -> anyhow::Result<()> {
        let args: &[&str] = match self {
            Self::Ext4 => &["-q", "-F"],
            Self::Xfs | Self::Btrfs => &["-q", "-f"],
        };
        let args = args.iter().map(OsStr::new).chain([on.as_os_str()]);
        run(&format!("mkfs.{}", self.name()), args)?;
        Ok(())
    }
}

/// Where images are made: in memory where that is possible, so that the syncs of many tests do not wait for one disk.
///
/// # Errors
/// As the operating system's.
pub fn scratch() -> std::io::Result<TempDir> {
    let memory = Path::new("/dev/shm");
    let parent = if memory.is_dir() {
        memory.to_owned()
    } else {
        std::env::temp_dir()
    };
    tempfile::Builder::new()
        .prefix("broker-")
        .tempdir_in(parent)
}

/// Makes a file of so many bytes that takes no space yet.
///
/// # Errors
/// As the operating system's.
pub fn image(at: &Path, bytes: u64) -> std::io::Result<()> {
    File::create(at)?.set_len(bytes)
}

/// A file that is a block device.
#[derive(Debug)]
pub struct LoopDevice(PathBuf);

impl LoopDevice {
    /// Attaches a file.
    ///
    /// # Errors
    /// There is no free device.
    pub fn attach(file: &Path) -> anyhow::Result<Self> {
        let args = ["--find".as_ref(), "--show".as_ref(), file.as_os_str()];
        let device = run("losetup", args)?;
        ensure!(device.starts_with("/dev/"), "losetup says {device:?}");
        Ok(Self(device.into()))
    }

    /// The device.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for LoopDevice {
    fn drop(&mut self) {
        let _ = run("losetup", ["--detach".as_ref(), self.0.as_os_str()]);
    }
}

/// A file system that is mounted.
#[derive(Debug)]
pub struct Mount {
    at: PathBuf,
    is_mounted: bool,
}

impl Mount {
    /// Mounts a device.
    ///
    /// # Errors
    /// The kernel does not take it.
    pub fn device(device: &Path, kind: FileSystem, at: &Path) -> anyhow::Result<Self> {
        let words = ["-t", kind.name()].map(OsStr::new);
        let places = [device.as_os_str(), at.as_os_str()];
        run("mount", words.into_iter().chain(places))?;
        Ok(Self::of(at))
    }

    fn of(at: &Path) -> Self {
        Self {
            at: at.to_owned(),
            is_mounted: true,
        }
    }

    /// Mounts a file system in memory, of so many bytes.
    ///
    /// # Errors
    /// This process has no right to.
    pub fn memory(at: &Path, bytes: u64) -> anyhow::Result<Self> {
        let options = format!("size={bytes},mode=0700");
        let words = ["-t", "tmpfs", "-o", &options, "none"].map(OsStr::new);
        run("mount", words.into_iter().chain([at.as_os_str()]))?;
        Ok(Self::of(at))
    }

    /// Where it is.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.at
    }

    /// Makes the kernel forget whatever it was not asked to sync; only an unmount is possible from then on.
    ///
    /// # Errors
    /// The file system cannot do that.
    pub fn shut_down(&self) -> anyhow::Result<()> {
        let args = ["-e".as_ref(), SHUT_DOWN.as_ref(), self.at.as_os_str()];
        run("perl", args).map(drop)
    }

    /// Unmounts it, and fails where dropping it would leave it to the kernel to do so later.
    ///
    /// # Errors
    /// Somebody still uses it.
    pub fn unmount(mut self) -> anyhow::Result<()> {
        self.try_unmount()?;
        self.is_mounted = false;
        Ok(())
    }

    /// A process that another thread is just starting has its files open, too, until it has become another program.
    fn try_unmount(&self) -> anyhow::Result<()> {
        let begun = Instant::now();
        loop {
            match run("umount", [&self.at]) {
                Err(error) if begun.elapsed() > BUSY_MAX => return Err(error),
                Err(_) => thread::sleep(Duration::from_millis(5)),
                Ok(_) => return Ok(()),
            }
        }
    }
}

impl Drop for Mount {
    fn drop(&mut self) {
        if self.is_mounted && self.try_unmount().is_err() {
            let _ = run("umount", ["-l".as_ref(), self.at.as_os_str()]);
        }
    }
}

/// A writer process. Dropping it kills it.
#[derive(Debug)]
pub struct Process {
    child: Child,
    stdin: Option<ChildStdin>,
    lines: Receiver<(u64, Line)>,
}

impl Process {
    /// Starts it. Its stdin stays open as long as this lives: it ends by itself when its owner is killed.
    ///
    /// # Errors
    /// It cannot be started.
    pub fn start(command: &mut Command) -> anyhow::Result<Self> {
        Self::start_stamped(command, || 0)
    }

    /// Starts it, and puts a number on each of its lines when it arrives.
    ///
    /// # Errors
    /// It cannot be started.
    pub fn start_stamped(
        command: &mut Command,
        stamp: impl Fn() -> u64 + Send + 'static,
    ) -> anyhow::Result<Self> {
        let command = command.stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = command
            .spawn()
            .with_context(|| format!("starting {command:?}"))?;
        let (stdin, stdout) = (child.stdin.take(), child.stdout.take());
        let (tell, lines) = channel();
        let process = Self {
            child,
            stdin,
            lines,
        };
        let stdout = stdout.context("its stdout is a pipe")?;
        thread::Builder::new().spawn(move || {
            let lines = BufReader::new(stdout).lines().map_while(Result::ok);
            for line in lines.filter_map(|line| Line::parse(&line)) {
                if tell.send((stamp(), line)).is_err() {
                    return;
                }
            }
        })?;
        Ok(process)
    }

    /// Its next line; `None` when it has ended.
    ///
    /// # Errors
    /// It says nothing for so long.
    pub fn next(&self, patience: Duration) -> anyhow::Result<Option<Line>> {
        match self.lines.recv_timeout(patience) {
            Ok((_, line)) => Ok(Some(line)),
            Err(RecvTimeoutError::Disconnected) => Ok(None),
            Err(RecvTimeoutError::Timeout) => bail!("a writer says nothing for {patience:?}"),
        }
    }

    /// Kills it, and gives all that it still had to say.
    ///
    /// # Errors
    /// As the operating system's.
    pub fn kill(self) -> anyhow::Result<Vec<Line>> {
        let lines = self.kill_stamped()?;
        Ok(lines.into_iter().map(|(_, line)| line).collect())
    }

    /// Kills it, and gives all that it still had to say, with its stamps.
    ///
    /// # Errors
    /// As the operating system's.
    pub fn kill_stamped(mut self) -> anyhow::Result<Vec<(u64, Line)>> {
        self.child.kill()?;
        self.child.wait()?;
        Ok(self.lines.iter().collect())
    }

    /// Lets it end by itself. All that it still had to say, and whether it succeeded.
    ///
    /// # Errors
    /// As the operating system's.
    pub fn end(mut self) -> anyhow::Result<(Vec<Line>, bool)> {
        self.stdin = None;
        let lines = self.lines.iter().map(|(_, line)| line).collect();
        Ok((lines, self.child.wait()?.success()))
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // Both fail only when it has ended, which is what they are for.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

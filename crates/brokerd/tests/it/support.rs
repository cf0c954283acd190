//! A place of one's own for every test, and daemons that run in it.

use std::fs::{self, DirBuilder};
use std::io::{BufRead, BufReader, Write};
use std::net::SocketAddr;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc;
use std::thread::{self, JoinHandle};

use broker_core::{Client, ClientConfig};
use rustix::process::Signal;
use tempfile::TempDir;

/// A home with a store that does not exist yet.
pub(crate) struct Place(TempDir);

impl Place {
    pub(crate) fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    pub(crate) fn path(&self) -> &Path {
        self.0.path()
    }

    pub(crate) fn store(&self) -> PathBuf {
        self.path().join("store")
    }

    /// A directory inside, for this user only.
    pub(crate) fn directory(&self, name: &str) -> PathBuf {
        let path = self.path().join(name);
        DirBuilder::new().mode(0o700).create(&path).unwrap();
        path
    }

    /// The binary with nothing in its environment but this place.
    pub(crate) fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_brokerd"));
        command
            .env_clear()
            .env("HOME", self.path())
            .env("BROKERD_DATA", self.store());
        command.args(arguments).stdin(Stdio::null());
        command
    }

    /// A daemon at a free port.
    pub(crate) fn start(&self) -> Daemon {
        Daemon::new(self.command(&["--listen", "127.0.0.1:0"]))
    }

    /// Runs it although it is expected to be refused: exit code and words.
    pub(crate) fn refused(&self, arguments: &[&str]) -> (Option<i32>, String) {
        refused(self.command(arguments))
    }
}

/// Runs a command that is expected to end by itself, having said something on standard error only.
#[track_caller]
pub(crate) fn refused(mut command: Command) -> (Option<i32>, String) {
    let mut child = command
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut words = String::new();
    for line in BufReader::new(child.stderr.take().unwrap())
        .lines()
        .map_while(Result::ok)
    {
        let is_serving = line.starts_with("brokerd ");
        words.push_str(&line);
        words.push('\n');
        if is_serving {
            child.kill().unwrap();
            child.wait().unwrap();
            panic!("it was not refused: {words}");
        }
    }
    (child.wait().unwrap().code(), words)
}

/// A running daemon; killed at the end of the test.
pub(crate) struct Daemon {
    pub(crate) child: Child,
    /// The line that it says once it listens.
    pub(crate) line: String,
    words: Option<JoinHandle<String>>,
}

impl Daemon {
    /// Starts it and waits until it listens.
    #[track_caller]
    pub(crate) fn new(mut command: Command) -> Self {
        let mut child = command
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let stderr = BufReader::new(child.stderr.take().unwrap());
        let (told, line) = mpsc::channel();
        let words = thread::spawn(move || {
            let mut words = String::new();
            for line in stderr.lines().map_while(Result::ok) {
                if line.starts_with("brokerd ") {
                    // Nobody listens any more after the first.
                    let _ = told.send(line.clone());
                }
                words.push_str(&line);
                words.push('\n');
            }
            words
        });
        match line.recv() {
            Ok(line) if line.contains(" listening on ") => Self {
                child,
                line,
                words: Some(words),
            },
            _ => panic!("it did not start: {}", words.join().unwrap()),
        }
    }

    /// Its TCP address, from the line that it said.
    pub(crate) fn address(&self) -> SocketAddr {
        let word = self.line.split_whitespace().nth(4).unwrap();
        word.parse().unwrap()
    }

    pub(crate) fn url(&self) -> String {
        format!("tcp://{}", self.address())
    }

    pub(crate) fn signal(&self, signal: Signal) {
        rustix::process::kill_process(rustix::process::Pid::from_child(&self.child), signal)
            .unwrap();
    }

    /// Waits for its end: how it ended and all that it said.
    pub(crate) fn end(mut self) -> (ExitStatus, String) {
        let status = self.child.wait().unwrap();
        (status, self.words.take().unwrap().join().unwrap())
    }

    /// A client of it.
    pub(crate) async fn client(&self) -> Client {
        ClientConfig::new()
            .sender("ann")
            .connect(&self.url())
            .await
            .unwrap()
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A runtime for the client library.
pub(crate) fn block_on<T>(work: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()
        .unwrap()
        .block_on(work)
}

/// Says that a test could not be made here, and why.
pub(crate) fn skipped(reason: &str) {
    let mut stderr = std::io::stderr().lock();
    writeln!(stderr, "SKIPPED({reason})").unwrap();
}

/// A tmpfs of this size, if this user may mount one; gone at the end.
pub(crate) struct SmallDisk(PathBuf);

impl SmallDisk {
    pub(crate) fn mount(at: PathBuf, bytes: usize) -> Option<Self> {
        let options = format!("size={bytes},mode=0700");
        let done = Command::new("mount")
            .args(["-t", "tmpfs", "-o", &options, "none"])
            .arg(&at)
            .output()
            .ok()?;
        if done.status.success() {
            Some(Self(at))
        } else {
            None
        }
    }

    pub(crate) fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(&self.0).output();
    }
}

/// All files below a directory: what a daemon that was refused must not have changed.
pub(crate) fn files(dir: &Path) -> Vec<(PathBuf, Vec<u8>)> {
    let entries = fs::read_dir(dir)
        .unwrap()
        .map(|entry| entry.unwrap().path());
    let mut found: Vec<_> = entries
        .filter(|path| path.is_file())
        .map(|path| (path.clone(), fs::read(path).unwrap()))
        .collect();
    found.sort();
    found
}

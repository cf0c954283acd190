//! A place of one's own for every test, and the binary run in it.

use std::fs::{self, DirBuilder};
use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, Output, Stdio};
use std::thread;

use serde_json::Value;
use tempfile::TempDir;

/// A home with a store that does not exist yet.
pub(crate) struct Place(TempDir);

/// How a run ended.
#[derive(Debug)]
pub(crate) struct Done {
    pub(crate) code: Option<i32>,
    pub(crate) stdout: Vec<u8>,
    pub(crate) stderr: String,
}

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
        let mut command = Command::new(env!("CARGO_BIN_EXE_broker"));
        command
            .env_clear()
            .env("HOME", self.path())
            .env("BROKER_DATA", self.store())
            .env("BROKER_NAME", "ann")
            // Tests run side by side, and there is one default port.
            .env("BROKER_LISTEN", "none");
        command.args(arguments).stdin(Stdio::null());
        command
    }

    /// Runs it to its end.
    pub(crate) fn run(&self, arguments: &[&str]) -> Done {
        Done::new(self.command(arguments).output().unwrap())
    }

    /// Runs it to its end with this on standard input.
    pub(crate) fn run_with(&self, arguments: &[&str], input: &[u8]) -> Done {
        feed(self.command(arguments), input)
    }

    /// Runs it, which must go well, and gives what it printed.
    pub(crate) fn text(&self, arguments: &[&str]) -> String {
        String::from_utf8(self.run(arguments).ok().stdout).unwrap()
    }

    /// Sends messages, which must go well.
    pub(crate) fn send(&self, room: &str, texts: &[&str]) {
        for text in texts {
            self.run(&["send", room, "--", text]).ok();
        }
    }

    /// The payloads of a room.
    pub(crate) fn raw(&self, room: &str) -> Vec<u8> {
        self.run(&["read", room, "--raw"]).ok().stdout
    }

    /// A command that serves the store to the others until the test ends. Every other command of the
    /// test then is its client.
    pub(crate) fn serve(&self, address: &str) -> Running {
        self.send("ready", &["x"]);
        let mut leader = self.start(&[
            "read", "ready", "-f", "--raw", "--from", "-1", "--listen", address,
        ]);
        leader.line();
        leader
    }

    /// Starts it and lets it run.
    pub(crate) fn start(&self, arguments: &[&str]) -> Running {
        Running::new(self.command(arguments))
    }
}

/// Runs a command to its end with this on standard input.
pub(crate) fn feed(mut command: Command, input: &[u8]) -> Done {
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut stdin = child.stdin.take().unwrap();
    thread::scope(|scope| {
        // A command that refuses early closes its end.
        scope.spawn(move || drop(stdin.write_all(input)));
        Done::new(child.wait_with_output().unwrap())
    })
}

/// The binary on a terminal, if this system has the program that makes one; both outputs come out as one.
pub(crate) fn on_a_terminal(arguments: &str) -> Option<Command> {
    let found = Command::new("script").arg("--version").output().ok()?;
    let line = format!("{} {arguments}", env!("CARGO_BIN_EXE_broker"));
    let mut command = Command::new("script");
    command.args(["-qec", &line, "/dev/null"]);
    found.status.success().then_some(command)
}

impl Done {
    pub(crate) fn new(output: Output) -> Self {
        Self {
            code: output.status.code(),
            stdout: output.stdout,
            stderr: String::from_utf8(output.stderr).unwrap(),
        }
    }

    /// It went well, and without a word.
    #[track_caller]
    pub(crate) fn ok(self) -> Self {
        assert_eq!(
            (self.code, self.stderr.as_str()),
            (Some(0), ""),
            "{}",
            beginning(&self.stdout)
        );
        self
    }

    /// It ended with this code, printed no data, and its one line of words has all of these in it.
    #[track_caller]
    pub(crate) fn fails(&self, code: i32, words: &[&str]) {
        assert_eq!(self.code, Some(code), "{}", self.stderr);
        assert_eq!(beginning(&self.stdout), "");
        for word in words {
            assert!(
                self.stderr.contains(word),
                "no {word:?} in {:?}",
                self.stderr
            );
        }
    }

    /// What it printed, as JSON lines.
    #[track_caller]
    pub(crate) fn json(&self) -> Vec<Value> {
        json_lines(&self.stdout)
    }
}

/// Enough of an output to know it by.
fn beginning(output: &[u8]) -> String {
    String::from_utf8_lossy(&output[..output.len().min(300)]).into_owned()
}

/// JSON, one value a line.
#[track_caller]
pub(crate) fn json_lines(bytes: &[u8]) -> Vec<Value> {
    let text = std::str::from_utf8(bytes).unwrap();
    text.lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect()
}

/// A command that runs beside the test; killed at its end.
pub(crate) struct Running {
    pub(crate) child: Child,
    stdout: BufReader<ChildStdout>,
}

impl Running {
    pub(crate) fn new(mut command: Command) -> Self {
        let mut child = command
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let stdout = BufReader::new(child.stdout.take().unwrap());
        Self { child, stdout }
    }

    /// Waits for a line of data; none at its end.
    pub(crate) fn next_line(&mut self) -> Option<String> {
        let mut line = String::new();
        self.stdout.read_line(&mut line).unwrap();
        if line.is_empty() { None } else { Some(line) }
    }

    /// Waits for a line of data, which must come.
    #[track_caller]
    pub(crate) fn line(&mut self) -> String {
        if let Some(line) = self.next_line() {
            return line;
        }
        let mut words = String::new();
        self.child
            .stderr
            .as_mut()
            .unwrap()
            .read_to_string(&mut words)
            .unwrap();
        panic!("it ended: {words}");
    }

    pub(crate) fn signal(&self, signal: rustix::process::Signal) {
        let pid = rustix::process::Pid::from_child(&self.child);
        rustix::process::kill_process(pid, signal).unwrap();
    }

    /// Waits for its end; what it printed and was not read is in the answer.
    pub(crate) fn end(mut self) -> Done {
        let mut stdout = Vec::new();
        self.stdout.read_to_end(&mut stdout).unwrap();
        let mut stderr = String::new();
        self.child
            .stderr
            .as_mut()
            .unwrap()
            .read_to_string(&mut stderr)
            .unwrap();
        Done {
            code: self.child.wait().unwrap().code(),
            stdout,
            stderr,
        }
    }

    /// Closes its standard output and waits for its end.
    pub(crate) fn end_unread(mut self) -> Done {
        // The reader's end goes with the value it is swapped for.
        let mut words = self.child.stderr.take().unwrap();
        let Self { child, stdout } = &mut self;
        let gone = std::mem::replace(stdout, BufReader::new(null_stdout()));
        drop(gone);
        let mut stderr = String::new();
        words.read_to_string(&mut stderr).unwrap();
        Done {
            code: child.wait().unwrap().code(),
            stdout: Vec::new(),
            stderr,
        }
    }
}

/// An end of a pipe that is at its end.
fn null_stdout() -> ChildStdout {
    let mut child = Command::new("true").stdout(Stdio::piped()).spawn().unwrap();
    child.wait().unwrap();
    child.stdout.take().unwrap()
}

impl Drop for Running {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
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

/// All files below a directory: what a command that was refused must not have changed.
pub(crate) fn files(dir: &Path) -> Vec<(PathBuf, Vec<u8>)> {
    let mut found: Vec<_> = fs::read_dir(dir)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.is_file())
        .map(|path| (path.clone(), fs::read(path).unwrap()))
        .collect();
    found.sort();
    found
}

//! Following the system calls of a running agent with strace, and holding it at one of them.
//!
//! strace counts an injection for each thread by itself, so a call is named by its place in its thread, and among the threads by
//! which of them got that far first: [`Step`]. At the step the thread waits before the call for [`HOLD`], long enough to be killed
//! there. strace writes the beginning of a line when the call begins, so the call is known while it waits.

use std::collections::HashMap;
use std::fmt;
use std::io::Read;
use std::process::{Child, ChildStdout, Command, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, bail, ensure};
use rustix::process::{Pid, Signal, kill_process};

/// What is traced: whatever takes or releases the lock, opens a door, reads or writes the store, or talks to somebody. What a
/// machine does not have is left out.
const CALLS: &str = "trace=?flock,?socket,?bind,?listen,?connect,?rename,?renameat,?renameat2,?unlink,?unlinkat,?mkdirat,?openat,\
    ?close,?ftruncate,?fallocate,?pread64,?pwrite64,?pwritev,?pwritev2,?write,?writev,?fsync,?fdatasync,?sendto,?sendmsg,?recvmsg,\
    ?accept4,?clone3";

/// How long a thread waits at the step.
const HOLD: Duration = Duration::from_millis(20);

/// How long strace may take to hold all threads, or to let them go.
const PATIENCE: Duration = Duration::from_secs(10);

/// Between two looks.
const LOOK_STEP: Duration = Duration::from_micros(500);

/// A system call of a run.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Step {
    /// Its name.
    pub call: String,
    /// Which of its thread's calls of this name it is, from 1.
    pub nth: u32,
    /// How many threads made their `nth` call of this name before.
    pub after: u32,
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {} of thread {}", self.call, self.nth, self.after + 1)
    }
}

/// What a tracer sees.
#[derive(Debug)]
pub enum Sighting {
    /// A call begins.
    Began {
        /// The thread.
        thread: u32,
        /// Which call.
        step: Step,
    },
    /// It has got a lock on a file.
    Locked,
}

/// Follows a process, until it is dropped: then the process goes on alone.
#[derive(Debug)]
pub struct Tracer {
    strace: Child,
    sightings: Receiver<Sighting>,
}

impl Tracer {
    /// Follows all threads of a process, those to come included, and holds it at `step`. Returns when it does.
    ///
    /// # Errors
    /// There is no strace, it may not trace this process, or the process has ended.
    pub fn attach(pid: u32, step: Option<&Step>) -> anyhow::Result<Self> {
        let mut command = Command::new("strace");
        command.args(["-f", "-qq", "-o", "/proc/self/fd/1", "-e", "signal=none"]);
        command.args(["-e", CALLS, "-p", &pid.to_string()]);
        if let Some(Step { call, nth, .. }) = step {
            let micros = HOLD.as_micros();
            command.arg("-e");
            command.arg(format!("inject={call}:delay_enter={micros}:when={nth}"));
        }
        let mut strace = command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .context("starting strace")?;
        let out = strace.stdout.take();
        let (tell, sightings) = channel();
        let mut tracer = Self { strace, sightings };
        let out = out.context("its stdout is a pipe")?;
        thread::Builder::new()
            .name("strace".to_owned())
            .spawn(move || read_calls(out, &tell))?;
        let deadline = Instant::now() + PATIENCE;
        while !is_traced(pid)? {
            let ended = tracer.strace.try_wait()?;
            ensure!(ended.is_none(), "strace may not trace process {pid}");
            ensure!(Instant::now() < deadline, "strace does not get hold of it");
            thread::sleep(LOOK_STEP);
        }
        Ok(tracer)
    }

    /// Whether this machine has strace and lets it trace a child of this process.
    #[must_use]
    pub fn is_available() -> bool {
        let Ok(mut child) = Command::new("sleep").arg("60").spawn() else {
            return false;
        };
        let attached = Self::attach(child.id(), None).is_ok();
        // It is the child of nobody else, so both can only fail when it has ended.
        let _ = child.kill();
        let _ = child.wait();
        attached
    }

    /// What it sees next; `None` when there is nothing new in `patience`.
    ///
    /// # Errors
    /// The process has ended.
    pub fn next(&self, patience: Duration) -> Result<Option<Sighting>, Ended> {
        match self.sightings.recv_timeout(patience) {
            Ok(sighting) => Ok(Some(sighting)),
            Err(RecvTimeoutError::Timeout) => Ok(None),
            Err(RecvTimeoutError::Disconnected) => Err(Ended),
        }
    }
}

/// The process that was followed has ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ended;

impl Drop for Tracer {
    fn drop(&mut self) {
        // It lets go of what it traces on this signal; on SIGKILL a held thread could stay held. It has not been waited for, so
        // the id is its own.
        let _ = kill_process(Pid::from_child(&self.strace), Signal::TERM);
        let _ = self.strace.wait();
    }
}

/// Whether all threads of a process are traced.
fn is_traced(pid: u32) -> anyhow::Result<bool> {
    let tasks = std::fs::read_dir(format!("/proc/{pid}/task")).context("the process has ended")?;
    for task in tasks {
        let Ok(status) = std::fs::read_to_string(task?.path().join("status")) else {
            // A thread that has just ended.
            continue;
        };
        let Some(tracer) = status
            .lines()
            .find_map(|line| line.strip_prefix("TracerPid:"))
        else {
            bail!("the kernel does not say who traces a thread");
        };
        if tracer.trim() == "0" {
            return Ok(false);
        }
    }
    Ok(true)
}

/// Tells of each call as soon as it begins.
fn read_calls(mut out: ChildStdout, tell: &Sender<Sighting>) {
    let mut log = Log::default();
    let mut chunk = [0; 4096];
    while let Ok(len @ 1..) = out.read(&mut chunk) {
        let read = chunk.get(..len).unwrap_or_default();
        for sighting in read.iter().filter_map(|byte| log.push(*byte)) {
            if tell.send(sighting).is_err() {
                return;
            }
        }
    }
}

/// The lines of strace: `THREAD CALL(ARGUMENTS) = RESULT`, and `THREAD <... CALL resumed>) = RESULT`.
#[derive(Debug, Default)]
struct Log {
    line: String,
    /// Calls of each thread.
    made: HashMap<(u32, String), u32>,
    /// How many threads have made so many calls.
    reached: HashMap<(String, u32), u32>,
}

impl Log {
    fn push(&mut self, byte: u8) -> Option<Sighting> {
        match byte {
            b'\n' => {
                let line = std::mem::take(&mut self.line);
                (line.contains("flock") && line.contains(") = 0")).then_some(Sighting::Locked)
            }
            b'(' => {
                let began = self.begin();
                self.line.push('(');
                began
            }
            byte => {
                self.line.push(char::from(byte));
                None
            }
        }
    }

    /// The line so far ends before a parenthesis.
    fn begin(&mut self) -> Option<Sighting> {
        let (thread, call) = self.line.split_once(' ')?;
        let call = call.trim_start();
        if !call
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
        {
            return None;
        }
        let thread: u32 = thread.parse().ok()?;
        let call = call.to_owned();
        let nth = self.made.entry((thread, call.clone())).or_default();
        *nth += 1;
        let nth = *nth;
        let reached = self.reached.entry((call.clone(), nth)).or_default();
        let after = *reached;
        *reached += 1;
        let step = Step { call, nth, after };
        Some(Sighting::Began { thread, step })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sightings(text: &str) -> Vec<String> {
        let mut log = Log::default();
        let seen = text.bytes().filter_map(|byte| log.push(byte));
        seen.map(|sighting| match sighting {
            Sighting::Began { thread, step } => format!("{thread}: {step}"),
            Sighting::Locked => "locked".to_owned(),
        })
        .collect()
    }

    #[test]
    fn calls_are_counted_in_each_thread_and_the_threads_by_order() {
        let text = "7  openat(AT_FDCWD, \"/x(y)\", O_RDONLY <unfinished ...>\n8     openat(AT_FDCWD) = 3\n\
            7 <... openat resumed>) = 4\n7 openat(3) = 5\n7 flock(5, LOCK_EX|LOCK_NB) = -1 EAGAIN (Resource)\n\
            8 flock(5, LOCK_EX|LOCK_NB <unfinished ...>\n8 <... flock resumed>) = 0\n7 pread64(3, \"= 0\"";
        let expected = [
            "7: openat 1 of thread 1",
            "8: openat 1 of thread 2",
            "7: openat 2 of thread 1",
            "7: flock 1 of thread 1",
            "8: flock 1 of thread 2",
            "locked",
            "7: pread64 1 of thread 1",
        ];
        assert_eq!(sightings(text), expected);
    }
}

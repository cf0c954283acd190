//! One life of an agent: a child process, its stdin, and a thread that hears what it says.

use std::fs::{File, OpenOptions};
use std::io::{self, BufRead, BufReader, Read, Seek, SeekFrom, Write};
use std::path::Path;
use std::process::{Child, ChildStdin, Command, ExitStatus, Stdio};
use std::sync::mpsc::Sender;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use rustix::process::{Pid, Signal, kill_process};

use super::Program;
use crate::agent::Work;
use crate::history::{Event, Place};

/// How much of the end of a history is looked through for what was read last.
const TAIL_BYTES: u64 = 256 << 10;

/// Between two looks at a child that is to end.
const WAIT_STEP: Duration = Duration::from_millis(1);

/// A line of an agent.
#[derive(Debug)]
pub(super) struct Word {
    pub(super) agent: usize,
    pub(super) life: u32,
    /// `None` is the end.
    pub(super) line: Option<String>,
}

/// How to start a life.
#[derive(Debug)]
pub(super) struct Launch<'a> {
    pub(super) program: &'a Program,
    pub(super) dir: &'a Path,
    pub(super) history: &'a Path,
    pub(super) errors: &'a Path,
    pub(super) agent: usize,
    pub(super) number: u32,
    pub(super) work: &'a Work,
    pub(super) from: &'a [Place],
}

impl Launch<'_> {
    pub(super) fn start(&self, speaker: Sender<Word>) -> anyhow::Result<Life> {
        let errors = OpenOptions::new()
            .append(true)
            .create(true)
            .open(self.errors)?;
        let mut child = Command::new(&self.program.path)
            .args(&self.program.args)
            .arg("--dir")
            .arg(self.dir)
            .arg("--history")
            .arg(self.history)
            .arg(format!("--agent={}", self.agent))
            .arg(format!("--life={}", self.number))
            .args(self.from.iter().map(|place| format!("--from={place}")))
            .args(self.work.to_args())
            // The fleet shows the end of what it writes, which is to be the error.
            .env("RUST_LIB_BACKTRACE", "0")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(errors)
            .spawn()
            .with_context(|| format!("starting {}", self.program.path.display()))?;
        let (agent, life) = (self.agent, self.number);
        let stdin = child.stdin.take();
        let stdout = child.stdout.take();
        // From here on a failure kills the child.
        let started = Life {
            child,
            stdin,
            is_expected_to_end: false,
        };
        let stdout = stdout.context("its stdout is a pipe")?;
        thread::Builder::new()
            .name(format!("agent {agent}"))
            .spawn(move || {
                let lines = BufReader::new(stdout).lines().map_while(Result::ok);
                for line in lines.map(Some).chain([None]) {
                    if speaker.send(Word { agent, life, line }).is_err() {
                        return;
                    }
                }
            })?;
        Ok(started)
    }
}

/// A running agent. Dropping it kills it.
#[derive(Debug)]
pub(super) struct Life {
    child: Child,
    stdin: Option<ChildStdin>,
    is_expected_to_end: bool,
}

impl Life {
    pub(super) fn pid(&self) -> u32 {
        self.child.id()
    }

    pub(super) const fn is_expected_to_end(&self) -> bool {
        self.is_expected_to_end
    }

    pub(super) const fn expect_end(&mut self) {
        self.is_expected_to_end = true;
    }

    pub(super) fn signal(&self, signal: Signal) -> io::Result<()> {
        Ok(kill_process(Pid::from_child(&self.child), signal)?)
    }

    pub(super) fn tell(&mut self, line: &str) -> io::Result<()> {
        match &mut self.stdin {
            Some(stdin) => writeln!(stdin, "{line}"),
            None => Err(io::ErrorKind::BrokenPipe.into()),
        }
    }

    /// Closes its stdin, which tells it to leave.
    pub(super) fn close(&mut self) {
        self.stdin = None;
        self.is_expected_to_end = true;
    }

    pub(super) fn wait(&mut self, patience: Duration) -> anyhow::Result<ExitStatus> {
        let deadline = Instant::now() + patience;
        loop {
            if let Some(status) = self.child.try_wait()? {
                return Ok(status);
            }
            if Instant::now() > deadline {
                bail!("process {} does not end", self.pid());
            }
            thread::sleep(WAIT_STEP);
        }
    }
}

impl Drop for Life {
    fn drop(&mut self) {
        // Both fail only when it has ended, which is what they are for.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Where the subscriptions of a life stopped, one for each room, by the end of its history.
pub(super) fn read_upto(history: &Path, work: &Work) -> anyhow::Result<Vec<Place>> {
    let start = Place { epoch: 0, seq: 0 };
    let mut upto = vec![start; work.rooms.len()];
    if !work.subscribe {
        return Ok(Vec::new());
    }
    let mut file = match File::open(history) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(upto),
        Err(error) => return Err(error.into()),
    };
    let len = file.metadata()?.len();
    file.seek(SeekFrom::Start(len.saturating_sub(TAIL_BYTES)))?;
    let mut tail = Vec::new();
    file.read_to_end(&mut tail)?;
    for line in tail.split(|byte| *byte == b'\n') {
        // The first and the last line may be torn, and are then no delivery or one that happened.
        let line = std::str::from_utf8(line).unwrap_or_default();
        let event = line.split_once(' ').map(|(_, event)| Event::parse(event));
        if let Some(Ok(Event::Delivered {
            subscription,
            place,
            id: Some(_),
            ..
        })) = event
        {
            let index = usize::try_from(subscription)?.wrapping_sub(1);
            if let Some(upto) = upto.get_mut(index) {
                *upto = Place {
                    seq: place.seq + 1,
                    ..place
                };
            }
        }
    }
    Ok(upto)
}

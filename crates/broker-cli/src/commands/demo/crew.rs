//! [`Crew`]: the processes of the take-over demo.
//!
//! **Invariant:** none outlives the crew. Dropping it kills and reaps them all; and when this process
//! is killed itself, each sees its standard input end, and ends.

use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::time::Duration;
use std::{env, thread};

use tokio::sync::mpsc;

use super::broken;
use super::checker::name;
use super::report::Report;
use crate::config::Config;
use crate::exit::{Exit, Failure};

/// Reports that wait; an agent whose reports are not read waits too.
const REPORTS: usize = 1024;
/// Longest line of an agent: it has at most 512 seqs.
const LINE_BYTES_MAX: u64 = 64 << 10;

/// What an agent's thread passes on: whose, and what; `None` when it has ended.
pub(super) type Told = (u32, Option<Report>);

/// Agents that run, and the way to start more.
pub(super) struct Crew {
    program: PathBuf,
    dir: PathBuf,
    rate: u32,
    patience: Duration,
    /// Whether the agents' own words are shown.
    verbose: u8,
    started: u32,
    tell: mpsc::Sender<Told>,
    told: mpsc::Receiver<Told>,
    /// Those that run, in the order of their places.
    pub(super) members: Vec<Member>,
}

/// One agent.
pub(super) struct Member {
    pub(super) number: u32,
    pub(super) name: String,
    pub(super) pid: u32,
    child: Child,
    stdin: Option<ChildStdin>,
    /// Whether it leads, and the term of the last leader that it was connected to.
    pub(super) leads: bool,
    pub(super) term: u64,
    /// How many of its messages were acknowledged.
    pub(super) acked: u64,
    /// How far it has seen the room.
    pub(super) seen: u64,
    pub(super) drained: bool,
    pub(super) gone: bool,
}

impl Crew {
    /// A crew without agents, for the store in `dir`.
    pub(super) fn new(dir: &Path, rate: u32, config: &Config) -> Result<Self, Failure> {
        let (tell, told) = mpsc::channel(REPORTS);
        Ok(Self {
            program: env::current_exe().map_err(|error| broken("find this program", &error))?,
            dir: dir.to_owned(),
            rate,
            patience: config.timeout,
            verbose: config.verbose,
            started: 0,
            tell,
            told,
            members: Vec::new(),
        })
    }

    /// Starts an agent, which comes to this place among the others.
    pub(super) fn start(&mut self, place: usize) -> Result<(), Failure> {
        let number = self.started + 1;
        let name = name(number);
        let mut command = Command::new(&self.program);
        for variable in ["BROKER_URL", "BROKER_DATA", "BROKER_LISTEN", "BROKER_NAME"] {
            command.env_remove(variable);
        }
        command
            .args(["demo", "--takeover", "--agent", &number.to_string()])
            .args(["--rate", &self.rate.to_string()])
            .args(["--timeout", &format!("{}ms", self.patience.as_millis())])
            .arg("--data")
            .arg(&self.dir)
            .args(["--as", &name, "--listen", "none"])
            .args((0..self.verbose).map(|_| "-v"))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            // Ctrl-C is for the parent, which then ends them.
            .process_group(0);
        if self.verbose == 0 {
            // What is wrong it says on its standard output.
            command.stderr(Stdio::null());
        }
        let mut child = command
            .spawn()
            .map_err(|error| broken("start an agent", &error))?;
        let (stdin, stdout) = (child.stdin.take(), child.stdout.take());
        // A member from here on: whatever fails, it is ended.
        let member = Member {
            number,
            name,
            pid: child.id(),
            child,
            stdin,
            leads: false,
            term: 0,
            acked: 0,
            seen: 0,
            drained: false,
            gone: false,
        };
        self.started = number;
        self.members.insert(place.min(self.members.len()), member);
        let stdout =
            stdout.ok_or_else(|| Failure::new(Exit::Protocol, "an agent has no output"))?;
        let tell = self.tell.clone();
        thread::Builder::new()
            .name("agent".to_owned())
            .spawn(move || forward(stdout, number, &tell))
            .map_err(|error| broken("start a thread", &error))?;
        Ok(())
    }

    /// How many were started.
    pub(super) fn started(&self) -> u32 {
        self.started
    }

    /// What an agent tells next. Dropping the future loses nothing.
    pub(super) async fn next(&mut self) -> Told {
        match self.told.recv().await {
            Some(told) => told,
            // This crew has a sender itself.
            None => std::future::pending().await,
        }
    }

    /// The agent with this number, if it runs.
    pub(super) fn member(&mut self, number: u32) -> Option<&mut Member> {
        self.members.iter_mut().find(|one| one.number == number)
    }

    /// Who leads, as far as they told, and the place.
    pub(super) fn leader(&self) -> Option<(usize, &Member)> {
        let leading = self.members.iter().enumerate().filter(|(_, one)| one.leads);
        leading.max_by_key(|(_, one)| one.term)
    }
}

impl Drop for Crew {
    fn drop(&mut self) {
        // All at once, or each would take over from the one before. They are reaped one by one.
        for member in &mut self.members {
            let _ = member.child.kill();
        }
    }
}

impl Member {
    /// Kills it with SIGKILL and waits until it is gone.
    pub(super) fn kill(&mut self) -> Result<(), Failure> {
        self.child
            .kill()
            .map_err(|error| broken("kill an agent", &error))?;
        self.child
            .wait()
            .map_err(|error| broken("wait for an agent", &error))?;
        Ok(())
    }

    /// Asks it to send no more.
    pub(super) fn stop_sending(&mut self) -> Result<(), Failure> {
        match &mut self.stdin {
            Some(stdin) => stdin
                .write_all(b"stop\n")
                .map_err(|error| broken("talk to an agent", &error)),
            None => Ok(()),
        }
    }

    /// Whether it was asked to leave.
    pub(super) fn is_dismissed(&self) -> bool {
        self.stdin.is_none()
    }

    /// Asks it to leave.
    pub(super) fn dismiss(&mut self) {
        self.stdin = None;
    }
}

impl Drop for Member {
    fn drop(&mut self) {
        // It has ended already, unless the demo broke off.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Passes on what an agent prints until it ends.
fn forward(stdout: ChildStdout, number: u32, to: &mpsc::Sender<Told>) {
    let mut lines = BufReader::new(stdout);
    let mut line = Vec::new();
    loop {
        line.clear();
        let read = (&mut lines)
            .take(LINE_BYTES_MAX)
            .read_until(b'\n', &mut line);
        // The last line of an agent that was killed may be cut off.
        let Some(text) = read.ok().and_then(|_| line.strip_suffix(b"\n")) else {
            break;
        };
        let report = std::str::from_utf8(text).ok().and_then(Report::parse);
        let report = report.unwrap_or_else(|| {
            Report::Failed(format!("it says {}", String::from_utf8_lossy(text)))
        });
        if to.blocking_send((number, Some(report))).is_err() {
            return;
        }
    }
    // Nobody is left to be told when the demo breaks off.
    let _ = to.blocking_send((number, None));
}

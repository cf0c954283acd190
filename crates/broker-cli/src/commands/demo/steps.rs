//! The plain demo: two processes and a room, step by step.
//!
//! This process leads the store and sends; a second one, this same binary, follows the room and its
//! output is shown beside. When both have left, a third reads from the disk what they stored.

use std::env;
use std::fs;
use std::io;
use std::path::Path;
use std::process::{self, Child, Command, Stdio};
use std::time::{Duration, Instant};

use bytes::Bytes;
use tokio::sync::mpsc;

use super::broken;
use crate::config::{Chosen, Config, Listen, Target};
use crate::connect::{Link, Stay, unless_stopped};
use crate::escape;
use crate::exit::{Exit, Failure};
use crate::lines::chunks;
use crate::output::{self, Stdout, put};
use crate::scratch::Scratch;
use crate::signals::Stop;

const ROOM: &str = "demo";
const FOLLOWER: &str = "bob";
const MESSAGES: [&str; 3] = [
    "hello",
    "this message is on disk before its sender hears that it is stored",
    "goodbye",
];

/// Runs the command.
pub(super) async fn run(config: &Config, mut stop: Stop) -> Result<(), Failure> {
    let mut config = config.clone();
    let scratch = own_store(&mut config)?;
    let Target::Store(dir) = config.target.clone() else {
        return Err(Failure::usage(
            "the demo runs a broker of its own: leave out --server",
        ));
    };
    let mut stage = Stage {
        out: output::stdout(),
        program: env::current_exe().map_err(|error| broken("find this program", &error))?,
        patience: config.timeout,
    };
    let shown = unless_stopped(&mut stop, stage.show(&config, &dir)).await;
    let fate = if scratch.is_some() {
        "the demo's own, removed now"
    } else {
        "kept"
    };
    let shown = match shown {
        Ok(()) => stage.look(&dir, fate),
        Err(failure) => Err(failure),
    };
    drop(scratch);
    shown?;
    stage.farewell()
}

/// A directory that is removed at the end, unless this command line names one.
fn own_store(config: &mut Config) -> Result<Option<Scratch>, Failure> {
    if config.chosen == Chosen::Flag {
        return Ok(None);
    }
    let scratch = Scratch::new(&env::temp_dir(), "broker-demo")
        .map_err(|error| broken("make a directory for the demo", &error))?;
    config.target = Target::Store(scratch.path().to_owned());
    config.listen = Listen::None;
    Ok(Some(scratch))
}

struct Stage {
    out: Stdout,
    program: std::path::PathBuf,
    patience: Duration,
}

impl Stage {
    async fn show(&mut self, config: &Config, dir: &Path) -> Result<(), Failure> {
        let link = Link::open(config, Stay::OneShot).await?;
        let shown = self.converse(&link, config, dir).await;
        let closed = link.close().await;
        shown.and(closed)?;
        self.read_back(dir).await
    }

    /// Sends, and shows what the follower prints.
    async fn converse(&mut self, link: &Link, config: &Config, dir: &Path) -> Result<(), Failure> {
        let room = link.client().room(ROOM)?;
        let count = MESSAGES.len().to_string();
        let mut follower = self.start(dir, &["read", ROOM, "--follow", "-n", &count])?;
        let pid = follower.child.id();
        self.say(&format!("1. A follower, in a second process (pid {pid}):  broker --as {FOLLOWER} read {ROOM} --follow"))?;
        let pid = process::id();
        self.say(&format!(
            "2. This process (pid {pid}) sends; a send returns when the message is on disk.\n"
        ))?;
        for text in MESSAGES {
            let began = Instant::now();
            let ack = room.send(text).await?;
            let took = began.elapsed().as_secs_f64() * 1e3;
            self.say(&format!("   {} sends   {text}", config.sender))?;
            self.say(&format!(
                "   on disk   as seq {} of room {ROOM}, after {took:.2} ms",
                ack.seq
            ))?;
            let line = follower.line(self.patience).await?;
            self.say(&format!("   follower  {line}\n"))?;
        }
        follower.end()
    }

    /// Nobody serves the store now: whoever reads it next does, from the disk.
    async fn read_back(&mut self, dir: &Path) -> Result<(), Failure> {
        self.say(&format!("3. Both have left, and nobody serves the store. A third process reads it from disk:  broker read {ROOM}\n"))?;
        let mut reader = self.start(dir, &["read", ROOM])?;
        for _ in MESSAGES {
            let line = reader.line(self.patience).await?;
            self.say(&format!("   {line}"))?;
        }
        reader.end()
    }

    /// Shows where the data lies.
    fn look(&mut self, dir: &Path, fate: &str) -> Result<(), Failure> {
        self.say(&format!(
            "\n4. The data lies in {} ({fate}):\n",
            dir.display()
        ))?;
        let entries = fs::read_dir(dir).map_err(|error| broken("look at the store", &error))?;
        let mut files: Vec<_> = entries.filter_map(Result::ok).collect();
        files.sort_by_key(fs::DirEntry::file_name);
        for file in files {
            let bytes = file.metadata().map_or(0, |metadata| metadata.len());
            self.say(&format!(
                "   {bytes:>8} bytes  {}",
                file.file_name().to_string_lossy()
            ))?;
        }
        Ok(())
    }

    fn farewell(&mut self) -> Result<(), Failure> {
        self.say("\nNext:")?;
        self.say("   broker send lobby 'hello'    store a message in a store of your own")?;
        self.say(
            "   broker read lobby --follow   follow the room, in as many terminals as you like",
        )?;
        self.say("   brokerd                      serve it to every program on this machine, at 127.0.0.1:9876")
    }

    /// Prints a line at once: the demo is watched.
    fn say(&mut self, line: &str) -> Result<(), Failure> {
        let buffer = self.out.buffer();
        for (at, part) in line.split('\n').enumerate() {
            if at > 0 {
                buffer.push(b'\n');
            }
            escape::for_terminal(part.as_bytes(), buffer);
        }
        put(buffer, format_args!("\n"));
        Ok(self.out.flush()?)
    }

    /// This program once more, on the same store and as somebody else.
    fn start(&self, dir: &Path, arguments: &[&str]) -> Result<Player, Failure> {
        let mut command = Command::new(&self.program);
        for variable in ["BROKER_URL", "BROKER_DATA", "BROKER_LISTEN", "BROKER_NAME"] {
            command.env_remove(variable);
        }
        command
            .arg("--data")
            .arg(dir)
            .args(["--as", FOLLOWER, "--listen", "none"])
            .args(arguments);
        let mut child = command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .map_err(|error| broken("start a second process", &error))?;
        let stdout = child
            .stdout
            .take()
            .ok_or_else(|| Failure::new(Exit::Protocol, "the second process has no output"))?;
        let chunks = chunks(stdout).map_err(|error| broken("start a thread", &error))?;
        Ok(Player {
            child,
            chunks,
            read: Vec::new(),
        })
    }
}

/// Another process, and what it has printed so far.
struct Player {
    child: Child,
    chunks: mpsc::Receiver<io::Result<Bytes>>,
    read: Vec<u8>,
}

impl Player {
    /// Its next line.
    async fn line(&mut self, patience: Duration) -> Result<String, Failure> {
        loop {
            if let Some(end) = self.read.iter().position(|&byte| byte == b'\n') {
                let line: Vec<u8> = self.read.drain(..=end).collect();
                return Ok(String::from_utf8_lossy(&line)
                    .trim_end()
                    .replace('\t', "  "));
            }
            match tokio::time::timeout(patience, self.chunks.recv()).await {
                Ok(Some(Ok(chunk))) => self.read.extend_from_slice(&chunk),
                Ok(Some(Err(error))) => {
                    return Err(broken("read what the second process prints", &error));
                }
                Ok(None) => {
                    return Err(Failure::new(
                        Exit::Protocol,
                        "the second process ended early",
                    ));
                }
                Err(_) => {
                    return Err(Failure::new(
                        Exit::TimedOut,
                        "the second process printed nothing in time",
                    ));
                }
            }
        }
    }

    /// It has nothing more to do and ends by itself.
    fn end(mut self) -> Result<(), Failure> {
        match self.child.wait() {
            Ok(status) if status.success() => Ok(()),
            Ok(status) => Err(Failure::new(
                Exit::Protocol,
                format!("the second process ended with {status}"),
            )),
            Err(error) => Err(broken("wait for the second process", &error)),
        }
    }
}

impl Drop for Player {
    fn drop(&mut self) {
        // It has ended already, unless the demo broke off.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

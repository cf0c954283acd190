//! [`Server`]: one peer's server while it is measured, on loopback, with data of its own.

mod config;
mod running;

use std::fs::{self, File};
use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

pub(crate) use self::running::{End, Running};
use crate::peer::{Peer, Tool};
use crate::tools::Tools;

/// How long a server may take until it answers.
const START_MAX: Duration = Duration::from_secs(20);
/// How often a server that was started is asked whether it answers.
const START_POLL: Duration = Duration::from_millis(5);
/// The same where the time until it does is measured.
const RESTART_POLL: Duration = Duration::from_micros(200);
/// How often a server is started before it counts as broken: another program may take its port.
const STARTS: usize = 3;

/// A server that runs until it is dropped, and its data until then.
#[derive(Debug)]
pub(crate) struct Server {
    running: Running,
    peer: Peer,
    program: PathBuf,
    dir: PathBuf,
    process: u32,
    address: SocketAddr,
}

impl Server {
    /// Starts a peer's server with an empty directory in `base`, and waits until it answers.
    pub(crate) fn start(peer: Peer, tools: &Tools, base: &Path, running: &Running) -> Result<Self> {
        let program = tools.find(peer.tool()).map_err(anyhow::Error::msg)?;
        let mut last = None;
        for _ in 0..STARTS {
            match Self::start_once(peer, &program, base, running) {
                Ok(server) => return Ok(server),
                Err(error) => last = Some(error),
            }
        }
        Err(last.unwrap_or_else(|| anyhow::anyhow!("nothing was started")))
    }

    fn start_once(peer: Peer, program: &Path, base: &Path, running: &Running) -> Result<Self> {
        let dir = base.join(peer.name());
        fs::create_dir(&dir).with_context(|| format!("cannot make {}", dir.display()))?;
        let address = free_address()?;
        // From here on dropping it stops the server and removes its data.
        let mut server = Self {
            running: running.clone(),
            peer,
            program: program.to_owned(),
            dir,
            process: 0,
            address,
        };
        server.launch(START_POLL)?;
        Ok(server)
    }

    /// Ends it and starts it again with its data at its address; tells when the new process was begun.
    pub(crate) fn restart(&mut self, end: End) -> Result<Instant> {
        self.end(end)?;
        self.begin()
    }

    /// Ends it.
    pub(crate) fn end(&self, end: End) -> Result<()> {
        self.running.end(end)
    }

    /// Starts it after it has ended, with its data at its address; tells when the new process was begun.
    pub(crate) fn begin(&mut self) -> Result<Instant> {
        let began = Instant::now();
        self.launch(RESTART_POLL)?;
        Ok(began)
    }

    /// Starts the process and waits until it answers, looking this often.
    fn launch(&mut self, poll: Duration) -> Result<()> {
        let said = self.dir.join("said.txt");
        let mut command =
            config::command(self.peer, &self.program, &self.dir, self.address.port())?;
        command
            .stdin(Stdio::null())
            .stdout(File::create(&said)?)
            .stderr(File::options().append(true).open(&said)?);
        self.process = self
            .running
            .start(&mut command)
            .with_context(|| format!("cannot start {}", self.program.display()))?;
        self.wait(poll).with_context(|| {
            let said = tail(&said);
            format!("{} does not come up; it said: {said}", self.peer)
        })
    }

    /// Where it listens.
    pub(crate) const fn address(&self) -> SocketAddr {
        self.address
    }

    /// Its process.
    pub(crate) const fn process(&self) -> u32 {
        self.process
    }

    /// Its data.
    pub(crate) fn dir(&self) -> &Path {
        &self.dir
    }

    fn wait(&self, poll: Duration) -> Result<()> {
        let began = Instant::now();
        loop {
            let answers = answers(self.peer.tool(), self.address);
            if matches!(answers, Ok(true)) {
                return Ok(());
            }
            if !self.running.is_alive() {
                bail!("it ended");
            }
            if began.elapsed() > START_MAX {
                answers?;
                bail!("it does not answer");
            }
            thread::sleep(poll);
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.running.stop();
        // What stays is removed with the directory of the whole run.
        let _ = fs::remove_dir_all(&self.dir);
    }
}

/// Whether a server answers in its own language.
fn answers(tool: Tool, address: SocketAddr) -> Result<bool> {
    let mut stream = TcpStream::connect(address)?;
    stream.set_read_timeout(Some(Duration::from_secs(5)))?;
    let mut answer = [0; 5];
    match tool {
        Tool::Redis => {
            stream.write_all(b"PING\r\n")?;
            stream.read_exact(&mut answer)?;
            Ok(&answer == b"+PONG")
        }
        Tool::Nats => {
            stream.read_exact(&mut answer)?;
            Ok(&answer == b"INFO ")
        }
        _ => Ok(true),
    }
}

/// A port that nobody listens on at this moment.
fn free_address() -> Result<SocketAddr> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
    Ok(listener.local_addr()?)
}

/// The end of what a server said.
fn tail(path: &Path) -> String {
    let text = fs::read(path).unwrap_or_default();
    let text = String::from_utf8_lossy(&text);
    let lines: Vec<&str> = text.lines().rev().take(3).collect();
    lines.into_iter().rev().collect::<Vec<_>>().join(" / ")
}

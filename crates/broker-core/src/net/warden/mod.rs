//! The store's second socket, `DIR/health.sock`: whether the leader is well, and who stands by.
//!
//! ```text
//!   leader                                            others
//!   Warden --commands, wake--> thread <--- ask, health --- ask()      anybody with an unanswered request
//!          <--claims, answers-        <--- line ---------- Line       a node that stands by, or a daemon that claims
//! ```
//! One plain thread serves it. It touches neither the disk nor a runtime, writes no log line, and
//! waits for no peer: a peer that does not take what it is sent is closed. So it answers also while
//! everything else in the leader hangs, and only a process that is stopped altogether is silent.
//!
//! A **line** is a connection of a process that could lead next. Nothing goes over it until there is
//! something to say: it ends when the leader does, which costs nobody a wake-up before. A leader that
//! leaves offers its place to one of them and passes the lock and its listeners (`SCM_RIGHTS`).
//!
//! **Invariants:** only the holder of the lock binds the name; it is renamed over the one before and
//! never removed. After an estate is sent, or could not be, this process has it no more. Only
//! processes of the same user get through: the kernel looks at the directory's and the socket's mode.

mod line;
mod offering;
mod peer;
mod rights;
#[cfg(test)]
mod tests;
mod thread;
mod vitals;
mod wire;

use std::fs::{self, Permissions};
use std::io::{self, Write};
use std::os::fd::OwnedFd;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::process;
use std::sync::mpsc;
use std::thread::JoinHandle;

use tokio::sync::{oneshot, watch};

use self::offering::Whom;
use self::thread::{Command, Post};
use crate::dir::{HEALTH_SOCKET_NAME, StoreDir};
use crate::sync::Arc;
#[cfg(test)]
use crate::sync::{AtomicU64, Ordering};

pub(super) use line::{Intent, Line, News, ask};
pub(super) use vitals::Vitals;
pub(super) use wire::{Health, Stage, Writer};

/// Connections that the kernel keeps until they are accepted: all who stood by come at once.
const BACKLOG: i32 = 1024;

/// What passes from a leader to its successor.
#[derive(Debug)]
pub(super) struct Estate {
    /// The lock.
    pub(super) lock: OwnedFd,
    /// The listener of the store's Unix socket.
    pub(super) unix: Option<OwnedFd>,
    /// The listener of the TCP port.
    pub(super) tcp: Option<OwnedFd>,
}

/// A process that has said that it is ready to lead.
#[derive(Debug)]
pub(super) struct Candidate {
    /// Its process.
    pub(super) pid: u32,
    /// Name and version of its program.
    pub(super) build: String,
    /// Its line.
    line: u64,
}

/// The thread behind the socket. Dropping it ends the thread and all lines, in that order and at once.
#[derive(Debug)]
pub(super) struct Warden {
    /// `None` only while it is being dropped.
    commands: Option<mpsc::Sender<Command>>,
    wake: UnixStream,
    #[cfg(test)]
    standing: Arc<AtomicU64>,
    claimed: watch::Receiver<bool>,
    #[cfg(test)]
    turns: Arc<AtomicU64>,
    thread: Option<JoinHandle<()>>,
}

impl Warden {
    /// Binds the socket, taking the name over from the leader before, and serves it. Only for the
    /// holder of the lock.
    ///
    /// # Errors
    /// As the system says.
    pub(super) fn start(dir: &StoreDir, vitals: Arc<Vitals>) -> io::Result<Self> {
        let listener = bind(dir)?;
        let (wake, woken) = UnixStream::pair()?;
        wake.set_nonblocking(true)?;
        woken.set_nonblocking(true)?;
        let (commands, received) = mpsc::channel();
        let (claim, claimed) = watch::channel(false);
        let post = Post::new(listener, woken, received, vitals, claim);
        #[cfg(test)]
        let standing = Arc::clone(&post.standing);
        #[cfg(test)]
        let turns = Arc::clone(&post.turns);
        let thread = std::thread::Builder::new()
            .name("broker-warden".to_owned())
            .spawn(move || post.run())?;
        Ok(Self {
            commands: Some(commands),
            wake,
            #[cfg(test)]
            standing,
            claimed,
            #[cfg(test)]
            turns,
            thread: Some(thread),
        })
    }

    /// Waits until a daemon asks to take over; perhaps for ever. Dropping the future loses nothing, and
    /// while the daemon waits every call returns at once.
    pub(super) async fn claimed(&self) {
        let mut claimed = self.claimed.clone();
        if claimed.wait_for(|claimed| *claimed).await.is_err() {
            std::future::pending::<()>().await;
        }
    }

    /// How many processes hold a line.
    #[cfg(test)]
    pub(super) fn standbys(&self) -> usize {
        usize::try_from(self.standing.load(Ordering::Relaxed)).unwrap_or(usize::MAX)
    }

    /// Finds somebody who is ready to lead a store of this feature level: daemons that claim it first,
    /// then who has stood by the longest. Each has 100 ms to answer, and at most 8 are asked.
    pub(super) async fn offer(&self, feature_level: u32) -> Option<Candidate> {
        self.find(feature_level, Whom::Anybody).await
    }

    /// The same among the daemons that claim it alone.
    pub(super) async fn offer_to_claimants(&self, feature_level: u32) -> Option<Candidate> {
        self.find(feature_level, Whom::Claimants).await
    }

    /// Asks a candidate whether it still is ready, and somebody else if it is not: a process that was
    /// stopped meanwhile would keep what it is passed, and nobody would lead.
    pub(super) async fn offer_again(
        &self,
        feature_level: u32,
        before: Candidate,
    ) -> Option<Candidate> {
        self.find(feature_level, Whom::FirstOfAll(before.line))
            .await
    }

    async fn find(&self, feature_level: u32, whom: Whom) -> Option<Candidate> {
        let (reply, answer) = oneshot::channel();
        self.command(Command::Offer {
            feature_level,
            whom,
            reply,
        });
        answer.await.ok().flatten()
    }

    /// Gives the estate to a candidate and ends its line. Whatever happens, also when this future is
    /// dropped, the estate is closed in this process.
    ///
    /// # Errors
    /// The candidate is gone, and with it what was passed: the lock is free.
    pub(super) async fn pass(&self, to: Candidate, estate: Estate) -> io::Result<()> {
        let (reply, answer) = oneshot::channel();
        self.command(Command::Pass {
            line: to.line,
            estate,
            reply,
        });
        answer
            .await
            .unwrap_or_else(|_| Err(io::ErrorKind::BrokenPipe.into()))
    }

    /// Hands a command to the thread. Should that be gone, the command is dropped with all it holds.
    fn command(&self, command: Command) {
        if let Some(commands) = &self.commands
            && commands.send(command).is_ok()
        {
            // A full pipe is as good as a wake-up.
            let _full = (&self.wake).write(&[1]);
        }
    }

    /// How often the thread has woken up.
    #[cfg(test)]
    fn turns(&self) -> u64 {
        self.turns.load(Ordering::Relaxed)
    }
}

impl Drop for Warden {
    fn drop(&mut self) {
        self.commands = None;
        let _full = (&self.wake).write(&[1]);
        if let Some(thread) = self.thread.take() {
            // It waits for nobody, so this does not take long. A panic has been told already.
            let _panicked = thread.join();
        }
    }
}

/// Listens under the socket's name: bound to a temporary name and renamed over, so that at no moment
/// nobody has the name.
fn bind(dir: &StoreDir) -> io::Result<UnixListener> {
    let temporary = dir.bindable(&format!(".{HEALTH_SOCKET_NAME}.{}", process::id()));
    // Left over from a process with the same id that was killed between the two steps.
    match fs::remove_file(&temporary) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let listener = UnixListener::bind(&temporary)?;
    fs::set_permissions(&temporary, Permissions::from_mode(0o600))?;
    listener.set_nonblocking(true)?;
    rustix::net::listen(&listener, BACKLOG)?;
    fs::rename(&temporary, dir.health_socket_path())?;
    Ok(listener)
}

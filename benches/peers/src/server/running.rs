//! [`Running`]: the one server that runs at a time, known to whoever has to end it.
//!
//! **Invariant:** only a child of this process is ever killed: it is held until it was waited for, so its number cannot have
//! gone to another process.

use std::fs;
use std::os::unix::process::ExitStatusExt;
use std::path::PathBuf;
use std::process::{self, Child, Command, ExitStatus};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};
use std::{io, thread};

use anyhow::{Context, Result, bail};
use rustix::process::{Pid, Signal, kill_process};
use tokio::signal::unix::{SignalKind, signal};

/// How long a server may take to end in order.
const END_MAX: Duration = Duration::from_secs(30);

/// How a server is ended that is to come back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum End {
    /// Asked to: it ends in order.
    Term,
    /// Killed, with whatever it was doing.
    Kill,
}

/// The server that runs, if one does. Clones share it.
#[derive(Debug, Clone, Default)]
pub(crate) struct Running(Arc<Mutex<Option<Child>>>);

impl Running {
    fn child(&self) -> MutexGuard<'_, Option<Child>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Starts a server in place of the one before, and tells its process.
    pub(super) fn start(&self, command: &mut Command) -> io::Result<u32> {
        let mut child = self.child();
        end(&mut child);
        let started = command.spawn()?;
        let process = started.id();
        *child = Some(started);
        Ok(process)
    }

    /// Whether it still runs.
    pub(super) fn is_alive(&self) -> bool {
        let mut child = self.child();
        let ended = child.as_mut().map(Child::try_wait);
        matches!(ended, Some(Ok(None)))
    }

    /// Ends it as told, and waits until it has: an error when it does not end in order.
    pub(super) fn end(&self, how: End) -> Result<()> {
        let mut child = self.child();
        let Some(running) = child.as_mut() else {
            bail!("no server runs");
        };
        let pid = Pid::from_child(running);
        let (signal, is_right): (_, fn(ExitStatus) -> bool) = match how {
            End::Term => (Signal::TERM, |status| status.success()),
            End::Kill => (Signal::KILL, |status| {
                status.signal() == Some(Signal::KILL.as_raw())
            }),
        };
        kill_process(pid, signal).context("cannot send a signal to the server")?;
        let began = Instant::now();
        let status = loop {
            if let Some(status) = running.try_wait()? {
                break status;
            }
            if began.elapsed() > END_MAX {
                bail!("the server does not end within {} s", END_MAX.as_secs());
            }
            thread::sleep(Duration::from_millis(1));
        };
        *child = None;
        if !is_right(status) {
            bail!("the server ended with {status}");
        }
        Ok(())
    }

    /// Kills it: nobody needs its data any more.
    pub(super) fn stop(&self) {
        end(&mut self.child());
    }

    /// Has SIGINT and SIGTERM end the server and this process, and remove `dir`.
    pub(crate) fn end_on_signals(&self, dir: PathBuf) -> Result<()> {
        let running = self.clone();
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()?;
        let (mut interrupt, mut terminate) = {
            let _inside = runtime.enter();
            (
                signal(SignalKind::interrupt()).context("cannot handle SIGINT")?,
                signal(SignalKind::terminate()).context("cannot handle SIGTERM")?,
            )
        };
        thread::Builder::new()
            .name("signals".to_owned())
            .spawn(move || {
                let code = runtime.block_on(async {
                    tokio::select! {
                        _ = interrupt.recv() => 130,
                        _ = terminate.recv() => 143,
                    }
                });
                // Held to the end, so that no other server is started.
                let mut child = running.child();
                end(&mut child);
                let _ = fs::remove_dir_all(&dir);
                process::exit(code)
            })?;
        Ok(())
    }
}

fn end(child: &mut Option<Child>) {
    if let Some(mut child) = child.take() {
        // It may have ended by itself; then there is nothing to kill, and waiting tells nothing new.
        let _ = child.kill();
        let _ = child.wait();
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test may panic")]

    use super::*;

    #[test]
    fn a_server_is_ended_as_told() {
        let running = Running::default();
        assert!(running.end(End::Kill).is_err(), "there is none");
        running.start(Command::new("sleep").arg("600")).unwrap();
        running.end(End::Kill).unwrap();
        running.start(Command::new("sleep").arg("600")).unwrap();
        let words = running.end(End::Term).unwrap_err().to_string();
        assert!(
            words.contains("signal"),
            "sleep does not end in order: {words}"
        );
        assert!(!running.is_alive());
    }

    #[test]
    fn a_server_ends_when_it_is_stopped_or_replaced() {
        let running = Running::default();
        assert!(!running.is_alive());
        let first = running.start(Command::new("sleep").arg("600")).unwrap();
        assert!(running.is_alive());
        let second = running.start(Command::new("sleep").arg("600")).unwrap();
        assert!(running.is_alive() && first != second);
        assert!(!PathBuf::from(format!("/proc/{first}")).exists());
        running.stop();
        assert!(!running.is_alive());
        assert!(!PathBuf::from(format!("/proc/{second}")).exists());
    }
}

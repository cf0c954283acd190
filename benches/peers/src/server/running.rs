//! [`Running`]: the one server that runs at a time, known to whoever has to end it.
//!
//! **Invariant:** only a child of this process is ever killed: it is held until it was waited for, so its number cannot have
//! gone to another process.

use std::fs;
use std::path::PathBuf;
use std::process::{self, Child, Command};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::{io, thread};

use anyhow::{Context, Result};
use tokio::signal::unix::{SignalKind, signal};

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

//! SIGINT and SIGTERM: the first asks the command to end in order, the second ends it at once.
//!
//! In order means: what was accepted is waited for, output is written, a store that this process
//! leads is closed cleanly. That takes as long as it takes, but not longer than a grace period,
//! because a command can be stuck writing to a pipe that nobody reads.

use std::io;
use std::process;
use std::time::Duration;

use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::watch;

use crate::exit::Exit;

/// Tells the parts of a command that it shall end. Clones hear the same signal.
#[derive(Debug, Clone)]
pub(crate) struct Stop(watch::Receiver<Option<Exit>>);

impl Stop {
    /// Takes the signals over. After the first one, the process ends within `grace`.
    pub(crate) fn listen(grace: Duration) -> io::Result<Self> {
        let signals = Signals {
            interrupt: signal(SignalKind::interrupt())?,
            terminate: signal(SignalKind::terminate())?,
        };
        let (told, stop) = watch::channel(None);
        tokio::spawn(signals.watch(told, grace));
        Ok(Self(stop))
    }

    /// Waits for the first signal and says what the process shall end with. Can be dropped and
    /// called again.
    pub(crate) async fn requested(&mut self) -> Exit {
        match self.0.wait_for(Option::is_some).await.map(|exit| *exit) {
            Ok(Some(exit)) => exit,
            // The watching task lives as long as the runtime.
            _ => std::future::pending().await,
        }
    }
}

struct Signals {
    interrupt: Signal,
    terminate: Signal,
}

impl Signals {
    async fn watch(mut self, told: watch::Sender<Option<Exit>>, grace: Duration) {
        let first = self.next().await;
        told.send_replace(Some(first));
        let last = tokio::select! {
            second = self.next() => second,
            () = tokio::time::sleep(grace) => first,
        };
        process::exit(last.number().into());
    }

    async fn next(&mut self) -> Exit {
        tokio::select! {
            _ = self.interrupt.recv() => Exit::Interrupted,
            _ = self.terminate.recv() => Exit::Terminated,
        }
    }
}

//! SIGINT and SIGTERM: the first asks the command to end in order, the second ends it at once.
//!
//! In order means: what was accepted is waited for, output is written, a store that this process
//! leads is closed cleanly. That takes as long as it takes, but not longer than a grace period,
//! because a command can be stuck writing to a pipe that nobody reads.
//!
//! SIGTSTP, Ctrl-Z on a terminal: a process that is stopped answers nobody, so one that leads a store
//! hands it over first.

use std::io;
use std::process;
use std::time::Duration;

use broker_core::NodeControl;
use rustix::process::{Signal as Number, getpid, kill_process};
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

/// Longest that a hand-over may keep a person waiting who pressed Ctrl-Z.
const SUSPEND_WITHIN: Duration = Duration::from_secs(2);

/// Signals that were sent before this process went on are told within so long a time.
const TOLD_WITHIN: Duration = Duration::from_millis(10);

/// Hands the store over, then stops the process, each time that it is asked to. Ends with the node.
///
/// As the kernel does with a process that leaves this to it: one that was continued meanwhile is not
/// stopped, and asking twice stops it once.
pub(crate) async fn suspend(node: NodeControl) {
    let asked = signal(SignalKind::from_raw(Number::TSTP.as_raw()));
    let continued = signal(SignalKind::from_raw(Number::CONT.as_raw()));
    let (Ok(mut asked), Ok(mut continued)) = (asked, continued) else {
        return;
    };
    while asked.recv().await.is_some() {
        let _before = take(&mut continued, Duration::ZERO).await;
        match tokio::time::timeout(SUSPEND_WITHIN, node.pause()).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => tracing::warn!(%error, "could not hand over in order"),
            Err(_) => tracing::warn!("could not hand over in time"),
        }
        if !take(&mut continued, Duration::ZERO).await {
            // Returns when the process is continued.
            if let Err(error) = kill_process(getpid(), Number::STOP) {
                tracing::warn!(%error, "cannot stop");
            }
        }
        let _before = take(&mut asked, TOLD_WITHIN).await;
        if node.resume().await.is_err() {
            return;
        }
    }
}

/// Whether a signal has come, or comes within a time.
async fn take(signal: &mut Signal, within: Duration) -> bool {
    tokio::time::timeout(within, signal.recv()).await.is_ok()
}

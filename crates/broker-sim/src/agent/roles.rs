//! Who leads, as this process sees it: written down before the acks that come from there.

use std::io;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use broker_core::State;
use tokio::sync::watch::Receiver;

use super::{Phase, Stage, describe, say};
use crate::history::{Event, Recorder};

/// Watches who leads.
#[derive(Debug)]
pub(super) struct Roles {
    recorder: Arc<Recorder>,
    state: Receiver<State>,
    seen: Mutex<Seen>,
}

#[derive(Debug, Default)]
struct Seen {
    term: u64,
    pid: u32,
    /// The last term in which an ack came.
    acked: u64,
}

impl Roles {
    pub(super) fn new(recorder: Arc<Recorder>, state: Receiver<State>) -> Self {
        Self {
            recorder,
            state,
            seen: Mutex::default(),
        }
    }

    /// Writes down who leads now, if that is news.
    pub(super) fn note(&self) -> io::Result<()> {
        let (leads, term, pid, gap) = {
            let state = self.state.borrow();
            let Some(server) = state.server() else {
                return Ok(());
            };
            let gap = match &*state {
                State::Resumed { gap, .. } => *gap,
                State::Leading { gap, .. } => gap.unwrap_or_default(),
                _ => Duration::ZERO,
            };
            (state.is_leading(), server.term.get(), server.pid, gap)
        };
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        if (seen.term, seen.pid) == (term, pid) {
            return Ok(());
        }
        (seen.term, seen.pid) = (term, pid);
        self.recorder.record(&Event::Role {
            leads,
            term,
            pid,
            gap: u64::try_from(gap.as_nanos()).unwrap_or(u64::MAX),
        })?;
        say(&if leads {
            format!("leading term {term}")
        } else {
            format!("following term {term}")
        });
        Ok(())
    }

    /// An ack came.
    pub(super) fn note_ack(&self) -> io::Result<()> {
        self.note()?;
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        if seen.acked != seen.term {
            seen.acked = seen.term;
            say(&format!("acks term {}", seen.term));
        }
        Ok(())
    }
}

/// Notes every change, also while there are no acks. Fails when the client gave up.
pub(super) async fn watch(stage: Arc<Stage>) -> io::Result<()> {
    let mut state = stage.roles.state.clone();
    loop {
        stage.roles.note()?;
        if let State::Closed { cause: Some(cause) } = &*state.borrow_and_update() {
            // Nothing goes any more, which its owner shall hear at once.
            return Err(io::Error::other(describe(cause)));
        }
        tokio::select! {
            changed = state.changed() => if changed.is_err() { return Ok(()) },
            () = stage.reached(Phase::Leaving) => return Ok(()),
        }
    }
}

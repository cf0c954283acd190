//! [`Vitals`]: what a leader lets its warden tell.

use std::process;
use std::time::Duration;

use broker_proto::Term;

use super::wire::{Health, Stage, Writer};
use crate::clock::{Clock, SystemClock};
use crate::dir::role;
use crate::store::{Beat, Pulse};
use crate::sync::{Arc, AtomicU64, Mutex, Ordering, lock};

/// What the warden may tell. The leader sets it, the warden reads it, and neither waits for the
/// other: the one mutex is held for a few assignments.
#[derive(Debug)]
pub(in crate::net) struct Vitals {
    role: u8,
    build: String,
    clock: SystemClock,
    term: AtomicU64,
    progress: Mutex<Progress>,
}

#[derive(Debug)]
struct Progress {
    stage: Stage,
    /// Since when, on the clock.
    since: Duration,
    /// The writer's, when the store is open.
    pulse: Option<Arc<Pulse>>,
}

impl Vitals {
    /// Of a leader that is starting; `role` as in [`crate::dir::role`].
    pub(in crate::net) fn new(role: u8, build: &str) -> Arc<Self> {
        Arc::new(Self {
            role,
            build: build.to_owned(),
            clock: SystemClock::new(),
            term: AtomicU64::new(0),
            progress: Mutex::new(Progress {
                stage: Stage::Starting,
                since: Duration::ZERO,
                pulse: None,
            }),
        })
    }

    /// How far the leader is.
    pub(in crate::net) fn set_stage(&self, stage: Stage) {
        let now = self.clock.monotonic();
        let mut progress = lock(&self.progress);
        if progress.stage != stage {
            progress.stage = stage;
            progress.since = now;
        }
    }

    /// Its term.
    pub(in crate::net) fn set_term(&self, term: Term) {
        self.term.store(term.get(), Ordering::Relaxed);
    }

    /// Of the store that it has opened.
    pub(in crate::net) fn set_pulse(&self, pulse: Arc<Pulse>) {
        lock(&self.progress).pulse = Some(pulse);
    }

    /// Why a daemon that claims the leadership does not get it, if so. One that is leaving anyway
    /// refuses nobody: who stops one daemon and starts the next need not wait in between.
    pub(super) fn refusal(&self) -> Option<String> {
        let leaves = matches!(lock(&self.progress).stage, Stage::Draining | Stage::Left);
        (self.role == role::SERVE_ALWAYS && !leaves)
            .then(|| format!("a daemon leads: pid {} ({})", process::id(), self.build))
    }

    /// How the leader is now.
    pub(super) fn health(&self) -> Health {
        let now = self.clock.monotonic();
        let progress = lock(&self.progress);
        Health {
            pid: process::id(),
            term: Term::new(self.term.load(Ordering::Relaxed)),
            stage: progress.stage,
            stage_for: now.saturating_sub(progress.since),
            writer: match progress.pulse.as_ref().map(|pulse| pulse.read()) {
                None | Some(Beat::Idle) => Writer::Idle,
                Some(Beat::InCall { lasting }) => Writer::InCall { lasting },
                Some(Beat::ReadOnly) => Writer::ReadOnly,
            },
            build: self.build.clone(),
        }
    }
}

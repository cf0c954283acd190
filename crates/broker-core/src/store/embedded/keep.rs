//! Who keeps the store within its bounds: what is not to be kept any more is trimmed, and its space is given back.
//!
//! A thread of its own, because it reads the disk and writes segments anew. It changes nothing by itself: trims are worked out
//! here and go through the writer's queue like everything else, so a reader sees them when they are durable. Only files that
//! hold nothing that anybody can ask for are deleted (see [`Reclaimer`]).

use std::collections::{HashMap, VecDeque};
use std::io;
use std::time::Duration;

use broker_proto::{RoomId, StoreSettings};

use super::super::rooms::Versioned;
use super::super::{Fullness, Notice, StoreError};
use super::inbox::{Request, TrimAsked};
use super::retention::{Retaining, TRIMS_MAX, rooms_near_limit};
use super::shared::Shared;
use super::space::segment_bytes_max;
use crate::clock::Clock;
use crate::log::Chance;
use crate::log::reclaim::{Left, Reclaimer};
use crate::log::storage::Storage;
use crate::sync::{Arc, Condvar, Mutex, lock, read, wait_for};

/// How often it is looked whether something is to go, while something is set.
pub(super) const LOOK_EVERY: Duration = Duration::from_secs(1);
/// Segments that are looked at again in that time for what was trimmed.
const LOOKS_AGAIN: u32 = 64;
/// After a start the disk is left to those who begin to work, unless something is asked for.
const REST_AT_START: Duration = Duration::from_millis(500);
/// Bytes of segments in which nothing is wanted that are worth a checkpoint out of turn, so that they can go.
const WAITING_BYTES_MIN: u64 = 8 << 20;
/// And so many times the size of the last checkpoint.
const WAITING_CHECKPOINTS: u64 = 8;
/// Near its limit a store does not wait for more than this part of it.
const WAITING_SHARE: u64 = 32;

/// What the keeper is told.
#[derive(Debug, Default)]
pub(super) struct Keep {
    told: Mutex<Told>,
    wake: Condvar,
}

#[derive(Debug, Default)]
struct Told {
    asked: VecDeque<TrimAsked>,
    settings: Versioned<StoreSettings>,
    /// What is set has changed.
    changed: bool,
    /// Rooms have lost messages, or went themselves.
    trimmed: bool,
    /// What was worked out did not happen.
    missed: bool,
    /// Rooms that had no place for so many bytes.
    short: HashMap<RoomId, u64>,
    nudged: bool,
    stopped: bool,
}

impl Told {
    fn is_something(&self) -> bool {
        let is_asked = !self.asked.is_empty() || !self.short.is_empty();
        self.stopped || self.changed || self.trimmed || self.nudged || is_asked
    }
}

impl Keep {
    /// Starts with what is set.
    pub(super) fn new(settings: Versioned<StoreSettings>) -> Self {
        Self {
            told: Mutex::new(Told {
                settings,
                changed: true,
                ..Told::default()
            }),
            wake: Condvar::new(),
        }
    }

    /// Somebody wants a room to be trimmed.
    pub(super) fn ask(&self, asked: TrimAsked) {
        let mut told = lock(&self.told);
        if told.stopped {
            drop(told);
            return asked.refuse(StoreError::Closed);
        }
        told.asked.push_back(asked);
        self.wake.notify_all();
    }

    /// Something was trimmed or removed.
    pub(super) fn note_trimmed(&self) {
        lock(&self.told).trimmed = true;
        self.wake.notify_all();
    }

    /// What was worked out did not happen: all has to be looked at again.
    pub(super) fn note_missed(&self) {
        // The next look is soon enough: a full disk would be asked again and again.
        lock(&self.told).missed = true;
    }

    /// Something was set.
    pub(super) fn note_settings(&self, settings: Versioned<StoreSettings>) {
        let mut told = lock(&self.told);
        told.settings = settings;
        told.changed = true;
        self.wake.notify_all();
    }

    /// These rooms had no place for so many bytes, and may lose messages for them.
    pub(super) fn note_short(&self, short: impl Iterator<Item = (RoomId, u64)>) {
        lock(&self.told).short.extend(short);
        self.wake.notify_all();
    }

    /// There may be something to do.
    pub(super) fn nudge(&self) {
        lock(&self.told).nudged = true;
        self.wake.notify_all();
    }

    pub(super) fn stop(&self) {
        let asked = {
            let mut told = lock(&self.told);
            told.stopped = true;
            std::mem::take(&mut told.asked)
        };
        self.wake.notify_all();
        for asked in asked {
            asked.refuse(StoreError::Closed);
        }
    }

    fn is_stopped(&self) -> bool {
        lock(&self.told).stopped
    }

    /// Waits for something to do; says whether to stop.
    fn wait(&self, limit: Option<Duration>) -> bool {
        let mut told = lock(&self.told);
        while !told.is_something() {
            // Without anything set it sleeps until it is woken.
            let (guard, is_over) = wait_for(&self.wake, told, limit.unwrap_or(Duration::MAX));
            told = guard;
            if is_over && limit.is_some() {
                break;
            }
        }
        told.stopped
    }

    /// Leaves the first moments to others, unless it is needed.
    fn rest_at_start(&self, clock: &dyn Clock) {
        let until = clock.monotonic().saturating_add(REST_AT_START);
        let mut told = lock(&self.told);
        // Whoever is refused is told whether space is being made.
        let is_limited = told.settings.settings.bytes_max.is_some();
        while !(told.stopped || told.trimmed || is_limited)
            && told.asked.is_empty()
            && told.short.is_empty()
        {
            let left = until.saturating_sub(clock.monotonic());
            let (guard, is_over) = wait_for(&self.wake, told, left);
            told = guard;
            if is_over || left.is_zero() {
                break;
            }
        }
    }

    /// What is set of the store.
    pub(super) fn settings(&self) -> Versioned<StoreSettings> {
        lock(&self.told).settings.clone()
    }

    /// What there is to do.
    fn take(&self) -> Told {
        let mut told = lock(&self.told);
        Told {
            asked: std::mem::take(&mut told.asked),
            settings: told.settings.clone(),
            changed: std::mem::take(&mut told.changed),
            trimmed: std::mem::take(&mut told.trimmed),
            missed: std::mem::take(&mut told.missed),
            short: std::mem::take(&mut told.short),
            nudged: std::mem::take(&mut told.nudged),
            stopped: told.stopped,
        }
    }
}

/// See the module's documentation.
pub(super) struct Keeper<S: Storage> {
    shared: Arc<Shared<S>>,
    clock: Arc<dyn Clock>,
    markers: Chance,
    reclaimer: Reclaimer,
    segment_bytes_max: u64,
    retaining: Retaining,
    looked: Option<Duration>,
    /// When looks at segments were allowed last.
    allowed: Option<Duration>,
    /// There was more to trim than goes into one batch.
    cut_short: bool,
    /// How near the store was to its limit.
    fullness: Fullness,
    /// How many checkpoints there had been when one was asked for last.
    asked_after: Option<u64>,
    /// What the last look says of space that is wanted: something is removed, or would be if the store were full.
    removes: bool,
    /// What was worked out is not trimmed yet.
    trims: bool,
    /// Space waits for a checkpoint that was asked for.
    awaits: bool,
}

/// When there is more to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Next {
    Now,
    After(Duration),
    WhenAsked,
}

impl<S: Storage> Keeper<S> {
    pub(super) fn new(
        shared: Arc<Shared<S>>,
        clock: Arc<dyn Clock>,
        markers: Chance,
        segment_bytes_max: u64,
    ) -> Self {
        Self {
            shared,
            clock,
            markers,
            reclaimer: Reclaimer::new(segment_bytes_max),
            segment_bytes_max,
            retaining: Retaining::default(),
            looked: None,
            allowed: None,
            cut_short: false,
            fullness: Fullness::Fine,
            asked_after: None,
            removes: false,
            trims: false,
            awaits: false,
        }
    }

    /// Works until it is told to stop.
    pub(super) fn run(mut self) {
        // Also when it ends by a panic, nobody waits for an answer that never comes.
        let _stops = Stops(Arc::clone(&self.shared));
        self.shared.keep.rest_at_start(&*self.clock);
        let mut next = Next::Now;
        loop {
            let limit = match next {
                Next::Now => Some(Duration::ZERO),
                Next::After(pause) => Some(pause),
                Next::WhenAsked => None,
            };
            if self.shared.keep.wait(limit) {
                return;
            }
            let shared = Arc::clone(&self.shared);
            let clock = Arc::clone(&self.clock);
            let mut pace = Pace::new(&*clock);
            next = self.step(&mut || (!shared.keep.is_stopped()).then(|| pace.next_piece()));
        }
    }

    /// Does by hand what the thread does; says whether there is more to do at once.
    pub(super) fn step_by_hand(&mut self) -> bool {
        self.step(&mut || Some(1 << 20)) == Next::Now
    }

    fn step(&mut self, pace: &mut dyn FnMut() -> Option<u64>) -> Next {
        let Told {
            asked,
            settings,
            changed,
            trimmed,
            missed,
            short,
            ..
        } = self.shared.keep.take();
        for asked in asked {
            self.work_out(asked);
        }
        if changed || missed {
            self.retaining.note_changed();
        }
        if trimmed || missed {
            self.trims = false;
        }
        if missed {
            // Among it may be the checkpoint.
            self.asked_after = None;
        }
        if trimmed {
            self.reclaimer.note_trimmed();
        }
        let goes_on = trimmed && std::mem::take(&mut self.cut_short);
        let looks_now = changed || goes_on || !short.is_empty();
        self.retaining.note_short(short);
        let keeps_looking = self.retain(&settings.settings, looks_now);
        let reclaims = self.reclaim(&settings.settings, pace);
        let frees = self.awaits || reclaims != Next::WhenAsked;
        self.shared.space.note_follows(self.removes || frees);
        if !self.trims && !frees {
            self.retaining.note_rest();
        }
        match (keeps_looking, reclaims) {
            (Next::Now, _) | (_, Next::Now) => Next::Now,
            (Next::WhenAsked, next) | (next, Next::WhenAsked) => next,
            (Next::After(one), Next::After(other)) => Next::After(one.min(other)),
        }
    }

    /// Finds out how much goes when a room is trimmed, and has the writer do it.
    fn work_out(&mut self, asked: TrimAsked) {
        match self.retaining.work_out(&self.shared, &asked.trim) {
            Ok(trim) => {
                let trims = trim.into_iter().collect();
                let again = asked.clone();
                let asked = Some(asked);
                if !self.shared.inbox.push(Request::Trim { trims, asked }) {
                    again.refuse(StoreError::Closed);
                }
            }
            Err(error) => asked.refuse(error),
        }
    }

    /// Has the writer trim what is not to be kept.
    fn retain(&mut self, settings: &StoreSettings, looks_now: bool) -> Next {
        let now = self.clock.monotonic();
        if looks_now || is_over(now, self.looked) {
            self.looked = Some(now);
            self.warn(settings);
            let near = rooms_near_limit(&self.shared, settings);
            self.shared.space.note_near_limit(near);
            let wall = self.clock.now();
            // From there on it is seen whether there is anything to remove.
            let is_full = self.fullness >= Fullness::Trimming;
            let is_limited = settings.bytes_max.is_some();
            self.removes = is_limited && !is_full && Retaining::may_free(&self.shared, settings);
            match self.retaining.plan(&self.shared, settings, wall) {
                Ok(trims) if trims.is_empty() => {}
                Ok(trims) => {
                    self.removes = true;
                    self.trims = true;
                    self.cut_short = trims.len() >= TRIMS_MAX;
                    let asked = None;
                    self.shared.inbox.push(Request::Trim { trims, asked });
                }
                // A segment was replaced on the way.
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => tracing::warn!(%error, "cannot see what is to be kept of the log"),
            }
        }
        if self.retaining.looks_on(&self.shared, settings) {
            Next::After(LOOK_EVERY)
        } else {
            Next::WhenAsked
        }
    }

    /// Tells whoever reads the log of the process that the store comes near its limit.
    fn warn(&mut self, settings: &StoreSettings) {
        let bytes = self.shared.log_bytes();
        let fullness = Fullness::of(bytes, settings.bytes_max);
        if fullness > std::mem::replace(&mut self.fullness, fullness) {
            let max = settings.bytes_max.unwrap_or(u64::MAX);
            tracing::warn!(
                bytes,
                max,
                state = fullness.name(),
                "the store comes near its limit: from 95 % on the oldest messages go of rooms that allow it, at 100 % publishes are refused"
            );
        }
    }

    /// Gives space back, at most one thing at a time.
    fn reclaim(&mut self, settings: &StoreSettings, pace: &mut dyn FnMut() -> Option<u64>) -> Next {
        let shared = Arc::clone(&self.shared);
        let live = |room| read(&shared.rooms).get(room).map(|slot| slot.first);
        let covered = shared.space.covered();
        let now = self.clock.monotonic();
        if is_over(now, self.allowed) {
            self.allowed = Some(now);
            self.reclaimer.allow_looks(LOOKS_AGAIN);
        }
        self.reclaimer
            .limit_segments(segment_bytes_max(self.segment_bytes_max, settings));
        let left = self
            .reclaimer
            .step(&shared.segments, covered, &live, &mut self.markers, pace);
        shared.space.note_reclaimed(self.reclaimer.done());
        self.awaits = false;
        match left {
            Ok(Left::MoreToDo) => Next::Now,
            Ok(Left::Idle) => {
                shared.space.note_waiting(0);
                Next::WhenAsked
            }
            Ok(Left::Waits { bytes }) => {
                shared.space.note_waiting(bytes);
                self.ask_for_checkpoint(settings, bytes);
                Next::WhenAsked
            }
            Ok(Left::Later { bytes }) => {
                shared.space.note_waiting(bytes);
                self.ask_for_checkpoint(settings, bytes);
                Next::After(LOOK_EVERY)
            }
            Err(error) => {
                if !shared.keep.is_stopped() {
                    tracing::warn!(%error, "cannot give space back; it is tried again later");
                }
                Next::After(LOOK_EVERY * 10)
            }
        }
    }

    /// Space that only waits for the log to be covered by checkpoints is worth one, if it is much.
    fn ask_for_checkpoint(&mut self, settings: &StoreSettings, bytes: u64) {
        let shared = &self.shared;
        let is_full = Fullness::of(shared.log_bytes(), settings.bytes_max) >= Fullness::Trimming;
        let near_limit = settings.bytes_max.filter(|_| is_full);
        let enough = near_limit.map_or(WAITING_BYTES_MIN, |max| {
            WAITING_BYTES_MIN.min(max / WAITING_SHARE)
        });
        // Two checkpoints, which soon wait for their own space, must never be worth the next one.
        let (checkpoints, size) = shared.space.checkpoints();
        let enough = enough.max(size.saturating_mul(WAITING_CHECKPOINTS));
        self.awaits = bytes >= enough;
        if self.awaits && self.asked_after != Some(checkpoints) {
            self.asked_after = Some(checkpoints);
            shared.inbox.push(Request::Checkpoint);
        }
    }
}

/// Whether it is time again for what was done then.
fn is_over(now: Duration, then: Option<Duration>) -> bool {
    then.is_none_or(|then| now.saturating_sub(then) >= LOOK_EVERY)
}

/// Nothing more is asked of a keeper that has ended.
struct Stops<S: Storage>(Arc<Shared<S>>);

impl<S: Storage> Drop for Stops<S> {
    fn drop(&mut self) {
        self.0.keep.stop();
    }
}

impl TrimAsked {
    fn refuse(self, error: StoreError) {
        let result = Err(error);
        self.to.post(Notice::Answer {
            tag: self.tag,
            result,
        });
    }
}

/// What is written anew is written in pieces of this size.
const PIECE_BYTES: u64 = 256 << 10;
/// Between two pieces the disk is left to the log for so many times what a piece took.
const PAUSE_TIMES: u32 = 2;
/// And for so long at most: closing waits for it.
const PAUSE_MAX: Duration = Duration::from_millis(20);

/// The pace at which segments are written anew.
struct Pace<'a> {
    clock: &'a dyn Clock,
    began: Option<Duration>,
}

impl<'a> Pace<'a> {
    fn new(clock: &'a dyn Clock) -> Self {
        Self { clock, began: None }
    }

    fn next_piece(&mut self) -> u64 {
        if let Some(began) = self.began {
            let took = self.clock.monotonic().saturating_sub(began);
            crate::sync::thread::sleep(took.saturating_mul(PAUSE_TIMES).min(PAUSE_MAX));
        }
        self.began = Some(self.clock.monotonic());
        PIECE_BYTES
    }
}

//! Cursors: an acknowledged move stays until the next one.
//!
//! Each cursor is moved by one agent at a time, one move after the other. A move that was begun and not answered, because
//! its process was killed, may have happened or not.

use std::collections::BTreeMap;

use super::{Kind, Verdict};
use crate::history::event::Place;

/// By room and name.
type Name = (String, String);

#[derive(Debug, Clone, Copy)]
enum Step {
    Moving(Place),
    Moved(Place),
    Read(Option<Place>),
}

/// All cursors of a run.
#[derive(Debug)]
pub(super) struct Cursors {
    steps: BTreeMap<Name, Vec<(u64, Step)>>,
}

impl Cursors {
    pub(super) fn new(end: BTreeMap<Name, Option<Place>>) -> Self {
        let steps = end
            .into_iter()
            .map(|(name, at)| (name, vec![(u64::MAX, Step::Read(at))]))
            .collect();
        Self { steps }
    }

    fn push(&mut self, time: u64, room: &str, cursor: &str, step: Step) {
        let name = (room.to_owned(), cursor.to_owned());
        self.steps.entry(name).or_default().push((time, step));
    }

    pub(super) fn moving(&mut self, time: u64, room: &str, cursor: &str, to: Place) {
        self.push(time, room, cursor, Step::Moving(to));
    }

    pub(super) fn moved(&mut self, time: u64, room: &str, cursor: &str, to: Place) {
        self.push(time, room, cursor, Step::Moved(to));
    }

    pub(super) fn read(&mut self, time: u64, room: &str, cursor: &str, at: Option<Place>) {
        self.push(time, room, cursor, Step::Read(at));
    }

    pub(super) fn finish(&mut self, verdict: &mut Verdict) {
        for ((room, cursor), steps) in &mut self.steps {
            steps.sort_by_key(|(time, _)| *time);
            let mut certain = None;
            // Begun after the certain one, and perhaps made.
            let mut pending: Vec<Place> = Vec::new();
            for (_, step) in steps {
                match *step {
                    Step::Moving(to) => pending.push(to),
                    Step::Moved(to) => {
                        certain = Some(to);
                        pending.clear();
                    }
                    Step::Read(at) => {
                        if at != certain && !at.is_some_and(|at| pending.contains(&at)) {
                            let text = || {
                                format!(
                                    "cursor {cursor} of {room} is at {at:?}, it was put to {certain:?} and may be at {pending:?}"
                                )
                            };
                            verdict.violation(Kind::Cursor, text);
                        }
                    }
                }
            }
        }
    }
}

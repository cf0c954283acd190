//! [`Offering`]: finding somebody who leads next, one after the other.

use std::collections::VecDeque;
use std::time::Duration;

use tokio::sync::oneshot;

use super::Candidate;

/// How long one may take to answer: a stopped process must not hold up the hand-over.
pub(super) const ANSWER_PATIENCE: Duration = Duration::from_millis(100);

/// How many are asked; with all of them stopped, the leader leaves after 0.8 s.
pub(super) const ASKED_MAX: usize = 8;

/// Who is asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Whom {
    /// All who stand by; daemons that claim the place first.
    Anybody,
    /// Daemons that claim the place.
    Claimants,
    /// All, and this line first: it has said before that it is ready.
    FirstOfAll(u64),
}

impl Whom {
    /// When a line has its turn, from the first on; `None` if it has none.
    pub(super) fn rank(self, line: u64, claims: bool) -> Option<u8> {
        match self {
            Self::FirstOfAll(first) if first == line => Some(0),
            _ if claims => Some(1),
            Self::Claimants => None,
            Self::Anybody | Self::FirstOfAll(_) => Some(2),
        }
    }
}

/// An offer that is under way.
#[derive(Debug)]
pub(super) struct Offering {
    pub(super) feature_level: u32,
    /// Lines that are still to be asked.
    waiting: VecDeque<u64>,
    /// The line that is being asked, and until when it may answer.
    asked: Option<(u64, Duration)>,
    reply: oneshot::Sender<Option<Candidate>>,
}

impl Offering {
    /// Asks these lines, in this order.
    pub(super) fn new(
        feature_level: u32,
        lines: impl Iterator<Item = u64>,
        reply: oneshot::Sender<Option<Candidate>>,
    ) -> Self {
        Self {
            feature_level,
            waiting: lines.take(ASKED_MAX).collect(),
            asked: None,
            reply,
        }
    }

    /// Until when the one that is being asked may answer.
    pub(super) fn deadline(&self) -> Option<Duration> {
        self.asked.map(|(_, until)| until)
    }

    /// Whether this line is being asked.
    pub(super) fn asks(&self, line: u64) -> bool {
        self.asked.is_some_and(|(asked, _)| asked == line)
    }

    /// Nobody is being asked any more, and this is the next to ask.
    pub(super) fn next(&mut self) -> Option<u64> {
        self.asked = None;
        self.waiting.pop_front()
    }

    /// This line has been asked just now.
    pub(super) fn asked(&mut self, line: u64, now: Duration) {
        self.asked = Some((line, now + ANSWER_PATIENCE));
    }

    /// Tells the leader. Should it have stopped waiting, nothing is lost: the candidate goes on standing by.
    pub(super) fn end(self, candidate: Option<Candidate>) {
        let _nobody_waits = self.reply.send(candidate);
    }
}

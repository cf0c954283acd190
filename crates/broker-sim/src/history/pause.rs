//! How long nobody was answered when the leader changed, from the histories.
//!
//! An ack counts for the term in which its process last said it was: a client writes its new leader down before the acks
//! that come from it. So the first ack of a later term is one that the new leader gave.

use std::io;
use std::path::Path;
use std::time::Duration;

use super::event::Event;

/// The acks of a run, by time.
#[derive(Debug, Default)]
pub struct Acks {
    /// When it came, and the term in which.
    acks: Vec<(u64, u64)>,
    sorted: bool,
}

/// What followed a kill.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Pause {
    /// Until the first ack of a later term.
    pub new_leader: Duration,
    /// Until the first ack at all, which may have been under way.
    pub any: Duration,
}

impl Acks {
    /// Takes the acks of a history in.
    ///
    /// # Errors
    /// The file cannot be read, or is none of a history.
    pub fn file(&mut self, path: &Path) -> io::Result<()> {
        let mut term = 0;
        self.sorted = false;
        super::read(path, |time, event| {
            self.event(time, &event, &mut term);
            Ok(())
        })
    }

    fn event(&mut self, time: u64, event: &Event<'_>, current: &mut u64) {
        match event {
            Event::Role { term, .. } => *current = *term,
            Event::Acked { .. } => self.acks.push((time, *current)),
            _ => {}
        }
    }

    /// Those after a moment, in order.
    fn after(&mut self, at: u64) -> impl Iterator<Item = (u64, u64)> {
        if !self.sorted {
            self.acks.sort_unstable();
            self.sorted = true;
        }
        let from = self.acks.partition_point(|(time, _)| *time <= at);
        self.acks.iter().skip(from).copied()
    }

    /// What followed when the leader of `term` was killed at `at`; `None` when nobody was answered before `until`.
    pub fn pause(&mut self, at: u64, term: u64, until: u64) -> Option<Pause> {
        let mut any = None;
        for (time, by) in self.after(at) {
            if time >= until {
                break;
            }
            let waited = Duration::from_nanos(time - at);
            let any = *any.get_or_insert(waited);
            if by > term {
                let new_leader = waited;
                return Some(Pause { new_leader, any });
            }
        }
        None
    }

    /// From the last ack of `term` to the first one of a later term, around a hand-over that was asked for at `at`.
    pub fn handover(&mut self, at: u64, term: u64, until: u64) -> Option<Duration> {
        let mut last = at;
        for (time, by) in self.after(at) {
            if time >= until {
                break;
            }
            if by > term {
                return Some(Duration::from_nanos(time - last));
            }
            last = time;
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn acks(acks: &[(u64, u64)]) -> Acks {
        Acks {
            acks: acks.to_vec(),
            sorted: false,
        }
    }

    #[test]
    fn only_an_ack_of_a_later_term_ends_a_pause() {
        let mut acks = acks(&[(90, 1), (130, 2), (110, 1), (140, 2), (300, 3)]);
        let pause = acks.pause(100, 1, u64::MAX);
        assert_eq!(
            pause,
            Some(Pause {
                new_leader: Duration::from_nanos(30),
                any: Duration::from_nanos(10),
            })
        );
        assert_eq!(acks.pause(100, 1, 125), None);
        assert_eq!(acks.pause(300, 3, u64::MAX), None);
    }

    #[test]
    fn a_hand_over_is_measured_from_ack_to_ack() {
        let mut acks = acks(&[(90, 1), (110, 1), (120, 1), (130, 2), (140, 2)]);
        assert_eq!(
            acks.handover(100, 1, u64::MAX),
            Some(Duration::from_nanos(10))
        );
        assert_eq!(
            acks.handover(125, 1, u64::MAX),
            Some(Duration::from_nanos(5))
        );
        assert_eq!(acks.handover(100, 1, 130), None);
    }
}

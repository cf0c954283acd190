//! What the store remembers of every producer, so that a publish that is sent again is stored once.
//!
//! Per producer: the highest number, and the runs that cover the last [`WINDOW`] numbers. A peer
//! keeps no more than that unacknowledged, so a retry always finds its seq. A number inside the
//! window that no run covers was never stored and never will be: storing it now would put it behind
//! later ones of the same peer.

use std::collections::{HashMap, VecDeque};

use broker_proto::{Micros, RoomId, Seq};

use super::{ProducerKey, SessionId};

/// How many of a producer's last numbers the store can still find the seqs of.
pub(crate) const WINDOW: u64 = broker_proto::limits::UNACKED_NUMBERS_MAX as u64;

/// The store remembers no more producers than this.
pub(crate) const PRODUCERS_MAX: usize = 262_144;

/// How long an idle producer is remembered by default, in seconds.
pub(crate) const IDLE_SECS_DEFAULT: u32 = 7 * 24 * 3600;

/// Consecutive numbers that got consecutive seqs in one room.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Run {
    pub(crate) first: u64,
    pub(crate) count: u32,
    pub(crate) room: RoomId,
    pub(crate) seq: Seq,
}

impl Run {
    fn end(&self) -> u64 {
        self.first.saturating_add(u64::from(self.count))
    }

    /// Whether `next` simply continues this run.
    fn continues(&self, next: &Self) -> bool {
        self.end() == next.first
            && self.room == next.room
            && self.seq.get() + u64::from(self.count) == next.seq.get()
            && self.count.checked_add(next.count).is_some()
    }
}

/// One producer.
#[derive(Debug, Clone, Default)]
pub(crate) struct Producer {
    /// The highest number that was stored or refused; 0 before the first.
    pub(crate) highest: u64,
    /// Ordered by number.
    pub(crate) runs: VecDeque<Run>,
    /// When it last published.
    pub(crate) used: Micros,
    /// Whether a connection claims it, rather than an explicit key.
    pub(crate) claimed: bool,
    /// The connection that may publish with it now.
    pub(crate) owner: SessionId,
}

/// What is known of one number.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Known {
    /// Never seen: it can be stored.
    New,
    /// Stored; this many numbers from here on lie in the same run.
    Stored { room: RoomId, seq: Seq, count: u64 },
    /// Not stored, and this many numbers from here on neither.
    NotStored { count: u64 },
    /// So old that its seq is no longer known.
    Old { count: u64 },
}

impl Producer {
    /// What became of `number`.
    pub(crate) fn look_up(&self, number: u64) -> Known {
        if number > self.highest {
            return Known::New;
        }
        let floor = self.highest.saturating_sub(WINDOW - 1);
        let at = self.runs.partition_point(|run| run.end() <= number);
        match self.runs.get(at) {
            Some(run) if run.first <= number => {
                let into = number - run.first;
                Known::Stored {
                    room: run.room,
                    seq: Seq::new(run.seq.get() + into),
                    count: run.end() - number,
                }
            }
            _ if number < floor => Known::Old {
                count: floor - number,
            },
            Some(run) => Known::NotStored {
                count: run.first - number,
            },
            None => Known::NotStored {
                count: self.highest - number + 1,
            },
        }
    }

    /// Notes that numbers were stored.
    pub(crate) fn push(&mut self, run: Run) {
        self.highest = self.highest.max(run.end() - 1);
        match self.runs.back_mut() {
            Some(last) if last.continues(&run) => last.count += run.count,
            // A replay may tell again what a checkpoint has told already.
            Some(last) if run.first < last.end() => {}
            _ => self.runs.push_back(run),
        }
    }

    /// Forgets what lies below the window.
    pub(crate) fn prune(&mut self) {
        let floor = self.highest.saturating_sub(WINDOW - 1);
        while self.runs.front().is_some_and(|run| run.end() <= floor) {
            self.runs.pop_front();
        }
    }
}

/// All producers.
#[derive(Debug, Default)]
pub(crate) struct Producers {
    map: HashMap<ProducerKey, Producer>,
}

impl Producers {
    pub(crate) fn get(&self, key: &ProducerKey) -> Option<&Producer> {
        self.map.get(key)
    }

    pub(crate) fn get_mut(&mut self, key: &ProducerKey) -> Option<&mut Producer> {
        self.map.get_mut(key)
    }

    pub(crate) fn entry(&mut self, key: &ProducerKey) -> &mut Producer {
        self.map.entry(key.clone()).or_default()
    }

    pub(crate) fn remove(&mut self, key: &ProducerKey) -> Option<Producer> {
        self.map.remove(key)
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = (&ProducerKey, &Producer)> {
        self.map.iter()
    }

    /// Makes room for one more producer; false when there is none. What has been idle for longer
    /// than `idle` goes first; beyond that only claimed ones that nobody holds are forgotten, oldest
    /// first: a peer that comes back after that hears that the outcome is unknown. Explicit keys are
    /// forgotten by age alone, since nobody announces their return.
    pub(crate) fn make_room(&mut self, now: Micros, idle_secs: u32) -> bool {
        if self.has_room() {
            return true;
        }
        self.expire(now, idle_secs);
        if self.has_room() {
            return true;
        }
        let mut idle: Vec<Micros> = self
            .map
            .values()
            .filter(|producer| forgettable(producer))
            .map(|producer| producer.used)
            .collect();
        if idle.is_empty() {
            return false;
        }
        // An eighth at a time, so that a full table does not sort itself for every newcomer.
        let nth = (idle.len() - 1).min(PRODUCERS_MAX / 8);
        let (_, &mut limit, _) = idle.select_nth_unstable(nth);
        self.map
            .retain(|_, producer| !(forgettable(producer) && producer.used <= limit));
        self.has_room()
    }

    /// Whether one more can be remembered without forgetting another.
    pub(crate) fn has_room(&self) -> bool {
        self.map.len() < PRODUCERS_MAX
    }

    /// Forgets the ones that nobody holds and that have published nothing for `idle_secs`.
    pub(crate) fn expire(&mut self, now: Micros, idle_secs: u32) {
        let limit = now
            .get()
            .saturating_sub(i64::from(idle_secs).saturating_mul(1_000_000));
        self.map
            .retain(|_, producer| producer.owner != SessionId(0) || producer.used.get() >= limit);
    }
}

fn forgettable(producer: &Producer) -> bool {
    producer.claimed && producer.owner == SessionId(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(first: u64, count: u32, seq: u64) -> Run {
        Run {
            first,
            count,
            room: RoomId::new(1),
            seq: Seq::new(seq),
        }
    }

    #[test]
    fn consecutive_runs_become_one_and_retries_find_their_seq() {
        let mut producer = Producer::default();
        producer.push(run(1, 3, 10));
        producer.push(run(4, 2, 13));
        producer.push(run(8, 2, 20));
        assert_eq!(producer.runs.len(), 2);
        assert_eq!(
            producer.look_up(2),
            Known::Stored {
                room: RoomId::new(1),
                seq: Seq::new(11),
                count: 4
            }
        );
        assert_eq!(producer.look_up(6), Known::NotStored { count: 2 });
        assert_eq!(
            producer.look_up(9),
            Known::Stored {
                room: RoomId::new(1),
                seq: Seq::new(21),
                count: 1
            }
        );
        assert_eq!(producer.look_up(10), Known::New);
    }

    #[test]
    fn the_window_covers_exactly_the_last_numbers() {
        let mut producer = Producer::default();
        for number in 1..=WINDOW + 10 {
            // Every second seq, so that no two runs join.
            producer.push(run(number, 1, number * 2));
            producer.prune();
        }
        assert_eq!(producer.look_up(10), Known::Old { count: 1 });
        assert_eq!(
            producer.look_up(11),
            Known::Stored {
                room: RoomId::new(1),
                seq: Seq::new(22),
                count: 1
            }
        );
        assert_eq!(producer.runs.len(), usize::try_from(WINDOW).unwrap_or(0));
    }

    #[test]
    fn a_replay_of_the_same_run_changes_nothing() {
        let mut producer = Producer::default();
        producer.push(run(1, 3, 10));
        producer.push(run(1, 3, 10));
        assert_eq!(producer.runs.len(), 1);
        assert_eq!(producer.highest, 3);
    }
}

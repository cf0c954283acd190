//! What the take-over demo counts: one [`Takeover`] after the other, and the [`Summary`].

use std::time::Duration;

use serde_json::{Value, json};

use super::checker::Findings;

/// A leader was killed, and somebody else leads.
#[derive(Debug, Clone, Default)]
pub(super) struct Takeover {
    /// Which one, from 1.
    pub(super) number: u32,
    /// Who was killed: name, process, term.
    pub(super) killed: (String, u32, u64),
    /// Who leads then.
    pub(super) leader: (String, u32, u64),
    /// When it was killed, in nanoseconds.
    pub(super) at: u64,
    /// When each agent had its first acknowledgement from the next leader.
    pub(super) acks: Vec<(u32, u64)>,
    /// Messages acknowledged until now, and what was found wrong until now.
    pub(super) acked: u64,
    pub(super) lost: u64,
    pub(super) doubled: u64,
}

impl Takeover {
    /// An agent has an acknowledgement from a leader with this term.
    pub(super) fn acked(&mut self, agent: u32, term: u64, at: u64) {
        let known = self.acks.iter().any(|(known, _)| *known == agent);
        if term > self.killed.2 && !known {
            self.acks.push((agent, at));
        }
    }

    /// From the kill to the first acknowledgement after it.
    pub(super) fn first(&self) -> Duration {
        self.after(self.acks.iter().map(|(_, at)| *at).min())
    }

    /// From the kill until every agent had one.
    pub(super) fn all(&self) -> Duration {
        self.after(self.acks.iter().map(|(_, at)| *at).max())
    }

    fn after(&self, at: Option<u64>) -> Duration {
        Duration::from_nanos(at.unwrap_or(self.at).saturating_sub(self.at))
    }

    /// For scripts.
    pub(super) fn json(&self) -> Value {
        let who = |(name, pid, term): &(String, u32, u64)| json!({"name": name, "pid": pid, "term": term});
        json!({
            "takeover": self.number,
            "killed": who(&self.killed),
            "leader": who(&self.leader),
            "first_ack_ms": ms(self.first()),
            "all_acked_ms": ms(self.all()),
            "acked": self.acked,
            "lost": self.lost,
            "doubled": self.doubled,
        })
    }
}

/// How it ended.
#[derive(Debug)]
pub(super) struct Summary {
    /// How many agents there were at a time, and all in all.
    pub(super) agents: usize,
    pub(super) started: u32,
    /// Messages a second that each was to send.
    pub(super) rate: u32,
    /// How many messages the agents saw acknowledged, and how many are stored.
    pub(super) acked: u64,
    pub(super) stored: u64,
    /// The longest of the pauses, and the middle one: until the first ack, and until all.
    pub(super) first: Pauses,
    pub(super) all: Pauses,
    /// How many there were.
    pub(super) kills: usize,
    pub(super) findings: Findings,
}

impl Summary {
    /// For scripts.
    pub(super) fn json(&self) -> Value {
        let found = &self.findings;
        json!({
            "demo": "takeover",
            "version": env!("CARGO_PKG_VERSION"),
            "agents": self.agents,
            "started": self.started,
            "rate": self.rate,
            "kills": self.kills,
            "acked": self.acked,
            "stored": self.stored,
            "lost": found.lost,
            "doubled": found.doubled,
            "reordered": found.reordered,
            "strange": found.strange,
            "misread": found.misread,
            "violation": found.first,
            "first_ack_ms": self.first.json(),
            "all_acked_ms": self.all.json(),
        })
    }
}

/// The median, by nearest rank, and the longest of some times.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Pauses {
    pub(super) p50: Duration,
    pub(super) max: Duration,
}

impl Pauses {
    /// Of these.
    pub(super) fn of(times: impl Iterator<Item = Duration>) -> Self {
        let mut times: Vec<_> = times.collect();
        times.sort_unstable();
        let middle = times.len().saturating_sub(1) / 2;
        Self {
            p50: times.get(middle).copied().unwrap_or_default(),
            max: times.last().copied().unwrap_or_default(),
        }
    }

    fn json(self) -> Value {
        json!({"p50": ms(self.p50), "max": ms(self.max)})
    }
}

/// Milliseconds with three places.
fn ms(time: Duration) -> f64 {
    (time.as_secs_f64() * 1e6).round() / 1e3
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_are_those_after_the_next_leader_answers() {
        let mut takeover = Takeover {
            killed: ("ann".to_owned(), 7, 3),
            at: 1_000_000,
            ..Takeover::default()
        };
        assert_eq!(takeover.first(), Duration::ZERO);
        // The killed leader's last answer is read after it was killed.
        takeover.acked(2, 3, 1_100_000);
        takeover.acked(3, 4, 6_000_000);
        takeover.acked(2, 4, 5_000_000);
        takeover.acked(2, 4, 9_000_000);
        assert_eq!(takeover.first(), Duration::from_millis(4));
        assert_eq!(takeover.all(), Duration::from_millis(5));
        assert_eq!(ms(takeover.first()), 4.0);
    }

    #[test]
    fn the_median_is_by_nearest_rank() {
        let of = |times: &[u64]| Pauses::of(times.iter().map(|ms| Duration::from_millis(*ms)));
        assert_eq!(of(&[]), Pauses::default());
        assert_eq!(of(&[3, 1, 2]).p50, Duration::from_millis(2));
        assert_eq!(of(&[4, 1, 3, 2]).p50, Duration::from_millis(2));
        assert_eq!(of(&[4, 1, 3, 2]).max, Duration::from_millis(4));
    }
}

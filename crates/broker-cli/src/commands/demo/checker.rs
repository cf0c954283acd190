//! [`Checker`]: holds what the agents were told against what is stored.
//!
//! Two things come in, in any order between them: claims (a message was acknowledged with a seq; a
//! subscriber saw the room up to a seq) and the room itself, message by message. A claim is judged
//! when the room has been read up to its seq. The same checker runs live, beside the agents, and at
//! the end over what is read from the disk.

use std::collections::{BTreeMap, BTreeSet};

use super::report::{Digest, parse_payload};

/// Numbers of an agent that may be missing before one that is there; more, and the message is none
/// of ours. It bounds the memory that a broken payload can ask for.
const AHEAD_MAX: usize = 1 << 20;

/// What was found wrong. All zero is what is promised.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Findings {
    /// Acknowledged, and not there.
    pub(super) lost: u64,
    /// There again.
    pub(super) doubled: u64,
    /// There, but not in the agent's order, or not with the seq that was acknowledged.
    pub(super) reordered: u64,
    /// Seqs that the room does not have, and messages that nobody sent.
    pub(super) strange: u64,
    /// What subscribers saw otherwise than it is stored.
    pub(super) misread: u64,
    /// The first thing that was found, in words.
    pub(super) first: Option<String>,
}

impl Findings {
    /// Whether nothing is wrong.
    pub(super) fn is_clean(&self) -> bool {
        *self == Self::default()
    }

    fn note(&mut self, count: impl FnOnce(&mut Self) -> &mut u64, words: String) {
        *count(self) += 1;
        self.first.get_or_insert(words);
    }
}

/// What an agent told.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Claim {
    /// This message of the agent was acknowledged.
    Acked {
        /// With this seq.
        seq: u64,
        /// Which agent.
        agent: u32,
        /// Which of its messages, from 1.
        number: u64,
    },
    /// The agent saw the room up to here.
    Saw {
        /// The last message.
        seq: u64,
        /// Which agent.
        agent: u32,
        /// The digest of all up to it.
        digest: u64,
    },
}

impl Claim {
    fn seq(&self) -> u64 {
        match self {
            Self::Acked { seq, .. } | Self::Saw { seq, .. } => *seq,
        }
    }
}

/// See the module's documentation.
#[derive(Debug, Default)]
pub(super) struct Checker {
    findings: Findings,
    /// The last seq that was read.
    head: u64,
    digest: Digest,
    /// The digest at each seq, from 1.
    digests: Vec<u64>,
    /// Where each message of an agent is, from its number 1; 0 is nowhere.
    places: BTreeMap<u32, Vec<u64>>,
    /// Claims about what was not read yet.
    open: BTreeMap<u64, BTreeSet<Claim>>,
}

impl Checker {
    /// What was found up to now. A claim about what was not read yet is no finding.
    pub(super) fn findings(&self) -> &Findings {
        &self.findings
    }

    /// The last seq that was read.
    pub(super) fn head(&self) -> u64 {
        self.head
    }

    /// The digest of all that was read.
    pub(super) fn digest(&self) -> u64 {
        self.digests.last().copied().unwrap_or(0)
    }

    /// An agent told something.
    pub(super) fn claim(&mut self, claim: Claim) {
        if claim.seq() <= self.head {
            self.judge(&claim);
        } else {
            self.open.entry(claim.seq()).or_default().insert(claim);
        }
    }

    /// The next message of the room.
    pub(super) fn read(&mut self, seq: u64, sender: &str, payload: &[u8]) {
        if seq != self.head + 1 {
            let words = format!("seq {seq} came after seq {}", self.head);
            self.findings.note(|found| &mut found.strange, words);
        }
        // Behind: it was judged when it came first.
        if seq <= self.head {
            return;
        }
        // A seq that is missing has the digest of the one before.
        let missing = usize::try_from(seq - self.head - 1).unwrap_or(usize::MAX);
        let before = self.digest();
        let fill = missing.min(AHEAD_MAX);
        self.digests.resize(self.digests.len() + fill, before);
        self.digests
            .push(self.digest.add(seq, sender.as_bytes(), payload));
        self.head = seq;
        self.place(seq, sender, payload);
        while let Some(open) = self.open.first_entry().filter(|open| *open.key() <= seq) {
            for claim in open.remove() {
                self.judge(&claim);
            }
        }
    }

    /// Notes where the message of an agent is.
    fn place(&mut self, seq: u64, sender: &str, payload: &[u8]) {
        let ours = parse_payload(payload).filter(|(agent, _)| name(*agent) == sender);
        let found = ours.and_then(|(agent, number)| {
            let places = self.places.entry(agent).or_default();
            let index = usize::try_from(number.checked_sub(1)?).ok()?;
            (index <= places.len() + AHEAD_MAX).then_some((agent, number, index, places))
        });
        let Some((agent, number, index, places)) = found else {
            let words = format!("seq {seq} is no message that was sent there");
            self.findings.note(|found| &mut found.strange, words);
            return;
        };
        let due = places.len();
        if index >= due {
            places.resize(index + 1, 0);
        }
        let Some(place) = places.get_mut(index) else {
            return;
        };
        let what = format!("message {number} of {}", name(agent));
        if *place != 0 {
            let words = format!("{what} is stored twice, as seq {place} and seq {seq}");
            self.findings.note(|found| &mut found.doubled, words);
            return;
        }
        *place = seq;
        if index != due {
            let words = format!("{what} is seq {seq}, where number {} was due", due + 1);
            self.findings.note(|found| &mut found.reordered, words);
        }
    }

    fn judge(&mut self, claim: &Claim) {
        match *claim {
            Claim::Acked { seq, agent, number } => {
                let index = usize::try_from(number.wrapping_sub(1)).unwrap_or(usize::MAX);
                let places = self.places.get(&agent);
                let place = places.and_then(|places| places.get(index)).copied();
                let what = format!("message {number} of {}", name(agent));
                match place.filter(|place| *place != 0) {
                    Some(place) if place == seq => {}
                    Some(place) => {
                        let words = format!("{what} was acknowledged as seq {seq}, and is {place}");
                        self.findings.note(|found| &mut found.reordered, words);
                    }
                    None => {
                        let words = format!("{what} was acknowledged as seq {seq}, and is lost");
                        self.findings.note(|found| &mut found.lost, words);
                    }
                }
            }
            Claim::Saw { seq, agent, digest } => {
                let index = usize::try_from(seq.wrapping_sub(1)).unwrap_or(usize::MAX);
                if self.digests.get(index) != Some(&digest) {
                    let words = format!(
                        "what {} saw up to seq {seq} is not what is stored",
                        name(agent)
                    );
                    self.findings.note(|found| &mut found.misread, words);
                }
            }
        }
    }

    /// The room has no more: what was claimed beyond is not there.
    pub(super) fn finish(mut self) -> Findings {
        for claim in std::mem::take(&mut self.open).into_values().flatten() {
            self.judge(&claim);
        }
        self.findings
    }
}

/// How an agent is called: numbers count from 1. The parent's own reader has the number 0.
pub(super) fn name(agent: u32) -> String {
    const NAMES: [&str; 26] = [
        "ann", "bob", "cyd", "dan", "eve", "fay", "gus", "hal", "ida", "joe", "kim", "leo", "mia",
        "ned", "ola", "pat", "qin", "ray", "sue", "tom", "uma", "vic", "wes", "xia", "yan", "zoe",
    ];
    let Some(index) = agent.checked_sub(1).and_then(|at| usize::try_from(at).ok()) else {
        return "the demo".to_owned();
    };
    let first = NAMES.get(index % NAMES.len()).copied().unwrap_or("agent");
    match index / NAMES.len() {
        0 => first.to_owned(),
        round => format!("{first}-{}", round + 1),
    }
}

#[cfg(test)]
mod tests {
    use super::super::report::payload;
    use super::*;

    /// A room as (agent, number), from seq 1, and the claims that go with it.
    fn good() -> (Vec<(u32, u64)>, Vec<Claim>) {
        let room = vec![(1, 1), (2, 1), (1, 2), (1, 3), (2, 2)];
        let mut checker = Checker::default();
        let mut claims = Vec::new();
        for (seq, (agent, number)) in (1..).zip(&room) {
            checker.read(seq, &name(*agent), payload(*agent, *number).as_bytes());
            claims.push(Claim::Acked {
                seq,
                agent: *agent,
                number: *number,
            });
            claims.push(Claim::Saw {
                seq,
                agent: 3,
                digest: checker.digest(),
            });
        }
        (room, claims)
    }

    fn judged(room: &[(u32, u64)], claims: &[Claim], claims_first: bool) -> Findings {
        let mut checker = Checker::default();
        if claims_first {
            claims.iter().for_each(|claim| checker.claim(*claim));
        }
        for (seq, (agent, number)) in (1..).zip(room) {
            checker.read(seq, &name(*agent), payload(*agent, *number).as_bytes());
        }
        if !claims_first {
            claims.iter().for_each(|claim| checker.claim(*claim));
        }
        checker.finish()
    }

    fn acks(claims: Vec<Claim>) -> Vec<Claim> {
        let is_ack = |claim: &Claim| matches!(claim, Claim::Acked { .. });
        claims.into_iter().filter(is_ack).collect()
    }

    #[test]
    fn a_good_history_is_good_and_unacknowledged_messages_may_be_there() {
        let (mut room, claims) = good();
        assert!(judged(&room, &claims, true).is_clean());
        room.push((1, 4));
        for first in [true, false] {
            let found = judged(&room, &claims, first);
            assert!(found.is_clean(), "{found:?}");
        }
    }

    #[test]
    fn a_lost_message_is_found() {
        let (mut room, claims) = good();
        // The last one is simply gone.
        room.pop();
        let found = judged(&room, &acks(claims.clone()), true);
        assert_eq!((found.lost, found.doubled, found.reordered), (1, 0, 0));
        assert!(found.first.is_some_and(|words| words.contains("bob")));
        // One in the middle: what follows has other seqs, and a reader saw it.
        let (mut room, _) = good();
        room.remove(2);
        let found = judged(&room, &claims, false);
        assert_eq!(found.lost, 1, "{found:?}");
        assert!(found.reordered > 0 && found.misread > 0, "{found:?}");
        // A whole agent, and a whole room.
        let room: Vec<_> = good().0.into_iter().filter(|(who, _)| *who == 1).collect();
        assert_eq!(judged(&room, &acks(claims.clone()), true).lost, 2);
        assert_eq!(judged(&[], &acks(claims), true).lost, 5);
    }

    #[test]
    fn a_doubled_message_is_found() {
        let (mut room, claims) = good();
        room.push((1, 2));
        let found = judged(&room, &claims, true);
        assert_eq!((found.lost, found.doubled, found.reordered), (0, 1, 0));
        assert_eq!(
            found.first.as_deref(),
            Some("message 2 of ann is stored twice, as seq 3 and seq 6")
        );
    }

    #[test]
    fn a_reordered_message_is_found() {
        let (mut room, claims) = good();
        room.swap(2, 3);
        // Found by its order alone, by its acknowledgement, and by who saw it.
        // One came early and one late.
        assert_eq!(judged(&room, &[], true).reordered, 2);
        let found = judged(&room, &claims, false);
        assert_eq!((found.lost, found.doubled), (0, 0));
        // A digest stays wrong once it is.
        assert_eq!((found.reordered, found.misread), (4, 3), "{found:?}");
        assert_eq!(judged(&[(1, 2), (1, 1)], &[], true).reordered, 2);
    }

    #[test]
    fn a_subscriber_that_saw_otherwise_is_found() {
        let (room, mut claims) = good();
        for claim in &mut claims {
            if let Claim::Saw { seq: 4, digest, .. } = claim {
                *digest ^= 1;
            }
        }
        let found = judged(&room, &claims, true);
        assert_eq!((found.lost, found.misread), (0, 1), "{found:?}");
        // What nobody can have seen.
        let beyond = Claim::Saw {
            seq: 99,
            agent: 1,
            digest: 0,
        };
        assert_eq!(judged(&room, &[beyond], true).misread, 1);
    }

    #[test]
    fn strangers_and_gaps_are_found() {
        let mut checker = Checker::default();
        checker.read(1, "ann", b"hello");
        checker.read(2, "bob", payload(1, 1).as_bytes());
        checker.read(3, "ann", payload(1, u64::MAX).as_bytes());
        checker.read(4, "ann", payload(1, 0).as_bytes());
        assert_eq!(checker.findings().strange, 4);
        checker.read(6, "ann", payload(1, 1).as_bytes());
        checker.read(6, "ann", payload(1, 2).as_bytes());
        assert_eq!(checker.head(), 6);
        assert_eq!(checker.finish().strange, 6);
    }

    #[test]
    fn names_do_not_repeat() {
        let names: BTreeSet<_> = (0..=200).map(name).collect();
        assert_eq!(names.len(), 201);
        assert_eq!((name(1), name(27)), ("ann".to_owned(), "ann-2".to_owned()));
    }
}

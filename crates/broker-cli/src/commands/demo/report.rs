//! What an agent of the take-over demo tells its parent: one short line on its standard output each.
//!
//! The times are nanoseconds of `CLOCK_MONOTONIC`, which all processes of a machine share.

use std::hash::{DefaultHasher, Hasher};

use rustix::time::{ClockId, clock_gettime};

use crate::output::put;

/// One line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Report {
    /// The agent is connected, to itself when it leads.
    Role {
        /// Whether it leads.
        leads: bool,
        /// Under which term the leader leads.
        term: u64,
    },
    /// Messages of the agent were acknowledged, all at once.
    Acked {
        /// When.
        at: u64,
        /// The term of the leader that the agent was connected to.
        term: u64,
        /// The number of the first of them; the others follow.
        first: u64,
        /// The seq of each.
        seqs: Vec<u64>,
    },
    /// The agent has seen the room up to here.
    Saw {
        /// The last message.
        seq: u64,
        /// The [`Digest`] of all up to it.
        digest: u64,
    },
    /// It sends no more, and everything that it sent is acknowledged.
    Drained,
    /// It cannot go on.
    Failed(String),
}

impl Report {
    /// Appends the line.
    pub(super) fn write(&self, out: &mut Vec<u8>) {
        match self {
            Self::Role { leads, term } => {
                let role = if *leads { "leads" } else { "follows" };
                put(out, format_args!("{role} {term}"));
            }
            Self::Acked {
                at,
                term,
                first,
                seqs,
            } => {
                put(out, format_args!("acked {at} {term} {first}"));
                for seq in seqs {
                    put(out, format_args!(" {seq}"));
                }
            }
            Self::Saw { seq, digest } => put(out, format_args!("saw {seq} {digest}")),
            Self::Drained => put(out, format_args!("drained")),
            Self::Failed(words) => {
                put(out, format_args!("failed {}", words.replace('\n', " ")));
            }
        }
        out.push(b'\n');
    }

    /// Reads a line back.
    pub(super) fn parse(line: &str) -> Option<Self> {
        let (word, rest) = line.split_once(' ').unwrap_or((line, ""));
        if word == "failed" {
            return Some(Self::Failed(rest.to_owned()));
        }
        let mut numbers = rest.split_ascii_whitespace().map(str::parse);
        let mut number = || numbers.next()?.ok();
        let report = match word {
            "leads" | "follows" => Self::Role {
                leads: word == "leads",
                term: number()?,
            },
            "acked" => {
                return Some(Self::Acked {
                    at: number()?,
                    term: number()?,
                    first: number()?,
                    seqs: numbers.collect::<Result<_, _>>().ok()?,
                });
            }
            "saw" => Self::Saw {
                seq: number()?,
                digest: number()?,
            },
            "drained" => Self::Drained,
            _ => return None,
        };
        numbers.next().is_none().then_some(report)
    }
}

/// A digest of a room up to a message: two readers with the same one saw the same messages in the
/// same order.
#[derive(Debug, Clone, Default)]
pub(super) struct Digest(DefaultHasher);

impl Digest {
    /// Takes the next message in, and tells the digest up to it.
    pub(super) fn add(&mut self, seq: u64, sender: &[u8], payload: &[u8]) -> u64 {
        self.0.write_u64(seq);
        for bytes in [sender, payload] {
            self.0.write_usize(bytes.len());
            self.0.write(bytes);
        }
        self.0.finish()
    }
}

/// What an agent says in its message with this number, from 1.
pub(super) fn payload(agent: u32, number: u64) -> String {
    format!("message {number} of agent {agent}")
}

/// Reads a message back: agent and number.
pub(super) fn parse_payload(payload: &[u8]) -> Option<(u32, u64)> {
    let text = std::str::from_utf8(payload).ok()?;
    let (number, agent) = text.strip_prefix("message ")?.split_once(" of agent ")?;
    Some((agent.parse().ok()?, number.parse().ok()?))
}

/// Now, in nanoseconds of a clock that all processes of this machine share.
pub(super) fn now_ns() -> u64 {
    let now = clock_gettime(ClockId::Monotonic);
    let seconds = u64::try_from(now.tv_sec).unwrap_or(0);
    let nanos = u64::try_from(now.tv_nsec).unwrap_or(0);
    seconds.saturating_mul(1_000_000_000).saturating_add(nanos)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_line_is_read_back() {
        for report in [
            Report::Role {
                leads: true,
                term: 3,
            },
            Report::Role {
                leads: false,
                term: u64::MAX,
            },
            Report::Acked {
                at: 17,
                term: 3,
                first: 1,
                seqs: vec![4, 5, 9],
            },
            Report::Saw {
                seq: 9,
                digest: u64::MAX,
            },
            Report::Drained,
            Report::Failed("no space left".to_owned()),
        ] {
            let mut line = Vec::new();
            report.write(&mut line);
            let text = String::from_utf8(line).expect("words and digits");
            let line = text.strip_suffix('\n').expect("a line");
            assert!(!line.contains('\n'));
            assert_eq!(Report::parse(line), Some(report), "{line:?}");
        }
        for wrong in ["", "saw 1", "saw 1 2 3", "leads x", "acked 1 2", "hello"] {
            assert_eq!(Report::parse(wrong), None, "{wrong:?}");
        }
    }

    #[test]
    fn a_payload_says_whose_it_is() {
        assert_eq!(parse_payload(payload(7, 42).as_bytes()), Some((7, 42)));
        for wrong in ["", "message 1", "message x of agent 1", "hello"] {
            assert_eq!(parse_payload(wrong.as_bytes()), None, "{wrong:?}");
        }
    }

    #[test]
    fn a_digest_depends_on_everything() {
        let of = |messages: &[(u64, &str, &str)]| {
            let mut digest = Digest::default();
            messages.iter().fold(0, |_, (seq, sender, payload)| {
                digest.add(*seq, sender.as_bytes(), payload.as_bytes())
            })
        };
        let right = of(&[(1, "ann", "a"), (2, "bob", "b")]);
        assert_eq!(right, of(&[(1, "ann", "a"), (2, "bob", "b")]));
        for other in [
            of(&[(2, "bob", "b")]),
            of(&[(1, "bob", "b"), (2, "ann", "a")]),
            of(&[(1, "ann", "a"), (2, "bo", "bb")]),
            of(&[(1, "ann", "a"), (3, "bob", "b")]),
        ] {
            assert_ne!(right, other);
        }
    }
}

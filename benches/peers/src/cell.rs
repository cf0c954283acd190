//! [`Cell`]: one kind of work, the same for every peer that can do it.

use crate::peer::Peer;

/// One kind of work.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Cell {
    /// Publishers with a window of unacknowledged messages, each with a connection and a room of its own.
    Publish {
        publishers: usize,
        window: usize,
        size: usize,
    },
    /// One publisher as fast as its subscribers follow.
    FanOut { subscribers: usize, size: usize },
    /// One publisher at a fixed rate.
    Rate {
        subscribers: usize,
        per_second: u32,
        size: usize,
    },
    /// Reading a room from its start.
    Replay { size: usize },
}

/// By what two peers are compared in a cell.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Measure {
    /// Messages a second: more is better.
    Rate,
    /// Latency in the middle: less is better.
    Latency,
}

const SIZES: [usize; 3] = [128, 1024, 16 << 10];
const LOADS: [(usize, usize); 3] = [(64, 16), (1, 256), (1, 1)];

impl Cell {
    /// All of them, in the order of the page.
    pub(crate) fn all() -> Vec<Self> {
        let publish = LOADS.into_iter().flat_map(|(publishers, window)| {
            SIZES.into_iter().map(move |size| Self::Publish {
                publishers,
                window,
                size,
            })
        });
        let fan_out = [1024, 128].into_iter().flat_map(|size| {
            [10, 100, 1000]
                .into_iter()
                .map(move |subscribers| Self::FanOut { subscribers, size })
        });
        let rate = [(100, 1000), (1000, 100)]
            .into_iter()
            .map(|(subscribers, per_second)| Self::Rate {
                subscribers,
                per_second,
                size: 128,
            });
        let replay = [Self::Replay { size: 1024 }];
        publish.chain(fan_out).chain(rate).chain(replay).collect()
    }

    /// Those whose names begin with one of `prefixes`; all when there are none.
    ///
    /// # Errors
    /// A prefix that no name begins with.
    pub(crate) fn chosen(prefixes: &[String]) -> Result<Vec<Self>, String> {
        let all = Self::all();
        for prefix in prefixes {
            if !all.iter().any(|cell| cell.name().starts_with(prefix)) {
                let names: Vec<_> = all.iter().map(|cell| cell.name()).collect();
                return Err(format!(
                    "no work is called '{prefix}...'; there is {}",
                    names.join(", ")
                ));
            }
        }
        let is_chosen = |cell: &Self| {
            prefixes.is_empty() || prefixes.iter().any(|p| cell.name().starts_with(p))
        };
        Ok(all.into_iter().filter(is_chosen).collect())
    }

    /// Its name on the command line and in files.
    pub(crate) fn name(self) -> String {
        match self {
            Self::Publish {
                publishers,
                window,
                size,
            } => format!("publish-{publishers}x{window}-{size}"),
            Self::FanOut { subscribers, size } => format!("fanout-{subscribers}-{size}"),
            Self::Rate {
                subscribers,
                per_second,
                size,
            } => format!("rate-{subscribers}x{per_second}-{size}"),
            Self::Replay { size } => format!("replay-{size}"),
        }
    }

    /// Bytes of a message.
    pub(crate) const fn size(self) -> usize {
        match self {
            Self::Publish { size, .. }
            | Self::FanOut { size, .. }
            | Self::Rate { size, .. }
            | Self::Replay { size } => size,
        }
    }

    /// What it is, for the page.
    pub(crate) fn title(self) -> String {
        let bytes = bytes(self.size());
        match self {
            Self::Publish {
                publishers: 1,
                window: 1,
                ..
            } => format!("Publish {bytes}, one publisher, one message in flight"),
            Self::Publish {
                publishers: 1,
                window,
                ..
            } => format!("Publish {bytes}, one publisher, {window} in flight"),
            Self::Publish {
                publishers, window, ..
            } => format!("Publish {bytes}, {publishers} publishers with {window} in flight each"),
            Self::FanOut { subscribers, .. } => {
                format!(
                    "Live delivery of {bytes} to {subscribers} subscribers, as fast as they follow"
                )
            }
            Self::Rate {
                subscribers,
                per_second,
                ..
            } => format!(
                "Live delivery of {bytes} to {subscribers} subscribers, {per_second} messages a second"
            ),
            Self::Replay { .. } => format!("Replay of stored messages of {bytes}, warm"),
        }
    }

    /// By what it compares.
    pub(crate) const fn measure(self) -> Measure {
        match self {
            Self::Publish { window: 1, .. } | Self::Rate { .. } => Measure::Latency,
            _ => Measure::Rate,
        }
    }

    /// What is counted.
    pub(crate) const fn unit(self) -> &'static str {
        match self {
            Self::Publish { .. } | Self::Replay { .. } => "messages",
            Self::FanOut { .. } | Self::Rate { .. } => "deliveries",
        }
    }

    /// Who does it, in the order of the page.
    pub(crate) fn peers(self) -> Vec<Peer> {
        use Peer::{
            Iggy, Mosquitto, Nats, NatsCore, NatsSync, NatsSyncEach, Ours, OursBulk, Redis,
            RedisPubsub, RedisSync,
        };
        match self {
            Self::Publish { window: 1, .. } => {
                vec![Ours, NatsSync, RedisSync, Iggy, Nats, Redis]
            }
            Self::Publish { publishers: 1, .. } => {
                vec![Ours, OursBulk, NatsSync, RedisSync, Iggy, Nats, Redis]
            }
            Self::Publish { .. } => vec![
                Ours,
                OursBulk,
                NatsSync,
                NatsSyncEach,
                RedisSync,
                Iggy,
                Nats,
                Redis,
            ],
            Self::FanOut { .. } | Self::Rate { .. } => {
                vec![Ours, NatsCore, RedisPubsub, Mosquitto]
            }
            // How it was synced makes no difference to a reader, and filling takes minutes with it.
            Self::Replay { .. } => vec![Ours, Iggy, Nats, Redis],
        }
    }
}

fn bytes(size: usize) -> String {
    if size.is_multiple_of(1024) {
        format!("{} KiB", size / 1024)
    } else {
        format!("{size} B")
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test may panic")]

    use std::collections::HashSet;

    use super::*;

    #[test]
    fn names_are_unique_and_choose() {
        let all = Cell::all();
        let names: HashSet<String> = all.iter().map(|cell| cell.name()).collect();
        assert_eq!(names.len(), all.len());
        assert_eq!(Cell::chosen(&[]).unwrap(), all);
        let chosen = Cell::chosen(&["publish-1x1-".to_owned(), "replay".to_owned()]).unwrap();
        let names: Vec<String> = chosen.iter().map(|cell| cell.name()).collect();
        assert_eq!(
            names,
            [
                "publish-1x1-128",
                "publish-1x1-1024",
                "publish-1x1-16384",
                "replay-1024"
            ]
        );
        let refused = Cell::chosen(&["publish-2".to_owned()]).unwrap_err();
        assert!(refused.contains("replay-1024"), "{refused}");
    }
}

//! What a benchmark does: its options, judged, and when it has done enough.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use broker_proto::limits::{PAYLOAD_BYTES_MAX, UNACKED_NUMBERS_MAX};
use serde_json::{Value, json};

use super::stamp::STAMP_BYTES;
use crate::args::BenchOptions;
use crate::exit::Failure;
use crate::units;

/// Which benchmark.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum What {
    /// Publishing.
    Pub,
    /// Live delivery.
    Sub,
    /// One at a time.
    Rtt,
    /// Many rooms.
    Rooms,
}

impl What {
    /// Its name on the command line.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Pub => "pub",
            Self::Sub => "sub",
            Self::Rtt => "rtt",
            Self::Rooms => "rooms",
        }
    }
}

/// The load.
#[derive(Debug, Clone)]
pub(crate) struct Load {
    /// Which benchmark.
    pub(crate) what: What,
    /// Bytes of a message.
    pub(crate) size: usize,
    /// How many rooms.
    pub(crate) rooms: u32,
    /// How many publishers.
    pub(crate) pubs: u32,
    /// How many subscribers.
    pub(crate) subs: u32,
    /// Messages in flight of one publisher.
    pub(crate) window: u32,
    /// Messages of one call.
    pub(crate) bulk: u32,
    /// When it has done enough.
    pub(crate) limit: Limit,
}

/// When a benchmark has done enough.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Limit {
    /// After this many messages.
    Count(u64),
    /// After this long.
    Duration(Duration),
}

/// No machine serves more of each; a slip of the finger shall not try.
const ROOMS_MAX: u32 = 10_000_000;
const PEERS_MAX: u32 = 10_000;

impl Load {
    /// Judges the options.
    pub(crate) fn new(what: What, options: &BenchOptions) -> Result<Self, Failure> {
        let rooms = within(
            "--rooms",
            options.rooms,
            if what == What::Rooms { 10_000 } else { 1 },
            ROOMS_MAX,
        )?;
        let window = if what == What::Rtt {
            1
        } else {
            within("--window", options.window, 64, UNACKED_NUMBERS_MAX)?
        };
        let bulk = match what {
            What::Rtt | What::Rooms => 1,
            What::Pub | What::Sub => within("--bulk", options.bulk, 1, UNACKED_NUMBERS_MAX)?,
        };
        if bulk > window {
            return Err(Failure::usage(format!(
                "--bulk {bulk} does not fit into --window {window}"
            )));
        }
        let pubs = match what {
            What::Rtt => 1,
            // A room is made once.
            What::Rooms => within("--pubs", options.pubs, 1, PEERS_MAX)?.min(rooms),
            What::Pub | What::Sub => within("--pubs", options.pubs, 1, PEERS_MAX)?,
        };
        let limit = match what {
            What::Rooms => Limit::Count(rooms.into()),
            _ => limit(options)?,
        };
        Ok(Self {
            what,
            size: size(options.size.as_deref())?,
            rooms,
            pubs,
            subs: match what {
                What::Sub => within("--subs", options.subs, 1, PEERS_MAX)?,
                // The publisher's own connection receives.
                What::Rtt => 1,
                What::Pub | What::Rooms => 0,
            },
            window,
            bulk,
            limit,
        })
    }

    /// The options that were given and mean nothing to this benchmark.
    pub(crate) fn ignored(what: What, options: &BenchOptions) -> Vec<&'static str> {
        let rtt = what == What::Rtt;
        let rooms = what == What::Rooms;
        let given = [
            ("--pubs", rtt && options.pubs.is_some()),
            ("--subs", what != What::Sub && options.subs.is_some()),
            ("--window", rtt && options.window.is_some()),
            ("--bulk", (rtt || rooms) && options.bulk.is_some()),
            ("--count", rooms && options.count.is_some()),
            ("--duration", rooms && options.duration.is_some()),
        ];
        let ignored = given.into_iter().filter(|(_, ignored)| *ignored);
        ignored.map(|(name, _)| name).collect()
    }

    /// The rooms that a publisher sends to, in turn: its share when there are enough, else one that it
    /// shares with others.
    pub(crate) fn rooms_of(&self, publisher: u32) -> impl Iterator<Item = u32> + use<> {
        let first = publisher % self.rooms;
        let step = usize::try_from(self.pubs.min(self.rooms)).unwrap_or(usize::MAX);
        let share = if self.pubs >= self.rooms {
            1
        } else {
            usize::MAX
        };
        (first..self.rooms).step_by(step).take(share)
    }

    /// The settings for scripts.
    pub(crate) fn json(&self) -> Value {
        let mut settings = json!({
            "size": self.size, "rooms": self.rooms, "pubs": self.pubs, "subs": self.subs, "window": self.window, "bulk": self.bulk,
        });
        let (name, value) = match self.limit {
            Limit::Count(count) => ("count", json!(count)),
            Limit::Duration(duration) => ("duration_seconds", json!(duration.as_secs_f64())),
        };
        if let Some(settings) = settings.as_object_mut() {
            settings.insert(name.to_owned(), value);
        }
        settings
    }

    /// The settings for people.
    pub(crate) fn text(&self) -> String {
        let limit = match self.limit {
            Limit::Count(count) => format!("{count} messages"),
            Limit::Duration(duration) => format!("{} s", duration.as_secs_f64()),
        };
        let subs = if matches!(self.what, What::Sub | What::Rtt) {
            format!(", {} subscribers", self.subs)
        } else {
            String::new()
        };
        format!(
            "{} publishers x window {} (bulk {}){subs}, {} rooms, {} bytes a message, {limit}",
            self.pubs, self.window, self.bulk, self.rooms, self.size
        )
    }
}

fn size(text: Option<&str>) -> Result<usize, Failure> {
    let Some(text) = text else { return Ok(128) };
    let size = units::bytes(text).and_then(|size| usize::try_from(size).ok());
    size.filter(|size| (STAMP_BYTES..=PAYLOAD_BYTES_MAX).contains(size)).ok_or_else(|| {
        Failure::usage(format!("--size takes {STAMP_BYTES} to {PAYLOAD_BYTES_MAX} bytes, such as 128 or 16KiB, not '{text}'"))
    })
}

fn within(name: &str, given: Option<u32>, default: u32, max: u32) -> Result<u32, Failure> {
    match given.unwrap_or(default) {
        value if (1..=max).contains(&value) => Ok(value),
        value => Err(Failure::usage(format!(
            "{name} takes 1 to {max}, not {value}"
        ))),
    }
}

fn limit(options: &BenchOptions) -> Result<Limit, Failure> {
    match (options.count, options.duration.as_deref()) {
        (Some(0), _) => Err(Failure::usage("--count takes a number above zero")),
        (Some(count), _) => Ok(Limit::Count(count)),
        (None, None) => Ok(Limit::Duration(Duration::from_secs(3))),
        (None, Some(text)) => match units::duration(text, true) {
            Some(duration) if !duration.is_zero() => Ok(Limit::Duration(duration)),
            _ => Err(Failure::usage(format!(
                "--duration takes a time above zero, such as 10s, not '{text}'"
            ))),
        },
    }
}

/// What is left to send, shared by all publishers. Its time begins when the first of them asks.
#[derive(Debug)]
pub(crate) struct Budget {
    left: AtomicU64,
    duration: Option<Duration>,
    until: OnceLock<Option<Instant>>,
}

impl Budget {
    /// All of it.
    pub(crate) fn new(limit: Limit) -> Self {
        let (left, duration) = match limit {
            Limit::Count(count) => (count, None),
            Limit::Duration(duration) => (u64::MAX, Some(duration)),
        };
        Self {
            left: AtomicU64::new(left),
            duration,
            until: OnceLock::new(),
        }
    }

    /// Takes leave to send up to `wanted` messages; 0 means that it is enough.
    pub(crate) fn take(&self, wanted: u32) -> u32 {
        if let Some(duration) = self.duration {
            let now = Instant::now();
            let until = self.until.get_or_init(|| now.checked_add(duration));
            if until.is_some_and(|until| now >= until) {
                return 0;
            }
        }
        let take = |left: u64| Some(left.saturating_sub(wanted.into()));
        let before = self
            .left
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, take)
            .unwrap_or_else(|left| left);
        u32::try_from(before.min(wanted.into())).unwrap_or(wanted)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn options() -> BenchOptions {
        BenchOptions {
            size: None,
            rooms: None,
            pubs: None,
            subs: None,
            window: None,
            bulk: None,
            count: None,
            duration: None,
            json: false,
        }
    }

    #[test]
    fn defaults_and_limits() {
        let load = Load::new(What::Pub, &options()).expect("defaults are fine");
        assert_eq!(
            (load.size, load.rooms, load.pubs, load.window, load.bulk),
            (128, 1, 1, 64, 1)
        );
        assert_eq!(load.limit, Limit::Duration(Duration::from_secs(3)));
        let rooms = Load::new(What::Rooms, &options()).expect("defaults are fine");
        assert_eq!((rooms.rooms, rooms.limit), (10_000, Limit::Count(10_000)));
        let few = BenchOptions {
            pubs: Some(9),
            rooms: Some(4),
            bulk: Some(8),
            ..options()
        };
        let few = Load::new(What::Rooms, &few).expect("a room each");
        assert_eq!((few.pubs, few.bulk), (4, 1));
        let rtt = Load::new(
            What::Rtt,
            &BenchOptions {
                pubs: Some(9),
                window: Some(9),
                ..options()
            },
        )
        .expect("one at a time");
        assert_eq!((rtt.pubs, rtt.window), (1, 1));
        for wrong in [
            BenchOptions {
                size: Some("31".to_owned()),
                ..options()
            },
            BenchOptions {
                size: Some("9MiB".to_owned()),
                ..options()
            },
            BenchOptions {
                rooms: Some(0),
                ..options()
            },
            BenchOptions {
                window: Some(4097),
                ..options()
            },
            BenchOptions {
                bulk: Some(65),
                ..options()
            },
            BenchOptions {
                count: Some(0),
                ..options()
            },
            BenchOptions {
                duration: Some("0s".to_owned()),
                ..options()
            },
        ] {
            assert!(Load::new(What::Pub, &wrong).is_err(), "{wrong:?}");
        }
    }

    #[test]
    fn every_room_has_a_publisher_and_every_publisher_a_room() {
        for (pubs, rooms) in [(1, 1), (4, 1), (3, 2), (2, 7), (5, 5)] {
            let load = Load::new(
                What::Pub,
                &BenchOptions {
                    pubs: Some(pubs),
                    rooms: Some(rooms),
                    ..options()
                },
            )
            .expect("fine");
            let shares: Vec<Vec<u32>> = (0..pubs)
                .map(|publisher| load.rooms_of(publisher).collect())
                .collect();
            assert!(shares.iter().all(|share| !share.is_empty()), "{shares:?}");
            let mut all = shares.concat();
            all.sort_unstable();
            all.dedup();
            assert_eq!(all, (0..rooms).collect::<Vec<_>>(), "{pubs} publishers");
        }
    }

    #[test]
    fn a_budget_is_spent_once() {
        let budget = Budget::new(Limit::Count(10));
        assert_eq!(
            [
                budget.take(4),
                budget.take(4),
                budget.take(4),
                budget.take(4)
            ],
            [4, 4, 2, 0]
        );
        let over = Budget::new(Limit::Duration(Duration::ZERO));
        assert_eq!(over.take(1), 0);
    }
}

//! [`Load`]: what a benchmark does: its options, judged.

use std::time::Duration;

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
    /// Live delivery, many to many.
    Sub,
    /// Live delivery, one to many.
    Fanout,
    /// Reading history.
    Replay,
    /// One at a time.
    Rtt,
    /// Many rooms.
    Rooms,
}

/// What an option is to a benchmark.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Takes {
    /// This, unless something else is given.
    Usually(u32),
    /// This, whatever is given.
    Always(u32),
}
use Takes::{Always, Usually};

impl What {
    /// Its name on the command line.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Pub => "pub",
            Self::Sub => "sub",
            Self::Fanout => "fanout",
            Self::Replay => "replay",
            Self::Rtt => "rtt",
            Self::Rooms => "rooms",
        }
    }

    /// Whether messages can be due at times of their own.
    fn takes_rate(self) -> bool {
        !matches!(self, Self::Replay | Self::Rooms)
    }

    fn rooms(self) -> Takes {
        match self {
            Self::Pub | Self::Sub | Self::Replay => Usually(1),
            Self::Fanout | Self::Rtt => Always(1),
            Self::Rooms => Usually(10_000),
        }
    }

    fn pubs(self) -> Takes {
        match self {
            Self::Pub | Self::Sub | Self::Rooms => Usually(1),
            Self::Fanout | Self::Replay | Self::Rtt => Always(1),
        }
    }

    fn subs(self) -> Takes {
        match self {
            Self::Sub | Self::Replay => Usually(1),
            Self::Fanout => Usually(100),
            // The publisher's own connection receives.
            Self::Rtt => Always(1),
            Self::Pub | Self::Rooms => Always(0),
        }
    }

    fn window(self, has_rate: bool) -> Takes {
        match self {
            Self::Rtt => Always(1),
            // A window that is full holds messages back, which an open loop is not meant to do.
            _ if has_rate && self.takes_rate() => Usually(UNACKED_NUMBERS_MAX),
            Self::Pub | Self::Sub | Self::Rooms => Usually(64),
            Self::Fanout => Usually(512),
            // Its messages only have to be there.
            Self::Replay => Usually(2048),
        }
    }

    fn bulk(self) -> Takes {
        match self {
            Self::Pub | Self::Sub | Self::Fanout => Usually(1),
            Self::Replay => Usually(256),
            Self::Rtt | Self::Rooms => Always(1),
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
    /// Messages a second of all publishers, if they are due at times of their own.
    pub(crate) rate: Option<u32>,
    /// When it has done enough.
    pub(crate) limit: Limit,
    /// Whether the log is to be read from the disk and not from memory.
    pub(crate) cold: bool,
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
const RATE_MAX: u32 = 10_000_000;
/// How many messages are stored to be read.
const REPLAYED: u64 = 1_000_000;

impl Load {
    /// Judges the options.
    pub(crate) fn new(what: What, options: &BenchOptions) -> Result<Self, Failure> {
        let rooms = within("--rooms", options.rooms, what.rooms(), ROOMS_MAX)?;
        let rate = match options.rate.filter(|_| what.takes_rate()) {
            Some(rate) => Some(within("--rate", Some(rate), Usually(rate), RATE_MAX)?),
            None => None,
        };
        let window = what.window(rate.is_some());
        let window = within("--window", options.window, window, UNACKED_NUMBERS_MAX)?;
        let bulk = within("--bulk", options.bulk, what.bulk(), UNACKED_NUMBERS_MAX)?;
        // A window that is too small for a default makes the default smaller.
        let bulk = options.bulk.map_or(bulk.min(window), |_| bulk);
        if bulk > window {
            return Err(Failure::usage(format!(
                "--bulk {bulk} does not fit into --window {window}"
            )));
        }
        let pubs = within("--pubs", options.pubs, what.pubs(), PEERS_MAX)?;
        Ok(Self {
            what,
            size: size(options.size.as_deref())?,
            rooms,
            // A room is made once.
            pubs: if what == What::Rooms {
                pubs.min(rooms)
            } else {
                pubs
            },
            subs: within("--subs", options.subs, what.subs(), PEERS_MAX)?,
            window,
            bulk,
            rate,
            limit: match what {
                What::Rooms => Limit::Count(rooms.into()),
                What::Replay => Limit::Count(count(options.count.unwrap_or(REPLAYED))?),
                _ => limit(options)?,
            },
            cold: options.cold && what == What::Replay,
        })
    }

    /// The options that were given and mean nothing to this benchmark.
    pub(crate) fn ignored(what: What, options: &BenchOptions) -> Vec<&'static str> {
        let fixed = |given: Option<u32>, takes| given.is_some() && matches!(takes, Always(_));
        let (rooms, replay) = (what == What::Rooms, what == What::Replay);
        let given = [
            ("--rooms", fixed(options.rooms, what.rooms())),
            ("--pubs", fixed(options.pubs, what.pubs())),
            ("--subs", fixed(options.subs, what.subs())),
            ("--window", fixed(options.window, what.window(false))),
            ("--bulk", fixed(options.bulk, what.bulk())),
            ("--rate", !what.takes_rate() && options.rate.is_some()),
            ("--count", rooms && options.count.is_some()),
            (
                "--duration",
                (rooms || replay) && options.duration.is_some(),
            ),
            ("--cold", !replay && options.cold),
            ("--hdr", replay && options.hdr.is_some()),
        ];
        let ignored = given.into_iter().filter(|(_, ignored)| *ignored);
        ignored.map(|(name, _)| name).collect()
    }

    /// The figures that have latencies.
    pub(crate) fn timed(&self) -> &'static [&'static str] {
        match self.what {
            What::Pub => &["publish"],
            What::Sub => &["publish", "deliver"],
            What::Fanout if self.rate.is_some() => &["publish", "deliver"],
            What::Fanout => &["publish"],
            What::Rtt => &["ack", "deliver"],
            What::Rooms => &["create"],
            What::Replay => &[],
        }
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
        let (count, duration) = match self.limit {
            Limit::Count(count) => (Some(count), None),
            Limit::Duration(duration) => (None, Some(duration.as_secs_f64())),
        };
        let mut settings = json!({
            "size": self.size, "rooms": self.rooms, "pubs": self.pubs, "subs": self.subs,
            "window": self.window, "bulk": self.bulk, "rate": self.rate,
        });
        if let Some(settings) = settings.as_object_mut() {
            let mut put = |name: &str, value: Value| settings.insert(name.to_owned(), value);
            count.map(|count| put("count", count.into()));
            duration.map(|duration| put("duration_seconds", duration.into()));
            (self.what == What::Replay).then(|| put("cold", self.cold.into()));
        }
        settings
    }

    /// The settings for people.
    pub(crate) fn text(&self) -> String {
        let counted = |count: u32, what: &str| match count {
            1 => format!("1 {what}"),
            count => format!("{count} {what}s"),
        };
        let mut parts = vec![format!(
            "{} x window {} (bulk {})",
            counted(self.pubs, "publisher"),
            self.window,
            self.bulk
        )];
        if self.subs > 0 {
            parts.push(counted(self.subs, "subscriber"));
        }
        parts.push(counted(self.rooms, "room"));
        parts.push(format!("{} bytes a message", self.size));
        if let Some(rate) = self.rate {
            parts.push(format!(
                "open loop at {}",
                counted(rate, "message") + " a second"
            ));
        }
        parts.push(match self.limit {
            Limit::Count(count) => format!("{count} messages"),
            Limit::Duration(duration) => format!("{} s", duration.as_secs_f64()),
        });
        if self.what == What::Replay {
            parts.push(if self.cold { "cold" } else { "warm" }.to_owned());
        }
        parts.join(", ")
    }
}

fn size(text: Option<&str>) -> Result<usize, Failure> {
    let Some(text) = text else { return Ok(128) };
    let size = units::bytes(text).and_then(|size| usize::try_from(size).ok());
    size.filter(|size| (STAMP_BYTES..=PAYLOAD_BYTES_MAX).contains(size)).ok_or_else(|| {
        Failure::usage(format!("--size takes {STAMP_BYTES} to {PAYLOAD_BYTES_MAX} bytes, such as 128 or 16KiB, not '{text}'"))
    })
}

fn within(name: &str, given: Option<u32>, takes: Takes, max: u32) -> Result<u32, Failure> {
    match (takes, given) {
        (Always(value), _) | (Usually(value), None) => Ok(value),
        (Usually(_), Some(value)) if (1..=max).contains(&value) => Ok(value),
        (Usually(_), Some(value)) => Err(Failure::usage(format!(
            "{name} takes 1 to {max}, not {value}"
        ))),
    }
}

fn count(count: u64) -> Result<u64, Failure> {
    if count == 0 {
        return Err(Failure::usage("--count takes a number above zero"));
    }
    Ok(count)
}

fn limit(options: &BenchOptions) -> Result<Limit, Failure> {
    match (options.count, options.duration.as_deref()) {
        (Some(given), _) => Ok(Limit::Count(count(given)?)),
        (None, None) => Ok(Limit::Duration(Duration::from_secs(3))),
        (None, Some(text)) => match units::duration(text, true) {
            Some(duration) if !duration.is_zero() => Ok(Limit::Duration(duration)),
            _ => Err(Failure::usage(format!(
                "--duration takes a time above zero, such as 10s, not '{text}'"
            ))),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn options() -> BenchOptions {
        BenchOptions::default()
    }

    /// Everything is given.
    fn all() -> BenchOptions {
        BenchOptions {
            size: Some("64".to_owned()),
            rooms: Some(7),
            pubs: Some(7),
            subs: Some(7),
            window: Some(7),
            bulk: Some(7),
            rate: Some(7),
            count: Some(7),
            duration: None,
            cold: true,
            hdr: Some("x".into()),
            json: false,
        }
    }

    #[test]
    fn defaults() {
        let load = Load::new(What::Pub, &options()).expect("defaults are fine");
        assert_eq!(
            (load.size, load.rooms, load.pubs, load.window, load.bulk),
            (128, 1, 1, 64, 1)
        );
        assert_eq!(load.limit, Limit::Duration(Duration::from_secs(3)));
        let rooms = Load::new(What::Rooms, &options()).expect("defaults are fine");
        assert_eq!((rooms.rooms, rooms.limit), (10_000, Limit::Count(10_000)));
        let fanout = Load::new(What::Fanout, &options()).expect("defaults are fine");
        assert_eq!((fanout.pubs, fanout.subs, fanout.window), (1, 100, 512));
        let replay = Load::new(What::Replay, &options()).expect("defaults are fine");
        assert_eq!((replay.subs, replay.limit), (1, Limit::Count(REPLAYED)));
        let open = BenchOptions {
            rate: Some(10),
            ..options()
        };
        let open = Load::new(What::Pub, &open).expect("fine");
        assert_eq!((open.rate, open.window), (Some(10), UNACKED_NUMBERS_MAX));
    }

    #[test]
    fn what_is_ignored_has_no_effect() {
        let few = BenchOptions {
            pubs: Some(9),
            rooms: Some(4),
            ..options()
        };
        let few = Load::new(What::Rooms, &few).expect("a room each");
        assert_eq!((few.pubs, few.bulk), (4, 1));
        for (what, ignored) in [
            (What::Pub, &["--subs", "--cold"][..]),
            (What::Sub, &["--cold"]),
            (What::Fanout, &["--rooms", "--pubs", "--cold"]),
            (What::Replay, &["--pubs", "--rate", "--hdr"]),
            (
                What::Rtt,
                &[
                    "--rooms", "--pubs", "--subs", "--window", "--bulk", "--cold",
                ],
            ),
            (
                What::Rooms,
                &["--subs", "--bulk", "--rate", "--count", "--cold"],
            ),
        ] {
            assert_eq!(Load::ignored(what, &all()), ignored, "{what:?}");
            assert_eq!(Load::ignored(what, &options()), [""; 0]);
            let load = Load::new(what, &all()).expect("fine");
            let got = [
                ("--rooms", load.rooms == 7),
                ("--pubs", load.pubs == 7),
                ("--subs", load.subs == 7),
                ("--window", load.window == 7),
                ("--bulk", load.bulk == 7),
                ("--rate", load.rate == Some(7)),
                ("--cold", load.cold),
            ];
            for (name, taken) in got {
                assert_eq!(taken, !ignored.contains(&name), "{what:?} {name}");
            }
        }
    }

    #[test]
    fn limits() {
        let wrong: [fn(&mut BenchOptions); 9] = [
            |options| options.size = Some("31".to_owned()),
            |options| options.size = Some("9MiB".to_owned()),
            |options| options.rooms = Some(0),
            |options| options.window = Some(4097),
            |options| options.bulk = Some(65),
            |options| options.count = Some(0),
            |options| options.rate = Some(0),
            |options| options.rate = Some(RATE_MAX + 1),
            |options| options.duration = Some("0s".to_owned()),
        ];
        for change in wrong {
            let mut options = options();
            change(&mut options);
            assert!(Load::new(What::Pub, &options).is_err(), "{options:?}");
        }
    }

    #[test]
    fn every_room_has_a_publisher_and_every_publisher_a_room() {
        for (pubs, rooms) in [(1, 1), (4, 1), (3, 2), (2, 7), (5, 5)] {
            let options = BenchOptions {
                pubs: Some(pubs),
                rooms: Some(rooms),
                ..options()
            };
            let load = Load::new(What::Pub, &options).expect("fine");
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
}

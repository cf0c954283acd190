//! [`Curve`]: what grows, how far, and what is measured of it; [`Column`]: one thing that is measured, and whether it has to
//! stay the same.

/// How much more a cost may be at the end of a curve and still count as the same.
pub(crate) const FLAT_MAX: f64 = 1.3;

/// Subscribers of the room in which some are stalled.
pub(crate) const READERS: u64 = 1000;

/// What grows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Curve {
    /// Messages stored in one room.
    History,
    /// Rooms with a message each.
    Rooms,
    /// Subscribers of one room, each with a connection of its own.
    Subscribers,
    /// Subscribers that have stopped reading, of a thousand.
    SlowReaders,
    /// Connections that say nothing.
    Idle,
}

/// How a value is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Unit {
    /// A second.
    Rate,
    /// Microseconds.
    Micros,
    /// Nanoseconds of processor time.
    Nanos,
    /// Milliseconds.
    Millis,
    /// Bytes.
    Bytes,
    /// Hundredths of a core.
    Percent,
}

/// What is expected of a column.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Rule {
    /// The last row costs as much as the first one from this point on.
    Flat { from: u64 },
    /// It may grow: the text of the curve says why.
    Free,
}

/// One thing that is measured at each point.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Column {
    /// Its name in the results.
    pub(crate) key: &'static str,
    /// Its name on the page.
    pub(crate) title: &'static str,
    pub(crate) unit: Unit,
    pub(crate) rule: Rule,
}

const fn column(key: &'static str, title: &'static str, unit: Unit, rule: Rule) -> Column {
    Column {
        key,
        title,
        unit,
        rule,
    }
}

const FLAT: Rule = Rule::Flat { from: 0 };

const HISTORY: &[Column] = &[
    column("rate", "publish 64x16", Unit::Rate, FLAT),
    column("cpu_us", "its server cpu", Unit::Micros, FLAT),
    column("one_p50", "one in flight, p50", Unit::Micros, FLAT),
    column(
        "newest_p50",
        "read newest 10, p50",
        Unit::Micros,
        Rule::Flat { from: 1_000_000 },
    ),
    column(
        "middle_p50",
        "read 10 amid, p50",
        Unit::Micros,
        Rule::Flat { from: 1_000_000 },
    ),
    column(
        "rss",
        "RSS, filled",
        Unit::Bytes,
        Rule::Flat { from: 1_000_000 },
    ),
    column("killed_ms", "start after SIGKILL", Unit::Millis, Rule::Free),
    column("ended_ms", "start after SIGTERM", Unit::Millis, FLAT),
    column("rss_restarted", "RSS, started", Unit::Bytes, FLAT),
];

const ROOMS: &[Column] = &[
    column(
        "rate",
        "publish 64x16",
        Unit::Rate,
        Rule::Flat { from: 1000 },
    ),
    column(
        "cpu_us",
        "its server cpu",
        Unit::Micros,
        Rule::Flat { from: 1000 },
    ),
    column("one_p50", "one in flight, p50", Unit::Micros, FLAT),
    column("rss", "RSS, filled", Unit::Bytes, Rule::Free),
    column("rss_restarted", "RSS, started", Unit::Bytes, Rule::Free),
    column(
        "per_room",
        "of it a room",
        Unit::Bytes,
        Rule::Flat { from: 10_000 },
    ),
    column("killed_ms", "start after SIGKILL", Unit::Millis, Rule::Free),
    column("ended_ms", "start after SIGTERM", Unit::Millis, Rule::Free),
];

const SUBSCRIBERS: &[Column] = &[
    column("rate", "deliveries", Unit::Rate, Rule::Free),
    column("cpu_ns", "server cpu of one", Unit::Nanos, Rule::Free),
    column(
        "paced_cpu_us",
        "the same, paced",
        Unit::Micros,
        Rule::Flat { from: 100 },
    ),
    column("p50", "paced: p50", Unit::Micros, Rule::Free),
    column("p99", "paced: p99", Unit::Micros, Rule::Free),
    column("rss", "most RSS", Unit::Bytes, Rule::Free),
    column(
        "per_subscriber",
        "of it a subscriber",
        Unit::Bytes,
        Rule::Flat { from: 1000 },
    ),
];

const SLOW_READERS: &[Column] = &[
    column("rate", "publish 1x256", Unit::Rate, FLAT),
    column("cpu_us", "its server cpu", Unit::Micros, FLAT),
    column("ack_p50", "ack p50", Unit::Micros, FLAT),
    column("ack_p99", "ack p99", Unit::Micros, FLAT),
    column("one_p50", "to one reader: p50", Unit::Micros, FLAT),
    column("one_p99", "to one reader: p99", Unit::Micros, FLAT),
    column("p50", "to the others: p50", Unit::Micros, FLAT),
    column("p99", "to the others: p99", Unit::Micros, FLAT),
    column("rss", "RSS", Unit::Bytes, Rule::Free),
    column(
        "per_reader",
        "of it a stalled one",
        Unit::Bytes,
        Rule::Flat { from: 100 },
    ),
];

const IDLE: &[Column] = &[
    column("one_p50", "one in flight, p50", Unit::Micros, FLAT),
    column("one_p99", "one in flight, p99", Unit::Micros, FLAT),
    column("rate", "publish 64x16", Unit::Rate, FLAT),
    column("cpu_us", "its server cpu", Unit::Micros, FLAT),
    column(
        "idle_percent",
        "cpu of a core, idle",
        Unit::Percent,
        Rule::Free,
    ),
    column("rss", "RSS", Unit::Bytes, Rule::Free),
    column(
        "per_connection",
        "of it a connection",
        Unit::Bytes,
        Rule::Flat { from: 1000 },
    ),
];

impl Curve {
    /// All of them, in the order of the page.
    pub(crate) const ALL: [Self; 5] = [
        Self::History,
        Self::Rooms,
        Self::Subscribers,
        Self::SlowReaders,
        Self::Idle,
    ];

    /// Its name on the command line and in files.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::History => "history",
            Self::Rooms => "rooms",
            Self::Subscribers => "subscribers",
            Self::SlowReaders => "slow-readers",
            Self::Idle => "idle",
        }
    }

    /// The curve of this name.
    pub(crate) fn parse(name: &str) -> Result<Self, String> {
        let found = Self::ALL.into_iter().find(|curve| curve.name() == name);
        found.ok_or_else(|| {
            let names = Self::ALL.map(Self::name).join(", ");
            format!("'{name}' is none of {names}")
        })
    }

    /// Where it is measured, from `least` to `most`.
    pub(crate) fn points(self, least: u64, most: u64) -> Vec<u64> {
        let points: &[u64] = match self {
            Self::History => &[10_000, 100_000, 1_000_000, 10_000_000],
            Self::Rooms => &[1, 10, 100, 1000, 10_000, 100_000],
            Self::Subscribers | Self::Idle => &[1, 10, 100, 1000, 10_000],
            Self::SlowReaders => &[0, 1, 10, 100, 500, READERS - 1, READERS],
        };
        let kept = points.iter().filter(|at| (least..=most).contains(at));
        kept.copied().collect()
    }

    /// Open files that the server and this process each need at a point.
    pub(crate) const fn files(self, at: u64) -> u64 {
        /// Of publishers, the log and everything else.
        const OTHERS: u64 = 256;
        match self {
            Self::History | Self::Rooms => OTHERS,
            Self::Subscribers | Self::Idle => at + OTHERS,
            Self::SlowReaders => READERS + OTHERS,
        }
    }

    /// What is measured.
    pub(crate) const fn columns(self) -> &'static [Column] {
        match self {
            Self::History => HISTORY,
            Self::Rooms => ROOMS,
            Self::Subscribers => SUBSCRIBERS,
            Self::SlowReaders => SLOW_READERS,
            Self::Idle => IDLE,
        }
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test may panic")]

    use std::collections::HashSet;

    use super::*;

    #[test]
    fn names_go_there_and_back() {
        for curve in Curve::ALL {
            assert_eq!(Curve::parse(curve.name()), Ok(curve));
            let keys: HashSet<&str> = curve.columns().iter().map(|column| column.key).collect();
            assert_eq!(keys.len(), curve.columns().len(), "{curve:?}");
        }
        assert!(
            Curve::parse("history-")
                .unwrap_err()
                .contains("slow-readers")
        );
    }

    #[test]
    fn points_rise_from_the_least_to_the_most() {
        for curve in Curve::ALL {
            let all = curve.points(0, u64::MAX);
            assert!(all.is_sorted() && all.len() >= 4, "{curve:?}");
            for column in curve.columns() {
                if let Rule::Flat { from } = column.rule {
                    assert!(
                        all.iter().filter(|at| **at >= from).count() > 1,
                        "{curve:?} {column:?}"
                    );
                }
            }
        }
        assert_eq!(Curve::Rooms.points(2, 150), [10, 100]);
        assert_eq!(Curve::SlowReaders.points(0, 99), [0, 1, 10]);
        assert!(Curve::History.points(0, 9999).is_empty());
    }

    #[test]
    fn files_follow_the_connections() {
        assert!(Curve::Idle.files(10_000) > 10_000 && Curve::Idle.files(10_000) < 20_000);
        assert!(Curve::SlowReaders.files(0) > READERS);
        assert!(Curve::History.files(10_000_000) < 1024);
    }
}

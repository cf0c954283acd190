//! What all long tests have in common: where they begin, how deep they go, and how they say what they did.
//!
//! Three environment variables repeat and deepen any of them: `BROKER_SEED` is where chance begins, `BROKER_DEPTH` multiplies how
//! much of everything is tried (1 is what every change has to pass), and each test has a variable of its own that sets its depth
//! exactly. A test prints one [`Tally`] a line, which a report can add up, and ends with a [`Broken`] when a promise did not hold.

use std::fmt;

/// A number from the environment.
#[must_use]
pub fn setting(name: &str, otherwise: u64) -> u64 {
    std::env::var(name)
        .ok()
        .and_then(|value| value.parse().ok())
        .unwrap_or(otherwise)
}

/// Where chance begins: `BROKER_SEED`.
#[must_use]
pub fn seed(otherwise: u64) -> u64 {
    setting("BROKER_SEED", otherwise)
}

/// How much more than on every change is tried: `BROKER_DEPTH`.
#[must_use]
pub fn depth() -> u64 {
    setting("BROKER_DEPTH", 1).max(1)
}

/// How much a test tries: what its own variable says, else so many times the depth.
#[must_use]
pub fn deep(variable: &str, each: u64) -> u64 {
    setting(variable, each.saturating_mul(depth()))
}

/// What a test did, in one line: `TALLY sim_crash_matrix seed=1 states=200034`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tally {
    test: String,
    counts: Vec<(String, u64)>,
}

impl Tally {
    /// Nothing yet.
    #[must_use]
    pub fn new(test: &str, seed: u64) -> Self {
        Self {
            test: test.to_owned(),
            counts: vec![("seed".to_owned(), seed)],
        }
    }

    /// Adds a figure. The names are words in the plural: `states`, `cuts`, `kills`, `points`, `schedules`, `inputs`, `flips`,
    /// `cases`, `acks`, `bugs`.
    #[must_use]
    pub fn with(mut self, what: &str, count: u64) -> Self {
        self.counts.push((what.to_owned(), count));
        self
    }

    /// The test's name.
    #[must_use]
    pub fn test(&self) -> &str {
        &self.test
    }

    /// What it counted, in its order.
    pub fn counts(&self) -> impl Iterator<Item = (&str, u64)> {
        self.counts
            .iter()
            .map(|(what, count)| (what.as_str(), *count))
    }

    /// Reads a line back, also one that a test runner has put something in front of.
    #[must_use]
    pub fn parse(line: &str) -> Option<Self> {
        let (_, rest) = line.split_once("TALLY ")?;
        let mut words = rest.split_ascii_whitespace();
        let test = words.next()?.to_owned();
        let counts = words.map(|word| {
            let (what, count) = word.split_once('=')?;
            Some((what.to_owned(), count.parse().ok()?))
        });
        Some(Self {
            test,
            counts: counts.collect::<Option<_>>()?,
        })
    }
}

impl fmt::Display for Tally {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "TALLY {}", self.test)?;
        for (what, count) in &self.counts {
            write!(f, " {what}={count}")?;
        }
        Ok(())
    }
}

/// What kind of promise did not hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Harm {
    /// Something acknowledged is not there.
    LostAck,
    /// Something was delivered and then taken back, or never sent at all.
    Phantom,
    /// Something other than what was stored was served, or is missing without a word.
    SilentCorruption,
    /// Something is stored twice, or in another order.
    Doubled,
    /// Anything else: a store that cannot be opened, a panic, a false alarm.
    Other,
}

impl Harm {
    /// All of them, the worst first.
    pub const ALL: [Self; 5] = [
        Self::LostAck,
        Self::Phantom,
        Self::SilentCorruption,
        Self::Doubled,
        Self::Other,
    ];

    /// Its name in `BROKEN(...)`.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::LostAck => "lost ack",
            Self::Phantom => "phantom",
            Self::SilentCorruption => "silent corruption",
            Self::Doubled => "doubled or reordered",
            Self::Other => "other",
        }
    }
}

/// A promise that did not hold. It prints as `BROKEN(lost ack): ...`, for a report to find.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Broken {
    /// Which kind.
    pub harm: Harm,
    /// What, for the person who looks for the reason.
    pub what: String,
}

impl Broken {
    /// A promise that did not hold.
    pub fn new(harm: Harm, what: impl Into<String>) -> Self {
        Self {
            harm,
            what: what.into(),
        }
    }

    /// The same, and where or when it was.
    #[must_use]
    pub fn at(mut self, place: impl fmt::Display) -> Self {
        self.what = format!("{place}: {}", self.what);
        self
    }

    /// The harm that a line of output tells of.
    #[must_use]
    pub fn parse(line: &str) -> Option<Harm> {
        let (_, rest) = line.split_once("BROKEN(")?;
        let (name, _) = rest.split_once("): ")?;
        Harm::ALL.into_iter().find(|harm| harm.as_str() == name)
    }
}

impl From<String> for Broken {
    fn from(what: String) -> Self {
        Self::new(Harm::Other, what)
    }
}

impl From<&str> for Broken {
    fn from(what: &str) -> Self {
        Self::new(Harm::Other, what)
    }
}

impl fmt::Display for Broken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "BROKEN({}): {}", self.harm.as_str(), self.what)
    }
}

impl std::error::Error for Broken {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tally_is_read_back() {
        let tally = Tally::new("bitrot_every_bit", 7).with("flips", 524_288);
        let line = format!("test x ... {tally}");
        assert_eq!(Tally::parse(&line), Some(tally));
        assert_eq!(Tally::parse("TALLY x flips=many"), None);
        assert_eq!(Tally::parse("nothing"), None);
    }

    #[test]
    fn a_broken_promise_is_read_back() {
        for harm in Harm::ALL {
            let line = format!("thread panicked: {}", Broken::new(harm, "seq 4 is gone"));
            assert_eq!(Broken::parse(&line), Some(harm));
        }
        assert_eq!(Broken::parse("BROKEN(else): "), None);
    }
}

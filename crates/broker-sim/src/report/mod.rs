//! One page of what the log survived: every long test is run, and what they say is added up.
//!
//! The tests are the ones that every change has to pass, at any depth; nothing is tried here that they do not try. They run one
//! module after the other, from the executables that cargo makes, and tell what they did in lines of [`Tally`], [`Broken`] and
//! `SKIPPED(reason)`. So the page cannot say more than the tests do.

mod build;
mod page;
mod run;

use std::collections::BTreeMap;
use std::io;
use std::time::Duration;

use crate::campaign::{Broken, Harm, Tally};
use crate::planted::Caught;

pub(crate) use build::{Target, build};
pub(crate) use run::hear;
pub use run::{Options, run};

/// One executable's worth of tests, or one module of it.
#[derive(Debug, Clone, Default)]
pub struct Ran {
    /// Its name.
    pub name: String,
    /// What its tests say that they did.
    pub tallies: Vec<Tally>,
    /// Promises that did not hold.
    pub broken: BTreeMap<Harm, u64>,
    /// What could not be tried here, and why.
    pub skipped: Vec<String>,
    /// Tests that passed.
    pub passed: u64,
    /// What went wrong, if anything: the end of what it printed.
    pub failure: Option<String>,
    /// How long it took.
    pub took: Duration,
}

impl Ran {
    /// Takes one line of what a test printed.
    pub(crate) fn hear(&mut self, line: &str) {
        if let Some(harm) = Broken::parse(line) {
            *self.broken.entry(harm).or_default() += 1;
        } else if let Some(tally) = Tally::parse(line) {
            self.tallies.push(tally);
        } else if let Some(reason) = skipped(line) {
            self.skipped.push(reason.to_owned());
        } else if let Some(passed) = passed(line) {
            self.passed += passed;
        }
    }
}

/// The reason in a line that says that a test was skipped.
fn skipped(line: &str) -> Option<&str> {
    let (_, rest) = line.split_once("SKIPPED(")?;
    let (reason, _) = rest.split_once(')')?;
    Some(reason)
}

/// How many tests passed, from the line with which the test runner ends.
fn passed(line: &str) -> Option<u64> {
    let rest = line.strip_prefix("test result: ")?;
    let (_, rest) = rest.split_once(". ")?;
    rest.split(' ').next()?.parse().ok()
}

/// All of it.
#[derive(Debug, Clone, Default)]
pub struct Report {
    /// Where and of what it was made: names and values.
    pub setting: Vec<(String, String)>,
    /// What was run.
    pub ran: Vec<Ran>,
    /// The bugs on purpose; none when they were not asked for.
    pub planted: Vec<Caught>,
    /// How long all of it took.
    pub took: Duration,
}

impl Report {
    /// Whether everything that was tried held.
    #[must_use]
    pub fn is_clean(&self) -> bool {
        self.ran.iter().all(|ran| ran.failure.is_none())
            && self.planted.iter().all(Caught::is_caught)
    }

    /// How often a promise of this kind did not hold.
    #[must_use]
    pub fn broken(&self, harm: Harm) -> u64 {
        self.ran
            .iter()
            .filter_map(|ran| ran.broken.get(&harm))
            .sum()
    }

    /// All figures of one name, added up.
    #[must_use]
    pub fn total(&self, what: &str) -> u64 {
        let tallies = self.ran.iter().flat_map(|ran| &ran.tallies);
        tallies
            .flat_map(Tally::counts)
            .filter(|(name, _)| *name == what)
            .map(|(_, count)| count)
            .sum()
    }
}

/// Something that keeps a report from being made.
fn other(what: impl Into<String>) -> io::Error {
    io::Error::other(what.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_tests_print_is_heard() {
        let mut ran = Ran::default();
        for line in [
            "running 2 tests",
            "TALLY sim_crash_matrix seed=1 states=200 moments=7",
            "SKIPPED(xfs)",
            "thread 'x' panicked at y: BROKEN(lost ack): message 7 is gone",
            "TALLY sim_crash_matrix seed=2 states=5",
            "test result: ok. 12 passed; 0 failed; 0 ignored",
        ] {
            ran.hear(line);
        }
        assert_eq!((ran.tallies.len(), ran.passed), (2, 12));
        assert_eq!(ran.skipped, ["xfs"]);
        let report = Report {
            ran: vec![ran],
            ..Report::default()
        };
        assert_eq!(report.total("states"), 205);
        assert_eq!(report.broken(Harm::LostAck), 1);
        assert_eq!(report.broken(Harm::Phantom), 0);
    }
}

//! Plants one bug after the other and sees that a test catches it, and how fast.
//!
//! The bugs exist only in builds of their own (`--cfg broker_planted_bugs`, in `target/planted`), so that none can get into another
//! one. Every bug has the one test that has to catch it, and words that this test has to say: a test that fails for another reason
//! has caught nothing. Before that, the same tests run without a bug in the same build, and have to pass, or their failure would prove
//! nothing. The list of bugs is that of `broker-core/src/planted.rs`.

mod run;
mod table;

use std::fmt;
use std::time::Duration;

pub use run::{Options, run};

/// What became of a bug.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// The test failed, and said what was expected.
    Caught,
    /// The test passed.
    Missed,
    /// Something else went wrong: what.
    Unclear(String),
}

/// A bug that was planted, and what became of it.
#[derive(Debug, Clone)]
pub struct Caught {
    /// Its name.
    pub bug: &'static str,
    /// Which promise it breaks.
    pub promise: &'static str,
    /// The test that has to catch it.
    pub test: &'static str,
    /// After how long that had ended.
    pub after: Duration,
    /// Whether it was caught.
    pub outcome: Outcome,
}

impl Caught {
    /// Whether the right test failed in the right way.
    #[must_use]
    pub fn is_caught(&self) -> bool {
        self.outcome == Outcome::Caught
    }
}

impl fmt::Display for Caught {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            bug, promise, test, ..
        } = self;
        let seconds = self.after.as_secs_f64();
        write!(f, "{bug:34} {promise:4} {seconds:6.1} s  {test}")?;
        match &self.outcome {
            Outcome::Caught => Ok(()),
            Outcome::Missed => f.write_str("  NOT CAUGHT"),
            Outcome::Unclear(why) => write!(f, "  NOT CAUGHT: {why}"),
        }
    }
}

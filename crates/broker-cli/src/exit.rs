//! How the process ends: the numbers that scripts rely on, and the words that go with them.

use std::error::Error as StdError;
use std::fmt::Write as _;
use std::process::ExitCode;

/// How the process ended. Scripts rely on the numbers: add, never renumber.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Exit {
    /// Done. A closed pipe counts as done.
    Ok = 0,
    /// The asked-for thing is not there.
    Absent = 1,
    /// An argument, a name, an address or a setting is wrong.
    Usage = 2,
    /// Nobody answers, or the store cannot be opened.
    Unreachable = 3,
    /// The broker said no.
    Refused = 4,
    /// No progress for `--timeout`.
    TimedOut = 5,
    /// The peer or the disk did what it must not; a benchmark found a message missing; a store is
    /// damaged.
    Protocol = 6,
    /// SIGINT.
    Interrupted = 130,
    /// SIGTERM.
    Terminated = 143,
}

impl Exit {
    /// The number that the shell sees.
    pub(crate) fn number(self) -> u8 {
        self as u8
    }
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit.number())
    }
}

/// Why a command stopped before it was done, and how the process shall end.
#[derive(Debug)]
pub(crate) struct Failure {
    /// The exit code.
    pub(crate) exit: Exit,
    /// One line for standard error, without the program's name; none when there is nothing to say.
    pub(crate) words: Option<String>,
}

impl Failure {
    /// Ends the process with words.
    pub(crate) fn new(exit: Exit, words: impl Into<String>) -> Self {
        Self {
            exit,
            words: Some(words.into()),
        }
    }

    /// An argument or setting that makes no sense.
    pub(crate) fn usage(words: impl Into<String>) -> Self {
        Self::new(Exit::Usage, words)
    }

    /// Ends the process without a word.
    pub(crate) fn quiet(exit: Exit) -> Self {
        Self { exit, words: None }
    }

    /// Puts what was tried before the words.
    pub(crate) fn context(mut self, tried: &str) -> Self {
        self.words = self.words.map(|words| format!("{tried}: {words}"));
        self
    }
}

/// An error and all its causes in one line. A cause that the text before already ends with is not
/// said again.
pub(crate) fn chain(error: &dyn StdError) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let words = error.to_string();
        if !text.ends_with(&words) {
            // Writing to a string cannot fail.
            let _ = write!(text, ": {words}");
        }
        cause = error.source();
    }
    text
}

//! How the daemon ends: the numbers that service managers act on.

use std::process::ExitCode;

/// How the daemon ended. Add, never renumber.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Exit {
    /// By request, with everything in order.
    Ok = 0,
    /// The store was written by a newer version (`EX_DATAERR`).
    Newer = 65,
    /// Something that the operating system would not give (`EX_OSERR`).
    System = 71,
    /// The disk or the directory fails (`EX_IOERR`).
    Disk = 74,
    /// Another process has the store or the port; later it may be free (`EX_TEMPFAIL`).
    Held = 75,
    /// What was asked for is refused, and will be the next time too (`EX_CONFIG`).
    Config = 78,
    /// A second SIGINT.
    Interrupted = 130,
    /// A second SIGTERM.
    Terminated = 143,
}

impl Exit {
    /// The number that the parent process sees.
    pub(crate) fn number(self) -> u8 {
        self as u8
    }
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit.number())
    }
}

/// Why the daemon could not start or go on.
#[derive(Debug)]
pub(crate) struct Failure {
    /// The exit code.
    pub(crate) exit: Exit,
    /// One line for standard error.
    pub(crate) words: String,
}

impl Failure {
    /// Ends the daemon with words.
    pub(crate) fn new(exit: Exit, words: impl Into<String>) -> Self {
        Self {
            exit,
            words: words.into(),
        }
    }
}

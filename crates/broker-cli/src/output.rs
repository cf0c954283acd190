//! Standard output: buffered, flushed when the program says so, and at peace with a closed pipe.
//!
//! Data goes here and nowhere else; words go to standard error through [`say`]. A reader that has
//! seen enough (`| head`) closes the pipe, and that is success: [`OutputError::Closed`] ends the
//! command quietly with exit code 0.

use std::fmt::{self, Write as _};
use std::io::{self, ErrorKind, IsTerminal, Write};

use crate::exit::{Exit, Failure};

/// What may wait in memory before it is written out.
const BUFFER_BYTES: usize = 64 << 10;

/// Why output ended.
#[derive(Debug)]
pub(crate) enum OutputError {
    /// Whoever read it has gone.
    Closed,
    /// It could not be written: a full disk, for example.
    Failed(io::Error),
}

impl From<io::Error> for OutputError {
    fn from(error: io::Error) -> Self {
        if error.kind() == ErrorKind::BrokenPipe {
            Self::Closed
        } else {
            Self::Failed(error)
        }
    }
}

impl From<OutputError> for Failure {
    fn from(error: OutputError) -> Self {
        match error {
            OutputError::Closed => Self::quiet(Exit::Ok),
            OutputError::Failed(error) => Self::new(
                Exit::Protocol,
                format!("cannot write to standard output: {error}"),
            ),
        }
    }
}

/// Buffered output. Whole entries are appended to [`Output::buffer`]; [`Output::settle`] writes
/// when enough has gathered, [`Output::flush`] writes at once.
#[derive(Debug)]
pub(crate) struct Output<W> {
    to: W,
    buffer: Vec<u8>,
}

/// Standard output.
pub(crate) type Stdout = Output<io::StdoutLock<'static>>;

/// Takes standard output for the rest of the process.
pub(crate) fn stdout() -> Stdout {
    Output::new(io::stdout().lock())
}

/// Whether a person looks at standard output.
pub(crate) fn is_terminal() -> bool {
    io::stdout().is_terminal()
}

/// Whether colour is welcome: only on a terminal, and not if `NO_COLOR` or `TERM=dumb` say no.
pub(crate) fn is_colourful() -> bool {
    let unwanted = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
    let dumb = std::env::var_os("TERM").is_none_or(|term| term == "dumb");
    is_terminal() && !unwanted && !dumb
}

impl<W: Write> Output<W> {
    /// Buffers what goes to `to`.
    pub(crate) fn new(to: W) -> Self {
        Self {
            to,
            buffer: Vec::new(),
        }
    }

    /// Where entries are appended.
    pub(crate) fn buffer(&mut self) -> &mut Vec<u8> {
        &mut self.buffer
    }

    /// Called after an entry: writes once enough has gathered.
    pub(crate) fn settle(&mut self) -> Result<(), OutputError> {
        if self.buffer.len() >= BUFFER_BYTES {
            self.write_out()
        } else {
            Ok(())
        }
    }

    /// Writes everything now: before the program waits for something, and at its end.
    pub(crate) fn flush(&mut self) -> Result<(), OutputError> {
        self.write_out()?;
        // The handle beneath buffers by lines.
        Ok(self.to.flush()?)
    }

    fn write_out(&mut self) -> Result<(), OutputError> {
        let result = self.to.write_all(&self.buffer);
        // Also after an error: whoever goes on regardless must not gather without end.
        self.buffer.clear();
        // One huge message must not stay in memory for ever.
        self.buffer.shrink_to(2 * BUFFER_BYTES);
        Ok(result?)
    }
}

/// Lets formatters write straight into a byte buffer.
#[derive(Debug)]
pub(crate) struct Text<'a>(pub(crate) &'a mut Vec<u8>);

impl fmt::Write for Text<'_> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        self.0.extend_from_slice(text.as_bytes());
        Ok(())
    }
}

/// Appends formatted text.
pub(crate) fn put(out: &mut Vec<u8>, text: fmt::Arguments<'_>) {
    // Appending to memory cannot fail, and no value printed here has a failing `Display`.
    let _ = Text(out).write_fmt(text);
}

/// Says one line on standard error, after the program's name. Control characters in it, which may
/// come from a peer, are made visible.
pub(crate) fn say(words: &str) {
    let mut line = b"broker: ".to_vec();
    crate::escape::for_words(words, &mut line);
    line.push(b'\n');
    // Nobody is left to be told when standard error is closed.
    let _ = io::stderr().lock().write_all(&line);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug)]
    struct Refusing(ErrorKind);

    impl Write for Refusing {
        fn write(&mut self, _: &[u8]) -> io::Result<usize> {
            Err(self.0.into())
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn entries_gather_until_there_are_enough_or_a_flush() {
        let mut output = Output::new(Vec::new());
        output.buffer().extend_from_slice(b"one\n");
        output.settle().expect("a vector takes everything");
        assert!(output.to.is_empty());
        output.flush().expect("a vector takes everything");
        assert_eq!(output.to, b"one\n");
        output.buffer().resize(BUFFER_BYTES, b'x');
        output.settle().expect("a vector takes everything");
        assert_eq!(output.to.len(), 4 + BUFFER_BYTES);
    }

    #[test]
    fn a_closed_pipe_is_success_and_a_full_disk_is_not() {
        for (kind, exit) in [
            (ErrorKind::BrokenPipe, Exit::Ok),
            (ErrorKind::StorageFull, Exit::Protocol),
        ] {
            let mut output = Output::new(Refusing(kind));
            output.buffer().push(b'x');
            let failure = Failure::from(output.flush().expect_err("it refuses"));
            assert_eq!(failure.exit, exit);
            assert_eq!(failure.words.is_none(), exit == Exit::Ok);
            assert!(
                output.buffer.is_empty(),
                "what cannot be written must not pile up"
            );
        }
    }
}

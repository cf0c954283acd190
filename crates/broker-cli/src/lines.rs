//! Cutting standard input into messages.
//!
//! A thread reads, because a pipe is read blockingly; lines are slices of what it read, so that
//! nothing is copied but the line that two reads share. What waits is bounded: a few chunks, and
//! one unfinished line of at most the message limit.

use std::io::{self, Read};
use std::thread;

use bytes::Bytes;
use tokio::sync::mpsc;

/// How much one read asks for. A pipe holds as much.
const CHUNK_BYTES: usize = 64 << 10;
/// How many chunks wait for whoever sends them.
const CHUNKS_WAITING: usize = 4;

/// A line that no broker takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("line {number} is longer than {limit} bytes, the largest message that any broker takes")]
pub(crate) struct LineTooLong {
    /// Which line, counted from 1.
    pub(crate) number: u64,
    /// What is allowed.
    pub(crate) limit: usize,
}

/// Cuts a stream of chunks at newlines. Empty lines are lines, a carriage return belongs to its
/// line, and what follows the last newline is a line if it is not empty.
#[derive(Debug)]
pub(crate) struct LineSplitter {
    partial: Vec<u8>,
    limit: usize,
    lines: u64,
}

impl LineSplitter {
    /// Lines may have at most `limit` bytes.
    pub(crate) fn new(limit: usize) -> Self {
        Self {
            partial: Vec::new(),
            limit,
            lines: 0,
        }
    }

    /// Appends the lines that end in `chunk` to `into`.
    pub(crate) fn push(&mut self, chunk: &Bytes, into: &mut Vec<Bytes>) -> Result<(), LineTooLong> {
        let mut start = 0;
        let mut rest: &[u8] = chunk;
        while let Some(length) = rest.iter().position(|&byte| byte == b'\n') {
            self.check(length)?;
            self.lines += 1;
            if self.partial.is_empty() {
                into.push(chunk.slice(start..start + length));
            } else {
                self.partial
                    .extend_from_slice(rest.get(..length).unwrap_or_default());
                into.push(Bytes::from(std::mem::take(&mut self.partial)));
            }
            start += length + 1;
            rest = rest.get(length + 1..).unwrap_or_default();
        }
        self.check(rest.len())?;
        self.partial.extend_from_slice(rest);
        Ok(())
    }

    /// The last line, if it had no newline.
    pub(crate) fn finish(&mut self) -> Option<Bytes> {
        if self.partial.is_empty() {
            return None;
        }
        self.lines += 1;
        Some(Bytes::from(std::mem::take(&mut self.partial)))
    }

    fn check(&self, more: usize) -> Result<(), LineTooLong> {
        if self.partial.len() + more > self.limit {
            return Err(LineTooLong {
                number: self.lines + 1,
                limit: self.limit,
            });
        }
        Ok(())
    }
}

/// Reads `from` on a thread of its own. The channel closes at the end of the input, after an error
/// that stands in it last, or soon after the receiver is dropped (the thread may stay in a read
/// until the process ends).
pub(crate) fn chunks(
    from: impl Read + Send + 'static,
) -> io::Result<mpsc::Receiver<io::Result<Bytes>>> {
    let (sender, receiver) = mpsc::channel(CHUNKS_WAITING);
    thread::Builder::new()
        .name("stdin".to_owned())
        .spawn(move || read_chunks(from, &sender))?;
    Ok(receiver)
}

fn read_chunks(mut from: impl Read, to: &mpsc::Sender<io::Result<Bytes>>) {
    let mut buffer = vec![0; CHUNK_BYTES];
    loop {
        let chunk = match from.read(&mut buffer) {
            Ok(0) => return,
            // An exact copy: a slow trickle of lines must not pin a whole buffer each.
            Ok(length) => Ok(Bytes::copy_from_slice(
                buffer.get(..length).unwrap_or_default(),
            )),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => Err(error),
        };
        let failed = chunk.is_err();
        if to.blocking_send(chunk).is_err() || failed {
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Cuts `input` into chunks of `size` bytes and those into lines.
    fn split(input: &[u8], size: usize, limit: usize) -> Result<Vec<Vec<u8>>, LineTooLong> {
        let mut splitter = LineSplitter::new(limit);
        let mut lines = Vec::new();
        for chunk in input.chunks(size) {
            splitter.push(&Bytes::copy_from_slice(chunk), &mut lines)?;
        }
        lines.extend(splitter.finish());
        Ok(lines.into_iter().map(|line| line.to_vec()).collect())
    }

    #[test]
    fn any_cut_gives_the_same_lines() {
        let input = b"one\n\n\r\ntwo\r\n\xff\xfe\nlast";
        let lines: Vec<Vec<u8>> = vec![
            b"one".into(),
            b"".into(),
            b"\r".into(),
            b"two\r".into(),
            b"\xff\xfe".into(),
            b"last".into(),
        ];
        for size in 1..=input.len() {
            assert_eq!(
                split(input, size, 100),
                Ok(lines.clone()),
                "chunks of {size}"
            );
        }
    }

    #[test]
    fn ends() {
        assert_eq!(split(b"", 1, 100), Ok(vec![]));
        assert_eq!(split(b"\n", 1, 100), Ok(vec![vec![]]));
        assert_eq!(split(b"a\n", 1, 100), Ok(vec![b"a".to_vec()]));
        assert_eq!(split(b"a", 1, 100), Ok(vec![b"a".to_vec()]));
    }

    #[test]
    fn a_line_over_the_limit_is_found_before_it_is_gathered() {
        for size in 1..=9 {
            assert_eq!(
                split(b"ok\n1234\n", size, 4),
                Ok(vec![b"ok".to_vec(), b"1234".to_vec()])
            );
            assert_eq!(
                split(b"ok\n12345\n", size, 4),
                Err(LineTooLong {
                    number: 2,
                    limit: 4
                })
            );
            assert_eq!(
                split(b"ok\n12345", size, 4),
                Err(LineTooLong {
                    number: 2,
                    limit: 4
                })
            );
        }
    }

    #[test]
    fn the_reading_thread_delivers_everything_and_the_error_at_the_end() {
        struct Failing(u8);
        impl Read for Failing {
            fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
                self.0 += 1;
                match self.0 {
                    1 => Err(io::ErrorKind::Interrupted.into()),
                    2 => {
                        buffer.fill(b'x');
                        Ok(buffer.len())
                    }
                    _ => Err(io::ErrorKind::ConnectionReset.into()),
                }
            }
        }
        let mut chunks = chunks(Failing(0)).expect("a thread");
        assert_eq!(
            chunks
                .blocking_recv()
                .expect("a chunk")
                .expect("read")
                .len(),
            CHUNK_BYTES
        );
        assert_eq!(
            chunks
                .blocking_recv()
                .expect("the error")
                .expect_err("it failed")
                .kind(),
            io::ErrorKind::ConnectionReset
        );
        assert!(chunks.blocking_recv().is_none());
    }
}

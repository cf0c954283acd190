//! The file of a history: written by [`Recorder`], read by [`read`].

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::path::Path;
use std::sync::{Mutex, PoisonError};

use rustix::time::{ClockId, clock_gettime};

use super::event::Event;

/// The machine's monotonic clock, in nanoseconds: the same for all of its processes.
#[must_use]
pub fn monotonic_nanos() -> u64 {
    let now = clock_gettime(ClockId::Monotonic);
    let part = |number: i64| u64::try_from(number).unwrap_or(0);
    part(now.tv_sec) * 1_000_000_000 + part(now.tv_nsec)
}

/// Writes down what this process does and sees.
#[derive(Debug)]
pub struct Recorder {
    inner: Mutex<Inner>,
}

#[derive(Debug)]
struct Inner {
    file: File,
    /// Kept for its space.
    line: Vec<u8>,
}

impl Recorder {
    /// Appends to the file at `path`, which is made when it does not exist.
    ///
    /// # Errors
    /// The file cannot be opened.
    pub fn open(path: &Path) -> io::Result<Self> {
        let file = OpenOptions::new().append(true).create(true).open(path)?;
        let line = Vec::new();
        Ok(Self {
            inner: Mutex::new(Inner { file, line }),
        })
    }

    /// Writes an event down, with the time of this call. When it returns, no kill takes the event back.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn record(&self, event: &Event<'_>) -> io::Result<()> {
        let mut inner = self.inner.lock().unwrap_or_else(PoisonError::into_inner);
        let Inner { file, line } = &mut *inner;
        line.clear();
        writeln!(line, "{} {event}", monotonic_nanos())?;
        // One call for the whole line: a kill comes before or after it.
        file.write_all(line)
    }
}

/// Gives the events of a history file to `each`, with their times, in order. A torn last line is passed over.
///
/// # Errors
/// The file cannot be read, `each` fails, or `InvalidData` when a whole line is not one of a history.
pub fn read(path: &Path, mut each: impl FnMut(u64, Event<'_>) -> io::Result<()>) -> io::Result<()> {
    let bytes = std::fs::read(path)?;
    let whole = bytes
        .iter()
        .rposition(|byte| *byte == b'\n')
        .and_then(|end| bytes.get(..end))
        .unwrap_or_default();
    for (index, line) in whole.split(|byte| *byte == b'\n').enumerate() {
        if line.is_empty() && whole.is_empty() {
            break;
        }
        let parsed = std::str::from_utf8(line)
            .ok()
            .and_then(|line| line.split_once(' '))
            .and_then(|(time, rest)| Some((time.parse().ok()?, Event::parse(rest).ok()?)));
        let Some((time, event)) = parsed else {
            let text = format!("{}: line {} is unreadable", path.display(), index + 1);
            return Err(io::Error::new(io::ErrorKind::InvalidData, text));
        };
        each(time, event)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test may panic")]

    use super::*;

    fn read_all(path: &Path) -> io::Result<Vec<String>> {
        let mut lines = Vec::new();
        read(path, |_, event| {
            lines.push(event.to_string());
            Ok(())
        })?;
        Ok(lines)
    }

    #[test]
    fn a_torn_last_line_is_passed_over_and_a_damaged_one_is_not() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("history");
        let recorder = Recorder::open(&path).unwrap();
        assert!(read_all(&path).unwrap().is_empty());
        let process = Event::Process {
            agent: 1,
            life: 1,
            pid: 7,
        };
        let ended = Event::Ended {
            subscription: 1,
            room: "ops",
        };
        recorder.record(&process).unwrap();
        recorder.record(&ended).unwrap();
        let whole = std::fs::read(&path).unwrap();
        for end in 0..whole.len() {
            std::fs::write(&path, whole.get(..end).unwrap()).unwrap();
            let lines = read_all(&path).unwrap();
            let both = [process.to_string(), ended.to_string()];
            assert!(both.starts_with(&lines), "{lines:?}");
            assert!(lines.len() < 2);
        }
        std::fs::write(&path, [b"nonsense\n", &whole[..]].concat()).unwrap();
        let error = read_all(&path).unwrap_err();
        assert!(error.to_string().contains("line 1"), "{error}");
    }

    #[test]
    fn times_do_not_run_backwards() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("history");
        let recorder = Recorder::open(&path).unwrap();
        let before = monotonic_nanos();
        for subscription in 0..100 {
            let room = "ops";
            recorder
                .record(&Event::Ended { subscription, room })
                .unwrap();
        }
        let mut last = before;
        read(&path, |time, _| {
            assert!(last <= time);
            last = time;
            Ok(())
        })
        .unwrap();
        assert!(before < last && last <= monotonic_nanos());
    }
}

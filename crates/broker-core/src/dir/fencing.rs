//! `DIR/fenced`: when a leader was last killed because it hung, as the file's modification time.
//!
//! Something that hangs again and again is not mended by killing again and again, so that everybody
//! together does it at most once a minute. The file is empty, is never removed, and decides nothing
//! else.

use std::fs::TryLockError;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::time::{Duration, SystemTime};

use broker_proto::Micros;
use rustix::fs::OFlags;

use super::StoreDir;

/// Name of the file.
const FENCED_NAME: &str = "fenced";

/// Shortest time between two leaders that are killed.
pub const FENCING_EVERY: Duration = Duration::from_secs(60);

impl StoreDir {
    /// Whether a leader may be killed now, as far as the time since the last one goes. If so, this
    /// counts as the next one.
    ///
    /// A time in the future, such as after the clock was set back, is taken for now.
    ///
    /// # Errors
    /// The disk's; then nobody may be killed.
    pub fn begin_fencing(&self, now: Micros) -> io::Result<bool> {
        let existed = match self.open_file(FENCED_NAME, OFlags::RDWR) {
            Ok(file) => Some(file),
            Err(error) if error.kind() == io::ErrorKind::NotFound => None,
            Err(error) => return Err(error),
        };
        let existed_before = existed.is_some();
        let file = match existed {
            Some(file) => file,
            None => self.open_file(FENCED_NAME, OFlags::RDWR | OFlags::CREATE | OFlags::EXCL)?,
        };
        // Released when it is closed; whoever holds it is about to kill.
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Ok(false),
            Err(TryLockError::Error(error)) => return Err(error),
        }
        let metadata = file.metadata()?;
        let last = metadata
            .mtime()
            .saturating_mul(1_000_000)
            .saturating_add(metadata.mtime_nsec() / 1_000);
        let every = i64::try_from(FENCING_EVERY.as_micros()).unwrap_or(i64::MAX);
        let age = now.get().saturating_sub(last);
        let may = !existed_before || age >= every;
        if may || age < 0 {
            file.set_modified(system_time(now))?;
        }
        Ok(may)
    }
}

fn system_time(at: Micros) -> SystemTime {
    let since = Duration::from_micros(u64::try_from(at.get()).unwrap_or(0));
    SystemTime::UNIX_EPOCH + since
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test may panic")]

    use super::*;
    use crate::dir::SystemProbe;

    #[test]
    fn once_a_minute_and_a_clock_that_was_set_back_starts_it_again() {
        let parent = tempfile::tempdir().unwrap();
        let dir = StoreDir::open(parent.path().join("data"), &SystemProbe).unwrap();
        let may = |seconds: i64| dir.begin_fencing(Micros::new(seconds * 1_000_000)).unwrap();
        assert!(may(1_000_000));
        assert!(!may(1_000_000));
        assert!(!may(1_000_059));
        assert!(may(1_000_060));
        assert!(!may(1_000_119));
        assert!(may(1_000_120));
        // Set back by a day: as if it had been just now.
        assert!(!may(913_720));
        assert!(!may(913_779));
        assert!(may(913_780));
    }
}

//! [`Pulse`]: whether the thread that writes the log is inside a call, and for how long.
//!
//! It is read by somebody who must not wait for the writer, least of all while the disk hangs: two
//! plain numbers, no lock. The writer notes each batch with two relaxed stores; nobody else writes.

use std::time::Duration;

use crate::clock::Clock;
use crate::sync::{Arc, AtomicBool, AtomicU64, Ordering};

/// What the writer of a log is doing at one moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Beat {
    /// It waits for work.
    Idle,
    /// It works, and may be waiting for the disk.
    InCall {
        /// Since how long.
        lasting: Duration,
    },
    /// It has given up writing; see [`StoreInfo::read_only`](crate::store::StoreInfo).
    ReadOnly,
}

/// See the module's documentation.
#[derive(Debug)]
pub struct Pulse {
    clock: Arc<dyn Clock>,
    /// When the call under way began, in nanoseconds of the clock plus one; 0 outside of a call.
    entered: AtomicU64,
    read_only: AtomicBool,
}

impl Pulse {
    pub(super) fn new(clock: Arc<dyn Clock>) -> Self {
        Self {
            clock,
            entered: AtomicU64::new(0),
            read_only: AtomicBool::new(false),
        }
    }

    /// The writer begins something that may wait for the disk.
    pub(crate) fn enter(&self) {
        let entered = self.now().saturating_add(1);
        self.entered.store(entered, Ordering::Relaxed);
    }

    /// The writer is done with it.
    pub(super) fn leave(&self) {
        self.entered.store(0, Ordering::Relaxed);
    }

    pub(super) fn set_read_only(&self) {
        self.read_only.store(true, Ordering::Relaxed);
    }

    /// What the writer is doing. Never waits.
    #[must_use]
    pub fn read(&self) -> Beat {
        let entered = self.entered.load(Ordering::Relaxed);
        if entered != 0 {
            let lasting = self.now().saturating_sub(entered - 1);
            return Beat::InCall {
                lasting: Duration::from_nanos(lasting),
            };
        }
        if self.read_only.load(Ordering::Relaxed) {
            return Beat::ReadOnly;
        }
        Beat::Idle
    }

    fn now(&self) -> u64 {
        u64::try_from(self.clock.monotonic().as_nanos()).unwrap_or(u64::MAX)
    }
}

#[cfg(test)]
mod tests {
    use broker_proto::Micros;

    use super::*;
    use crate::clock::ManualClock;

    #[test]
    fn a_call_is_told_with_its_length() {
        let clock = ManualClock::new(Micros::new(0));
        let pulse = Pulse::new(Arc::new(clock.clone()));
        assert_eq!(pulse.read(), Beat::Idle);
        // Also one that begins at the clock's own beginning.
        pulse.enter();
        clock.advance(Duration::from_millis(301));
        let lasting = Duration::from_millis(301);
        assert_eq!(pulse.read(), Beat::InCall { lasting });
        pulse.leave();
        assert_eq!(pulse.read(), Beat::Idle);
        clock.advance(Duration::from_secs(1));
        pulse.enter();
        let lasting = Duration::ZERO;
        assert_eq!(pulse.read(), Beat::InCall { lasting });
    }

    #[test]
    fn a_writer_that_gave_up_says_so_unless_it_hangs_in_a_call() {
        let pulse = Pulse::new(Arc::new(ManualClock::default()));
        pulse.set_read_only();
        assert_eq!(pulse.read(), Beat::ReadOnly);
        pulse.enter();
        assert!(matches!(pulse.read(), Beat::InCall { .. }));
    }
}

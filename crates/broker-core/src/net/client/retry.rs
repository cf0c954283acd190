//! [`Backoff`]: how long to wait before the next attempt to connect.
//!
//! From 2 ms, doubling with jitter, to 50 ms during the first 2 s, because a take-over is over by then, and to 1 s after
//! that. The jitter keeps the clients of a lost leader from coming back in step.

use std::time::Duration;

use crate::clock::SeededRandom;

const FIRST: Duration = Duration::from_millis(2);
const EAGER_MAX: Duration = Duration::from_millis(50);
const EAGER_FOR: Duration = Duration::from_secs(2);
const PATIENT_MAX: Duration = Duration::from_secs(1);

/// Waiting times between attempts, for one loss of the connection.
#[derive(Debug)]
pub(super) struct Backoff {
    next: Duration,
    jitter: SeededRandom,
}

impl Backoff {
    /// Starts from the shortest wait. `seed` makes the jitter; any number will do.
    pub(super) fn new(seed: u64) -> Self {
        Self {
            next: FIRST,
            jitter: SeededRandom::new(seed),
        }
    }

    /// Back to the shortest wait: the connection was there.
    pub(super) const fn reset(&mut self) {
        self.next = FIRST;
    }

    /// The next wait, when the connection has been away for `away`: between half and all of the current step.
    pub(super) fn wait(&mut self, away: Duration) -> Duration {
        let max = if away < EAGER_FOR {
            EAGER_MAX
        } else {
            PATIENT_MAX
        };
        let step = self.next.min(max);
        self.next = step.saturating_mul(2);
        let half = step / 2;
        let parts = u32::try_from(self.jitter.next() % 1024).unwrap_or(0);
        half + half * parts / 1024
    }
}

#[cfg(test)]
mod tests {
    use super::{Backoff, Duration};

    #[test]
    fn waits_double_within_their_bounds_and_start_again() {
        let mut backoff = Backoff::new(7);
        for step in [2, 4, 8, 16, 32, 50, 50] {
            let wait = backoff.wait(Duration::from_millis(100));
            let step = Duration::from_millis(step);
            assert!(
                wait >= step / 2 && wait <= step,
                "{wait:?} for a step of {step:?}"
            );
        }
        for step in [100, 200, 400, 800, 1000, 1000] {
            let wait = backoff.wait(Duration::from_secs(2));
            let step = Duration::from_millis(step);
            assert!(
                wait >= step / 2 && wait <= step,
                "{wait:?} for a step of {step:?}"
            );
        }
        backoff.reset();
        assert!(backoff.wait(Duration::ZERO) <= Duration::from_millis(2));
    }

    #[test]
    fn two_clients_do_not_wait_in_step() {
        let (mut one, mut other) = (Backoff::new(1), Backoff::new(2));
        let waits = |backoff: &mut Backoff| -> Vec<Duration> {
            (0..8).map(|_| backoff.wait(Duration::ZERO)).collect()
        };
        assert_ne!(waits(&mut one), waits(&mut other));
    }
}

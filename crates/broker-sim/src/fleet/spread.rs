//! How pauses are spread: what a table shows of them.

use std::fmt;
use std::time::Duration;

use hdrhistogram::Histogram;

/// Longest pause that is told apart from longer ones.
const MICROS_MAX: u64 = 3_600_000_000;

/// Times, in microseconds, to three digits.
#[derive(Debug, Clone)]
pub struct Spread(Histogram<u64>);

impl Spread {
    /// No times.
    ///
    /// # Panics
    /// Never: the bounds are valid.
    #[must_use]
    pub fn new() -> Self {
        Self(Histogram::new_with_max(MICROS_MAX, 3).expect("the bounds are valid"))
    }

    /// Adds one.
    pub fn add(&mut self, time: Duration) {
        let micros = u64::try_from(time.as_micros()).unwrap_or(u64::MAX);
        self.0.saturating_record(micros);
    }

    /// How many there are.
    #[must_use]
    pub fn len(&self) -> u64 {
        self.0.len()
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The time that `part` of all are not above.
    #[must_use]
    pub fn quantile(&self, part: f64) -> Duration {
        Duration::from_micros(self.0.value_at_quantile(part))
    }

    /// The longest.
    #[must_use]
    pub fn max(&self) -> Duration {
        Duration::from_micros(self.0.max())
    }
}

impl Default for Spread {
    fn default() -> Self {
        Self::new()
    }
}

impl Extend<Duration> for Spread {
    fn extend<I: IntoIterator<Item = Duration>>(&mut self, times: I) {
        times.into_iter().for_each(|time| self.add(time));
    }
}

impl FromIterator<Duration> for Spread {
    fn from_iter<I: IntoIterator<Item = Duration>>(times: I) -> Self {
        let mut spread = Self::new();
        spread.extend(times);
        spread
    }
}

/// In milliseconds.
impl fmt::Display for Spread {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let millis = |time: Duration| time.as_secs_f64() * 1e3;
        write!(
            f,
            "p50 {:7.1}  p99 {:7.1}  max {:7.1} ms  of {}",
            millis(self.quantile(0.5)),
            millis(self.quantile(0.99)),
            millis(self.max()),
            self.len()
        )
    }
}

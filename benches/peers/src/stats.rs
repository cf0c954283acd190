//! Arithmetic on measurements: medians, spreads, ratios, latencies.

use std::time::Duration;

use hdrhistogram::Histogram;
use serde::{Deserialize, Serialize};

/// Longest latency that is told apart from longer ones.
const LATENCY_MAX: Duration = Duration::from_secs(60);

/// The middle of some values, and their ends.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Spread {
    pub(crate) median: f64,
    pub(crate) min: f64,
    pub(crate) max: f64,
    pub(crate) count: usize,
}

impl Spread {
    /// Of these values; `None` without any. Of an even number, the mean of the two in the middle is the median.
    pub(crate) fn of(values: impl IntoIterator<Item = f64>) -> Option<Self> {
        let mut values: Vec<f64> = values.into_iter().filter(|v| v.is_finite()).collect();
        values.sort_by(f64::total_cmp);
        let (&min, &max) = (values.first()?, values.last()?);
        let upper = *values.get(values.len() / 2)?;
        let lower = *values.get((values.len() - 1) / 2)?;
        Some(Self {
            median: f64::midpoint(lower, upper),
            min,
            max,
            count: values.len(),
        })
    }
}

/// How many times as good `ours` is: by pairs that were measured in the same round, since the machine's mood is then the
/// same for both; by the medians of all rounds when there are no such pairs.
///
/// Each value comes with the name of its round.
pub(crate) fn ratio<R: PartialEq>(
    ours: &[(R, f64)],
    theirs: &[(R, f64)],
    more_is_better: bool,
) -> Option<Spread> {
    let quotient = |ours: f64, theirs: f64| {
        if more_is_better {
            ours / theirs
        } else {
            theirs / ours
        }
    };
    let pairs = ours.iter().filter_map(|(round, ours)| {
        let (_, theirs) = theirs.iter().find(|(other, _)| other == round)?;
        Some(quotient(*ours, *theirs))
    });
    Spread::of(pairs).or_else(|| {
        let median = |values: &[(R, f64)]| Spread::of(values.iter().map(|(_, value)| *value));
        Spread::of([quotient(median(ours)?.median, median(theirs)?.median)])
    })
}

/// Latencies in nanoseconds.
#[derive(Debug, Clone)]
pub(crate) struct Latencies(Histogram<u64>);

/// Some places of a distribution, in microseconds.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub(crate) struct Quantiles {
    pub(crate) p50: f64,
    pub(crate) p99: f64,
    pub(crate) p999: f64,
}

impl Latencies {
    /// None yet; exact to one in a hundred, so that thousands of them take little memory.
    pub(crate) fn new() -> Self {
        let highest = u64::try_from(LATENCY_MAX.as_nanos()).unwrap_or(u64::MAX);
        Self(
            Histogram::new_with_bounds(1000, highest, 2)
                .expect("1 us to 60 s with two digits is a valid range"),
        )
    }

    /// Counts `count` that took the same time.
    pub(crate) fn record(&mut self, nanos: u64, count: u64) {
        self.0.saturating_record_n(nanos, count);
    }

    /// Adds those of another worker.
    pub(crate) fn add(&mut self, other: &Self) {
        self.0 += &other.0;
    }

    /// The usual places; `None` without any latency.
    pub(crate) fn quantiles(&self) -> Option<Quantiles> {
        let micros =
            |quantile| Duration::from_nanos(self.0.value_at_quantile(quantile)).as_secs_f64() * 1e6;
        (!self.0.is_empty()).then(|| Quantiles {
            p50: micros(0.5),
            p99: micros(0.99),
            p999: micros(0.999),
        })
    }
}

/// A count as a number to calculate with. Counts stay far below 2^52, where digits would be lost.
pub(crate) fn float(count: u64) -> f64 {
    count as f64
}

/// Nanoseconds of a duration that is no age of the world.
pub(crate) fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test may panic")]

    use super::*;

    fn near(left: f64, right: f64) -> bool {
        (left - right).abs() < 1e-9
    }

    #[test]
    fn medians_of_odd_and_even_numbers() {
        assert_eq!(Spread::of([]), None);
        assert_eq!(Spread::of([f64::NAN, f64::INFINITY]), None);
        let spread = Spread::of([5.0, 1.0, 3.0]).unwrap();
        assert!(near(spread.median, 3.0) && near(spread.min, 1.0) && near(spread.max, 5.0));
        let spread = Spread::of([4.0, 1.0, 2.0, 100.0]).unwrap();
        assert!(near(spread.median, 3.0) && spread.count == 4);
        assert!(near(Spread::of([7.0]).unwrap().median, 7.0));
    }

    #[test]
    fn ratios_go_by_the_rounds_they_share() {
        // The second round was on a slow machine for both: the ratio does not care.
        let ours = [(1, 200.0), (2, 20.0), (3, 330.0)];
        let theirs = [(3, 110.0), (1, 100.0), (2, 10.0)];
        let by_rate = ratio(&ours, &theirs, true).unwrap();
        assert!(near(by_rate.median, 2.0) && near(by_rate.max, 3.0) && by_rate.count == 3);
        // Of latencies the smaller one is the better one.
        let by_latency = ratio(&ours, &theirs, false).unwrap();
        assert!(near(by_latency.median, 0.5));
        let elsewhere = [(9, 50.0), (8, 100.0), (7, 400.0)];
        let apart = ratio(&ours, &elsewhere, true).unwrap();
        assert!(near(apart.median, 2.0) && apart.count == 1);
        assert_eq!(ratio(&ours, &[], true), None);
        assert_eq!(ratio(&ours, &[(1, 0.0)], true), None);
    }

    #[test]
    fn latencies_rank() {
        let mut latencies = Latencies::new();
        assert_eq!(latencies.quantiles(), None);
        for micros in 1..=500 {
            latencies.record(micros * 1000, 1);
        }
        let mut others = Latencies::new();
        others.record(1_000_000, 500);
        latencies.add(&others);
        let quantiles = latencies.quantiles().unwrap();
        assert!(
            (quantiles.p50 / 500.0 - 1.0).abs() < 0.02,
            "{}",
            quantiles.p50
        );
        assert!(
            (quantiles.p99 / 1000.0 - 1.0).abs() < 0.02,
            "{}",
            quantiles.p99
        );
        latencies.record(u64::MAX, 10_000);
        assert!(latencies.quantiles().unwrap().p50 > 59e6);
    }
}

//! The numbers of a benchmark: how many, how fast, how late.

use std::time::Duration;

use hdrhistogram::Histogram;
use serde_json::{Value, json};

/// Longest latency that is told apart from longer ones.
const LATENCY_MAX: Duration = Duration::from_secs(300);

/// Latencies, exact to 0.1 %.
#[derive(Debug, Clone)]
pub(crate) struct Latencies(Histogram<u64>);

impl Latencies {
    /// None yet.
    pub(crate) fn new() -> Self {
        let highest = u64::try_from(LATENCY_MAX.as_nanos()).unwrap_or(u64::MAX);
        Self(
            Histogram::new_with_bounds(1, highest, 3)
                .expect("1 ns to 300 s with three digits is a valid range"),
        )
    }

    /// Counts one.
    pub(crate) fn record(&mut self, latency: Duration) {
        self.record_many(latency, 1);
    }

    /// Counts `count` that took the same time.
    pub(crate) fn record_many(&mut self, latency: Duration, count: u64) {
        self.0
            .saturating_record_n(u64::try_from(latency.as_nanos()).unwrap_or(u64::MAX), count);
    }

    /// Adds those of another worker.
    pub(crate) fn add(&mut self, other: &Self) {
        self.0 += &other.0;
    }

    /// How many there are.
    pub(crate) fn len(&self) -> u64 {
        self.0.len()
    }

    /// How many took longer, to 0.1 %.
    #[cfg(test)]
    pub(crate) fn longer_than(&self, latency: Duration) -> u64 {
        let upto = u64::try_from(latency.as_nanos()).expect("a short time");
        self.len() - self.0.count_between(0, upto)
    }

    /// The numbers themselves, in nanoseconds.
    pub(crate) fn histogram(&self) -> &Histogram<u64> {
        &self.0
    }

    /// What this share of them took at most.
    pub(crate) fn at(&self, quantile: f64) -> Duration {
        Duration::from_nanos(self.0.value_at_quantile(quantile))
    }

    /// The longest.
    pub(crate) fn max(&self) -> Duration {
        Duration::from_nanos(self.0.max())
    }
}

/// One measured thing: messages over time, and perhaps how long each took.
#[derive(Debug, Clone)]
pub(crate) struct Figure {
    /// What was measured: a word for people, and the key in JSON.
    pub(crate) name: &'static str,
    /// What is counted, in the plural.
    pub(crate) unit: &'static str,
    /// How many.
    pub(crate) count: u64,
    /// Payload bytes.
    pub(crate) bytes: u64,
    /// In what time.
    pub(crate) elapsed: Duration,
    /// How long each took, if that was measured.
    pub(crate) latencies: Option<Latencies>,
}

impl Figure {
    fn per_second(&self, count: u64) -> f64 {
        let seconds = self.elapsed.as_secs_f64();
        // Counts stay far below 2^52, where this loses digits.
        if seconds > 0.0 {
            count as f64 / seconds
        } else {
            0.0
        }
    }

    /// Lines for people.
    pub(crate) fn text(&self) -> String {
        let mut text = format!(
            "{:<10} {} {} in {:.2} s: {}/s",
            self.name,
            grouped(self.count as f64),
            self.unit,
            self.elapsed.as_secs_f64(),
            grouped(self.per_second(self.count)),
        );
        if self.bytes > 0 {
            text.push_str(&format!(", {:.1} MB/s", self.per_second(self.bytes) / 1e6));
        }
        text.push('\n');
        if let Some(latencies) = self
            .latencies
            .as_ref()
            .filter(|latencies| latencies.len() > 0)
        {
            text.push_str(&format!(
                "{:<10} p50 {}, p99 {}, p99.9 {}, max {}\n",
                "",
                readable(latencies.at(0.5)),
                readable(latencies.at(0.99)),
                readable(latencies.at(0.999)),
                readable(latencies.max()),
            ));
        }
        text
    }

    /// The same for scripts: rates a second, times in microseconds.
    pub(crate) fn json(&self) -> Value {
        let mut value = json!({
            "count": self.count,
            "seconds": self.elapsed.as_secs_f64(),
            "per_second": self.per_second(self.count),
            "bytes_per_second": self.per_second(self.bytes),
        });
        if let (Some(latencies), Some(object)) = (self.latencies.as_ref(), value.as_object_mut()) {
            object.insert(
                "latency_us".to_owned(),
                json!({
                    "p50": micros(latencies.at(0.5)),
                    "p99": micros(latencies.at(0.99)),
                    "p99.9": micros(latencies.at(0.999)),
                    "max": micros(latencies.max()),
                }),
            );
        }
        value
    }
}

/// For scripts.
pub(crate) fn micros(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1e6
}

/// Three digits are enough, in the unit that keeps them before the point.
pub(crate) fn readable(duration: Duration) -> String {
    let micros = micros(duration);
    if micros < 1000.0 {
        format!("{micros:.0} us")
    } else if micros < 100_000.0 {
        format!("{:.2} ms", micros / 1e3)
    } else if micros < 1_000_000.0 {
        format!("{:.0} ms", micros / 1e3)
    } else {
        format!("{:.2} s", micros / 1e6)
    }
}

/// `1,234,567`.
pub(crate) fn grouped(number: f64) -> String {
    let digits = format!("{number:.0}");
    let mut text = String::with_capacity(digits.len() + digits.len() / 3);
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at) % 3 == 0 {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_for_people() {
        assert_eq!(grouped(0.0), "0");
        assert_eq!(grouped(999.4), "999");
        assert_eq!(grouped(1_234_567.0), "1,234,567");
        assert_eq!(readable(Duration::from_nanos(149_400)), "149 us");
        assert_eq!(readable(Duration::from_micros(1_500)), "1.50 ms");
        assert_eq!(readable(Duration::from_millis(150)), "150 ms");
        assert_eq!(readable(Duration::from_millis(2_500)), "2.50 s");
    }

    #[test]
    fn figures_divide_and_rank() {
        let mut latencies = Latencies::new();
        for micros in 1..=1000 {
            latencies.record(Duration::from_micros(micros));
        }
        let mut more = Latencies::new();
        more.record(Duration::from_secs(10_000));
        latencies.add(&more);
        assert_eq!(latencies.len(), 1001);
        let figure = Figure {
            name: "publish",
            unit: "messages",
            count: 1000,
            bytes: 128_000,
            elapsed: Duration::from_millis(500),
            latencies: Some(latencies),
        };
        let value = figure.json();
        let number = |pointer: &str| {
            value
                .pointer(pointer)
                .and_then(Value::as_f64)
                .expect("a number")
        };
        assert!((number("/per_second") - 2000.0).abs() < 1e-9);
        assert!((number("/bytes_per_second") - 256_000.0).abs() < 1e-9);
        assert!((number("/latency_us/p50") - 501.0).abs() < 2.0);
        assert!((number("/latency_us/p99.9") - 1000.0).abs() < 2.0);
        assert!(
            number("/latency_us/max") >= 299e6,
            "what is beyond the scale is put at its end"
        );
        assert!(
            figure
                .text()
                .starts_with("publish    1,000 messages in 0.50 s: 2,000/s, 0.3 MB/s\n"),
            "{}",
            figure.text()
        );
    }
}

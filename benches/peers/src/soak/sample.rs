//! [`Sample`]: what is measured every few seconds; [`Flatness`]: whether it stays the same.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use serde::Serialize;

use super::Gauge;
use super::publisher::Publisher;
use super::subscriber::Watch;
use crate::starts::Files;
use crate::stats::{Latencies, Spread, float};

/// One sample, of the time since the one before.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub(crate) struct Sample {
    /// Since the beginning.
    pub(crate) seconds: f64,
    /// Messages acknowledged a second.
    pub(crate) acked_per_second: f64,
    /// Messages seen by all subscribers a second.
    pub(crate) seen_per_second: f64,
    pub(crate) ack_p50_us: f64,
    pub(crate) ack_p99_us: f64,
    /// Processor time of the server, in cores.
    pub(crate) cpu: f64,
    pub(crate) rss: f64,
    pub(crate) files: u64,
    pub(crate) disk_bytes: u64,
    /// Messages that subscribers were too late for, since the beginning.
    pub(crate) trimmed: u64,
}

/// Takes samples.
#[derive(Debug)]
pub(super) struct Sampler {
    gauge: Gauge,
    dir: PathBuf,
    publishers: Vec<Arc<Publisher>>,
    watches: Vec<Arc<Watch>>,
    began: Instant,
    before: Before,
}

/// What the counters stood at.
#[derive(Debug, Clone, Copy)]
struct Before {
    at: Instant,
    acked: u64,
    seen: u64,
    cpu: Duration,
}

impl Sampler {
    pub(super) fn new(
        gauge: Gauge,
        dir: PathBuf,
        publishers: Vec<Arc<Publisher>>,
        watches: Vec<Arc<Watch>>,
    ) -> Self {
        let now = Instant::now();
        Self {
            gauge,
            dir,
            publishers,
            watches,
            began: now,
            before: Before {
                at: now,
                acked: 0,
                seen: 0,
                cpu: Duration::ZERO,
            },
        }
    }

    /// What has happened since the last one.
    pub(super) fn take(&mut self) -> Result<Sample> {
        let now = Before {
            at: Instant::now(),
            acked: self.publishers.iter().map(|one| one.acked()).sum(),
            seen: self.watches.iter().map(|one| one.count()).sum(),
            cpu: self.gauge.server_cpu()?,
        };
        let before = std::mem::replace(&mut self.before, now);
        let seconds = now.at.saturating_duration_since(before.at).as_secs_f64();
        let mut latencies = Latencies::new();
        for publisher in &self.publishers {
            latencies.add(&publisher.take_latencies());
        }
        let quantiles = latencies.quantiles();
        let quantiles = quantiles.context("nothing was acknowledged since the last sample")?;
        let files = Files::of(&self.dir)?;
        Ok(Sample {
            seconds: now.at.saturating_duration_since(self.began).as_secs_f64(),
            acked_per_second: float(now.acked.saturating_sub(before.acked)) / seconds,
            seen_per_second: float(now.seen.saturating_sub(before.seen)) / seconds,
            ack_p50_us: quantiles.p50,
            ack_p99_us: quantiles.p99,
            cpu: now.cpu.saturating_sub(before.cpu).as_secs_f64() / seconds,
            rss: float(
                self.gauge
                    .rss()
                    .context("the server's memory is not told")?,
            ),
            files: files.count,
            disk_bytes: files.disk_bytes,
            trimmed: self.watches.iter().map(|one| one.trimmed()).sum(),
        })
    }
}

/// The medians of a quarter of the samples.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub(crate) struct Quarter {
    pub(crate) acked_per_second: f64,
    pub(crate) ack_p50_us: f64,
    pub(crate) ack_p99_us: f64,
    pub(crate) cpu: f64,
    pub(crate) rss: f64,
    pub(crate) files: f64,
    pub(crate) disk_bytes: f64,
}

/// The quarters of a run, and how many times the last one costs what the first one does: of a rate, how many times less it is.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(crate) struct Flatness {
    pub(crate) quarters: Vec<Quarter>,
    pub(crate) growth: Quarter,
}

impl Flatness {
    /// Of at least four samples.
    pub(super) fn of(samples: &[Sample]) -> Option<Self> {
        let quarter = samples.len() / 4;
        let quarters: Vec<Quarter> = (0..4)
            .filter_map(|number| {
                let from = samples.len() * number / 4;
                Quarter::of(samples.get(from..from + quarter)?)
            })
            .collect();
        let [first, _, _, last] = quarters.as_slice() else {
            return None;
        };
        let growth = Quarter {
            acked_per_second: first.acked_per_second / last.acked_per_second,
            ack_p50_us: last.ack_p50_us / first.ack_p50_us,
            ack_p99_us: last.ack_p99_us / first.ack_p99_us,
            cpu: last.cpu / first.cpu,
            rss: last.rss / first.rss,
            files: last.files / first.files,
            disk_bytes: last.disk_bytes / first.disk_bytes,
        };
        Some(Self { quarters, growth })
    }
}

impl Quarter {
    fn of(samples: &[Sample]) -> Option<Self> {
        let median = |value: fn(&Sample) -> f64| {
            Spread::of(samples.iter().map(value)).map(|spread| spread.median)
        };
        Some(Self {
            acked_per_second: median(|sample| sample.acked_per_second)?,
            ack_p50_us: median(|sample| sample.ack_p50_us)?,
            ack_p99_us: median(|sample| sample.ack_p99_us)?,
            cpu: median(|sample| sample.cpu)?,
            rss: median(|sample| sample.rss)?,
            files: median(|sample| float(sample.files))?,
            disk_bytes: median(|sample| float(sample.disk_bytes))?,
        })
    }
}

#[cfg(test)]
pub(super) fn sample(number: u32) -> Sample {
    let value = f64::from(number);
    Sample {
        seconds: value,
        acked_per_second: 1000.0 / value,
        seen_per_second: 10.0,
        ack_p50_us: value,
        ack_p99_us: 100.0,
        cpu: 0.5,
        rss: 1024.0 * value,
        files: u64::from(number),
        disk_bytes: 1 << 20,
        trimmed: 0,
    }
}

#[cfg(test)]
mod tests {
    #![expect(
        clippy::unwrap_used,
        clippy::indexing_slicing,
        reason = "a test may panic"
    )]

    use super::*;

    #[test]
    fn growth_is_that_of_the_last_quarter_beside_the_first() {
        let samples: Vec<Sample> = (1..=8).map(sample).collect();
        assert_eq!(Flatness::of(&samples[..3]), None);
        let flatness = Flatness::of(&samples).unwrap();
        let near = |left: f64, right: f64| (left - right).abs() < 1e-9;
        assert_eq!(flatness.quarters.len(), 4);
        assert!(near(flatness.growth.ack_p50_us, 5.0) && near(flatness.growth.rss, 5.0));
        assert!(near(flatness.growth.ack_p99_us, 1.0) && near(flatness.growth.disk_bytes, 1.0));
        assert!(flatness.growth.acked_per_second > 4.0);
    }
}

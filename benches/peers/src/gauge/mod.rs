//! What a run costs and what the machine could give: processor time, memory, disk flushes, and the bare disk and loopback.

pub(crate) mod limits;
pub(crate) mod machine;
pub(crate) mod proc;

use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::Result;

use self::proc::{Device, Written, cpu_time};

/// What is read before and after the measured part of a run.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Snapshot {
    at: Instant,
    server: Duration,
    client: Duration,
    flushes: Option<u64>,
}

/// What was spent between two snapshots.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Spent {
    /// Time.
    pub(crate) elapsed: Duration,
    /// Processor time of the server.
    pub(crate) server: Duration,
    /// Processor time of this process.
    pub(crate) client: Duration,
    /// Flushes that the disk was asked for, by anybody; `None` when the disk is not known.
    pub(crate) flushes: Option<u64>,
}

/// Reads the meters of one server.
#[derive(Debug)]
pub(crate) struct Gauge {
    server: u32,
    device: Option<Device>,
}

impl Gauge {
    /// Of the server with this process id, whose data lies in `dir`.
    pub(crate) fn new(server: u32, dir: &Path) -> Self {
        Self {
            server,
            device: Device::of(dir),
        }
    }

    /// Reads all meters.
    pub(crate) fn read(&self) -> Result<Snapshot> {
        Ok(Snapshot {
            server: cpu_time(&self.server.to_string())?,
            client: cpu_time("self")?,
            flushes: self.device.and_then(Device::flushes),
            at: Instant::now(),
        })
    }

    /// Processor time of the server since it began.
    pub(crate) fn server_cpu(&self) -> Result<Duration> {
        cpu_time(&self.server.to_string())
    }

    /// What the server has had written to disks since it began.
    pub(crate) fn written(&self) -> Result<Written> {
        proc::written(self.server)
    }

    /// The memory that the server has now, in bytes.
    pub(crate) fn rss(&self) -> Option<u64> {
        proc::rss(self.server)
    }

    /// The most memory that the server ever had, in bytes.
    pub(crate) fn rss_peak(&self) -> Option<u64> {
        proc::rss_peak(self.server)
    }
}

impl Snapshot {
    /// What was spent from here to `after`.
    pub(crate) fn until(&self, after: &Self) -> Spent {
        Spent {
            elapsed: after.at.saturating_duration_since(self.at),
            server: after.server.saturating_sub(self.server),
            client: after.client.saturating_sub(self.client),
            flushes: after
                .flushes
                .zip(self.flushes)
                .map(|(after, before)| after.saturating_sub(before)),
        }
    }
}

//! [`Counts`]: what a server has written, as the kernel counts it and as it says itself; [`settle`]: until it is done.

use std::ops::{Add, Sub};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};

use crate::curves::Site;
use crate::load::{ours, runtime};
use crate::starts::Files;

/// How often a server is asked whether it still writes.
const POLL: Duration = Duration::from_millis(250);
/// It has settled when nothing changes for so long: longer than it waits between two looks at what is to be kept.
const STILL: Duration = Duration::from_secs(4);
/// How long it may go on.
pub(super) const SETTLE_MAX: Duration = Duration::from_secs(240);

/// What a server has written since it began, in bytes, and what it has done to segments.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Counts {
    /// Handed to the disk, as the kernel counts it: without what went before it was written.
    pub(crate) written: u64,
    /// Of it, segments that were written anew, by the server's account.
    pub(crate) rewritten: u64,
    /// Of it, checkpoints.
    pub(crate) checkpoints: u64,
    /// Bytes of segments that are gone, less those in their place.
    pub(crate) freed: u64,
    pub(crate) segments_deleted: u64,
    /// Written anew because most of them was dead; those that were merged are not counted.
    pub(crate) segments_packed: u64,
    pub(crate) messages_trimmed: u64,
}

impl Counts {
    /// Of the process that runs.
    pub(super) fn of(site: &Site<'_>) -> Result<Self> {
        let written = site.gauge().written()?;
        let Status { space, .. } = Status::of(site)?;
        Ok(Self {
            written: written.bytes.saturating_sub(written.cancelled),
            rewritten: space.bytes_rewritten,
            checkpoints: space.checkpoint_bytes,
            freed: space.bytes_freed,
            segments_deleted: space.segments_deleted,
            segments_packed: space.segments_packed,
            messages_trimmed: space.messages_trimmed,
        })
    }

    fn with(self, other: Self, each: impl Fn(u64, u64) -> u64) -> Self {
        Self {
            written: each(self.written, other.written),
            rewritten: each(self.rewritten, other.rewritten),
            checkpoints: each(self.checkpoints, other.checkpoints),
            freed: each(self.freed, other.freed),
            segments_deleted: each(self.segments_deleted, other.segments_deleted),
            segments_packed: each(self.segments_packed, other.segments_packed),
            messages_trimmed: each(self.messages_trimmed, other.messages_trimmed),
        }
    }
}

impl Add for Counts {
    type Output = Self;

    fn add(self, other: Self) -> Self {
        self.with(other, u64::saturating_add)
    }
}

impl Sub for Counts {
    type Output = Self;

    fn sub(self, other: Self) -> Self {
        self.with(other, u64::saturating_sub)
    }
}

/// Of what a server says of itself, that which is looked at here.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
pub(super) struct Status {
    pub(super) segments: u64,
    space: Space,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
struct Space {
    log_bytes: u64,
    messages_trimmed: u64,
    bytes_freed: u64,
    bytes_rewritten: u64,
    segments_deleted: u64,
    segments_packed: u64,
    checkpoint_bytes: u64,
}

impl Status {
    /// Asks the server.
    pub(super) fn of(site: &Site<'_>) -> Result<Self> {
        let address = site.address();
        let told = runtime(1)?.block_on(async {
            let client = ours::connect(address).await?;
            let told = client.status().await?;
            client.shutdown().await?;
            anyhow::Ok(told)
        });
        Self::parse(&told?)
    }

    fn parse(told: &str) -> Result<Self> {
        serde_json::from_str(told).context("the status does not say what became of the space")
    }
}

/// How it came to rest.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub(crate) struct Settled {
    /// How long that took.
    pub(crate) seconds: f64,
    /// Nothing changed any more; else it was given up.
    pub(crate) is_still: bool,
}

/// Waits until nothing is written, freed or deleted any more.
pub(super) fn settle(site: &Site<'_>) -> Result<Settled> {
    let dir = site.data();
    let look = || anyhow::Ok((Status::of(site)?, site.gauge().written()?, Files::of(&dir)?));
    let began = Instant::now();
    let (mut seen, mut changed) = (look()?, began);
    loop {
        thread::sleep(POLL);
        let now = look()?;
        if now != seen {
            (seen, changed) = (now, Instant::now());
        }
        let is_still = changed.elapsed() >= STILL;
        if is_still || began.elapsed() >= SETTLE_MAX {
            let seconds = changed.saturating_duration_since(began).as_secs_f64();
            return Ok(Settled { seconds, is_still });
        }
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test may panic")]

    use super::*;

    #[test]
    fn the_status_tells_what_became_of_the_space() {
        let told = r#"{"stage":"serving","segments":7,"space":{"log_bytes":6,"bytes_max":null,"fullness":"fine",
            "rooms_near_limit":0,"messages_trimmed":5,"bytes_freed":4,"bytes_rewritten":3,"segments_deleted":2,
            "segments_packed":1,"bytes_waiting":9,"checkpoint_bytes":8}}"#;
        let status = Status::parse(told).unwrap();
        assert_eq!((status.segments, status.space.bytes_rewritten), (7, 3));
        assert!(Status::parse(r#"{"stage":"starting"}"#).is_err());
    }

    #[test]
    fn counts_of_processes_add_up() {
        let counts = |written| Counts {
            written,
            segments_packed: 2,
            ..Counts::default()
        };
        let sum = counts(3) + counts(4) - counts(1);
        assert_eq!(sum, counts(6));
    }
}

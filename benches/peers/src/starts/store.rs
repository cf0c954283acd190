//! One store: filled, then ended and started again and again.

use std::time::Instant;

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};

use super::cold_room::Readings;
use super::files::{Files, make_cold};
use super::results::{Cache, Ended, Listing, Measured, Start};
use crate::curves::{Lab, Site};
use crate::load::publish::{Plan, payload};
use crate::load::{ours, runtime};
use crate::peer::Peer;
use crate::server::End;
use crate::stats::{Latencies, nanos};

/// Bytes of a message where rooms count.
pub(super) const ROOM_MESSAGE_BYTES: usize = 128;
/// What is published before a server is killed, at most.
const BURST_BYTES_MAX: u64 = 48 << 20;

/// What is stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Content {
    /// Messages of a size in one room.
    Messages { count: u64, size: usize },
    /// Rooms with a message each.
    Rooms { count: u64 },
}

impl Content {
    /// How it is published, and as whom: many messages of one room go into few calls.
    fn plan(self) -> Result<(Peer, Plan)> {
        Ok(match self {
            Self::Messages { count, size } => (
                Peer::OursBulk,
                Plan {
                    publishers: 8,
                    rooms: 1,
                    window: 1024,
                    size,
                    count,
                },
            ),
            Self::Rooms { count } => (
                Peer::Ours,
                Plan {
                    publishers: 16,
                    rooms: usize::try_from(count).context("so many rooms cannot be counted")?,
                    window: 256,
                    size: ROOM_MESSAGE_BYTES,
                    count,
                },
            ),
        })
    }

    /// What is published before the server is killed for the `number`th time of so many: more each time, so that the newest
    /// segment is more or less full, and never more than an eighth of what is there.
    fn burst(self, number: u32, times: u32) -> Result<(Peer, Plan)> {
        let (peer, plan) = self.plan()?;
        let most = (plan.count / 8).min(BURST_BYTES_MAX / plan.size as u64);
        let count = (most * u64::from(number) / u64::from(times.max(1))).max(1);
        Ok((peer, Plan { count, ..plan }))
    }
}

/// Measures one store, with so many starts of each sort.
pub(crate) fn measure(lab: &Lab<'_>, content: Content, times: u32) -> Result<Measured> {
    let mut site = Site::new(lab)?;
    site.verify()?;
    let rss_empty = site.rss()?;
    let mut readings = match content {
        Content::Messages { .. } => Some(Readings::fill(&mut site)?),
        Content::Rooms { .. } => None,
    };
    let (peer, plan) = content.plan()?;
    site.store(peer, plan)?;
    site.verify()?;
    site.quiet()?;
    let rss_filled = site.rss()?;
    let mut starts = Vec::new();
    for cache in [Cache::Warm, Cache::Cold] {
        for _ in 0..times {
            starts.push(start(&mut site, Ended::Clean, cache)?);
            if cache == Cache::Cold
                && let Some(readings) = &mut readings
            {
                readings.first(&site)?;
            }
            site.verify()?;
        }
    }
    let rss_started = site.rss()?;
    let files = Files::of(&site.data())?;
    let listing = list(&site)?;
    let cold_room = readings.map(|readings| readings.others(&site, plan.count));
    for cache in [Cache::Warm, Cache::Cold] {
        for number in 1..=times {
            let (peer, plan) = content.burst(number, times)?;
            // Nothing is asked in between: after a second without work the log is marked as whole.
            site.store(peer, plan)?;
            starts.push(start(&mut site, Ended::Killed, cache)?);
            site.verify()?;
        }
    }
    Ok(Measured {
        rss_empty,
        rss_filled,
        rss_started,
        files,
        starts,
        listing,
        cold_room: cold_room.transpose()?,
        verified: site.stored(),
    })
}

/// Ends the server and starts it again.
fn start(site: &mut Site<'_>, ended: Ended, cache: Cache) -> Result<Start> {
    // Made before: only the server's time counts.
    let runtime = runtime(1)?;
    let message = payload(ROOM_MESSAGE_BYTES);
    let dir = site.data();
    site.end(match ended {
        Ended::Clean => End::Term,
        Ended::Killed => End::Kill,
    })?;
    if cache == Cache::Cold {
        make_cold(&dir)?;
    }
    let began = site.begin()?;
    let millis = || began.elapsed().as_secs_f64() * 1e3;
    let listens_ms = millis();
    let address = site.address();
    let (welcomes_ms, acks_ms) = runtime.block_on(async {
        let room = ours::room(address, 0).await?;
        let welcomes_ms = millis();
        room.send(message).await?;
        let acks_ms = millis();
        room.client().shutdown().await?;
        anyhow::Ok((welcomes_ms, acks_ms))
    })?;
    site.note_stored(1);
    Ok(Start {
        ended,
        cache,
        listens_ms,
        welcomes_ms,
        acks_ms,
    })
}

/// Lists all rooms.
fn list(site: &Site<'_>) -> Result<Listing> {
    runtime(1)?.block_on(async {
        let client = ours::connect(site.address()).await?;
        let mut times = Latencies::new();
        let (mut rooms, mut pages, mut after) = (0, 0, String::new());
        let began = Instant::now();
        loop {
            let asked = Instant::now();
            let page = client.rooms(&after, usize::MAX).await?;
            times.record(nanos(asked.elapsed()), 1);
            pages += 1;
            rooms += page.rooms.len() as u64;
            match page.rooms.last() {
                Some(last) if page.more => after = last.name.to_string(),
                _ => break,
            }
        }
        let all_ms = began.elapsed().as_secs_f64() * 1e3;
        client.shutdown().await?;
        let quantiles = times.quantiles().context("nothing was listed")?;
        Ok(Listing {
            rooms,
            pages,
            all_ms,
            page_p50_us: quantiles.p50,
            page_p99_us: quantiles.p99,
        })
    })
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test may panic")]

    use super::*;

    #[test]
    fn bursts_grow_and_stay_small_beside_what_is_there() {
        let small = Content::Messages {
            count: 8000,
            size: 1024,
        };
        let counts = [1, 2, 5].map(|number| small.burst(number, 5).unwrap().1.count);
        assert_eq!(counts, [200, 400, 1000]);
        let large = Content::Messages {
            count: 10_000_000,
            size: 1024,
        };
        assert_eq!(large.burst(5, 5).unwrap().1.count, 48 << 10);
        let one = Content::Rooms { count: 1 };
        assert_eq!(one.burst(1, 5).unwrap().1.count, 1);
    }
}

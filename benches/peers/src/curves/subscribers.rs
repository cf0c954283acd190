//! One point of the curve of subscribers: one publisher and many who listen, as fast as they follow and at a fixed rate.

use std::time::Duration;

use anyhow::{Context, Result};

use super::results::Values;
use super::site::{Lab, Loaded, Site};
use crate::load::fan_out::{self, Plan, Speed};
use crate::peer::Peer;
use crate::stats::float;

/// Bytes of a message.
const SIZE: usize = 128;
/// Deliveries a second at a fixed rate, and messages a second at most.
const DELIVERIES: u64 = 20_000;
const MESSAGES_MAX: u64 = 100;
/// Messages at a fixed rate, at least.
const MESSAGES_MIN: u32 = 10;
/// Subscribers of which less memory is not told from that of everything else.
const SUBSCRIBERS_MIN: u64 = 100;

/// Measures one point.
pub(super) fn measure(lab: &Lab<'_>, at: u64) -> Result<Values> {
    let mut values = Values::default();
    let site = Site::new(lab)?;
    site.verify()?;
    let empty = site.rss()?;
    let plan = Plan {
        subscribers: usize::try_from(at).context("so many subscribers cannot be counted")?,
        size: SIZE,
        speed: Speed::Max,
    };
    let outcome = fan_out::run(site.stage(Peer::Ours, site.measured()), plan)?;
    let fast = Loaded::of(&outcome)?;
    values.verified.clone_from(&outcome.verified);
    values.put("rate", fast.per_second);
    values.put("cpu_ns", fast.cpu_us * 1e3);
    let most = float(
        site.gauge()
            .rss_peak()
            .context("the server's memory is not told")?,
    );
    values.put("rss", most);
    if at >= SUBSCRIBERS_MIN {
        values.put("per_subscriber", (most - empty) / float(at));
    }
    drop(site);
    let site = Site::new(lab)?;
    let paced = paced(&site, at)?;
    values.put("paced_cpu_us", paced.cpu_us);
    values.put("p50", paced.latency_us.p50);
    values.put("p99", paced.latency_us.p99);
    Ok(values)
}

/// Publishes at a fixed rate to this many new subscribers.
pub(super) fn paced(site: &Site<'_>, subscribers: u64) -> Result<Loaded> {
    let rate = (DELIVERIES / subscribers.max(1)).clamp(1, MESSAGES_MAX);
    let rate = u32::try_from(rate)?;
    let plan = Plan {
        subscribers: usize::try_from(subscribers)?,
        size: SIZE,
        speed: Speed::Rate(rate),
    };
    let least = Duration::from_secs(1) * MESSAGES_MIN / rate;
    let outcome = fan_out::run(site.stage(Peer::Ours, site.measured().max(least)), plan)?;
    Loaded::of(&outcome)
}

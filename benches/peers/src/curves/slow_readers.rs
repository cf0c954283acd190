//! One point of the curve of slow readers: some of a thousand subscribers have stopped reading.

use anyhow::{Context, Result};

use super::curve::READERS;
use super::results::Values;
use super::site::{Lab, Site};
use super::subscribers::paced;
use crate::load::publish::Plan;
use crate::load::stalled::Stalled;
use crate::stats::float;

/// Bytes of a message.
const SIZE: usize = 1024;
/// Messages that fill the windows and the sockets of those who do not read, several times over.
const FILL: u64 = 16 << 10;
/// Stalled readers of which less memory is not told from that of everything else.
const STALLED_MIN: u64 = 100;

/// Measures one point. Those who read on come after the publisher was measured: beside a thousand of them it would be they
/// who are measured.
pub(super) fn measure(lab: &Lab<'_>, at: u64) -> Result<Values> {
    let mut values = Values::default();
    let mut site = Site::new(lab)?;
    let fill = Plan {
        publishers: 1,
        rooms: 1,
        window: 256,
        size: SIZE,
        count: FILL,
    };
    site.fill(fill)?;
    site.quiet()?;
    let before = site.rss()?;
    let after = site.stored();
    let mut stalled = (0..usize::try_from(at)?)
        .map(|number| Stalled::connect(site.address(), number, 0, after))
        .collect::<Result<Vec<_>>>()
        .context("a reader that is to stall cannot subscribe")?;
    site.fill(fill)?;
    site.quiet()?;
    if at >= STALLED_MIN {
        values.put("per_reader", (site.rss()? - before) / float(at));
    }
    let published = site.publish(1, 256, 1, SIZE)?;
    values.put("rate", published.per_second);
    values.put("cpu_us", published.cpu_us);
    values.put("ack_p50", published.latency_us.p50);
    values.put("ack_p99", published.latency_us.p99);
    site.quiet()?;
    values.put("rss", site.rss()?);
    let one = paced(&site, 1)?;
    values.put("one_p50", one.latency_us.p50);
    values.put("one_p99", one.latency_us.p99);
    if at < READERS {
        let others = paced(&site, READERS - at)?;
        values.put("p50", others.latency_us.p50);
        values.put("p99", others.latency_us.p99);
    }
    let acked = site.stored();
    site.recount()?;
    site.verify_connections(at)?;
    values.verified = format!("{acked} acknowledged = stored");
    // One with buffers of the usual size: the others take a thousand times as many round trips.
    if let Some(first) = stalled.first_mut() {
        first
            .read_on(site.stored())
            .context("a stalled reader does not get on")?;
        values.verified += &format!(
            "; all {at} stalled are connected still, and one then read all {} in order",
            site.stored()
        );
    }
    Ok(values)
}

//! One point of the curve of rooms: each has a message, then all get more in turn.

use anyhow::{Context, Result};

use super::results::Values;
use super::site::{Lab, Site};
use crate::load::publish::Plan;
use crate::server::End;
use crate::stats::float;

/// Bytes of a message.
const SIZE: usize = 128;
/// Rooms of which less memory is not told from that of everything else.
const ROOMS_MIN: u64 = 1000;

/// Measures one point.
pub(super) fn measure(lab: &Lab<'_>, at: u64) -> Result<Values> {
    let rooms = usize::try_from(at).context("so many rooms cannot be counted")?;
    let mut values = Values::default();
    let mut site = Site::new(lab)?;
    // The server has answered a question, and has nothing.
    site.verify()?;
    let empty = site.rss()?;
    site.fill(Plan {
        publishers: 16,
        rooms,
        window: 2,
        size: SIZE,
        count: at,
    })?;
    site.quiet()?;
    values.put("rss", site.rss()?);
    values.put("killed_ms", site.restart(End::Kill)?);
    values.put("ended_ms", site.restart(End::Term)?);
    let restarted = site.rss()?;
    values.put("rss_restarted", restarted);
    if at >= ROOMS_MIN {
        values.put("per_room", (restarted - empty) / float(at));
    }
    let many = site.publish(64, 16, rooms, SIZE)?;
    values.put("rate", many.per_second);
    values.put("cpu_us", many.cpu_us);
    let one = site.publish(1, 1, rooms, SIZE)?;
    values.put("one_p50", one.latency_us.p50);
    values.verified = format!("{} acknowledged = stored", site.stored());
    Ok(values)
}

//! One point of the curve of history: messages of 128 bytes in one room.

use std::net::SocketAddr;
use std::time::Instant;

use anyhow::{Context, Result, bail};
use broker_core::{Page, StartAt};
use broker_proto::Seq;

use super::results::Values;
use super::site::{Lab, Site};
use crate::load::publish::{Plan, numbers};
use crate::load::{ours, room_name, runtime};
use crate::server::End;
use crate::stats::{Latencies, nanos};

/// Bytes of a message.
const SIZE: usize = 128;
/// Messages of one read, and how often it is read.
const COUNT: u32 = 10;
const READS: usize = 100;

/// Measures one point. The server is restarted right after it was filled, so that what is measured then is stored by nobody
/// before; what the publishers measured at the end add comes on top.
pub(super) fn measure(lab: &Lab<'_>, at: u64) -> Result<Values> {
    let mut values = Values::default();
    let mut site = Site::new(lab)?;
    site.fill(Plan {
        publishers: 8,
        rooms: 1,
        window: 1024,
        size: SIZE,
        count: at,
    })?;
    site.quiet()?;
    values.put("rss", site.rss()?);
    let head = site.stored();
    let (newest, middle) = runtime(1)?.block_on(reads(site.address(), head))?;
    values.put("newest_p50", newest);
    values.put("middle_p50", middle);
    values.put("killed_ms", site.restart(End::Kill)?);
    values.put("ended_ms", site.restart(End::Term)?);
    values.put("rss_restarted", site.rss()?);
    let many = site.publish(64, 16, 1, SIZE)?;
    values.put("rate", many.per_second);
    values.put("cpu_us", many.cpu_us);
    let one = site.publish(1, 1, 1, SIZE)?;
    values.put("one_p50", one.latency_us.p50);
    values.verified = format!("{} acknowledged = stored", site.stored());
    Ok(values)
}

/// The middle of the times that reading the newest messages takes, and messages from somewhere in between.
async fn reads(address: SocketAddr, head: u64) -> Result<(f64, f64)> {
    let client = ours::connect(address).await?;
    let room = client.room(&room_name(0))?;
    let mut newest = Latencies::new();
    let mut middle = Latencies::new();
    for number in numbers().take(READS) {
        let began = Instant::now();
        let page = room
            .read(StartAt::last(COUNT.into()), COUNT, 1 << 20)
            .await?;
        newest.record(nanos(began.elapsed()), 1);
        check(&page, head + 1 - u64::from(COUNT))?;
        let first = head / 4 + number % (head / 2);
        let began = Instant::now();
        let page = room
            .read(StartAt::seq(Seq::new(first)), COUNT, 1 << 20)
            .await?;
        middle.record(nanos(began.elapsed()), 1);
        check(&page, first)?;
    }
    client.shutdown().await?;
    let p50 = |latencies: &Latencies| latencies.quantiles().map(|quantiles| quantiles.p50);
    p50(&newest).zip(p50(&middle)).context("nothing was read")
}

fn check(page: &Page, first: u64) -> Result<()> {
    let seqs = page.messages.iter().map(|message| message.seq.get());
    if !seqs.eq(first..first + u64::from(COUNT)) {
        bail!(
            "{} messages came instead of {COUNT} from {first} on",
            page.messages.len()
        );
    }
    Ok(())
}

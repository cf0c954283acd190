//! One point of the curve of idle connections: they are welcomed, follow a room in which nothing is said, and are silent.

use std::net::SocketAddr;
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result};
use broker_core::{StartAt, Subscription};
use tokio::runtime::{Builder, Runtime};
use tokio::time::timeout;

use super::results::Values;
use super::site::{Lab, Site};
use crate::load::ours;
use crate::load::publish::Plan;
use crate::stats::float;

/// Bytes of a message.
const SIZE: usize = 128;
/// Publishers, with a room each; the room of the idle ones is one more.
const PUBLISHERS: usize = 64;
/// How long nothing is done: longer than the 15 s after which either side asks whether the other is there, so that all ask once.
const IDLE: Duration = Duration::from_secs(16);
/// How long connecting may take.
const CONNECT_MAX: Duration = Duration::from_secs(120);
/// Connections of which less memory is not told from that of everything else.
const CONNECTIONS_MIN: u64 = 100;

/// Connections that are kept, by clients that answer pings.
struct Crowd {
    runtime: Option<Runtime>,
    _subscriptions: Vec<Subscription>,
}

impl Crowd {
    /// Connects this many and has them follow a room.
    fn gather(address: SocketAddr, count: u64, room: usize) -> Result<Self> {
        let runtime = Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .context("cannot start a runtime")?;
        let connect = async {
            let mut subscriptions = Vec::new();
            for _ in 0..count {
                subscriptions.push(ours::subscribe(address, room, StartAt::START).await?);
            }
            anyhow::Ok(subscriptions)
        };
        let connected = runtime.block_on(async { timeout(CONNECT_MAX, connect).await });
        Ok(Self {
            runtime: Some(runtime),
            _subscriptions: connected.context("the idle ones did not connect in time")??,
        })
    }
}

impl Drop for Crowd {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

/// Measures one point.
pub(super) fn measure(lab: &Lab<'_>, at: u64) -> Result<Values> {
    let mut values = Values::default();
    let mut site = Site::new(lab)?;
    let room = PUBLISHERS;
    site.fill(Plan {
        publishers: 1,
        rooms: room + 1,
        window: 2,
        size: SIZE,
        count: room as u64 + 1,
    })?;
    let empty = site.rss()?;
    let crowd = Crowd::gather(site.address(), at, room)?;
    site.quiet()?;
    let gauge = site.gauge();
    let before = gauge.read()?;
    thread::sleep(IDLE);
    let spent = before.until(&gauge.read()?);
    let share = spent.server.as_secs_f64() / spent.elapsed.as_secs_f64();
    values.put("idle_percent", share * 100.0);
    let rss = site.rss()?;
    values.put("rss", rss);
    if at >= CONNECTIONS_MIN {
        values.put("per_connection", (rss - empty) / float(at));
    }
    let one = site.publish(1, 1, 1, SIZE)?;
    values.put("one_p50", one.latency_us.p50);
    values.put("one_p99", one.latency_us.p99);
    let many = site.publish(PUBLISHERS, 16, PUBLISHERS, SIZE)?;
    values.put("rate", many.per_second);
    values.put("cpu_us", many.cpu_us);
    site.verify_connections(at)?;
    drop(crowd);
    values.verified = format!(
        "{} acknowledged = stored; all {at} are connected at the end",
        site.stored()
    );
    Ok(values)
}

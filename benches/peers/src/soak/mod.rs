//! Publishing at full rate for minutes: whether anything that was acknowledged is lost or out of order, and whether anything
//! grows that should not.
//!
//! - [`publisher`]: sends numbered messages; [`subscriber`]: verifies the numbers.
//! - [`sample`]: what is measured every few seconds, and whether it stays the same; [`table`]: how it is told.
//!
//! **Invariant:** the memory of this process depends on the number of publishers, rooms, subscribers and samples alone.

mod publisher;
mod sample;
mod subscriber;
mod table;

use std::io::Write;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use broker_core::StartAt;
use tokio::task::JoinSet;

use self::publisher::Publisher;
use self::sample::{Sample, Sampler};
use self::subscriber::{Seen, Watch};
use crate::alone::Alone;
use crate::args::Soak as Options;
use crate::curves::Site;
use crate::gauge::Gauge;
use crate::load::{ours, runtime};
use crate::say;
use crate::server::End;

/// Threads of the load generator.
const THREADS: usize = 2;
/// How long subscribers may stand still at the end before they have all.
const STILL_MAX: Duration = Duration::from_secs(30);
/// Of what is stored at the end, so many of the newest messages of each room are read once more.
const READ_AGAIN: u64 = 1_000_000;

/// Runs the command.
pub(crate) fn run(options: &Options) -> Result<()> {
    let alone = Alone::new(&options.place)?;
    let lab = alone.lab(Duration::from_secs(1));
    let mut site = Site::new(&lab)?;
    let runtime = runtime(THREADS)?;
    let done = runtime.block_on(soak(options, &site));
    // What is still under way after a failure must not hold up the end.
    runtime.shutdown_background();
    let (samples, publishers) = done?;
    let again = after_kill(options, &mut site, &publishers)?;
    put_out(&table::end(options.json, &samples, &again)?)
}

/// Publishes, verifies and samples; gives the samples and who published.
async fn soak(options: &Options, site: &Site<'_>) -> Result<(Vec<Sample>, Vec<Arc<Publisher>>)> {
    let address = site.address();
    if let Some(bytes) = options.keep_bytes {
        ours::keep_bytes(address, bytes).await?;
    }
    let stop = Arc::new(AtomicBool::new(false));
    let publishers: Vec<Arc<Publisher>> = (0..options.publishers)
        .map(|number| Arc::new(Publisher::new(number, number % options.rooms)))
        .collect();
    let mut watches = Vec::new();
    // Dropped before its end, the set ends its tasks.
    let mut tasks = JoinSet::new();
    for room in 0..options.rooms {
        for _ in 0..options.subscribers {
            let watch = Arc::new(Watch::new(room));
            let seen = Seen::new(options, room);
            tasks.spawn(Arc::clone(&watch).follow(address, seen));
            watches.push(watch);
        }
    }
    for publisher in &publishers {
        let publisher = Arc::clone(publisher);
        tasks.spawn(publisher.run(address, load(options), Arc::clone(&stop)));
    }
    let sampler = Sampler::new(
        site.gauge(),
        site.data(),
        publishers.clone(),
        watches.clone(),
    );
    let samples = sample_all(options, sampler, &mut tasks).await?;
    stop.store(true, Ordering::Relaxed);
    finish(address, &publishers, &watches, &mut tasks).await?;
    Ok((samples, publishers))
}

/// What every publisher does.
#[derive(Debug, Clone, Copy)]
struct Load {
    window: usize,
    payload: usize,
}

const fn load(options: &Options) -> Load {
    Load {
        window: options.window as usize,
        payload: options.payload,
    }
}

/// Samples until the time is over, or something has gone wrong.
async fn sample_all(
    options: &Options,
    mut sampler: Sampler,
    tasks: &mut JoinSet<Result<()>>,
) -> Result<Vec<Sample>> {
    let every = Duration::from_secs_f64(options.every);
    let whole = Duration::from_secs_f64(options.minutes * 60.0);
    let began = tokio::time::Instant::now();
    let mut samples = Vec::new();
    put_out(&table::head(options.json))?;
    for number in 1.. {
        let due = began + every * number;
        tokio::select! {
            () = tokio::time::sleep_until(due) => {}
            Some(ended) = tasks.join_next() => {
                ended.context("a publisher or a subscriber broke off")??;
                bail!("a publisher or a subscriber ended before it was told to");
            }
        }
        let sample = sampler.take()?;
        put_out(&table::row(options.json, &sample)?)?;
        samples.push(sample);
        if due.duration_since(began) >= whole {
            break;
        }
    }
    Ok(samples)
}

/// Waits until all that was acknowledged has been seen, and verifies that it was.
async fn finish(
    address: SocketAddr,
    publishers: &[Arc<Publisher>],
    watches: &[Arc<Watch>],
    tasks: &mut JoinSet<Result<()>>,
) -> Result<()> {
    for _ in publishers {
        let ended = tasks.join_next().await.context("nobody published")?;
        ended.context("a publisher or a subscriber broke off")??;
    }
    let client = ours::connect(address).await?;
    for watch in watches {
        let head = ours::stored(&client, watch.room() as usize).await?;
        let acked = publisher::acked_in(publishers, watch.room());
        if head != acked {
            bail!(
                "room {}: {acked} messages were acknowledged and {head} are stored",
                watch.room()
            );
        }
        wait_for(watch, head, tasks).await?;
        watch.verify_all_seen(publishers)?;
    }
    Ok(client.shutdown().await?)
}

/// Waits until a subscriber has come to the head of its room.
async fn wait_for(watch: &Watch, head: u64, tasks: &mut JoinSet<Result<()>>) -> Result<()> {
    let (mut at, mut since) = (watch.next(), Instant::now());
    while watch.next() <= head {
        tokio::select! {
            () = tokio::time::sleep(Duration::from_millis(20)) => {}
            Some(ended) = tasks.join_next() => {
                ended.context("a subscriber broke off")??;
                bail!("a subscriber ended before it was told to");
            }
        }
        if watch.next() > at {
            (at, since) = (watch.next(), Instant::now());
        }
        if since.elapsed() > STILL_MAX {
            bail!(
                "a subscriber of room {} stands at {at} of {head}",
                watch.room()
            );
        }
    }
    Ok(())
}

/// Kills the server and starts it: everything acknowledged is there, and the newest of it can be read.
fn after_kill(
    options: &Options,
    site: &mut Site<'_>,
    publishers: &[Arc<Publisher>],
) -> Result<table::Again> {
    // To a room of its own: nothing else is in the others.
    let killed_ms = site.restart_unverified(End::Kill, options.rooms as usize)?;
    let address = site.address();
    let read = runtime(1)?.block_on(async {
        let mut read = 0;
        for room in 0..options.rooms {
            let acked = publisher::acked_in(publishers, room);
            let messages =
                ours::subscribe(address, room as usize, StartAt::last(READ_AGAIN)).await?;
            let mut seen = Seen::new(options, room);
            seen.begin_anywhere();
            read += seen.take_until(messages, acked).await?;
        }
        anyhow::Ok(read)
    })?;
    let acked: u64 = publishers.iter().map(|publisher| publisher.acked()).sum();
    say(&format!(
        "{acked} messages were acknowledged, stored and seen in order; after a kill {read} of the newest were read again"
    ));
    Ok(table::Again {
        acked,
        killed_ms,
        read,
    })
}

fn put_out(text: &str) -> Result<()> {
    Ok(std::io::stdout().lock().write_all(text.as_bytes())?)
}

//! The load: the same work for every peer, on tokio.
//!
//! Every connection is a task that reads what has come, takes all of it apart, and writes once. Tokio carries the peers'
//! connections because it carries this project's client too: scheduling and polling cost both sides the same, and a
//! thousand subscribers do not cost a thousand threads. What differs is what lies above: the peers get bare codecs on bare
//! sockets, which is the least that a client can cost, and this project's broker its public client.
//!
//! - [`publish`]: publishers with a window of unacknowledged messages.
//! - [`fan_out`]: one publisher and its subscribers, as fast as they follow or at a fixed rate.
//! - [`replay`]: reading a room from its start.
//! - [`stalled`]: a subscriber that does not read.
//! - [`connection`], [`gate`], [`pace`], [`stamp`]: what they are made of; [`control`]: preparing and counting.

pub(crate) mod connection;
pub(crate) mod control;
pub(crate) mod fan_out;
pub(crate) mod gate;
pub(crate) mod ours;
pub(crate) mod pace;
pub(crate) mod publish;
pub(crate) mod replay;
pub(crate) mod stalled;
pub(crate) mod stamp;

use std::future::Future;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::{Arc, mpsc};
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, anyhow};
use tokio::runtime::{Builder, Runtime};
use tokio::time::timeout;

use crate::gauge::{Gauge, Spent};
use crate::peer::Peer;
use crate::stats::Latencies;

/// How long connecting and preparing may take.
const SETUP_MAX: Duration = Duration::from_secs(30);
/// How long what is under way at the end may take.
const DRAIN_MAX: Duration = Duration::from_secs(30);

/// A server, and how long it is measured.
#[derive(Debug)]
pub(crate) struct Stage {
    pub(crate) peer: Peer,
    pub(crate) address: SocketAddr,
    pub(crate) gauge: Gauge,
    /// Threads of the load generator where there is work for more than one.
    pub(crate) threads: usize,
    /// Before anything is counted.
    pub(crate) warm_up: Duration,
    /// While it is counted.
    pub(crate) measured: Duration,
}

/// What came out.
#[derive(Debug)]
pub(crate) struct Outcome {
    /// How many messages or deliveries were counted.
    pub(crate) count: u64,
    /// In what time and at what cost.
    pub(crate) spent: Spent,
    /// How long they took, where that was measured.
    pub(crate) latencies: Option<Latencies>,
    /// What was verified, in words.
    pub(crate) verified: String,
}

/// Where a run is: warming up, measured, stopping.
#[derive(Debug, Clone, Default)]
pub(crate) struct Phase(Arc<AtomicU8>);

const MEASURED: u8 = 1;
const STOPPING: u8 = 2;

impl Phase {
    /// One in which everything is measured.
    pub(crate) fn measured() -> Self {
        Self(Arc::new(AtomicU8::new(MEASURED)))
    }

    pub(crate) fn is_measured(&self) -> bool {
        self.0.load(Ordering::Relaxed) == MEASURED
    }

    pub(crate) fn is_stopping(&self) -> bool {
        self.0.load(Ordering::Relaxed) == STOPPING
    }

    fn set(&self, phase: u8) {
        self.0.store(phase, Ordering::Relaxed);
    }
}

/// What one worker counts.
#[derive(Debug)]
pub(crate) struct Meter {
    phase: Phase,
    /// Everything.
    pub(crate) total: u64,
    /// What fell into the measured time.
    pub(crate) measured: u64,
    pub(crate) latencies: Latencies,
}

impl Meter {
    pub(crate) fn new(phase: &Phase) -> Self {
        Self {
            phase: phase.clone(),
            total: 0,
            measured: 0,
            latencies: Latencies::new(),
        }
    }

    /// Counts messages that took the same time.
    pub(crate) fn count(&mut self, count: u64, nanos: u64) {
        self.total += count;
        if self.phase.is_measured() {
            self.measured += count;
            self.latencies.record(nanos, count);
        }
    }

    /// Counts one message; its latency is found out only when it is wanted.
    pub(crate) fn count_one(&mut self, latency: Option<impl FnOnce() -> u64>) {
        self.total += 1;
        if self.phase.is_measured() {
            self.measured += 1;
            if let Some(latency) = latency {
                self.latencies.record(latency(), 1);
            }
        }
    }

    /// The counts of several workers together.
    pub(crate) fn sum(meters: &[Self]) -> (u64, u64, Latencies) {
        let mut latencies = Latencies::new();
        for meter in meters {
            latencies.add(&meter.latencies);
        }
        let total = meters.iter().map(|meter| meter.total).sum();
        let measured = meters.iter().map(|meter| meter.measured).sum();
        (total, measured, latencies)
    }
}

/// A runtime for the load. One connection is served best by one thread, for us as for the others.
pub(crate) fn runtime(threads: usize) -> Result<Runtime> {
    let mut builder = if threads > 1 {
        let mut builder = Builder::new_multi_thread();
        builder.worker_threads(threads);
        builder
    } else {
        Builder::new_current_thread()
    };
    builder
        .enable_all()
        .build()
        .context("cannot start a runtime")
}

/// Does `work` on a runtime of its own and measures it from the moment when it says that it is ready. Returns what it
/// returns once it was told to stop and has stopped.
pub(crate) fn measure<T, F>(
    stage: &Stage,
    threads: usize,
    phase: &Phase,
    work: impl FnOnce(mpsc::Sender<()>) -> F + Send,
) -> Result<(T, Spent)>
where
    F: Future<Output = Result<T>>,
    T: Send,
{
    let patience = SETUP_MAX + stage.warm_up + stage.measured + DRAIN_MAX;
    let (ready, is_ready) = mpsc::channel();
    thread::scope(|scope| {
        let worker = scope.spawn(move || {
            let runtime = runtime(threads)?;
            let done = runtime.block_on(async { timeout(patience, work(ready)).await });
            // What is still under way after a failure must not hold up the next run.
            runtime.shutdown_background();
            done.with_context(|| format!("it did not end within {} s", patience.as_secs()))?
        });
        let spent = match is_ready.recv_timeout(SETUP_MAX) {
            Ok(()) => Some(watch(stage, phase)),
            Err(_) => None,
        };
        phase.set(STOPPING);
        let done = worker
            .join()
            .map_err(|_| anyhow!("the load generator broke off"))?;
        let done = match &spent {
            Some(_) => done?,
            None => done.context("the work was never ready")?,
        };
        let spent = spent.context("the work was never ready")??;
        Ok((done, spent))
    })
}

fn watch(stage: &Stage, phase: &Phase) -> Result<Spent> {
    thread::sleep(stage.warm_up);
    let before = stage.gauge.read()?;
    phase.set(MEASURED);
    thread::sleep(stage.measured);
    phase.set(STOPPING);
    Ok(before.until(&stage.gauge.read()?))
}

/// The name of a room, the same for every peer.
pub(crate) fn room_name(number: usize) -> String {
    format!("room-{number}")
}

//! [`Lab`], what all points share, and [`Site`]: one server with what is known to be stored in it, for one point.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use tokio::time::timeout;

use crate::gauge::Gauge;
use crate::load::publish::{self, Plan, payload};
use crate::load::{Meter, Outcome, Phase, Stage, control, ours, runtime};
use crate::peer::Peer;
use crate::server::{End, Running, Server};
use crate::stats::{Latencies, Quantiles, float};
use crate::tools::Tools;

/// Threads of the load generator where there is work for more than one.
const THREADS: usize = 2;
/// How long filling may take.
const FILL_MAX: Duration = Duration::from_secs(240);
/// How long the server may go on with what it was given before.
const QUIET_MAX: Duration = Duration::from_secs(30);
/// A server is quiet when it takes less than a tick of the kernel's clock in this time.
const QUIET: Duration = Duration::from_millis(200);

/// What all points share.
#[derive(Debug)]
pub(crate) struct Lab<'a> {
    pub(crate) tools: &'a Tools,
    pub(crate) base: &'a Path,
    pub(crate) running: &'a Running,
    /// How long a load is measured.
    pub(crate) measured: Duration,
}

/// One server.
#[derive(Debug)]
pub(crate) struct Site<'a> {
    lab: &'a Lab<'a>,
    server: Server,
    /// Messages that were acknowledged, in all rooms.
    stored: u64,
}

/// What a load came to.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Loaded {
    pub(crate) per_second: f64,
    /// Processor time of the server for one message or delivery.
    pub(crate) cpu_us: f64,
    pub(crate) latency_us: Quantiles,
}

impl Loaded {
    pub(crate) fn of(outcome: &Outcome) -> Result<Self> {
        let count = float(outcome.count);
        let latencies = outcome.latencies.as_ref();
        let Some(latency_us) = latencies.and_then(|latencies| latencies.quantiles()) else {
            bail!("nothing came within the measured time, which is too short");
        };
        Ok(Self {
            per_second: count / outcome.spent.elapsed.as_secs_f64(),
            cpu_us: outcome.spent.server.as_secs_f64() * 1e6 / count,
            latency_us,
        })
    }
}

impl<'a> Site<'a> {
    /// A new server with an empty directory.
    pub(crate) fn new(lab: &'a Lab<'a>) -> Result<Self> {
        Ok(Self {
            lab,
            server: Server::start(Peer::Ours, lab.tools, lab.base, lab.running)?,
            stored: 0,
        })
    }

    /// For a load that takes this long.
    pub(crate) fn stage(&self, peer: Peer, measured: Duration) -> Stage {
        Stage {
            peer,
            address: self.server.address(),
            gauge: self.gauge(),
            threads: THREADS,
            warm_up: measured / 4,
            measured,
        }
    }

    /// How long a load is measured.
    pub(crate) const fn measured(&self) -> Duration {
        self.lab.measured
    }

    pub(crate) fn address(&self) -> std::net::SocketAddr {
        self.server.address()
    }

    pub(crate) fn gauge(&self) -> Gauge {
        Gauge::new(self.server.process(), self.server.dir())
    }

    /// The memory of the server, in bytes.
    pub(crate) fn rss(&self) -> Result<f64> {
        let rss = self
            .gauge()
            .rss()
            .context("the server's memory is not told")?;
        Ok(float(rss))
    }

    /// Stores messages as fast as it goes, and looks whether they are there.
    pub(crate) fn fill(&mut self, plan: Plan) -> Result<()> {
        self.store(Peer::OursBulk, plan)?;
        self.verify()
    }

    /// Stores messages as fast as it goes.
    pub(crate) fn store(&mut self, peer: Peer, plan: Plan) -> Result<()> {
        self.store_in(&Phase::default(), peer, plan)?;
        Ok(())
    }

    /// The same; tells how long all of it took, and each acknowledgement.
    pub(crate) fn store_measured(
        &mut self,
        peer: Peer,
        plan: Plan,
    ) -> Result<(Duration, Latencies)> {
        let began = Instant::now();
        let meters = self.store_in(&Phase::measured(), peer, plan)?;
        let (_, _, latencies) = Meter::sum(&meters);
        Ok((began.elapsed(), latencies))
    }

    fn store_in(&mut self, phase: &Phase, peer: Peer, plan: Plan) -> Result<Vec<Meter>> {
        let stage = self.stage(peer, self.lab.measured);
        // The timer needs the runtime that it is made in.
        let filled = runtime(THREADS)?
            .block_on(async { timeout(FILL_MAX, plan.run(&stage, phase, None)).await });
        let filled =
            filled.with_context(|| format!("filling took over {} s", FILL_MAX.as_secs()))??;
        self.stored += plan.count;
        Ok(filled)
    }

    /// Measures publishers, as long as all loads.
    pub(crate) fn publish(
        &mut self,
        publishers: usize,
        window: usize,
        rooms: usize,
        size: usize,
    ) -> Result<Loaded> {
        let plan = Plan {
            publishers,
            rooms,
            window,
            size,
            count: u64::MAX,
        };
        let stage = self.stage(Peer::Ours, self.lab.measured);
        let (acked, outcome) = publish::load(&stage, plan)
            .with_context(|| format!("publishing {publishers}x{window} to {rooms} rooms"))?;
        self.stored += acked;
        self.verify()?;
        Loaded::of(&outcome)
    }

    /// Ends the server and starts it again: the time from there to the acknowledgement of a message, in milliseconds.
    pub(crate) fn restart(&mut self, end: End) -> Result<f64> {
        let millis = self.restart_unverified(end, 0)?;
        self.verify()?;
        Ok(millis)
    }

    /// The same where others know what is stored; the message goes to this room.
    pub(crate) fn restart_unverified(&mut self, end: End, room: usize) -> Result<f64> {
        let runtime = runtime(1)?;
        let payload = payload(128);
        let began = self.server.restart(end)?;
        let address = self.server.address();
        let acked: Result<Duration> = runtime.block_on(async {
            let room = ours::room(address, room).await?;
            room.send(payload).await?;
            let took = began.elapsed();
            room.client().shutdown().await?;
            Ok(took)
        });
        let took = acked?;
        self.stored += 1;
        Ok(took.as_secs_f64() * 1e3)
    }

    /// Ends the server.
    pub(crate) fn end(&self, how: End) -> Result<()> {
        self.server.end(how)
    }

    /// Starts it again, and waits until it takes connections; tells when its process was begun.
    pub(crate) fn begin(&mut self) -> Result<Instant> {
        self.server.begin()
    }

    /// Messages were stored and acknowledged beside those that were filled in.
    pub(crate) const fn note_stored(&mut self, count: u64) {
        self.stored += count;
    }

    /// Where the store is.
    pub(crate) fn data(&self) -> PathBuf {
        self.server.dir().join("data")
    }

    /// Waits until the server has nothing to do.
    pub(crate) fn quiet(&self) -> Result<()> {
        let began = Instant::now();
        let gauge = self.gauge();
        loop {
            let before = gauge.read()?;
            std::thread::sleep(QUIET);
            if before.until(&gauge.read()?).server.is_zero() {
                return Ok(());
            }
            if began.elapsed() > QUIET_MAX {
                bail!(
                    "the server is busy for {} s with nothing",
                    QUIET_MAX.as_secs()
                );
            }
        }
    }

    /// Messages that are stored.
    pub(crate) const fn stored(&self) -> u64 {
        self.stored
    }

    /// As many messages are stored as were acknowledged.
    pub(crate) fn verify(&self) -> Result<()> {
        let stored = control::stored_in_all(self.server.address())?;
        if stored != self.stored {
            bail!(
                "{} messages were acknowledged and {stored} are stored",
                self.stored
            );
        }
        Ok(())
    }

    /// Takes in what a load has stored whose messages were counted by those who got them.
    pub(crate) fn recount(&mut self) -> Result<()> {
        self.stored = control::stored_in_all(self.server.address())?;
        Ok(())
    }

    /// This many connections are there still.
    pub(crate) fn verify_connections(&self, least: u64) -> Result<()> {
        // The question's own is one more.
        let there = control::connections(self.server.address())?.saturating_sub(1);
        if there < least {
            bail!("{there} of {least} connections are left");
        }
        Ok(())
    }
}

//! [`Bench`]: the benchmarks themselves, a method each.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use broker_proto::limits::ROOM_LIST_MAX;

use super::cpu::{Cpu, Meter};
use super::crew::{Sent, alone, received_figure};
use super::disk::{self, DiskProbe};
use super::figures::Figure;
use super::gate::Gate;
use super::load::{Limit, Load, What};
use super::machine::Machine;
use super::pace::{Pace, Schedule};
use super::progress::{Phase, Progress};
use super::report::Report;
use super::rtt::round_trips;
use super::stage::Stage;
use crate::exit::{Exit, Failure};

/// Everything that a benchmark needs.
pub(crate) struct Bench {
    /// Where it runs.
    pub(crate) stage: Arc<Stage>,
    /// What it does.
    pub(crate) load: Arc<Load>,
    /// What it runs on.
    pub(crate) machine: Machine,
    /// How long what is missing may take.
    pub(crate) patience: Duration,
    /// What is shown meanwhile.
    pub(crate) progress: Progress,
}

/// What a benchmark found.
#[derive(Debug)]
pub(crate) struct Measured {
    /// The numbers.
    pub(crate) figures: Vec<Figure>,
    /// What the publishers did.
    pub(crate) sent: Sent,
    /// What it took of the CPU.
    pub(crate) cpu: Cpu,
    /// How many messages were read back and found right, if that was a part of it.
    pub(crate) verified: Option<u64>,
}

impl Bench {
    /// Runs it.
    pub(crate) async fn run(self) -> Result<Report, Failure> {
        if self.load.cold {
            // Before an hour's filling.
            disk::check_cold(&self.cold_dir()?)?;
        }
        let disk = self.probe_disk().await;
        let measured = match self.load.what {
            What::Pub => self.publishing("publish", "messages", "message").await?,
            What::Sub => self.delivery(None).await?,
            What::Fanout => {
                let gate = Arc::new(Gate::new(&self.load, self.patience));
                self.delivery(Some(gate)).await?
            }
            What::Replay => self.replay().await?,
            What::Rtt => self.round_trips().await?,
            What::Rooms => self.rooms().await?,
        };
        let verified = match measured.verified {
            Some(verified) => verified,
            None => {
                let phase = self.phase("verify", Limit::Count(measured.sent.count()));
                let done = phase.done();
                self.stage.verify(&measured.sent.published, &done).await?
            }
        };
        Ok(Report {
            load: Load::clone(&self.load),
            place: self.stage.place.clone(),
            server_build: self.stage.server_build.clone(),
            machine: self.machine,
            disk,
            measured,
            verified,
            files: Vec::new(),
        })
    }

    /// The disk without the broker, or why not.
    async fn probe_disk(&self) -> Result<DiskProbe, String> {
        let Some(dir) = self.stage.dir.clone() else {
            let words = "not measured: the store's directory is not known here (--data names it)";
            return Err(words.to_owned());
        };
        let shown = dir.display().to_string();
        match tokio::task::spawn_blocking(move || DiskProbe::measure(&dir)).await {
            Ok(Ok(probe)) => Ok(probe),
            Ok(Err(error)) => Err(format!("not measured: {shown}: {error}")),
            Err(error) => Err(format!("not measured: {error}")),
        }
    }

    fn phase(&self, name: &'static str, limit: Limit) -> Phase {
        self.progress.phase(name, limit)
    }

    /// How much every one of so many does before it is enough.
    fn goal(&self, of_each: u64) -> Limit {
        match (Schedule::new(&self.load), self.load.limit) {
            (Some(schedule), _) => Limit::Count(schedule.messages().saturating_mul(of_each)),
            (None, Limit::Count(count)) => Limit::Count(count.saturating_mul(of_each)),
            (None, limit) => limit,
        }
    }

    /// Publishers alone.
    async fn publishing(
        &self,
        name: &'static str,
        unit: &'static str,
        each: &'static str,
    ) -> Result<Measured, Failure> {
        let phase = self.phase(name, self.goal(1));
        let (sent, meter) = self.publish(None, Some(phase.done())).await?;
        Ok(Measured {
            cpu: meter.stop(each, sent.count()),
            figures: vec![sent.figure(name, unit, &self.load)],
            sent,
            verified: None,
        })
    }

    /// Publishers, and subscribers that were there before.
    async fn delivery(&self, gate: Option<Arc<Gate>>) -> Result<Measured, Failure> {
        let phase = self.phase("deliver", self.goal(self.load.subs.into()));
        let subscribers = self.subscribe(gate.clone(), phase.done()).await?;
        let (sent, meter, received) = subscribers.beside(self.publish(gate, None)).await?;
        let delivered = received_figure(&received, Some(&sent), &self.load, "deliver");
        Ok(Measured {
            cpu: meter.stop("delivery", delivered.count),
            figures: vec![sent.figure("publish", "messages", &self.load), delivered],
            sent,
            verified: None,
        })
    }

    /// Messages are stored, then read from the start.
    async fn replay(&self) -> Result<Measured, Failure> {
        let filling = self.phase("fill", self.goal(1));
        let (sent, _) = self.publish(None, Some(filling.done())).await?;
        drop(filling);
        let total = sent.count();
        if self.load.cold {
            disk::drop_pages(&self.cold_dir()?)?;
        } else {
            let warming = self.phase("warm up", Limit::Count(total));
            self.read_all(1, total, warming.done()).await?;
        }
        let readers = u64::from(self.load.subs);
        let phase = self.phase("replay", Limit::Count(total.saturating_mul(readers)));
        let (received, meter) = self.read_all(self.load.subs, total, phase.done()).await?;
        for received in &received {
            received.judge(&sent.published)?;
        }
        let replayed = received_figure(&received, None, &self.load, "replay");
        let filled = Figure {
            latencies: None,
            ..sent.figure("fill", "messages", &self.load)
        };
        Ok(Measured {
            cpu: meter.stop("message", replayed.count),
            verified: Some(replayed.count),
            figures: vec![filled, replayed],
            sent,
        })
    }

    /// Where the log is that has to be cold.
    fn cold_dir(&self) -> Result<PathBuf, Failure> {
        self.stage.dir.clone().ok_or_else(|| {
            Failure::usage(format!(
                "--cold has to reach the store's files, and where those of {} lie is not known here: \
                 name the store with --data DIR on its machine, or leave out --server to measure a broker of its own",
                self.stage.place
            ))
        })
    }

    async fn round_trips(&self) -> Result<Measured, Failure> {
        let pace = Schedule::new(&self.load).map(Pace::new);
        let phase = self.phase("round trip", self.goal(1));
        let meter = Meter::start(&self.stage.server);
        // A task, like the one that serves its connection: a change of threads more would be the program's, not the broker's.
        let done = alone(round_trips(
            Arc::clone(&self.stage),
            Arc::clone(&self.load),
            pace,
            phase.done(),
        ))
        .await?;
        let sent = Sent::new(vec![done.published]);
        let acked = sent.figure("ack", "messages", &self.load);
        let delivered = Figure {
            name: "deliver",
            latencies: Some(done.deliveries),
            ..acked.clone()
        };
        Ok(Measured {
            cpu: meter.stop("round trip", sent.count()),
            figures: vec![acked, delivered],
            sent,
            verified: None,
        })
    }

    /// Rooms made by a message each, then all of the store's rooms listed.
    async fn rooms(&self) -> Result<Measured, Failure> {
        let mut measured = self.publishing("create", "rooms", "room").await?;
        let phase = self.phase("list", Limit::Count(self.load.rooms.into()));
        let client = self.stage.connect().await?;
        let began = Instant::now();
        let (mut count, mut own, mut after) = (0, 0, String::new());
        loop {
            let page = client.rooms(&after, ROOM_LIST_MAX).await?;
            let listed = page.rooms.len() as u64;
            count += listed;
            phase.done().add(listed);
            let is_ours = |name: &str| u64::from(self.stage.is_ours(name));
            own += page
                .rooms
                .iter()
                .map(|room| is_ours(&room.name))
                .sum::<u64>();
            match page.rooms.last() {
                Some(last) if page.more => after = last.name.to_string(),
                _ => break,
            }
        }
        if own != u64::from(self.load.rooms) {
            let words = format!(
                "violation: {} rooms were made and {own} of them are listed",
                self.load.rooms
            );
            return Err(Failure::new(Exit::Protocol, words));
        }
        measured.figures.push(Figure {
            name: "list",
            unit: "rooms",
            count,
            bytes: 0,
            elapsed: began.elapsed(),
            latencies: None,
        });
        client.shutdown().await?;
        Ok(measured)
    }
}

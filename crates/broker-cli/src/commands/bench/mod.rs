//! `broker bench`: load with a stamp on every message, figures, and a check that nothing was lost,
//! doubled or reordered.

mod figures;
mod load;
mod publish;
mod report;
mod rtt;
mod stage;
mod stamp;
mod subscribe;

use std::sync::Arc;
use std::time::{Duration, Instant};

use broker_proto::limits::ROOM_LIST_MAX;
use futures_util::future::join_all;
use tokio::sync::{Barrier, oneshot, watch};
use tokio::task::{JoinError, JoinSet};

use self::figures::{Figure, Latencies};
use self::load::{Budget, Load, What};
use self::publish::{Published, publish};
use self::report::Report;
use self::rtt::round_trips;
use self::stage::{Host, Stage};
use self::subscribe::subscribe;
use crate::args::BenchCommand;
use crate::config::Config;
use crate::connect::unless_stopped;
use crate::exit::{Exit, Failure};
use crate::output::{self, say};
use crate::signals::Stop;

/// Runs the command.
pub(crate) async fn run(
    config: &Config,
    command: BenchCommand,
    mut stop: Stop,
) -> Result<(), Failure> {
    let (what, options) = match command {
        BenchCommand::Pub(options) => (What::Pub, options),
        BenchCommand::Sub(options) => (What::Sub, options),
        BenchCommand::Rtt(options) => (What::Rtt, options),
        BenchCommand::Rooms(options) => (What::Rooms, options),
    };
    let load = Arc::new(Load::new(what, &options)?);
    for option in Load::ignored(what, &options) {
        say(&format!("bench {} makes no use of {option}", what.name()));
    }
    let (host, stage) = unless_stopped(&mut stop, Host::open(config)).await?;
    let bench = Bench {
        stage: Arc::new(stage),
        load,
        patience: config.timeout,
    };
    let result = unless_stopped(&mut stop, bench.run()).await;
    let closed = host.close().await;
    let mut out = output::stdout();
    result?.write(options.json, out.buffer());
    out.flush()?;
    closed
}

struct Bench {
    stage: Arc<Stage>,
    load: Arc<Load>,
    /// How long what is missing may take.
    patience: Duration,
}

impl Bench {
    async fn run(&self) -> Result<Report, Failure> {
        let (figures, published) = match self.load.what {
            What::Pub => self.publishing("publish", "messages").await?,
            What::Sub => self.delivery().await?,
            What::Rtt => self.round_trips().await?,
            What::Rooms => self.rooms().await?,
        };
        let verified = self.stage.verify(&published).await?;
        Ok(Report {
            load: Load::clone(&self.load),
            place: self.stage.place.clone(),
            figures,
            verified,
        })
    }

    /// All publishers at once.
    async fn publishing(
        &self,
        name: &'static str,
        unit: &'static str,
    ) -> Result<(Vec<Figure>, Vec<Published>), Failure> {
        let budget = Arc::new(Budget::new(self.load.limit));
        // Dropped before its end, the set ends its tasks.
        let mut publishers = JoinSet::new();
        let start = Arc::new(Barrier::new(self.load.pubs as usize));
        for publisher in 0..self.load.pubs {
            publishers.spawn(publish(
                Arc::clone(&self.stage),
                Arc::clone(&self.load),
                Arc::clone(&budget),
                Arc::clone(&start),
                publisher,
            ));
        }
        let mut published = Vec::new();
        while let Some(done) = publishers.join_next().await {
            published.push(flat(done)?);
        }
        published.sort_by_key(|published| published.publisher);
        let mut latencies = Latencies::new();
        published
            .iter()
            .for_each(|published| latencies.add(&published.latencies));
        let count = published.iter().map(Published::count).sum();
        let figure = Figure {
            name,
            unit,
            count,
            bytes: count * self.load.size as u64,
            elapsed: span(&published),
            latencies: Some(latencies),
        };
        Ok((vec![figure], published))
    }

    /// Publishers, and subscribers that were there before.
    async fn delivery(&self) -> Result<(Vec<Figure>, Vec<Published>), Failure> {
        let (tell_total, total) = watch::channel(None);
        let mut subscribers = JoinSet::new();
        let mut ready = Vec::new();
        for _ in 0..self.load.subs {
            let (tell_ready, is_ready) = oneshot::channel();
            ready.push(is_ready);
            subscribers.spawn(subscribe(
                Arc::clone(&self.stage),
                Arc::clone(&self.load),
                tell_ready,
                total.clone(),
                self.patience,
            ));
        }
        drop(total);
        // One that cannot begin says why when it is joined.
        join_all(ready).await;
        let began = Instant::now();
        let (mut figures, published) = self.publishing("publish", "messages").await?;
        tell_total.send_replace(Some(published.iter().map(Published::count).sum()));
        let mut latencies = Latencies::new();
        let (mut count, mut last) = (0, began);
        while let Some(done) = subscribers.join_next().await {
            let received = flat(done)?;
            received.judge(&published)?;
            latencies.add(&received.latencies);
            count += received.count;
            last = last.max(received.last);
        }
        figures.push(Figure {
            name: "deliver",
            unit: "messages",
            count,
            bytes: count * self.load.size as u64,
            elapsed: last.saturating_duration_since(began),
            latencies: Some(latencies),
        });
        Ok((figures, published))
    }

    async fn round_trips(&self) -> Result<(Vec<Figure>, Vec<Published>), Failure> {
        let done = round_trips(&self.stage, &self.load).await?;
        let figure = |name, latencies: Latencies| Figure {
            name,
            unit: "messages",
            count: latencies.len(),
            bytes: latencies.len() * self.load.size as u64,
            elapsed: done.elapsed,
            latencies: Some(latencies),
        };
        let figures = vec![
            figure("ack", done.acks.clone()),
            figure("deliver", done.deliveries.clone()),
        ];
        Ok((figures, vec![done.published]))
    }

    /// Rooms made by a message each, then all of the store's rooms listed.
    async fn rooms(&self) -> Result<(Vec<Figure>, Vec<Published>), Failure> {
        let (mut figures, published) = self.publishing("create", "rooms").await?;
        let client = self.stage.connect().await?;
        let began = Instant::now();
        let (mut count, mut own, mut after) = (0, 0, String::new());
        loop {
            let page = client.rooms(&after, ROOM_LIST_MAX).await?;
            count += page.rooms.len() as u64;
            own += page
                .rooms
                .iter()
                .filter(|room| self.stage.is_ours(&room.name))
                .count() as u64;
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
        figures.push(Figure {
            name: "list",
            unit: "rooms",
            count,
            bytes: 0,
            elapsed: began.elapsed(),
            latencies: None,
        });
        client.shutdown().await?;
        Ok((figures, published))
    }
}

/// From the first publisher's start to the last one's end.
fn span(published: &[Published]) -> Duration {
    let began = published.iter().map(|published| published.began).min();
    let ended = published.iter().map(|published| published.ended).max();
    began.zip(ended).map_or(Duration::ZERO, |(began, ended)| {
        ended.saturating_duration_since(began)
    })
}

/// What a task came to.
fn flat<T>(done: Result<Result<T, Failure>, JoinError>) -> Result<T, Failure> {
    done.unwrap_or_else(|error| {
        Err(Failure::new(
            Exit::Protocol,
            format!("a worker broke off: {error}"),
        ))
    })
}

//! Publishers and subscribers at work: started together, waited for, and what they did put together.

use std::future::Future;
use std::sync::Arc;

use tokio::sync::{Barrier, watch};
use tokio::task::{JoinError, JoinSet};

use super::budget::Budget;
use super::cpu::Meter;
use super::figures::{Figure, Latencies};
use super::gate::Gate;
use super::load::{Load, What};
use super::pace::{Pace, Schedule, Timing};
use super::progress::Done;
use super::publish::{Published, Task, Tempo, publish, span};
use super::runs::Bench;
use super::subscribe::{Audience, Received, subscribe};
use crate::exit::{Exit, Failure};

/// All publishers of a benchmark, done.
#[derive(Debug)]
pub(crate) struct Sent {
    /// What each did, in their order.
    pub(crate) published: Vec<Published>,
    /// How long their messages took.
    pub(crate) timing: Timing,
}

impl Sent {
    /// Puts together what publishers did.
    pub(crate) fn new(mut published: Vec<Published>) -> Self {
        published.sort_by_key(|published| published.publisher);
        let mut timing = Timing::new();
        for published in &published {
            timing.add(&published.timing);
        }
        Self { published, timing }
    }

    /// How many messages.
    pub(crate) fn count(&self) -> u64 {
        self.published.iter().map(Published::count).sum()
    }

    /// What this comes to.
    pub(crate) fn figure(&self, name: &'static str, unit: &'static str, load: &Load) -> Figure {
        Figure {
            name,
            unit,
            count: self.count(),
            bytes: self.count() * load.size as u64,
            elapsed: span(&self.published),
            latencies: Some(self.timing.latencies.clone()),
        }
    }
}

/// The subscribers of a benchmark, following.
#[derive(Debug)]
pub(crate) struct Subscribers {
    set: JoinSet<Result<Received, Failure>>,
    /// Tells them how many messages there are.
    total: watch::Sender<Option<u64>>,
}

impl Bench {
    /// All publishers at once. The meter begins when they do.
    pub(crate) async fn publish(
        &self,
        gate: Option<Arc<Gate>>,
        done: Option<Done>,
    ) -> Result<(Sent, Meter), Failure> {
        let pace = Schedule::new(&self.load).map(Pace::new);
        let task = Arc::new(Task {
            stage: Arc::clone(&self.stage),
            load: Arc::clone(&self.load),
            tempo: match &pace {
                Some(pace) => Tempo::Pace(Arc::clone(pace)),
                None => Tempo::Window(Budget::new(self.load.limit), gate),
            },
            start: Barrier::new(self.load.pubs as usize + 1),
            done,
        });
        // Dropped before its end, the set ends its tasks.
        let mut set = JoinSet::new();
        for publisher in 0..self.load.pubs {
            set.spawn(publish(Arc::clone(&task), publisher));
        }
        together(&mut set, task.start.wait()).await?;
        let meter = Meter::start(&self.stage.server);
        if let Some(pace) = pace {
            pace.start()?;
        }
        let mut published = Vec::new();
        while let Some(done) = set.join_next().await {
            published.push(flat(done)?);
        }
        Ok((Sent::new(published), meter))
    }

    /// Subscribers of messages that are still to come. Returns once all follow.
    pub(crate) async fn subscribe(
        &self,
        gate: Option<Arc<Gate>>,
        done: Done,
    ) -> Result<Subscribers, Failure> {
        let (total, told) = watch::channel(None);
        let audience = Audience {
            is_history: false,
            // Without times of its own, a fan-out's latencies would only say how large the window is.
            is_timed: self.load.what != What::Fanout || self.load.rate.is_some(),
            gate,
            ..self.audience(self.load.subs, told, Some(done))
        };
        let (set, _) = self.gather(audience).await?;
        Ok(Subscribers { set, total })
    }

    /// Readers of this many messages that are there already. The meter begins when they do.
    pub(crate) async fn read_all(
        &self,
        readers: u32,
        total: u64,
        done: Done,
    ) -> Result<(Vec<Received>, Meter), Failure> {
        let (_total, told) = watch::channel(Some(total));
        let audience = self.audience(readers, told, Some(done));
        let (mut set, meter) = self.gather(audience).await?;
        let mut received = Vec::new();
        while let Some(done) = set.join_next().await {
            received.push(flat(done)?);
        }
        Ok((received, meter))
    }

    fn audience(
        &self,
        subs: u32,
        total: watch::Receiver<Option<u64>>,
        done: Option<Done>,
    ) -> Audience {
        Audience {
            stage: Arc::clone(&self.stage),
            load: Arc::clone(&self.load),
            subs,
            is_history: true,
            is_timed: false,
            start: Barrier::new(subs as usize + 1),
            total,
            gate: None,
            done,
            patience: self.patience,
        }
    }

    async fn gather(
        &self,
        audience: Audience,
    ) -> Result<(JoinSet<Result<Received, Failure>>, Meter), Failure> {
        let audience = Arc::new(audience);
        let mut set = JoinSet::new();
        for _ in 0..audience.subs {
            set.spawn(subscribe(Arc::clone(&audience)));
        }
        together(&mut set, audience.start.wait()).await?;
        Ok((set, Meter::start(&self.stage.server)))
    }
}

impl Subscribers {
    /// Waits for publishers, who fail when a subscriber does, then for the subscribers, who have to
    /// have received everything.
    pub(crate) async fn beside(
        mut self,
        publishing: impl Future<Output = Result<(Sent, Meter), Failure>>,
    ) -> Result<(Sent, Meter, Vec<Received>), Failure> {
        let (sent, meter) = tokio::select! {
            biased;
            // Before they know how many messages there are, they end only when something is wrong.
            Some(ended) = self.set.join_next() => return Err(early(ended)),
            sent = publishing => sent?,
        };
        self.total.send_replace(Some(sent.count()));
        let mut all = Vec::new();
        while let Some(done) = self.set.join_next().await {
            let received = flat(done)?;
            received.judge(&sent.published)?;
            all.push(received);
        }
        Ok((sent, meter, all))
    }
}

/// What subscribers received. It begins with the first of them, or when the first message was sent.
pub(crate) fn received_figure(
    received: &[Received],
    sent: Option<&Sent>,
    load: &Load,
    name: &'static str,
) -> Figure {
    let mut latencies = Latencies::new();
    for received in received {
        latencies.add(&received.latencies);
    }
    let count = received.iter().map(|received| received.count).sum();
    let began = match sent {
        Some(sent) => sent.published.iter().map(|sent| sent.began).min(),
        None => received.iter().map(|received| received.began).min(),
    };
    let last = received.iter().map(|received| received.last).max();
    Figure {
        name,
        unit: "messages",
        count,
        bytes: count * load.size as u64,
        elapsed: began
            .zip(last)
            .map_or_else(Default::default, |(began, last)| {
                last.saturating_duration_since(began)
            }),
        latencies: Some(latencies).filter(|latencies| latencies.len() > 0),
    }
}

/// Waits until all have come together, or one of them has failed on the way.
async fn together<T: 'static>(
    set: &mut JoinSet<Result<T, Failure>>,
    start: impl Future,
) -> Result<(), Failure> {
    tokio::select! {
        biased;
        // Once all have come together, one may have done its work before this is looked at.
        _ = start => Ok(()),
        Some(ended) = set.join_next() => Err(early(ended)),
    }
}

/// Why a worker ended before its time.
fn early<T>(ended: Result<Result<T, Failure>, JoinError>) -> Failure {
    let words = "a worker ended before the others began";
    flat(ended)
        .err()
        .unwrap_or_else(|| Failure::new(Exit::Protocol, words))
}

/// Does one thing as a task, which ends with the caller.
pub(crate) async fn alone<T: Send + 'static>(
    work: impl Future<Output = Result<T, Failure>> + Send + 'static,
) -> Result<T, Failure> {
    let mut set = JoinSet::new();
    set.spawn(work);
    match set.join_next().await {
        Some(done) => flat(done),
        None => Err(Failure::new(
            Exit::Protocol,
            "a worker was never there".to_owned(),
        )),
    }
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

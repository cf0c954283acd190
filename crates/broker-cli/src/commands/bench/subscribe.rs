//! A subscriber: it follows every room on a connection of its own and checks every message.

use std::sync::Arc;
use std::time::{Duration, Instant};

use broker_core::{BatchItem, Error, StartAt};
use futures_util::FutureExt;
use futures_util::stream::{Stream, StreamExt, select_all, unfold};
use tokio::sync::{Barrier, watch};

use super::check::Checker;
use super::figures::Latencies;
use super::gate::Gate;
use super::load::Load;
use super::progress::Done;
use super::publish::Published;
use super::stage::Stage;
use crate::exit::{Exit, Failure};

/// After so many frames of messages without a wait, others get their turn and are told how far it is.
const ROUND: u32 = 4;

/// What all subscribers of a benchmark have in common.
#[derive(Debug)]
pub(crate) struct Audience {
    pub(crate) stage: Arc<Stage>,
    pub(crate) load: Arc<Load>,
    /// How many there are.
    pub(crate) subs: u32,
    /// Whether the messages are there already: then the subscribing itself is a part of what is
    /// measured.
    pub(crate) is_history: bool,
    /// Whether the time from send to receipt is taken.
    pub(crate) is_timed: bool,
    /// Where all come together: once they are connected, and when messages are still to come, once they
    /// follow.
    pub(crate) start: Barrier,
    /// How many messages there are, once that is known.
    pub(crate) total: watch::Receiver<Option<u64>>,
    /// What holds the publisher back.
    pub(crate) gate: Option<Arc<Gate>>,
    /// Counts receipts, if somebody wants to see them.
    pub(crate) done: Option<Done>,
    /// How long what is missing may take.
    pub(crate) patience: Duration,
}

/// What one subscriber saw.
#[derive(Debug)]
pub(crate) struct Received {
    /// How many messages.
    pub(crate) count: u64,
    /// When it began.
    pub(crate) began: Instant,
    /// When the last message came.
    pub(crate) last: Instant,
    /// From send, or when it was due, to receipt.
    pub(crate) latencies: Latencies,
    /// What it has seen of each room.
    checkers: Vec<Checker>,
}

/// Follows every room until all messages have come.
pub(crate) async fn subscribe(audience: Arc<Audience>) -> Result<Received, Failure> {
    let (stage, load) = (&audience.stage, &audience.load);
    let client = stage.connect().await?;
    if audience.is_history {
        audience.start.wait().await;
    }
    let began = Instant::now();
    let mut items = Vec::new();
    for number in 0..load.rooms {
        let subscription = stage
            .room(&client, number)?
            .subscribe(StartAt::START)
            .wait(true)
            .await?;
        // Whole frames, as a program takes them that wants to keep up.
        let batches = unfold(subscription, |mut subscription| async {
            let batch = subscription.next_batch().await?;
            Some((batch, subscription))
        });
        items.push(Box::pin(batches.map(move |batch| (number, batch))));
    }
    if !audience.is_history {
        audience.start.wait().await;
    }
    let mut reader = Reader {
        audience: &audience,
        told: 0,
        received: Received {
            count: 0,
            began,
            last: began,
            latencies: Latencies::new(),
            checkers: (0..load.rooms)
                .map(|room| Checker::new(stage.run, room))
                .collect(),
        },
    };
    // Choosing among streams costs more than all the rest of a message.
    match items.pop() {
        Some(only) if items.is_empty() => reader.follow(only).await?,
        last => {
            items.extend(last);
            reader.follow(select_all(items)).await?;
        }
    }
    let received = reader.received;
    client.shutdown().await?;
    Ok(received)
}

struct Reader<'a> {
    audience: &'a Audience,
    received: Received,
    /// How many messages the others know of.
    told: u64,
}

/// Messages of a room, or what ended its subscription.
type Entry = (u32, Result<BatchItem, Error>);

/// What a reader has waited for.
enum Next {
    /// An entry; none when all subscriptions have ended.
    Entry(Option<Entry>),
    /// How many messages there are.
    Total,
    /// Nothing, for too long or because the publishers have failed.
    Nothing,
}

impl Reader<'_> {
    async fn follow(
        &mut self,
        mut items: impl Stream<Item = Entry> + Unpin,
    ) -> Result<(), Failure> {
        let mut total = self.audience.total.clone();
        loop {
            let known = *total.borrow_and_update();
            for _ in 0..ROUND {
                if known.is_some_and(|total| self.received.count >= total) {
                    self.tell();
                    return Ok(());
                }
                let next = match items.next().now_or_never() {
                    Some(entry) => Next::Entry(entry),
                    None => self.wait(&mut items, &mut total, known.is_some()).await,
                };
                match next {
                    Next::Entry(Some((number, item))) => self.take(number, item?)?,
                    Next::Entry(None) => {
                        return Err(Failure::new(Exit::Protocol, "the subscriptions ended"));
                    }
                    Next::Total => break,
                    // The end is judged by those who know what was sent.
                    Next::Nothing => return Ok(()),
                }
            }
            self.tell();
            // A stream that is always ready would keep everybody else from running.
            tokio::task::yield_now().await;
        }
    }

    async fn wait(
        &mut self,
        items: &mut (impl Stream<Item = Entry> + Unpin),
        total: &mut watch::Receiver<Option<u64>>,
        is_known: bool,
    ) -> Next {
        self.tell();
        tokio::select! {
            biased;
            entry = items.next() => Next::Entry(entry),
            told = total.changed(), if !is_known => match told {
                Ok(()) => Next::Total,
                Err(_) => Next::Nothing,
            },
            () = tokio::time::sleep(self.audience.patience), if is_known => Next::Nothing,
        }
    }

    fn take(&mut self, number: u32, item: BatchItem) -> Result<(), Failure> {
        let checker = self.received.checkers.get_mut(number as usize);
        let (BatchItem::Messages(batch), Some(checker)) = (&item, checker) else {
            return Err(Failure::new(
                Exit::Protocol,
                format!("room {number}: something other than a message came: {item:?}"),
            ));
        };
        // They came together.
        let now = self
            .audience
            .is_timed
            .then(|| self.audience.stage.nanos(Instant::now()));
        for message in batch {
            let stamp = checker.check(message.seq.get(), message.payload)?;
            self.received.count += 1;
            if let Some(now) = now {
                let took = now.saturating_sub(stamp.sent_ns);
                self.received.latencies.record(Duration::from_nanos(took));
            }
        }
        Ok(())
    }

    /// Tells how far it is, whenever it has nothing else to do.
    fn tell(&mut self) {
        let count = self.received.count;
        if count == self.told {
            return;
        }
        self.received.last = Instant::now();
        if let Some(done) = &self.audience.done {
            done.add(count - self.told);
        }
        if let Some(gate) = &self.audience.gate {
            gate.received(self.told, count);
        }
        self.told = count;
    }
}

impl Received {
    /// Judges the end: whatever was acknowledged must have come.
    pub(crate) fn judge(&self, published: &[Published]) -> Result<(), Failure> {
        for published in published {
            for &(room, acked) in &published.acked {
                if let Some(checker) = self.checkers.get(room as usize) {
                    checker.finish(published.publisher, acked)?;
                }
            }
        }
        Ok(())
    }
}

//! A subscriber: it follows every room on a connection of its own and checks every message.

use std::sync::Arc;
use std::time::{Duration, Instant};

use broker_core::{Item, StartAt};
use futures_util::StreamExt;
use futures_util::stream::select_all;
use tokio::sync::{oneshot, watch};

use super::figures::Latencies;
use super::load::Load;
use super::publish::Published;
use super::stage::Stage;
use super::stamp::{Checker, Violation};
use crate::exit::{Exit, Failure};

/// What one subscriber saw.
#[derive(Debug)]
pub(crate) struct Received {
    /// How many messages.
    pub(crate) count: u64,
    /// When the last one came.
    pub(crate) last: Instant,
    /// From send to receipt.
    pub(crate) latencies: Latencies,
    /// What it has seen of whom.
    checker: Checker,
}

/// Follows every room until as many messages have come as `total` says, which is known only once
/// the publishers are done. Says on `ready` that it follows.
pub(crate) async fn subscribe(
    stage: Arc<Stage>,
    load: Arc<Load>,
    ready: oneshot::Sender<()>,
    mut total: watch::Receiver<Option<u64>>,
    patience: Duration,
) -> Result<Received, Failure> {
    let client = stage.connect().await?;
    let mut items = Vec::new();
    for number in 0..load.rooms {
        let subscription = stage
            .room(&client, number)?
            .subscribe(StartAt::START)
            .wait(true)
            .await?;
        items.push(subscription.map(move |item| (number, item)));
    }
    let mut items = select_all(items);
    // Whoever waits for it has gone only when the benchmark has failed already.
    let _ = ready.send(());
    let mut received = Received {
        count: 0,
        last: Instant::now(),
        latencies: Latencies::new(),
        checker: Checker::new(stage.run),
    };
    loop {
        let known = *total.borrow_and_update();
        if known.is_some_and(|total| received.count >= total) {
            break;
        }
        let next = tokio::select! {
            biased;
            next = items.next() => next,
            changed = total.changed(), if known.is_none() => match changed {
                Ok(()) => continue,
                // The publishers have failed and say why.
                Err(_) => break,
            },
            // The publishers are done, and what is missing does not come: the end is judged.
            () = tokio::time::sleep(patience), if known.is_some() => break,
        };
        match next {
            Some((number, item)) => received.take(&stage, number, item?)?,
            None => return Err(Failure::new(Exit::Protocol, "the subscriptions ended")),
        }
    }
    drop(items);
    client.shutdown().await?;
    Ok(received)
}

impl Received {
    /// Judges the end: whatever was acknowledged must have come.
    pub(crate) fn judge(&self, published: &[Published]) -> Result<(), Failure> {
        for published in published {
            for &(room, acked) in &published.acked {
                self.checker
                    .finish(room, published.publisher, acked)
                    .map_err(violated)?;
            }
        }
        Ok(())
    }

    fn take(&mut self, stage: &Stage, number: u32, item: Item) -> Result<(), Failure> {
        let Item::Message(message) = item else {
            return Err(Failure::new(
                Exit::Protocol,
                format!("room {number}: something other than a message came: {item:?}"),
            ));
        };
        let stamp = self
            .checker
            .check(number, message.seq.get(), &message.payload)
            .map_err(violated)?;
        self.count += 1;
        self.last = Instant::now();
        self.latencies.record(Duration::from_nanos(
            stage.now_ns().saturating_sub(stamp.sent_ns),
        ));
        Ok(())
    }
}

/// What must not happen.
pub(crate) fn violated(violation: Violation) -> Failure {
    Failure::new(Exit::Protocol, format!("violation: {violation}"))
}

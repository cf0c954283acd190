//! One message at a time: how long until it is durable, and until it is back.

use std::sync::Arc;
use std::time::{Duration, Instant};

use broker_core::{Item, Room, StartAt, Subscription};

use super::budget::Budget;
use super::check::Checker;
use super::figures::Latencies;
use super::load::Load;
use super::pace::{Pace, Timing};
use super::progress::Done;
use super::publish::Published;
use super::stage::Stage;
use super::stamp::Stamp;
use crate::exit::{Exit, Failure};

/// What was measured.
#[derive(Debug)]
pub(crate) struct RoundTrips {
    /// From send, or when it was due, to receipt by a subscriber on the same connection.
    pub(crate) deliveries: Latencies,
    /// What was sent, and how long until it was acknowledged.
    pub(crate) published: Published,
}

/// Sends a message, waits for its acknowledgement and for the message itself, and so on; the next one
/// when it is due, if there is a pace.
pub(crate) async fn round_trips(
    stage: Arc<Stage>,
    load: Arc<Load>,
    pace: Option<Arc<Pace>>,
    done: Done,
) -> Result<RoundTrips, Failure> {
    let client = stage.connect().await?;
    let stage = &*stage;
    let room = stage.room(&client, 0)?;
    let items = room.subscribe(StartAt::START).wait(true).await?;
    let budget = Budget::new(load.limit);
    let began = match &pace {
        Some(pace) => {
            pace.start()?;
            pace.began()
        }
        None => Instant::now(),
    };
    let mut trips = Trips {
        stage,
        size: load.size,
        room,
        items,
        checker: Checker::new(stage.run, 0),
        timing: Timing::new(),
        deliveries: Latencies::new(),
    };
    let mut counter = 0;
    while let Some(due) = due(pace.as_deref(), &budget, counter).await {
        trips.timing.sent(due, Instant::now(), 1);
        trips.one(counter, due).await?;
        counter += 1;
        done.add(1);
    }
    let ended = Instant::now();
    let (timing, deliveries) = (trips.timing, trips.deliveries);
    drop(trips.items);
    client.shutdown().await?;
    Ok(RoundTrips {
        deliveries,
        published: Published {
            publisher: 0,
            acked: vec![(0, counter)],
            timing,
            began,
            ended,
        },
    })
}

/// Waits until the message with this number is due; `None` when it is enough.
async fn due(pace: Option<&Pace>, budget: &Budget, number: u64) -> Option<Instant> {
    match pace {
        Some(pace) => {
            let call = pace.call(0, number)?;
            pace.due(0).await;
            Some(pace.moment(call))
        }
        None => (budget.take(1) == 1).then(Instant::now),
    }
}

struct Trips<'a> {
    stage: &'a Stage,
    size: usize,
    room: Room,
    items: Subscription,
    checker: Checker,
    timing: Timing,
    deliveries: Latencies,
}

impl Trips<'_> {
    async fn one(&mut self, counter: u64, due: Instant) -> Result<(), Failure> {
        let payload = Stamp {
            run: self.stage.run,
            publisher: 0,
            room: 0,
            counter,
            sent_ns: self.stage.nanos(due),
        }
        .payload(self.size);
        let ack = async {
            let ack = self.room.send(payload).await;
            (ack, Instant::now())
        };
        let delivery = async {
            let item = self.items.next().await;
            (item, Instant::now())
        };
        let ((ack, acked), (item, delivered)) = tokio::join!(ack, delivery);
        ack?;
        let Some(Item::Message(message)) = item.transpose()? else {
            return Err(Failure::new(
                Exit::Protocol,
                "something other than the message came back",
            ));
        };
        self.checker.check(message.seq.get(), &message.payload)?;
        self.timing.acked(due, acked, 1);
        let took: Duration = delivered.saturating_duration_since(due);
        self.deliveries.record(took);
        Ok(())
    }
}

//! One message at a time: how long until it is durable, and until it is back.

use std::time::{Duration, Instant};

use broker_core::{Item, StartAt};

use super::figures::Latencies;
use super::load::{Budget, Load};
use super::publish::Published;
use super::stage::Stage;
use super::stamp::{Checker, Stamp};
use super::subscribe::violated;
use crate::exit::{Exit, Failure};

/// What was measured.
#[derive(Debug)]
pub(crate) struct RoundTrips {
    /// From send to acknowledgement.
    pub(crate) acks: Latencies,
    /// From send to receipt by a subscriber on the same connection.
    pub(crate) deliveries: Latencies,
    /// What was sent.
    pub(crate) published: Published,
    /// In what time.
    pub(crate) elapsed: Duration,
}

/// Sends a message, waits for its acknowledgement and for the message itself, and so on.
pub(crate) async fn round_trips(stage: &Stage, load: &Load) -> Result<RoundTrips, Failure> {
    let client = stage.connect().await?;
    let room = stage.room(&client, 0)?;
    let mut items = room.subscribe(StartAt::START).wait(true).await?;
    let mut checker = Checker::new(stage.run);
    let (mut acks, mut deliveries) = (Latencies::new(), Latencies::new());
    let budget = Budget::new(load.limit);
    let began = Instant::now();
    let mut counter = 0;
    while budget.take(1) == 1 {
        let payload = Stamp {
            run: stage.run,
            publisher: 0,
            room: 0,
            counter,
            sent_ns: stage.now_ns(),
        }
        .payload(load.size);
        let sent = Instant::now();
        let ack = async {
            let ack = room.send(payload).await;
            (ack, sent.elapsed())
        };
        let delivery = async {
            let item = items.next().await;
            (item, sent.elapsed())
        };
        let ((ack, acked), (item, delivered)) = tokio::join!(ack, delivery);
        ack?;
        let Some(Item::Message(message)) = item.transpose()? else {
            return Err(Failure::new(
                Exit::Protocol,
                "something other than the message came back",
            ));
        };
        checker
            .check(0, message.seq.get(), &message.payload)
            .map_err(violated)?;
        acks.record(acked);
        deliveries.record(delivered);
        counter += 1;
    }
    let ended = Instant::now();
    drop(items);
    client.shutdown().await?;
    let published = Published {
        publisher: 0,
        acked: vec![(0, counter)],
        latencies: acks.clone(),
        began,
        ended,
    };
    Ok(RoundTrips {
        acks,
        deliveries,
        published,
        elapsed: ended - began,
    })
}

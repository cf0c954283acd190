//! A publisher: a window of messages in flight, and how long each took.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Instant;

use broker_core::{BulkTicket, Room, Ticket};
use tokio::sync::Barrier;

use super::figures::Latencies;
use super::load::{Budget, Load};
use super::stage::Stage;
use super::stamp::Stamp;
use crate::exit::Failure;

/// What one publisher did.
#[derive(Debug)]
pub(crate) struct Published {
    /// Which publisher.
    pub(crate) publisher: u32,
    /// How many messages were acknowledged in each of its rooms.
    pub(crate) acked: Vec<(u32, u64)>,
    /// From send to acknowledgement.
    pub(crate) latencies: Latencies,
    /// Its first send.
    pub(crate) began: Instant,
    /// Its last acknowledgement.
    pub(crate) ended: Instant,
}

impl Published {
    /// How many messages.
    pub(crate) fn count(&self) -> u64 {
        self.acked.iter().map(|(_, count)| count).sum()
    }
}

/// Messages on their way: when they were sent, how many, and what answers them.
struct Flight {
    sent: Instant,
    count: u32,
    answer: Answer,
}

enum Answer {
    One(Ticket),
    Many(BulkTicket),
}

impl Flight {
    async fn land(self) -> Result<(Instant, u32), Failure> {
        match self.answer {
            Answer::One(ticket) => drop(ticket.await?),
            Answer::Many(ticket) => drop(ticket.await?),
        }
        Ok((self.sent, self.count))
    }
}

/// Publishes to its rooms in turn until the budget is spent, on a connection of its own. All begin
/// together, once all are connected.
pub(crate) async fn publish(
    stage: Arc<Stage>,
    load: Arc<Load>,
    budget: Arc<Budget>,
    start: Arc<Barrier>,
    publisher: u32,
) -> Result<Published, Failure> {
    let client = stage.connect().await?;
    let mut rooms = Vec::new();
    for number in load.rooms_of(publisher) {
        rooms.push((number, stage.room(&client, number)?, 0));
    }
    let mut worker = Publisher {
        stage: &stage,
        load: &load,
        publisher,
        flights: VecDeque::new(),
        in_flight: 0,
        latencies: Latencies::new(),
    };
    start.wait().await;
    let began = Instant::now();
    worker.run(&budget, &mut rooms).await?;
    let ended = Instant::now();
    let latencies = worker.latencies;
    client.shutdown().await?;
    let acked = rooms
        .into_iter()
        .map(|(number, _, sent)| (number, sent))
        .collect();
    Ok(Published {
        publisher,
        acked,
        latencies,
        began,
        ended,
    })
}

struct Publisher<'a> {
    stage: &'a Stage,
    load: &'a Load,
    publisher: u32,
    flights: VecDeque<Flight>,
    in_flight: u32,
    latencies: Latencies,
}

impl Publisher<'_> {
    async fn run(
        &mut self,
        budget: &Budget,
        rooms: &mut [(u32, Room, u64)],
    ) -> Result<(), Failure> {
        let mut turn = 0;
        loop {
            while self.in_flight + self.load.bulk > self.load.window {
                self.land().await?;
            }
            let count = budget.take(self.load.bulk);
            let Some((number, room, sent)) = rooms.get_mut(turn).filter(|_| count > 0) else {
                break;
            };
            let flight = self.send(*number, room, *sent, count).await?;
            *sent += u64::from(count);
            self.in_flight += count;
            self.flights.push_back(flight);
            turn = if turn + 1 < rooms.len() { turn + 1 } else { 0 };
        }
        while !self.flights.is_empty() {
            self.land().await?;
        }
        Ok(())
    }

    async fn send(
        &self,
        number: u32,
        room: &Room,
        counter: u64,
        count: u32,
    ) -> Result<Flight, Failure> {
        let sent = Instant::now();
        let sent_ns = self.stage.now_ns();
        let payload = |offset: u32| {
            let counter = counter + u64::from(offset);
            Stamp {
                run: self.stage.run,
                publisher: self.publisher,
                room: number,
                counter,
                sent_ns,
            }
            .payload(self.load.size)
        };
        let answer = if self.load.bulk == 1 {
            Answer::One(room.queue(payload(0)).await?)
        } else {
            Answer::Many(room.send_all((0..count).map(payload)).await?)
        };
        Ok(Flight {
            sent,
            count,
            answer,
        })
    }

    /// Waits for the oldest; what else has been answered meanwhile costs no wait.
    async fn land(&mut self) -> Result<(), Failure> {
        let Some(flight) = self.flights.pop_front() else {
            return Ok(());
        };
        let (sent, count) = flight.land().await?;
        self.in_flight -= count;
        self.latencies.record_many(sent.elapsed(), count.into());
        Ok(())
    }
}

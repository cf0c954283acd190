//! A publisher: messages in flight, and how long each took.

use std::collections::VecDeque;
use std::future::Future;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use broker_core::{BulkTicket, Room, Ticket};
use tokio::sync::Barrier;

use super::budget::Budget;
use super::gate::Gate;
use super::load::{Load, What};
use super::pace::{Pace, Timing};
use super::progress::Done;
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
    /// How long they took.
    pub(crate) timing: Timing,
    /// Its first send; in an open loop the start for all.
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

/// From the first publisher's start to the last one's end.
pub(crate) fn span(published: &[Published]) -> Duration {
    let began = published.iter().map(|published| published.began).min();
    let ended = published.iter().map(|published| published.ended).max();
    began.zip(ended).map_or(Duration::ZERO, |(began, ended)| {
        ended.saturating_duration_since(began)
    })
}

/// What tells publishers when to send.
#[derive(Debug)]
pub(crate) enum Tempo {
    /// As soon as the window has room, and the subscribers when there is a gate.
    Window(Budget, Option<Arc<Gate>>),
    /// When messages are due.
    Pace(Arc<Pace>),
}

/// What all publishers of a benchmark have in common.
#[derive(Debug)]
pub(crate) struct Task {
    pub(crate) stage: Arc<Stage>,
    pub(crate) load: Arc<Load>,
    pub(crate) tempo: Tempo,
    /// Where all come together once they are connected.
    pub(crate) start: Barrier,
    /// Counts acknowledgements, if somebody wants to see them.
    pub(crate) done: Option<Done>,
}

/// Messages on their way: when they were due, how many, and what answers them.
struct Flight {
    due: Instant,
    count: u32,
    answer: Answer,
}

enum Answer {
    One(Ticket),
    Many(BulkTicket),
}

/// Ready when all are acknowledged. Dropping a reference to it loses nothing.
impl Future for Flight {
    type Output = Result<(), Failure>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        match &mut self.answer {
            Answer::One(ticket) => Pin::new(ticket).poll(cx).map_ok(drop),
            Answer::Many(ticket) => Pin::new(ticket).poll(cx).map_ok(drop),
        }
        .map_err(Failure::from)
    }
}

/// Publishes to its rooms in turn until it is enough, on a connection of its own.
pub(crate) async fn publish(task: Arc<Task>, publisher: u32) -> Result<Published, Failure> {
    let client = task.stage.connect().await?;
    let mut rooms = Vec::new();
    for number in task.load.rooms_of(publisher) {
        rooms.push((number, task.stage.room(&client, number)?, 0));
    }
    let mut worker = Publisher {
        task: &task,
        publisher,
        rooms,
        turn: 0,
        flights: VecDeque::new(),
        in_flight: 0,
        timing: Timing::new(),
    };
    task.start.wait().await;
    let began = match &task.tempo {
        Tempo::Window(budget, gate) => {
            let began = Instant::now();
            worker.run(budget, gate.as_deref()).await?;
            began
        }
        Tempo::Pace(pace) => {
            worker.keep_pace(pace).await?;
            pace.began()
        }
    };
    let ended = Instant::now();
    let (timing, rooms) = (worker.timing, worker.rooms);
    client.shutdown().await?;
    let acked = rooms
        .into_iter()
        .map(|(number, _, sent)| (number, sent))
        .collect();
    Ok(Published {
        publisher,
        acked,
        timing,
        began,
        ended,
    })
}

struct Publisher<'a> {
    task: &'a Task,
    publisher: u32,
    /// Its rooms, with how many messages each has got.
    rooms: Vec<(u32, Room, u64)>,
    /// Whose turn it is.
    turn: usize,
    flights: VecDeque<Flight>,
    in_flight: u32,
    timing: Timing,
}

impl Publisher<'_> {
    /// The closed loop: a message is due when the window has room for it.
    async fn run(&mut self, budget: &Budget, gate: Option<&Gate>) -> Result<(), Failure> {
        let bulk = self.task.load.bulk;
        loop {
            self.make_room_for(bulk).await?;
            let count = budget.take(bulk);
            if count == 0 {
                break;
            }
            if let Some(gate) = gate {
                self.landing_until(gate.pass(count)).await??;
            }
            self.send(Instant::now(), count).await?;
            // Each room gets one message, by whoever has it in its share.
            if self.turn == 0 && self.task.load.what == What::Rooms {
                break;
            }
        }
        self.make_room_for(self.task.load.window).await
    }

    /// The open loop.
    async fn keep_pace(&mut self, pace: &Pace) -> Result<(), Failure> {
        let publisher = self.publisher;
        let calls = (0..).map_while(|nth| pace.call(publisher, nth));
        for call in calls {
            self.landing_until(pace.due(publisher)).await?;
            self.make_room_for(call.count).await?;
            let due = pace.moment(call);
            self.timing.sent(due, Instant::now(), call.count);
            self.send(due, call.count).await?;
        }
        self.make_room_for(self.task.load.window).await
    }

    /// Takes acknowledgements as they come until something else is ready.
    async fn landing_until<T>(&mut self, ready: impl Future<Output = T>) -> Result<T, Failure> {
        let mut ready = pin!(ready);
        loop {
            tokio::select! {
                biased;
                landed = next(&mut self.flights) => self.landed(landed?),
                ready = &mut ready => return Ok(ready),
            }
        }
    }

    /// Sends to the room whose turn it is.
    async fn send(&mut self, due: Instant, count: u32) -> Result<(), Failure> {
        let Some((number, room, sent)) = self.rooms.get_mut(self.turn) else {
            return Ok(());
        };
        let (stage, load) = (&self.task.stage, &self.task.load);
        let (counter, sent_ns) = (*sent, stage.nanos(due));
        let payload = |offset: u32| {
            Stamp {
                run: stage.run,
                publisher: self.publisher,
                room: *number,
                counter: counter + u64::from(offset),
                sent_ns,
            }
            .payload(load.size)
        };
        let answer = if load.bulk == 1 {
            Answer::One(room.queue(payload(0)).await?)
        } else {
            Answer::Many(room.send_all((0..count).map(payload)).await?)
        };
        *sent += u64::from(count);
        self.in_flight += count;
        self.flights.push_back(Flight { due, count, answer });
        self.turn = (self.turn + 1) % self.rooms.len();
        Ok(())
    }

    /// Waits for the oldest until the window has room. What else has been answered meanwhile costs no
    /// wait.
    async fn make_room_for(&mut self, count: u32) -> Result<(), Failure> {
        while self.in_flight + count > self.task.load.window {
            let landed = next(&mut self.flights).await?;
            self.landed(landed);
        }
        Ok(())
    }

    fn landed(&mut self, (due, count): (Instant, u32)) {
        self.in_flight -= count;
        self.timing.acked(due, Instant::now(), count);
        if let Some(done) = &self.task.done {
            done.add(count.into());
        }
    }
}

/// Waits until the oldest messages in flight are acknowledged; for ever if there are none. Dropping the
/// future loses nothing.
async fn next(flights: &mut VecDeque<Flight>) -> Result<(Instant, u32), Failure> {
    let Some(oldest) = flights.front_mut() else {
        return std::future::pending().await;
    };
    let landed = (oldest.due, oldest.count);
    oldest.await?;
    flights.pop_front();
    Ok(landed)
}

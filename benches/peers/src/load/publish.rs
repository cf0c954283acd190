//! Publishers with a window of unacknowledged messages each and a connection of their own: to one room each, or to many in turn.

use std::collections::VecDeque;
use std::sync::mpsc;
use std::time::Instant;

use anyhow::{Context, Result, bail};
use bytes::Bytes;
use tokio::task::JoinSet;

use super::connection::Connection;
use super::{Meter, Outcome, Phase, Stage, control, measure, ours, room_name};
use crate::codec::{Encode, Event, nats, resp};
use crate::peer::Peer;
use crate::stats::nanos;

/// What one publisher does.
#[derive(Debug, Clone)]
pub(crate) struct Load {
    /// Most messages that are not acknowledged.
    pub(crate) window: usize,
    /// The same for all.
    pub(crate) payload: Bytes,
}

/// What one publisher has done, and whether it goes on.
#[derive(Debug)]
pub(crate) struct Tally {
    pub(crate) meter: Meter,
    /// Messages that may still be sent.
    left: u64,
}

impl Tally {
    /// Goes on until the phase says stop, or this many messages were sent.
    pub(crate) fn new(phase: &Phase, count: u64) -> Self {
        Self {
            meter: Meter::new(phase),
            left: count,
        }
    }

    /// Whether so many more may be sent; they count as sent then.
    pub(crate) fn may_send(&mut self, count: u64) -> bool {
        if self.left < count || self.meter.phase.is_stopping() {
            return false;
        }
        self.left -= count;
        true
    }

    /// How many may be sent, at most so many; they count as sent then.
    pub(crate) fn may_send_upto(&mut self, count: u64) -> u64 {
        if self.meter.phase.is_stopping() {
            return 0;
        }
        let count = count.min(self.left);
        self.left -= count;
        count
    }

    /// Counts acknowledgements.
    pub(crate) fn acked(&mut self, count: u64, sent: Instant, now: Instant) {
        self.meter
            .count(count, nanos(now.saturating_duration_since(sent)));
    }
}

/// Numbers without a pattern, the same ones every time.
pub(crate) fn numbers() -> impl Iterator<Item = u64> {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    std::iter::repeat_with(move || {
        // xorshift64
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state
    })
}

/// A payload that does not compress.
pub(crate) fn payload(size: usize) -> Bytes {
    numbers().flat_map(u64::to_le_bytes).take(size).collect()
}

/// Puts things into an order without a pattern, the same one every time.
fn mix<T>(things: &mut [T]) {
    for (last, number) in (1..things.len()).rev().zip(numbers()) {
        let other = number % (last as u64 + 1);
        things.swap(last, usize::try_from(other).unwrap_or(last));
    }
}

/// One publisher, connected.
enum Publisher {
    Ours(ours::Route),
    Bulk(ours::Route),
    Bare(Bare),
}

/// A publisher over a bare connection.
struct Bare {
    connection: Connection,
    encoder: Box<dyn Encode>,
    /// Whether answers come in the order of the messages, without saying which they are for.
    in_order: bool,
}

impl Publisher {
    /// Publishes to these rooms in turn; only ours does more than the first of them.
    async fn connect(stage: &Stage, number: usize, rooms: &[usize]) -> Result<Self> {
        let address = stage.address;
        let name = room_name(rooms.first().copied().unwrap_or(0));
        Ok(match stage.peer {
            Peer::Ours => Self::Ours(ours::Route::connect(address, rooms).await?),
            Peer::OursBulk => Self::Bulk(ours::Route::connect(address, rooms).await?),
            Peer::NatsSync | Peer::NatsSyncEach | Peer::Nats => {
                let greeting = nats::CONNECT.to_owned() + &nats::subscribe_answers(number);
                let decoder = Box::new(nats::Answers);
                Self::Bare(Bare {
                    connection: Connection::open(address, decoder, greeting.as_bytes(), 0).await?,
                    encoder: Box::new(nats::Publish::to_stream(&name, number)),
                    in_order: false,
                })
            }
            Peer::RedisSync | Peer::Redis => Self::Bare(Bare {
                connection: Connection::open(address, Box::new(resp::Replies), &[], 0).await?,
                encoder: Box::new(resp::Publish::to_stream(&name)),
                in_order: true,
            }),
            other => bail!("{other} acknowledges nothing"),
        })
    }

    async fn run(self, load: Load, tally: Tally) -> Result<Tally> {
        match self {
            Self::Ours(route) => ours::publish(route, load, tally).await,
            Self::Bulk(route) => ours::publish_bulk(route, load, tally).await,
            Self::Bare(bare) => bare.publish(load, tally).await,
        }
    }
}

impl Bare {
    async fn publish(mut self, load: Load, mut tally: Tally) -> Result<Tally> {
        let mut flights = Flights::new(load.window, self.in_order);
        loop {
            let now = Instant::now();
            while flights.has_space() && tally.may_send(1) {
                let mark = flights.begin(now);
                self.encoder
                    .encode(&mut self.connection.out, mark, &load.payload);
            }
            if flights.is_empty() {
                return Ok(tally);
            }
            self.connection.exchange().await?;
            let now = Instant::now();
            self.connection.events(|event| {
                if let Event::Ack(mark) = event {
                    tally.acked(1, flights.end(mark)?, now);
                }
                Ok(())
            })?;
        }
    }
}

/// When the messages in flight were sent, by their marks.
struct Flights {
    sent: Vec<Option<Instant>>,
    free: Vec<u32>,
    /// The marks in the order of sending, when the answers do not name them.
    order: Option<VecDeque<u32>>,
}

impl Flights {
    fn new(window: usize, in_order: bool) -> Self {
        Self {
            sent: vec![None; window],
            free: (0..u32::try_from(window).unwrap_or(u32::MAX)).collect(),
            order: in_order.then(VecDeque::new),
        }
    }

    fn has_space(&self) -> bool {
        !self.free.is_empty()
    }

    fn is_empty(&self) -> bool {
        self.free.len() == self.sent.len()
    }

    /// A message is sent; there has to be space.
    fn begin(&mut self, now: Instant) -> u32 {
        let mark = self.free.pop().unwrap_or(0);
        if let Some(sent) = self.sent.get_mut(mark as usize) {
            *sent = Some(now);
        }
        if let Some(order) = &mut self.order {
            order.push_back(mark);
        }
        mark
    }

    /// A message is answered: when was it sent?
    fn end(&mut self, mark: Option<u32>) -> Result<Instant> {
        let oldest = || self.order.as_mut().and_then(VecDeque::pop_front);
        let mark = mark
            .or_else(oldest)
            .context("an answer without a question")?;
        let sent = self.sent.get_mut(mark as usize).and_then(Option::take);
        let sent = sent.with_context(|| format!("message {mark} is answered twice"))?;
        self.free.push(mark);
        Ok(sent)
    }
}

/// Who publishes what.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Plan {
    pub(crate) publishers: usize,
    /// As many as publishers: each has its own. Fewer: they share. More: each has its part of them, in turn.
    pub(crate) rooms: usize,
    pub(crate) window: usize,
    pub(crate) size: usize,
    /// How many messages in all; `u64::MAX` for as many as fit into the time.
    pub(crate) count: u64,
}

impl Plan {
    /// Connects all, says so, and publishes.
    pub(crate) async fn run(
        self,
        stage: &Stage,
        phase: &Phase,
        ready: Option<mpsc::Sender<()>>,
    ) -> Result<Vec<Meter>> {
        let mut publishers = Vec::new();
        for number in 0..self.publishers {
            publishers.push(Publisher::connect(stage, number, &self.route(number)).await?);
        }
        let load = Load {
            window: self.window,
            payload: payload(self.size),
        };
        if let Some(ready) = ready {
            // Whoever waits for it has given up only when the time for it was over.
            let _ = ready.send(());
        }
        // Dropped before its end, the set ends its tasks.
        let mut tasks = JoinSet::new();
        for (number, publisher) in publishers.into_iter().enumerate() {
            let tally = Tally::new(phase, self.share(number));
            tasks.spawn(publisher.run(load.clone(), tally));
        }
        let mut meters = Vec::new();
        while let Some(done) = tasks.join_next().await {
            meters.push(done.context("a publisher broke off")??.meter);
        }
        Ok(meters)
    }

    /// The rooms of one publisher, in the order of its turns: mixed up, since rooms that were made one after the other may lie
    /// together.
    fn route(self, number: usize) -> Vec<usize> {
        let first = number % self.rooms.max(1);
        let mut rooms: Vec<usize> = (first..self.rooms)
            .step_by(self.publishers.max(1))
            .collect();
        mix(&mut rooms);
        rooms
    }

    /// The share of one publisher.
    fn share(self, number: usize) -> u64 {
        if self.count == u64::MAX {
            return u64::MAX;
        }
        let publishers = self.publishers as u64;
        let more = (number as u64) < self.count % publishers;
        self.count / publishers + u64::from(more)
    }
}

/// Measures a peer.
pub(crate) fn run(stage: &Stage, plan: Plan) -> Result<Outcome> {
    control::prepare(stage, plan.rooms)?;
    let (acked, outcome) = load(stage, plan)?;
    let stored = control::stored(stage, plan.rooms)?;
    if stored != acked {
        bail!("{acked} messages were acknowledged and {stored} are stored");
    }
    Ok(Outcome {
        verified: format!("{acked} acknowledged = {stored} stored"),
        ..outcome
    })
}

/// The same where messages may be stored already: tells how many were acknowledged, for whoever verifies it.
pub(crate) fn load(stage: &Stage, plan: Plan) -> Result<(u64, Outcome)> {
    let phase = Phase::default();
    let threads = if plan.publishers > 1 {
        stage.threads
    } else {
        1
    };
    let (meters, spent) = measure(stage, threads, &phase, |ready| {
        plan.run(stage, &phase, Some(ready))
    })?;
    let (acked, count, latencies) = Meter::sum(&meters);
    let outcome = Outcome {
        count,
        spent,
        latencies: Some(latencies),
        verified: String::new(),
    };
    Ok((acked, outcome))
}

#[cfg(test)]
mod tests {
    #![expect(
        clippy::unwrap_used,
        clippy::indexing_slicing,
        reason = "a test may panic"
    )]

    use super::*;

    #[test]
    fn answers_find_their_messages() {
        let now = Instant::now();
        let mut by_mark = Flights::new(3, false);
        let marks: Vec<u32> = (0..3).map(|_| by_mark.begin(now)).collect();
        assert!(!by_mark.has_space());
        by_mark.end(Some(marks[1])).unwrap();
        assert!(by_mark.end(Some(marks[1])).is_err(), "twice");
        assert!(by_mark.end(Some(9)).is_err());
        assert!(by_mark.end(None).is_err(), "none without a mark");
        assert_eq!(by_mark.begin(now), marks[1]);
        let mut in_order = Flights::new(2, true);
        in_order.begin(now);
        in_order.begin(now);
        in_order.end(None).unwrap();
        in_order.end(None).unwrap();
        assert!(in_order.is_empty() && in_order.end(None).is_err());
    }

    #[test]
    fn shares_are_the_whole() {
        let plan = Plan {
            publishers: 3,
            rooms: 1,
            window: 1,
            size: 1,
            count: 11,
        };
        assert_eq!([0, 1, 2].map(|number| plan.share(number)), [4, 4, 3]);
    }

    #[test]
    fn a_tally_ends_with_what_is_left() {
        let phase = Phase::default();
        let mut tally = Tally::new(&phase, 10);
        assert!(tally.may_send(1));
        assert_eq!(
            [4, 4, 4, 4].map(|count| tally.may_send_upto(count)),
            [4, 4, 1, 0]
        );
        assert!(!tally.may_send(1));
        let mut stopped = Tally::new(&phase, 10);
        phase.set(super::super::STOPPING);
        assert_eq!(stopped.may_send_upto(4), 0);
    }

    #[test]
    fn routes_are_all_rooms_once() {
        let plan = |publishers, rooms| Plan {
            publishers,
            rooms,
            window: 1,
            size: 1,
            count: 1,
        };
        assert_eq!(
            (0..3).map(|n| plan(3, 3).route(n)).collect::<Vec<_>>(),
            [[0], [1], [2]]
        );
        assert_eq!([0, 1, 5].map(|n| plan(64, 1).route(n)), [[0], [0], [0]]);
        assert_eq!(plan(64, 10).route(13), [3]);
        let mut all: Vec<usize> = (0..3).flat_map(|n| plan(3, 1000).route(n)).collect();
        assert!(!all.is_sorted(), "they are mixed");
        all.sort_unstable();
        assert_eq!(all, (0..1000).collect::<Vec<_>>());
        // Each has as many turns as rooms when there are as many messages as rooms.
        let fill = Plan {
            count: 1001,
            ..plan(16, 1001)
        };
        for number in 0..16 {
            assert_eq!(fill.share(number), fill.route(number).len() as u64);
        }
    }

    #[test]
    fn payloads_are_all_kinds_of_bytes() {
        let payload = payload(16 << 10);
        assert_eq!(payload.len(), 16 << 10);
        let kinds: std::collections::HashSet<u8> = payload.iter().copied().collect();
        assert_eq!(kinds.len(), 256);
    }
}

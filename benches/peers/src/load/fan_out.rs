//! One publisher and its subscribers, each with a connection of its own: as fast as they follow, or at a fixed rate.
//!
//! The publisher has a thread and a runtime of its own, so that subscribers do not delay it. At a fixed rate every message
//! carries when it was due, so what is late at the publisher counts as late (no coordinated omission).

use std::sync::{Arc, mpsc};
use std::time::Instant;

use anyhow::{Context, Result, anyhow, bail};
use broker_core::{StartAt, Subscription};
use bytes::Bytes;
use tokio::task::JoinSet;

use super::connection::{Connection, no_events};
use super::gate::Gate;
use super::pace::Pace;
use super::publish::payload;
use super::stamp::{Sink, put, put_end};
use super::{Meter, Outcome, Phase, Stage, measure, ours, room_name, runtime};
use crate::codec::{Encode, mqtt, nats, resp};
use crate::peer::Peer;
use crate::stats::nanos;

/// Bytes in flight to all subscribers together.
const WINDOW_BYTES: usize = 32 << 20;
/// Messages in flight; below what Mosquitto keeps for a subscriber.
const WINDOW_MESSAGES: (usize, usize) = (8, 4096);
/// As fast as it goes, of so many messages the latency of one is taken.
const SAMPLE: u64 = 16;

/// How messages are sent.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Speed {
    /// As fast as the slowest subscriber follows.
    Max,
    /// This many a second, whatever happens.
    Rate(u32),
}

/// One subscriber, connected and subscribed.
enum Subscriber {
    Ours(Subscription),
    Bare(Connection),
}

impl Subscriber {
    async fn connect(stage: &Stage, number: usize) -> Result<Self> {
        let address = stage.address;
        let room = room_name(0);
        let connection = match stage.peer {
            // Who asks for the end of a room that is not there gets all that comes.
            Peer::Ours => {
                let messages = ours::subscribe(address, 0, StartAt::END).await?;
                return Ok(Self::Ours(messages));
            }
            Peer::NatsCore => {
                let greeting = format!("{}SUB {room} 1\r\nPING\r\n", nats::CONNECT);
                let decoder = Box::new(nats::Messages::of(&room));
                Connection::open(address, decoder, greeting.as_bytes(), 1).await
            }
            Peer::RedisPubsub => {
                let greeting = resp::command(&[b"SUBSCRIBE", room.as_bytes()]);
                let decoder = Box::new(resp::Pushes::of(&room));
                Connection::open(address, decoder, &greeting, 1).await
            }
            Peer::Mosquitto => {
                let mut greeting = mqtt::connect(&format!("sub-{number}"));
                greeting.extend(mqtt::subscribe(&room));
                Connection::open(address, Box::new(mqtt::Packets), &greeting, 2).await
            }
            other => bail!("{other} delivers nothing live"),
        };
        Ok(Self::Bare(connection?))
    }

    async fn run(self, mut sink: Sink) -> Result<Sink> {
        let mut connection = match self {
            Self::Ours(messages) => return ours::follow(messages, sink).await,
            Self::Bare(connection) => connection,
        };
        let mut ended = false;
        while !ended {
            connection.exchange().await?;
            let now = sink.now();
            connection.events(|event| {
                if let crate::codec::Event::Message(payload) = event {
                    ended = sink.take(payload, Some(now))?;
                }
                Ok(())
            })?;
        }
        Ok(sink)
    }
}

/// The publisher, connected.
enum Publisher {
    Ours(ours::Sender),
    Bare {
        connection: Connection,
        encoder: Box<dyn Encode>,
    },
}

impl Publisher {
    async fn connect(stage: &Stage) -> Result<Self> {
        let address = stage.address;
        let room = room_name(0);
        let (connection, encoder): (_, Box<dyn Encode>) = match stage.peer {
            Peer::Ours => return Ok(Self::Ours(ours::Sender::new(ours::room(address, 0).await?))),
            Peer::NatsCore => {
                let greeting = nats::CONNECT.to_owned() + "PING\r\n";
                let decoder = Box::new(nats::Messages::of(&room));
                (
                    Connection::open(address, decoder, greeting.as_bytes(), 1).await,
                    Box::new(nats::Publish::to_listeners(&room)),
                )
            }
            Peer::RedisPubsub => (
                Connection::open(address, Box::new(resp::Replies), &[], 0).await,
                Box::new(resp::Publish::to_channel(&room)),
            ),
            Peer::Mosquitto => (
                Connection::open(address, Box::new(mqtt::Packets), &mqtt::connect("pub"), 1).await,
                Box::new(mqtt::Publish::to(&room)),
            ),
            other => bail!("{other} delivers nothing live"),
        };
        Ok(Self::Bare {
            connection: connection?,
            encoder,
        })
    }

    /// Sends payloads.
    async fn send(&mut self, payloads: Vec<Bytes>) -> Result<()> {
        match self {
            Self::Ours(sender) => sender.send(payloads).await,
            Self::Bare {
                connection,
                encoder,
            } => {
                for payload in payloads {
                    encoder.encode(&mut connection.out, 0, &payload);
                }
                connection.send(|event| no_events(&event)).await
            }
        }
    }

    /// Waits until everything is answered. What is returned has to be kept until every subscriber has everything: closing
    /// a socket with answers that nobody has read takes back what the server has not read.
    async fn finish(self) -> Result<Option<Connection>> {
        match self {
            Self::Ours(sender) => sender.finish().await.map(|()| None),
            Self::Bare { connection, .. } => Ok(Some(connection)),
        }
    }
}

/// Makes the payloads of a run.
struct Stamps {
    template: Bytes,
    began: Instant,
    next: u64,
}

impl Stamps {
    fn make(&self, stamp: impl FnOnce(&mut [u8])) -> Bytes {
        let mut payload = self.template.to_vec();
        stamp(&mut payload);
        payload.into()
    }

    /// The next message, due at this time.
    fn next(&mut self, due: Instant) -> Bytes {
        let number = self.next;
        self.next += 1;
        let due = nanos(due.saturating_duration_since(self.began));
        self.make(|payload| put(payload, number, due))
    }

    fn end(&self) -> Bytes {
        self.make(|payload| put_end(payload, self.next))
    }
}

/// What is sent to whom.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Plan {
    pub(crate) subscribers: usize,
    pub(crate) size: usize,
    pub(crate) speed: Speed,
}

/// Lets the publisher go on when the subscribers are gone.
struct BreakOpen(Arc<Gate>);

impl Drop for BreakOpen {
    fn drop(&mut self) {
        self.0.break_open();
    }
}

impl Plan {
    fn window(self) -> u64 {
        let (least, most) = WINDOW_MESSAGES;
        (WINDOW_BYTES / (self.size * self.subscribers).max(1)).clamp(least, most) as u64
    }

    async fn publish(
        self,
        stage: Arc<Stage>,
        phase: Phase,
        gate: Arc<Gate>,
        began: Instant,
        connected: mpsc::Sender<()>,
    ) -> Result<(u64, Option<Connection>)> {
        let mut publisher = Publisher::connect(&stage).await?;
        let mut stamps = Stamps {
            template: payload(self.size),
            began,
            next: 0,
        };
        // Whoever waits for it has failed already.
        let _ = connected.send(());
        match self.speed {
            Speed::Max => {
                for chunk in 0.. {
                    gate.open(chunk).await;
                    if phase.is_stopping() {
                        break;
                    }
                    let now = Instant::now();
                    let payloads = (0..gate.chunk()).map(|_| stamps.next(now)).collect();
                    publisher.send(payloads).await?;
                }
            }
            Speed::Rate(per_second) => {
                let mut pace = Pace::new(per_second)?;
                while !phase.is_stopping() {
                    let due = pace.tick().await?;
                    publisher.send(vec![stamps.next(due)]).await?;
                }
            }
        }
        publisher.send(vec![stamps.end()]).await?;
        Ok((stamps.next, publisher.finish().await?))
    }

    async fn run(
        self,
        stage: Arc<Stage>,
        phase: &Phase,
        ready: mpsc::Sender<()>,
    ) -> Result<(u64, Vec<Meter>)> {
        let subscribers = u32::try_from(self.subscribers)?;
        let gate = Arc::new(Gate::new(subscribers, self.window()));
        let _break_open = BreakOpen(Arc::clone(&gate));
        let began = Instant::now();
        let (counts, sample) = match self.speed {
            Speed::Max => (Some(Arc::clone(&gate)), SAMPLE),
            Speed::Rate(_) => (None, 1),
        };
        let mut connected = Vec::new();
        for number in 0..self.subscribers {
            connected.push(Subscriber::connect(&stage, number).await?);
        }
        let mut tasks = JoinSet::new();
        for subscriber in connected {
            let sink = Sink::new(phase, began, self.size, sample, counts.clone());
            tasks.spawn(subscriber.run(sink));
        }
        let publisher = self.publish(Arc::clone(&stage), phase.clone(), gate, began, ready);
        // A thread of its own, so that its timers and its writes do not wait for subscribers.
        let mut publisher = tokio::task::spawn_blocking(move || {
            let own = runtime(1)?;
            let published = own.block_on(publisher);
            own.shutdown_background();
            published
        });
        let mut published = None;
        let mut meters = Vec::new();
        while published.is_none() || !tasks.is_empty() {
            tokio::select! {
                done = &mut publisher, if published.is_none() => {
                    published = Some(done.context("the publisher broke off")??);
                }
                Some(done) = tasks.join_next() => {
                    meters.push(done.context("a subscriber broke off")??.meter);
                }
            }
        }
        let (published, _connection) = published.ok_or_else(|| anyhow!("nothing was published"))?;
        Ok((published, meters))
    }
}

/// Measures a peer.
pub(crate) fn run(stage: Stage, plan: Plan) -> Result<Outcome> {
    let phase = Phase::default();
    let stage = Arc::new(stage);
    let ((published, meters), spent) = measure(&stage, stage.threads, &phase, |ready| {
        plan.run(Arc::clone(&stage), &phase, ready)
    })?;
    let (delivered, count, latencies) = Meter::sum(&meters);
    if delivered != published * plan.subscribers as u64 {
        bail!(
            "{delivered} deliveries of {published} messages to {} subscribers",
            plan.subscribers
        );
    }
    Ok(Outcome {
        count,
        spent,
        latencies: Some(latencies),
        verified: format!(
            "{delivered} delivered = {published} published x {} subscribers, in order",
            plan.subscribers
        ),
    })
}

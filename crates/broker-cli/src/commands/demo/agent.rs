//! One agent of the take-over demo: a process that sends to the room, follows it, and leads the store
//! when it is its turn.
//!
//! It obeys its standard input: a line stops the sending, the end of it ends the process. So it never
//! outlives its parent. What it tells goes to standard output, see [`Report`].

use std::collections::VecDeque;
use std::future::pending;
use std::io;
use std::time::{Duration, Instant};

use broker_core::{Ack, Item, Room, StartAt, State, Subscription, Ticket};
use futures_util::FutureExt;
use tokio::sync::watch;
use tokio::time::{MissedTickBehavior, interval, timeout};

use super::ROOM;
use super::report::{Digest, Report, now_ns, payload};
use crate::config::Config;
use crate::connect::{Link, Stay, unless_stopped};
use crate::exit::{Exit, Failure};
use crate::lines::chunks;
use crate::output::{self, Stdout};
use crate::signals::Stop;

/// Messages in flight; a slower broker gets fewer messages.
const WINDOW: usize = 512;
/// Between two looks at whether something is to be sent, at least. Timers have a millisecond.
const BEAT_MIN: Duration = Duration::from_millis(2);
/// How often it tells how far it has seen the room.
const SAW_EVERY: Duration = Duration::from_millis(50);
/// How long leaving in order may take.
const LEAVE_WITHIN: Duration = Duration::from_secs(3);

/// Runs the agent with this number.
pub(super) async fn run(
    config: &Config,
    number: u32,
    rate: u32,
    mut stop: Stop,
) -> Result<(), Failure> {
    let mut out = output::stdout();
    let worked = unless_stopped(&mut stop, work(config, number, rate, &mut out)).await;
    if let Err(failure) = &worked
        && let Some(words) = &failure.words
    {
        Report::Failed(words.clone()).write(out.buffer());
        out.flush()?;
    }
    worked
}

async fn work(config: &Config, number: u32, rate: u32, out: &mut Stdout) -> Result<(), Failure> {
    let mut orders = chunks(io::stdin())
        .map_err(|error| Failure::new(Exit::Protocol, format!("cannot start: {error}")))?;
    let link = tokio::select! {
        link = Link::open(config, Stay::Lasting) => link?,
        _ = orders.recv() => return Ok(()),
    };
    let room = link.client().room(ROOM)?;
    let mut messages = room.subscribe(StartAt::START).wait(true).await?;
    let mut agent = Agent {
        number,
        state: link.client().state(),
        room,
        term: 0,
        sent: 0,
        acked: 0,
        flights: VecDeque::new(),
        seen: Seen::default(),
        out,
    };
    agent.role()?;
    let began = Instant::now();
    let mut beat = interval(BEAT_MIN.max(Duration::from_secs(1) / rate.max(1)));
    beat.set_missed_tick_behavior(MissedTickBehavior::Skip);
    let mut tell = interval(SAW_EVERY);
    tell.set_missed_tick_behavior(MissedTickBehavior::Skip);
    let (mut sending, mut due) = (true, 0);
    loop {
        tokio::select! {
            order = orders.recv() => match order {
                Some(Ok(_)) => {
                    sending = false;
                    agent.drained()?;
                }
                _ => break,
            },
            changed = agent.state.changed() => {
                changed.map_err(|_| Failure::new(Exit::Protocol, "the client has ended"))?;
                agent.role()?;
            }
            ack = next_ack(&mut agent.flights) => {
                agent.acked(ack?)?;
                if !sending {
                    agent.drained()?;
                }
            }
            item = messages.next() => agent.saw(item, &mut messages)?,
            _ = beat.tick(), if sending => {
                let now = began.elapsed().as_micros() * u128::from(rate) / 1_000_000;
                while due < now {
                    due += 1;
                    agent.send().await?;
                }
            }
            _ = tell.tick() => agent.tell_seen()?,
        }
    }
    drop(messages);
    // The client that sends is a handle of the link's: it must not wait for itself.
    drop(agent);
    // A process that hangs here must not stay behind.
    timeout(LEAVE_WITHIN, link.close()).await.unwrap_or(Ok(()))
}

/// The answer to the oldest message in flight.
async fn next_ack(flights: &mut VecDeque<Ticket>) -> Result<Ack, Failure> {
    let Some(oldest) = flights.front_mut() else {
        return pending().await;
    };
    let ack = oldest.await;
    flights.pop_front();
    Ok(ack?)
}

struct Agent<'a> {
    number: u32,
    room: Room,
    state: watch::Receiver<State>,
    /// The last term that it was connected under.
    term: u64,
    /// How many messages it has sent, and how many of them were acknowledged.
    sent: u64,
    acked: u64,
    /// Those that were not.
    flights: VecDeque<Ticket>,
    seen: Seen,
    out: &'a mut Stdout,
}

/// How far it has seen the room.
#[derive(Default)]
struct Seen {
    digest: Digest,
    seq: u64,
    value: u64,
    told: u64,
}

impl Agent<'_> {
    fn tell(&mut self, report: &Report) -> Result<(), Failure> {
        report.write(self.out.buffer());
        // At once: an agent that is killed next has said what it knew.
        Ok(self.out.flush()?)
    }

    /// Tells who leads, if it is connected.
    fn role(&mut self) -> Result<(), Failure> {
        let (leads, term) = {
            let state = self.state.borrow_and_update();
            if let State::Closed { cause: Some(error) } = &*state {
                return Err(error.clone().into());
            }
            let Some(server) = state.server() else {
                return Ok(());
            };
            (state.is_leading(), server.term.get())
        };
        self.term = term;
        self.tell(&Report::Role { leads, term })
    }

    async fn send(&mut self) -> Result<(), Failure> {
        if self.flights.len() < WINDOW {
            let text = payload(self.number, self.sent + 1);
            self.flights.push_back(self.room.queue(text).await?);
            self.sent += 1;
        }
        Ok(())
    }

    /// Tells of an acknowledgement, and of those that came with it.
    fn acked(&mut self, ack: Ack) -> Result<(), Failure> {
        let at = now_ns();
        // The change of the leader may not have been looked at yet.
        if let Some(server) = self.state.borrow().server() {
            self.term = server.term.get();
        }
        let mut seqs = vec![ack.seq.get()];
        while let Some(ack) = next_ack(&mut self.flights).now_or_never() {
            seqs.push(ack?.seq.get());
        }
        let first = self.acked + 1;
        self.acked += seqs.len() as u64;
        let term = self.term;
        self.tell(&Report::Acked {
            at,
            term,
            first,
            seqs,
        })
    }

    fn drained(&mut self) -> Result<(), Failure> {
        if self.flights.is_empty() {
            self.tell(&Report::Drained)?;
        }
        Ok(())
    }

    fn saw(
        &mut self,
        item: Option<broker_core::Result<Item>>,
        messages: &mut Subscription,
    ) -> Result<(), Failure> {
        match item {
            Some(Ok(Item::Message(message))) => {
                let seq = message.seq.get();
                let sender = message.sender.as_str().as_bytes();
                self.seen.value = self.seen.digest.add(seq, sender, &message.payload);
                self.seen.seq = seq;
                Ok(())
            }
            Some(Ok(other)) => Err(violated(format!("a hole in the room: {other:?}"))),
            // Fetched again, it comes next.
            Some(Err(_)) if !messages.has_ended() => Ok(()),
            Some(Err(error)) => Err(error.into()),
            None => Err(violated("the subscription has ended".to_owned())),
        }
    }

    fn tell_seen(&mut self) -> Result<(), Failure> {
        if self.seen.told == self.seen.seq {
            return Ok(());
        }
        self.seen.told = self.seen.seq;
        let (seq, digest) = (self.seen.seq, self.seen.value);
        self.tell(&Report::Saw { seq, digest })
    }
}

fn violated(words: String) -> Failure {
    Failure::new(Exit::Protocol, words)
}

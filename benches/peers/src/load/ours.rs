//! This project's broker, by its public client.

use std::collections::VecDeque;
use std::future::{Future, poll_fn};
use std::net::SocketAddr;
use std::pin::Pin;
use std::task::Poll;
use std::time::Instant;

use anyhow::{Context, Result, bail};
use broker_core::{
    BatchItem, BulkTicket, Client, ErrorKind, MessageBatch, Room, StartAt, Subscription, Ticket,
};
use broker_proto::StoreChange;
use bytes::Bytes;

use super::publish::{Load, Tally};
use super::room_name;
use super::stamp::Sink;

/// A client with a connection of its own.
pub(crate) async fn connect(address: SocketAddr) -> Result<Client> {
    let client = Client::builder()
        .sender("peers")
        .connect(&format!("tcp://{address}"))
        .await;
    client.context("cannot connect to brokerd")
}

/// A room, on a connection of its own.
pub(crate) async fn room(address: SocketAddr, number: usize) -> Result<Room> {
    Ok(connect(address).await?.room(&room_name(number))?)
}

/// How many messages a room has stored.
pub(crate) async fn stored(client: &Client, number: usize) -> Result<u64> {
    let room = client.room(&room_name(number))?;
    match room.read(StartAt::last(1), 1, 1).await {
        Ok(page) => Ok(page.head.get()),
        Err(error) if error.kind() == ErrorKind::Absent => Ok(0),
        Err(error) => Err(error.into()),
    }
}

/// Has the server keep no more than so many bytes of all rooms together.
pub(crate) async fn keep_bytes(address: SocketAddr, bytes: u64) -> Result<()> {
    let client = connect(address).await?;
    let change = StoreChange {
        keep_bytes: Some(Some(bytes)),
        ..StoreChange::default()
    };
    client.change_store_settings(&change, None).await?;
    Ok(client.shutdown().await?)
}

/// Rooms to which one connection publishes in turn.
#[derive(Debug)]
pub(crate) struct Route {
    client: Client,
    rooms: Vec<Room>,
    turn: usize,
}

impl Route {
    /// Connects.
    pub(crate) async fn connect(address: SocketAddr, numbers: &[usize]) -> Result<Self> {
        let client = connect(address).await?;
        let rooms = numbers
            .iter()
            .map(|&number| client.room(&room_name(number)))
            .collect::<Result<_, _>>()?;
        Ok(Self {
            client,
            rooms,
            turn: 0,
        })
    }

    fn next(&mut self) -> Result<&Room> {
        let turn = self.turn;
        self.turn = if turn + 1 < self.rooms.len() {
            turn + 1
        } else {
            0
        };
        self.rooms.get(turn).context("there is no room")
    }
}

/// Publishes with a future for each message.
pub(crate) async fn publish(mut route: Route, load: Load, mut tally: Tally) -> Result<Tally> {
    let mut flights: VecDeque<(Instant, Ticket)> = VecDeque::with_capacity(load.window);
    loop {
        let now = Instant::now();
        while flights.len() < load.window && tally.may_send(1) {
            let ticket = route.next()?.queue(load.payload.clone()).await?;
            flights.push_back((now, ticket));
        }
        if flights.is_empty() {
            route.client.shutdown().await?;
            return Ok(tally);
        }
        poll_fn(|cx| {
            let mut landed = None;
            while let Some((sent, ticket)) = flights.front_mut() {
                let Poll::Ready(ack) = Pin::new(ticket).poll(cx) else {
                    break;
                };
                if let Err(error) = ack {
                    return Poll::Ready(Err(error));
                }
                // All that were answered together came at one time.
                let now = *landed.get_or_insert_with(Instant::now);
                tally.acked(1, *sent, now);
                flights.pop_front();
            }
            landed.map_or(Poll::Pending, |_| Poll::Ready(Ok(())))
        })
        .await?;
    }
}

/// Publishes with a future for each call of half a window, two of them in flight.
pub(crate) async fn publish_bulk(mut route: Route, load: Load, mut tally: Tally) -> Result<Tally> {
    let bulk = (load.window / 2).max(1);
    let mut flights: VecDeque<(Instant, BulkTicket)> = VecDeque::new();
    loop {
        let now = Instant::now();
        while flights.len() < load.window.div_ceil(bulk) {
            let count = tally.may_send_upto(bulk as u64);
            if count == 0 {
                break;
            }
            let payloads = (0..count).map(|_| load.payload.clone());
            let ticket = route.next()?.send_all(payloads).await?;
            flights.push_back((now, ticket));
        }
        let Some((sent, ticket)) = flights.pop_front() else {
            route.client.shutdown().await?;
            return Ok(tally);
        };
        let ack = ticket.await?;
        tally.acked(ack.count as u64, sent, Instant::now());
    }
}

/// Subscribes to a room, on a connection of its own. The room need not be there.
pub(crate) async fn subscribe(
    address: SocketAddr,
    number: usize,
    start: StartAt,
) -> Result<Subscription> {
    let room = room(address, number).await?;
    Ok(room.subscribe(start).wait(true).await?)
}

/// Takes messages until the last one.
pub(crate) async fn follow(mut messages: Subscription, mut sink: Sink) -> Result<Sink> {
    loop {
        for message in &next(&mut messages).await? {
            if sink.take(message.payload, None)? {
                return Ok(sink);
            }
        }
    }
}

/// Reads a room of `count` messages of `size` bytes from its start.
pub(crate) async fn replay(mut messages: Subscription, count: u64, size: usize) -> Result<()> {
    let mut number = 0;
    while number < count {
        for message in &next(&mut messages).await? {
            number += 1;
            if message.seq.get() != number || message.payload.len() != size {
                bail!("message {} came instead of {number}", message.seq);
            }
        }
    }
    Ok(())
}

/// What came together: the peers' messages are taken by the read as well.
async fn next(messages: &mut Subscription) -> Result<MessageBatch> {
    match messages
        .next_batch()
        .await
        .context("the subscription ended")??
    {
        BatchItem::Messages(batch) => Ok(batch),
        other => bail!("{other:?} came instead of messages"),
    }
}

/// Sends live messages.
#[derive(Debug)]
pub(crate) struct Sender {
    room: Room,
    tickets: VecDeque<BulkTicket>,
}

impl Sender {
    pub(crate) const fn new(room: Room) -> Self {
        Self {
            room,
            tickets: VecDeque::new(),
        }
    }

    /// Sends some messages; waits only for the answers of those sent long before.
    pub(crate) async fn send(&mut self, payloads: Vec<Bytes>) -> Result<()> {
        const UNANSWERED_MAX: usize = 1024;
        self.tickets.push_back(self.room.send_all(payloads).await?);
        if self.tickets.len() > UNANSWERED_MAX
            && let Some(ticket) = self.tickets.pop_front()
        {
            ticket.await?;
        }
        Ok(())
    }

    /// Waits for all answers.
    pub(crate) async fn finish(self) -> Result<()> {
        for ticket in self.tickets {
            ticket.await?;
        }
        Ok(self.room.client().shutdown().await?)
    }
}

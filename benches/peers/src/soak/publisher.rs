//! [`Publisher`]: sends numbered messages as fast as they are acknowledged.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use anyhow::{Result, bail};
use broker_core::{BulkAck, BulkTicket};
use bytes::{Bytes, BytesMut};

use super::Load;
use crate::load::{ours, publish};
use crate::stats::{Latencies, nanos};

/// Where a payload has the number of its publisher, its own number, and the rest.
const NUMBER_AT: usize = 4;
const REST_AT: usize = 12;

/// One publisher, shared with whoever looks at it.
#[derive(Debug)]
pub(super) struct Publisher {
    number: u32,
    room: u32,
    acked: AtomicU64,
    latencies: Mutex<Latencies>,
}

impl Publisher {
    pub(super) fn new(number: u32, room: u32) -> Self {
        Self {
            number,
            room,
            acked: AtomicU64::new(0),
            latencies: Mutex::new(Latencies::new()),
        }
    }

    pub(super) const fn number(&self) -> u32 {
        self.number
    }

    pub(super) const fn room(&self) -> u32 {
        self.room
    }

    /// How many messages were acknowledged; they have the numbers from 1 on.
    pub(super) fn acked(&self) -> u64 {
        self.acked.load(Ordering::Relaxed)
    }

    /// How long the acknowledgements took since the last time this was asked.
    pub(super) fn take_latencies(&self) -> Latencies {
        let mut latencies = self
            .latencies
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        std::mem::replace(&mut latencies, Latencies::new())
    }

    /// Publishes until it is told to stop, with two calls of half a window in flight.
    pub(super) async fn run(
        self: Arc<Self>,
        address: SocketAddr,
        load: Load,
        stop: Arc<AtomicBool>,
    ) -> Result<()> {
        let room = ours::room(address, self.room as usize).await?;
        let rest = publish::payload(load.payload.saturating_sub(REST_AT));
        let bulk = (load.window / 2).max(1);
        let mut flights: VecDeque<(Instant, BulkTicket)> = VecDeque::new();
        let (mut sent, mut last_seq) = (0_u64, 0);
        loop {
            while flights.len() < load.window.div_ceil(bulk) && !stop.load(Ordering::Relaxed) {
                let now = Instant::now();
                let payloads = self.payloads(sent, bulk, &rest);
                sent += bulk as u64;
                flights.push_back((now, room.send_all(payloads).await?));
            }
            let Some((began, ticket)) = flights.pop_front() else {
                break;
            };
            let ack = ticket.await?;
            self.take(&ack, began, &mut last_seq)?;
        }
        Ok(room.client().shutdown().await?)
    }

    /// Counts what is acknowledged; its places have to rise.
    fn take(&self, ack: &BulkAck, began: Instant, last_seq: &mut u64) -> Result<()> {
        for run in &ack.runs {
            if run.first_seq.get() <= *last_seq {
                bail!(
                    "publisher {}: a message was put at {} after one at {last_seq}",
                    self.number,
                    run.first_seq
                );
            }
            *last_seq = run.first_seq.get() + u64::from(run.count) - 1;
        }
        self.acked.fetch_add(ack.count as u64, Ordering::Relaxed);
        let mut latencies = self
            .latencies
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        latencies.record(nanos(began.elapsed()), ack.count as u64);
        Ok(())
    }

    /// The messages after the `sent`th, in one piece of memory.
    fn payloads(&self, sent: u64, count: usize, rest: &Bytes) -> Vec<Bytes> {
        let mut memory = BytesMut::with_capacity(count * (REST_AT + rest.len()));
        (0..count as u64)
            .map(|number| {
                memory.extend_from_slice(&self.number.to_le_bytes());
                memory.extend_from_slice(&(sent + number + 1).to_le_bytes());
                memory.extend_from_slice(rest);
                memory.split().freeze()
            })
            .collect()
    }
}

/// The publisher and the number that a payload tells.
pub(super) fn parse(payload: &[u8]) -> Option<(u32, u64)> {
    let publisher = payload.get(..NUMBER_AT)?.first_chunk()?;
    let number = payload.get(NUMBER_AT..REST_AT)?.first_chunk()?;
    Some((u32::from_le_bytes(*publisher), u64::from_le_bytes(*number)))
}

/// How many messages were acknowledged in a room.
pub(super) fn acked_in(publishers: &[Arc<Publisher>], room: u32) -> u64 {
    let of_room = publishers.iter().filter(|publisher| publisher.room == room);
    of_room.map(|publisher| publisher.acked()).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn payloads_tell_whose_they_are_and_which() {
        let publisher = Publisher::new(7, 1);
        let payloads = publisher.payloads(40, 3, &publish::payload(20));
        let told: Vec<_> = payloads.iter().map(|payload| parse(payload)).collect();
        assert_eq!(told, [Some((7, 41)), Some((7, 42)), Some((7, 43))]);
        assert!(payloads.iter().all(|payload| payload.len() == 32));
        assert_eq!(parse(&[0; 11]), None);
    }
}

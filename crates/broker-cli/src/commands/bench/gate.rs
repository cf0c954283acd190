//! [`Gate`]: how far one publisher may be ahead of the slowest of its subscribers.
//!
//! Without it a publisher outruns its subscribers, and what is measured is how they catch up by
//! reading the log instead of live delivery.
//!
//! Subscribers tell by whole chunks, so that telling costs next to nothing. All see the same order,
//! so that chunks are done in order too. A chunk is small enough that one is always under way when
//! the publisher has to wait: `chunk <= window - bulk + 1`.

use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use tokio::sync::Semaphore;
use tokio::time::timeout;

use super::load::Load;
use crate::exit::{Exit, Failure};

/// Chunks that a window is made of, roughly.
const CHUNKS: u32 = 8;

/// Lets a publisher through until a window of its messages is not yet received by all.
#[derive(Debug)]
pub(crate) struct Gate {
    subs: u32,
    chunk: u32,
    /// Messages that may be sent.
    free: Semaphore,
    /// How many subscribers have received each chunk that is under way; used in turn.
    received: Vec<AtomicU32>,
    patience: Duration,
}

impl Gate {
    /// Open.
    pub(crate) fn new(load: &Load, patience: Duration) -> Self {
        let chunk = ((load.window - load.bulk + 1) / CHUNKS).max(1);
        Self {
            subs: load.subs,
            chunk,
            free: Semaphore::new(load.window as usize),
            received: (0..load.window / chunk + 2)
                .map(|_| AtomicU32::new(0))
                .collect(),
            patience,
        }
    }

    /// Waits until `count` messages, at most a bulk, may be sent.
    pub(crate) async fn pass(&self, count: u32) -> Result<(), Failure> {
        match timeout(self.patience, self.free.acquire_many(count)).await {
            Ok(permit) => {
                // It is never closed.
                permit.into_iter().for_each(|permit| permit.forget());
                Ok(())
            }
            Err(_) => Err(Failure::new(
                Exit::TimedOut,
                format!(
                    "a subscriber has not received what is under way for {:.1} s; --timeout makes it wait longer",
                    self.patience.as_secs_f64()
                ),
            )),
        }
    }

    /// A subscriber that had received the first `before` messages has received the first `after`.
    pub(crate) fn received(&self, before: u64, after: u64) {
        let chunk = u64::from(self.chunk);
        for done in before / chunk..after / chunk {
            let slots = self.received.len() as u64;
            let slot = usize::try_from(done % slots).unwrap_or(0);
            let Some(count) = self.received.get(slot) else {
                continue;
            };
            if count.fetch_add(1, Ordering::AcqRel) + 1 == self.subs {
                // The slot's next chunk is sent only after this one made room for it.
                count.store(0, Ordering::Release);
                self.free.add_permits(self.chunk as usize);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::load::What;
    use super::*;
    use crate::args::BenchOptions;

    fn gate(subs: u32, window: u32, bulk: u32) -> Gate {
        let options = BenchOptions {
            subs: Some(subs),
            window: Some(window),
            bulk: Some(bulk),
            ..BenchOptions::default()
        };
        let load = Load::new(What::Fanout, &options).expect("fine");
        Gate::new(&load, Duration::from_secs(60))
    }

    #[test]
    fn the_slowest_subscriber_counts() {
        let gate = gate(2, 80, 1);
        assert_eq!((gate.chunk, gate.free.available_permits()), (10, 80));
        gate.received(0, 35);
        assert_eq!(gate.free.available_permits(), 80, "one of two");
        gate.received(0, 9);
        gate.received(9, 10);
        assert_eq!(gate.free.available_permits(), 90);
        gate.received(10, 35);
        gate.received(35, 39);
        assert_eq!(gate.free.available_permits(), 110);
    }

    #[tokio::test]
    async fn whatever_the_window_it_never_gets_stuck() {
        for (window, bulk) in [(1, 1), (7, 7), (8, 3), (9, 1), (100, 64), (4096, 4096)] {
            let gate = gate(3, window, bulk);
            let (mut sent, mut seen) = (0_u64, [0; 3]);
            while sent < 20_000 {
                // Every subscriber has what was sent, one after the other, so that only the rest of a
                // chunk can hold the gate.
                if gate.free.available_permits() < bulk as usize {
                    for seen in &mut seen {
                        gate.received(std::mem::replace(seen, sent), sent);
                    }
                }
                assert!(
                    gate.free.available_permits() >= bulk as usize,
                    "{window} {bulk}"
                );
                gate.pass(bulk).await.expect("open");
                sent += u64::from(bulk);
            }
        }
    }
}

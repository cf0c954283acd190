//! [`Gate`]: lets a publisher run ahead of its slowest subscriber by so much and no further.
//!
//! The stream is cut into chunks. A chunk has passed when every subscriber has got its last message, and the publisher may
//! begin one when all but the few chunks before it have passed. That costs a subscriber one atomic addition a chunk.

use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use tokio::sync::Notify;

/// Chunks under way.
const CHUNKS: u8 = 4;

/// Keeps what is in flight bounded.
#[derive(Debug)]
pub(crate) struct Gate {
    subscribers: u32,
    /// Messages of a chunk.
    chunk: u64,
    /// How many subscribers have got the chunks under way.
    got: [AtomicU32; CHUNKS as usize],
    /// How many chunks have passed.
    passed: AtomicU64,
    wake: Notify,
}

impl Gate {
    /// For so many subscribers, with at most `window` messages in flight to each.
    pub(crate) fn new(subscribers: u32, window: u64) -> Self {
        Self {
            subscribers,
            chunk: (window / u64::from(CHUNKS)).max(1),
            got: Default::default(),
            passed: AtomicU64::new(0),
            wake: Notify::new(),
        }
    }

    /// Messages of a chunk.
    pub(crate) const fn chunk(&self) -> u64 {
        self.chunk
    }

    /// Waits until the chunk with this number may be sent.
    pub(crate) async fn open(&self, chunk: u64) {
        while self
            .passed
            .load(Ordering::Acquire)
            .saturating_add(CHUNKS.into())
            <= chunk
        {
            self.wake.notified().await;
        }
    }

    /// A subscriber has got this many messages.
    pub(crate) fn passed(&self, count: u64) {
        if !count.is_multiple_of(self.chunk) {
            return;
        }
        let chunk = count / self.chunk - 1;
        let Some(got) = usize::try_from(chunk % u64::from(CHUNKS))
            .ok()
            .and_then(|place| self.got.get(place))
        else {
            return;
        };
        if got.fetch_add(1, Ordering::AcqRel) + 1 == self.subscribers {
            // The next chunk of this place is sent only after the line below.
            got.store(0, Ordering::Relaxed);
            self.passed.fetch_add(1, Ordering::Release);
            self.wake.notify_one();
        }
    }

    /// Lets everything through, so that nobody waits for a subscriber that is gone.
    pub(crate) fn break_open(&self) {
        self.passed.store(u64::MAX / 2, Ordering::Release);
        self.wake.notify_one();
    }
}

#[cfg(test)]
mod tests {
    use std::pin::pin;
    use std::task::{Context, Waker};

    use super::*;

    fn is_open(gate: &Gate, chunk: u64) -> bool {
        let mut cx = Context::from_waker(Waker::noop());
        pin!(gate.open(chunk)).poll(&mut cx).is_ready()
    }

    #[test]
    fn the_slowest_decides() {
        let gate = Gate::new(2, 12);
        assert_eq!(gate.chunk(), 3);
        assert!(is_open(&gate, 3) && !is_open(&gate, 4));
        // One gets everything that is under way, the other less than a chunk.
        (1..=12).for_each(|count| gate.passed(count));
        (1..=2).for_each(|count| gate.passed(count));
        assert!(!is_open(&gate, 4));
        gate.passed(3);
        assert!(is_open(&gate, 4) && !is_open(&gate, 5));
        (4..=12).for_each(|count| gate.passed(count));
        assert!(is_open(&gate, 7) && !is_open(&gate, 8));
        gate.break_open();
        assert!(is_open(&gate, 1_000_000));
    }

    #[test]
    fn small_windows_have_chunks_of_one() {
        let gate = Gate::new(1, 2);
        assert_eq!(gate.chunk(), 1);
        for count in 1..=100 {
            assert!(is_open(&gate, count + 2) && !is_open(&gate, count + 3));
            gate.passed(count);
        }
    }
}

//! [`Ticket`] and [`BulkTicket`]: the answers to messages that were queued.

use std::fmt;
use std::future::{Future, poll_fn};
use std::ops::Range;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use super::batch::Batch;
use super::error::{Error, Result};
use super::message::{Ack, AckRun};

/// The answer to one queued message: a future that is ready when the message is stored or refused.
///
/// Dropping it does not take the message back: it is sent, and stored if the broker takes it, all the same. It can be
/// awaited at any time, also after the client is gone.
#[derive(Debug)]
#[must_use = "the message is sent in any case, but only the ticket says whether it was stored"]
pub struct Ticket {
    batch: Arc<Batch>,
    index: u32,
}

impl Ticket {
    pub(super) fn new((batch, index): (Arc<Batch>, u32)) -> Self {
        Self { batch, index }
    }
}

impl Future for Ticket {
    type Output = Result<Ack>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<Ack>> {
        self.batch.poll_one(self.index, cx)
    }
}

/// A part of what one [`send_all`](super::room::Room::send_all) queued: consecutive messages of one batch.
struct Part {
    batch: Arc<Batch>,
    first: u32,
    count: u32,
}

/// The answers to the messages of one [`send_all`](super::room::Room::send_all).
///
/// Awaiting it gives how all of them were stored, or the first error. [`outcomes`](Self::outcomes) tells apart what was
/// stored and what was not. Dropping it takes nothing back.
#[must_use = "the messages are sent in any case, but only the ticket says whether they were stored"]
pub struct BulkTicket {
    parts: Vec<Part>,
    /// The part that is waited for.
    at: usize,
    count: usize,
    /// Why the messages after the first `count` were not queued.
    stopped: Option<Error>,
}

/// All messages of one [`send_all`](super::room::Room::send_all) are stored.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct BulkAck {
    /// How many messages there are.
    pub count: usize,
    /// Where they are, in the order in which they were sent.
    pub runs: Vec<AckRun>,
}

/// How some consecutive messages of one [`send_all`](super::room::Room::send_all) ended.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Outcome {
    /// Which messages, counted from zero. Empty for those that were never queued: they begin there.
    pub messages: Range<usize>,
    /// Where they are stored, or why not.
    pub result: Result<AckRun>,
}

impl BulkTicket {
    pub(super) const fn new() -> Self {
        Self {
            parts: Vec::new(),
            at: 0,
            count: 0,
            stopped: None,
        }
    }

    /// How many messages were queued.
    #[must_use]
    pub const fn len(&self) -> usize {
        self.count
    }

    /// Whether no message was queued.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.count == 0
    }

    pub(super) fn add(&mut self, (batch, index): (&Arc<Batch>, u32)) {
        self.count += 1;
        if let Some(last) = self.parts.last_mut()
            && Arc::ptr_eq(&last.batch, batch)
            && last.first + last.count == index
        {
            last.count += 1;
            return;
        }
        self.parts.push(Part {
            batch: Arc::clone(batch),
            first: index,
            count: 1,
        });
    }

    pub(super) fn stop(&mut self, error: Error) {
        self.stopped = Some(error);
    }

    fn poll_all(&mut self, cx: &Context<'_>) -> Poll<()> {
        while let Some(part) = self.parts.get(self.at) {
            ready!(part.batch.poll_range(part.first, part.count, cx));
            self.at += 1;
        }
        Poll::Ready(())
    }

    fn collect(&self) -> Vec<Outcome> {
        let mut outcomes = Vec::new();
        let mut at = 0;
        for part in &self.parts {
            for (_, count, result) in part.batch.outcomes(part.first, part.count) {
                let end = at + count as usize;
                outcomes.push(Outcome {
                    messages: at..end,
                    result,
                });
                at = end;
            }
        }
        if let Some(error) = &self.stopped {
            outcomes.push(Outcome {
                messages: at..at,
                result: Err(error.clone()),
            });
        }
        outcomes
    }

    /// Waits until every message was answered, and tells how, in the order in which they were sent.
    ///
    /// Dropping the future loses the outcomes, not the messages.
    pub async fn outcomes(mut self) -> Vec<Outcome> {
        poll_fn(|cx| self.poll_all(cx)).await;
        self.collect()
    }
}

impl Future for BulkTicket {
    type Output = Result<BulkAck>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<BulkAck>> {
        ready!(self.poll_all(cx));
        let outcomes = self.collect().into_iter();
        let runs = outcomes
            .map(|outcome| outcome.result)
            .collect::<Result<Vec<AckRun>>>()?;
        Poll::Ready(Ok(BulkAck {
            count: self.count,
            runs,
        }))
    }
}

impl fmt::Debug for BulkTicket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("BulkTicket")
            .field("count", &self.count)
            .finish_non_exhaustive()
    }
}

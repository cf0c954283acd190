//! Where everything that a store says to one session arrives.
//!
//! A mailbox belongs to one connection. The store posts any number of notices and wakes the
//! connection once; the connection drains them all in one turn. Nothing here depends on a runtime:
//! a waker is all that is needed, so simulators poll by hand.

use std::fmt;
use std::future::poll_fn;
use std::mem;
use std::task::{Context, Poll, Waker};

use super::Notice;
use crate::sync::{Arc, Mutex, lock};

/// The notices that wait for one session, and whom to wake for them.
#[derive(Default)]
pub struct Mailbox {
    inner: Mutex<Inner>,
}

#[derive(Default)]
struct Inner {
    notices: Vec<Notice>,
    waker: Option<Waker>,
}

impl Mailbox {
    /// An empty mailbox.
    #[must_use]
    pub fn new() -> Arc<Self> {
        Arc::new(Self::default())
    }

    /// Posts one notice and wakes the owner.
    pub fn post(&self, notice: Notice) {
        let waker = {
            let mut inner = lock(&self.inner);
            inner.notices.push(notice);
            inner.waker.take()
        };
        if let Some(waker) = waker {
            waker.wake();
        }
    }

    /// Posts one notice without waking; true when the box was empty, and so when the owner has to
    /// be woken by [`Self::wake`] after the batch.
    pub(crate) fn post_quietly(&self, notice: Notice) -> bool {
        let mut inner = lock(&self.inner);
        let first = inner.notices.is_empty();
        inner.notices.push(notice);
        first
    }

    /// Wakes the owner, if it waits.
    pub fn wake(&self) {
        let waker = lock(&self.inner).waker.take();
        if let Some(waker) = waker {
            waker.wake();
        }
    }

    /// Moves all waiting notices into `into`, oldest first; says whether there was one.
    pub fn drain(&self, into: &mut Vec<Notice>) -> bool {
        let mut inner = lock(&self.inner);
        if inner.notices.is_empty() {
            return false;
        }
        if into.is_empty() {
            mem::swap(&mut inner.notices, into);
        } else {
            into.append(&mut inner.notices);
        }
        true
    }

    /// Ready when a notice waits; otherwise remembers whom to wake. One owner waits at a time.
    pub fn poll_ready(&self, context: &mut Context<'_>) -> Poll<()> {
        let mut inner = lock(&self.inner);
        if !inner.notices.is_empty() {
            return Poll::Ready(());
        }
        match &mut inner.waker {
            Some(waker) => waker.clone_from(context.waker()),
            none => *none = Some(context.waker().clone()),
        }
        Poll::Pending
    }

    /// Waits for a notice. Dropping the future loses nothing.
    pub async fn ready(&self) {
        poll_fn(|context| self.poll_ready(context)).await;
    }
}

impl fmt::Debug for Mailbox {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Mailbox")
            .field("waiting", &lock(&self.inner).notices.len())
            .finish()
    }
}

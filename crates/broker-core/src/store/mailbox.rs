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
use super::relay::Relay;
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
    /// Where wakers are left when many have to be woken.
    relay: Option<Arc<Relay>>,
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

    /// Has [`wake_all`] wake the owner by the relay of the runtime that it runs on.
    pub(crate) fn set_relay(&self, relay: &Arc<Relay>) {
        lock(&self.inner).relay = Some(Arc::clone(relay));
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

/// Wakes the owners of mailboxes, if they wait, in this order; each runtime is interrupted once.
pub(crate) fn wake_all(mailboxes: &mut Vec<Arc<Mailbox>>) {
    if let [one] = mailboxes.as_slice() {
        // It is woken as fast without a detour.
        one.wake();
        mailboxes.clear();
        return;
    }
    let mut used: Option<Arc<Relay>> = None;
    for mailbox in mailboxes.drain(..) {
        let (waker, relay) = {
            let mut inner = lock(&mailbox.inner);
            (inner.waker.take(), inner.relay.clone())
        };
        match (waker, relay) {
            (None, _) => {}
            (Some(waker), None) => waker.wake(),
            (Some(waker), Some(relay)) => {
                if let Some(other) = used.take_if(|other| !Arc::ptr_eq(other, &relay)) {
                    other.wake();
                }
                relay.leave(waker);
                used = Some(relay);
            }
        }
    }
    if let Some(relay) = used {
        relay.wake();
    }
}

impl fmt::Debug for Mailbox {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Mailbox")
            .field("waiting", &lock(&self.inner).notices.len())
            .finish()
    }
}

#[cfg(test)]
mod tests {
    use std::pin::pin;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::task::Wake;

    use super::*;

    /// Counts how often it was woken.
    #[derive(Default)]
    struct Count(AtomicUsize);

    impl Wake for Count {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }

    impl Count {
        fn get(&self) -> usize {
            self.0.load(Ordering::Relaxed)
        }
    }

    /// Mailboxes whose owner waits, and the owner.
    fn waiting(count: usize, relay: &Arc<Relay>) -> (Vec<Arc<Mailbox>>, Arc<Count>) {
        let owner = Arc::<Count>::default();
        let waker = Waker::from(Arc::clone(&owner));
        let mailboxes = (0..count).map(|_| {
            let mailbox = Mailbox::new();
            mailbox.set_relay(relay);
            let mut context = Context::from_waker(&waker);
            assert!(mailbox.poll_ready(&mut context).is_pending());
            mailbox
        });
        (mailboxes.collect(), owner)
    }

    #[test]
    fn many_are_woken_by_the_relay_whose_task_is_woken_once() {
        let relay = Relay::new();
        let mut run = pin!(Arc::clone(&relay).run());
        let task = Arc::<Count>::default();
        let waker = Waker::from(Arc::clone(&task));
        let mut context = Context::from_waker(&waker);
        assert!(run.as_mut().poll(&mut context).is_pending());
        for round in 1..=3 {
            let (mut mailboxes, owner) = waiting(10, &relay);
            wake_all(&mut mailboxes);
            assert!(mailboxes.is_empty());
            assert_eq!((task.get(), owner.get()), (round, 0));
            assert!(run.as_mut().poll(&mut context).is_pending());
            assert_eq!(owner.get(), 10);
        }
    }

    #[test]
    fn one_is_woken_at_once_and_nobody_waits_for_a_relay_that_does_not_run() {
        let relay = Relay::new();
        let (mut mailboxes, owner) = waiting(10, &relay);
        wake_all(&mut mailboxes);
        assert_eq!(owner.get(), 10, "nobody runs it yet");
        let mut run = Box::pin(Arc::clone(&relay).run());
        let mut context = Context::from_waker(Waker::noop());
        assert!(run.as_mut().poll(&mut context).is_pending());
        let (mut mailboxes, owner) = waiting(1, &relay);
        wake_all(&mut mailboxes);
        assert_eq!(owner.get(), 1, "a single one");
        let (mut mailboxes, owner) = waiting(10, &relay);
        wake_all(&mut mailboxes);
        assert_eq!(owner.get(), 0);
        drop(run);
        assert_eq!(owner.get(), 10, "its runtime has ended");
        let (mut mailboxes, owner) = waiting(10, &relay);
        wake_all(&mut mailboxes);
        assert_eq!(owner.get(), 10, "nobody runs it any more");
    }

    #[test]
    fn several_relays_are_all_woken() {
        let relays = [Relay::new(), Relay::new()];
        let mut runs: Vec<_> = relays
            .iter()
            .map(|relay| Box::pin(Arc::clone(relay).run()))
            .collect();
        let mut context = Context::from_waker(Waker::noop());
        for run in &mut runs {
            assert!(run.as_mut().poll(&mut context).is_pending());
        }
        let mut all = Vec::new();
        let mut owners = Vec::new();
        for relay in relays.iter().cycle().take(5) {
            let (mailboxes, owner) = waiting(2, relay);
            all.extend(mailboxes);
            owners.push(owner);
        }
        wake_all(&mut all);
        for run in &mut runs {
            assert!(run.as_mut().poll(&mut context).is_pending());
        }
        assert!(owners.iter().all(|owner| owner.get() == 2));
    }
}

//! [`Relay`]: wakes many tasks of one runtime from another thread, at the price of waking one.
//!
//! A wake from outside a runtime interrupts the thread that serves its sockets: a system call and, on a processor that rests,
//! an interrupt, for each task. So whoever has many to wake leaves their wakers here and wakes the relay's own task once; that
//! wakes the others from within, which costs nothing but a queue.

use std::fmt;
use std::future::poll_fn;
use std::mem;
use std::task::{Context, Poll, Waker};

use crate::sync::{Arc, Mutex, lock};

/// Wakers that wait to be called on the runtime that they belong to.
#[derive(Default)]
pub(crate) struct Relay {
    inner: Mutex<Inner>,
}

#[derive(Default)]
struct Inner {
    wakers: Vec<Waker>,
    task: Option<Waker>,
    /// Somebody runs it; otherwise wakers are called by those who bring them.
    runs: bool,
}

impl Relay {
    /// A relay that nobody runs yet.
    pub(crate) fn new() -> Arc<Self> {
        Arc::new(Self::default())
    }

    /// Wakes what it is given, until it is dropped.
    pub(crate) async fn run(self: Arc<Self>) {
        lock(&self.inner).runs = true;
        let _ends = Ends(&self);
        let mut wakers = Vec::new();
        poll_fn(|context| self.poll(context, &mut wakers)).await
    }

    fn poll(&self, context: &Context<'_>, wakers: &mut Vec<Waker>) -> Poll<()> {
        {
            let mut inner = lock(&self.inner);
            mem::swap(&mut inner.wakers, wakers);
            inner.task = Some(context.waker().clone());
        }
        wakers.drain(..).for_each(Waker::wake);
        Poll::Pending
    }

    /// Leaves a waker, which is called after the next [`Self::wake`] at the latest.
    pub(super) fn leave(&self, waker: Waker) {
        let mut inner = lock(&self.inner);
        if inner.runs {
            inner.wakers.push(waker);
        } else {
            drop(inner);
            waker.wake();
        }
    }

    /// Has all wakers called that were left.
    pub(super) fn wake(&self) {
        let task = lock(&self.inner).task.take();
        if let Some(task) = task {
            task.wake();
        }
    }
}

/// Whoever has left a waker must not wait for a runtime that is gone.
struct Ends<'a>(&'a Relay);

impl Drop for Ends<'_> {
    fn drop(&mut self) {
        let wakers = {
            let mut inner = lock(&self.0.inner);
            inner.runs = false;
            inner.task = None;
            mem::take(&mut inner.wakers)
        };
        wakers.into_iter().for_each(Waker::wake);
    }
}

impl fmt::Debug for Relay {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let inner = lock(&self.inner);
        f.debug_struct("Relay")
            .field("waiting", &inner.wakers.len())
            .field("runs", &inner.runs)
            .finish()
    }
}

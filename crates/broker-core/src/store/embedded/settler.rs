//! [`Settler`]: stores a lone message on the thread that brought it.
//!
//! A message that comes alone, and whose sender waits for the answer before it sends the next, waits for two changes of threads
//! beside the disk: to the writer's and back. Whoever serves the sockets may store it himself instead, which on a fast disk
//! takes less than the changes. Nobody else is served meanwhile, so this is for a single small message at a time, after several
//! in a row, and not for a while after the disk was slow; everything else is the writer's thread's.

use std::future::poll_fn;
use std::task::{Context, Poll};
use std::time::Duration;

use super::inbox::Found;
use super::shared::Shared;
use super::threads::Writing;
use crate::log::storage::Storage;
use crate::sync::{Arc, Weak};

/// A disk that takes longer for one message is left to the writer's thread for a while.
const SLOW: Duration = Duration::from_millis(1);

/// See the module's documentation.
pub(super) struct Settler<S: Storage> {
    shared: Arc<Shared<S>>,
    /// The writer's thread has it, and ends with it.
    writing: Weak<Writing<S>>,
}

impl<S: Storage> Settler<S> {
    pub(super) fn new(shared: Arc<Shared<S>>, writing: Weak<Writing<S>>) -> Self {
        Self { shared, writing }
    }

    /// Settles what comes alone, until the store is closed.
    pub(super) async fn run(self) {
        poll_fn(|context| self.poll(context)).await;
    }

    fn poll(&self, context: &Context<'_>) -> Poll<()> {
        loop {
            match self.shared.inbox.look(context.waker()) {
                Found::Nothing => return Poll::Pending,
                Found::Closing => return Poll::Ready(()),
                Found::Lone if self.settle() => {}
                Found::Lone | Found::Other => {
                    let waits = self.shared.inbox.settle_later(context.waker());
                    self.shared.inbox.pass_on();
                    return if waits {
                        Poll::Pending
                    } else {
                        Poll::Ready(())
                    };
                }
            }
        }
    }

    /// Stores what is queued; false when that is better left to the writer's thread.
    fn settle(&self) -> bool {
        let writing = self.writing.upgrade();
        let Some(took) = writing.and_then(|writing| writing.settle(&self.shared)) else {
            return false;
        };
        self.shared.inbox.note_settled(took > SLOW);
        true
    }
}

impl<S: Storage> Drop for Settler<S> {
    fn drop(&mut self) {
        self.shared.inbox.end_settling();
    }
}

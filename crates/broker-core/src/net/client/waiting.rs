//! [`Waiting`]: who waits for space in the window of unacknowledged sends, first come, first served.
//!
//! Only the one in front may take space, and whoever takes or leaves it hands the turn on, so nobody starves and a dropped
//! future costs nobody else anything.

use std::collections::VecDeque;
use std::task::Waker;

use super::error::Error;

/// Those who wait, in order of arrival.
#[derive(Debug, Default)]
pub(super) struct Waiting {
    /// Number and waker of each, numbers rising. A taken waker was woken and has not come back yet.
    queue: VecDeque<(u64, Option<Waker>)>,
    next: u64,
    /// Who arrived before this number and is not in the queue has failed.
    failed_below: u64,
    failure: Option<Error>,
}

impl Waiting {
    pub(super) fn is_empty(&self) -> bool {
        self.queue.is_empty()
    }

    /// Joins the end of the queue.
    pub(super) fn enter(&mut self, waker: &Waker) -> u64 {
        let id = self.next;
        self.next += 1;
        self.queue.push_back((id, Some(waker.clone())));
        id
    }

    /// Whether it is the turn of `id`.
    pub(super) fn is_front(&self, id: u64) -> bool {
        self.queue.front().is_some_and(|(front, _)| *front == id)
    }

    /// Why `id` waits no more, when it was failed.
    pub(super) fn failure(&self, id: u64) -> Option<Error> {
        if id < self.failed_below {
            self.failure.clone()
        } else {
            None
        }
    }

    /// Goes on waiting with this waker.
    pub(super) fn stay(&mut self, id: u64, waker: &Waker) {
        if let Ok(place) = self.queue.binary_search_by_key(&id, |(id, _)| *id)
            && let Some((_, slot)) = self.queue.get_mut(place)
        {
            match slot {
                Some(slot) => slot.clone_from(waker),
                None => *slot = Some(waker.clone()),
            }
        }
    }

    /// Leaves the queue, with or without having had its turn. The next one has to be woken then.
    pub(super) fn leave(&mut self, id: u64) {
        if let Ok(place) = self.queue.binary_search_by_key(&id, |(id, _)| *id) {
            self.queue.remove(place);
        }
    }

    /// The waker of whose turn it is; `None` when there is nobody, or it was woken already.
    pub(super) fn take_front(&mut self) -> Option<Waker> {
        self.queue.front_mut().and_then(|(_, waker)| waker.take())
    }

    /// Fails all who wait.
    pub(super) fn fail(&mut self, error: &Error, wakes: &mut Vec<Waker>) {
        if self.queue.is_empty() {
            return;
        }
        self.failed_below = self.next;
        self.failure = Some(error.clone());
        wakes.extend(self.queue.drain(..).filter_map(|(_, waker)| waker));
    }
}

//! Who waits for a room to grow, indexed by the room, so that a message wakes its readers and
//! nobody else.

use std::collections::HashMap;

use broker_proto::{RoomName, Seq};

use super::{Mailbox, Notice};
use crate::sync::Arc;

#[derive(Debug)]
struct Watch {
    after: Seq,
    tag: u64,
    to: Arc<Mailbox>,
}

/// Emptied lists that are kept for the next room that is watched.
const SPARE_LISTS: usize = 16;

/// Watches that an emptied list may have room for, to be kept.
const SPARE_WATCHES: usize = 4096;

/// The watches of all rooms; each fires once.
#[derive(Debug, Default)]
pub(crate) struct Watchers {
    rooms: HashMap<RoomName, Vec<Watch>>,
    /// A room whose readers follow along loses all its watches with each message and gets them again: growing the list anew
    /// each time would cost several allocations.
    spare: Vec<Vec<Watch>>,
}

impl Watchers {
    pub(crate) fn is_empty(&self) -> bool {
        self.rooms.is_empty()
    }

    pub(crate) fn add(&mut self, room: &RoomName, after: Seq, tag: u64, to: &Arc<Mailbox>) {
        let watch = Watch {
            after,
            tag,
            to: Arc::clone(to),
        };
        match self.rooms.get_mut(room) {
            Some(watches) => watches.push(watch),
            None => {
                let mut watches = self.spare.pop().unwrap_or_default();
                watches.push(watch);
                self.rooms.insert(room.clone(), watches);
            }
        }
    }

    pub(crate) fn remove(&mut self, room: &RoomName, tag: u64, to: &Arc<Mailbox>) {
        let Some(watches) = self.rooms.get_mut(room) else {
            return;
        };
        watches.retain(|watch| watch.tag != tag || !Arc::ptr_eq(&watch.to, to));
        if watches.is_empty() {
            self.rooms.remove(room);
        }
    }

    /// Fires the watches of a room that has grown up to `head`, but for those that wait for more;
    /// the mailboxes that have to be woken are added to `wake`.
    pub(crate) fn fire(&mut self, room: &RoomName, head: Seq, wake: &mut Vec<Arc<Mailbox>>) {
        let Some(watches) = self.rooms.get_mut(room) else {
            return;
        };
        for watch in watches.extract_if(.., |watch| head > watch.after) {
            if watch.to.post_quietly(Notice::Grown { tag: watch.tag }) {
                wake.push(watch.to);
            }
        }
        if watches.is_empty()
            && let Some(emptied) = self.rooms.remove(room)
            && self.spare.len() < SPARE_LISTS
            && emptied.capacity() <= SPARE_WATCHES
        {
            self.spare.push(emptied);
        }
    }
}

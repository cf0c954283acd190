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

/// The watches of all rooms; each fires once.
#[derive(Debug, Default)]
pub(crate) struct Watchers {
    rooms: HashMap<RoomName, Vec<Watch>>,
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
                self.rooms.insert(room.clone(), vec![watch]);
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
        if watches.is_empty() {
            self.rooms.remove(room);
        }
    }
}

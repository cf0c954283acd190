//! New epochs for a store that turned out to be a copy.

use broker_proto::RoomId;

use super::super::super::rooms::{Parent, draw_epoch};
use super::super::checkpoint::room_record;
use super::Engine;
use super::assembly::Assembly;
use crate::log::batch::BatchKind;
use crate::log::state::{self, kind};
use crate::log::storage::Storage;
use crate::log::{BatchBuilder, WriteFault};
use crate::sync::{read, write};

impl<S: Storage> Engine<S> {
    /// Draws a new epoch for every room, because the directory is a copy: what was acknowledged
    /// after the copy was made exists elsewhere, so a position there must not be taken for one
    /// here. The old epoch stays valid up to the head, as the new one's parent.
    ///
    /// # Errors
    /// When it cannot be written; then the old epochs are still in place.
    pub(in crate::store::embedded) fn renew_epochs(&mut self) -> std::io::Result<()> {
        let count = read(&self.shared.rooms).numbers();
        let mut next = 1;
        while next <= count {
            next = self.renew_some(next, count)?;
        }
        Ok(())
    }

    /// Renews as many epochs as go into one batch; gives the next room.
    fn renew_some(&mut self, first: usize, count: usize) -> std::io::Result<usize> {
        let mut renewed = Vec::new();
        let mut records = Vec::new();
        let mut bytes = 0;
        let mut next = first;
        {
            let rooms = read(&self.shared.rooms);
            while next <= count && bytes < self.batch_bytes_max {
                let id = RoomId::new(u32::try_from(next).map_err(std::io::Error::other)?);
                next += 1;
                let Some(slot) = rooms.get(id) else { continue };
                // A copy that stopped here before anybody published keeps its first parent.
                let fresh = Parent {
                    epoch: slot.epoch,
                    fork: slot.head,
                };
                let parent = rooms
                    .parent(id)
                    .filter(|parent| parent.fork == slot.head)
                    .unwrap_or(fresh);
                let epoch = draw_epoch(self.random.bits_64());
                let mut record = room_record(&rooms, id, slot);
                record.epoch = epoch.get();
                record.parent_epoch = parent.epoch.get();
                record.fork = parent.fork.get();
                let mut encoded = Vec::new();
                state::encode(kind::ROOM_STATE, RoomId::NONE, &record, &mut encoded);
                bytes += encoded.len() + 4;
                records.push(encoded);
                renewed.push((id, epoch, parent));
            }
        }
        let pending = self.pending.iter().map(|record| record.len() + 4);
        let bytes = BatchBuilder::overhead(1, 0) + bytes + pending.sum::<usize>();
        let now = self.clock.now();
        self.writer.begin(bytes as u64, now.get())?;
        let at = self.writer.end();
        let mut assembly = Assembly::begin(at, &mut self.builder, self.writer.buffer());
        for record in self.pending.iter_mut().chain(&mut records) {
            assembly.encoded(record);
        }
        let written = self
            .writer
            .commit(&mut self.builder, BatchKind::Records, false);
        let written = written.map_err(|fault| match fault {
            WriteFault::NoSpace(error)
            | WriteFault::NoSpaceUnknown(error)
            | WriteFault::Failed(error) => error,
        })?;
        self.commit(written, None);
        let mut rooms = write(&self.shared.rooms);
        for (id, epoch, parent) in renewed {
            rooms.renew(id, epoch, parent);
        }
        Ok(next)
    }
}

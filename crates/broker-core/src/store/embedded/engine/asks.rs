//! What the writer is asked beside messages: changes of rooms and of the store, cursors that nobody waits for.

use broker_proto::{Micros, RoomName};

use super::super::super::cursors::CursorKey;
use super::super::super::rooms::RoomTable;
use super::super::super::sequencer::Change;
use super::super::super::{Answer, Ask, Mailbox, Notice, SetCursor, StoreError};
use super::super::checkpoint::{Checkpoint, RECORD_BYTES_MAX};
use super::super::inbox::{Request, TrimAsked};
use super::Engine;
use crate::log::WriteFault;
use crate::log::storage::Storage;
use crate::planted::{Bug, planted};
use crate::sync::{Arc, read};

/// A question of the batch in the making.
pub(super) struct Asked {
    tag: u64,
    to: Arc<Mailbox>,
    result: Result<Answer, StoreError>,
    /// Whether the answer counts only when the batch is durable.
    waits: bool,
}

impl<S: Storage> Engine<S> {
    /// Answers what needs no batch.
    pub(super) fn answer(&mut self, ask: &Ask, tag: u64, to: Arc<Mailbox>) {
        let result = match ask {
            Ask::Cursors(list) => {
                let id = read(&self.shared.rooms).id(&list.room);
                id.map(|id| {
                    let limit = list.limit as usize;
                    let newest = |key: &CursorKey| self.sequencer.relaxed.get(key);
                    let page = self.sequencer.cursors.page(id, &list.after, limit, newest);
                    Answer::Cursors(page)
                })
                .ok_or_else(|| StoreError::NoSuchRoom {
                    room: list.room.clone(),
                })
            }
            _ => Err(StoreError::Closed),
        };
        let waits = false;
        self.asked.push(Asked {
            tag,
            to,
            result,
            waits,
        });
    }

    /// Stages a change: the batch has nothing else in it.
    pub(super) fn take_change(&mut self, request: Request, _now: Micros) {
        match request {
            Request::Ask { ask, tag, to } => {
                let result = self.stage(&ask);
                let waits = result.is_ok();
                self.asked.push(Asked {
                    tag,
                    to,
                    result,
                    waits,
                });
            }
            Request::Trim { trims, asked } => {
                let is_current = {
                    let rooms = read(&self.shared.rooms);
                    trims.iter().fold(true, |all, trim| {
                        let took =
                            self.shared.read_only().is_some() || self.sequencer.trim(&rooms, trim);
                        all && took
                    })
                };
                if planted(Bug::TrimNotSynced) {
                    self.shared.show_trims(&trims);
                }
                match asked {
                    // Somebody else was faster: it has to be worked out again.
                    Some(asked) if !is_current => self.shared.keep.ask(asked),
                    Some(asked) => self.answer_trim(asked),
                    None if !is_current => self.shared.keep.note_missed(),
                    None => {}
                }
            }
            _ => {}
        }
    }

    fn stage(&mut self, ask: &Ask) -> Result<Answer, StoreError> {
        if let Some(reason) = self.shared.read_only() {
            return Err(StoreError::ReadOnly { reason });
        }
        let rooms = read(&self.shared.rooms);
        match ask {
            Ask::ChangeRoom(change) => self.sequencer.change_room(&rooms, change).map(Answer::Room),
            Ask::Remove(remove) => self.sequencer.remove_room(&rooms, remove).map(Answer::Room),
            Ask::ChangeStore(change) => self.sequencer.change_store(change).map(Answer::Store),
            _ => Err(StoreError::Closed),
        }
    }

    fn answer_trim(&mut self, TrimAsked { trim, tag, to }: TrimAsked) {
        let rooms = read(&self.shared.rooms);
        let state = rooms.id(&trim.room).and_then(|id| rooms.state(id));
        let result = match (self.shared.read_only(), state) {
            (Some(reason), _) => Err(StoreError::ReadOnly { reason }),
            (None, None) => Err(StoreError::NoSuchRoom { room: trim.room }),
            (None, Some(mut state)) => {
                if let [Change::Trim(_, trimmed)] = self.sequencer.changes() {
                    state.info.first = trimmed.first;
                    state.bytes = trimmed.bytes;
                }
                Ok(Answer::Room(Box::new(state)))
            }
        };
        drop(rooms);
        let waits = result.is_ok();
        self.asked.push(Asked {
            tag,
            to,
            result,
            waits,
        });
    }

    /// The rooms that the batch removes.
    pub(super) fn removed_rooms(&self) -> Vec<RoomName> {
        let changes = self.sequencer.changes().iter();
        changes
            .filter_map(|change| match change {
                Change::Remove(_, name) => Some(name.clone()),
                _ => None,
            })
            .collect()
    }

    /// How many messages the batch removes.
    pub(super) fn messages_trimmed(&self, rooms: &RoomTable) -> u64 {
        let changes = self.sequencer.changes().iter();
        changes
            .map(|change| match change {
                Change::Trim(id, trimmed) => rooms.get(*id).map_or(0, |slot| {
                    trimmed.first.get().saturating_sub(slot.first.get())
                }),
                Change::Remove(id, _) => rooms.state(*id).map_or(0, |state| state.messages()),
                _ => 0,
            })
            .sum()
    }

    /// Tells the keeper what the batch has changed.
    pub(super) fn note_changes(&self) {
        let changes = self.sequencer.changes();
        let trims = |change: &Change| matches!(change, Change::Trim(..) | Change::Remove(..));
        let new_settings = changes.iter().find_map(|change| match change {
            Change::Store(set) => Some(set.clone()),
            Change::Settings(..) => Some(self.sequencer.settings.clone()),
            _ => None,
        });
        if let Some(settings) = new_settings {
            self.shared.keep.note_settings(settings);
        }
        if changes.iter().any(trims) {
            self.shared.keep.note_trimmed();
        }
    }

    /// The batch was not written: what waited for it did not happen.
    pub(super) fn refuse_asked(&mut self, fault: &WriteFault, detail: &str) {
        self.shared.keep.note_missed();
        for asked in self.asked.iter_mut().filter(|asked| asked.waits) {
            asked.result = Err(refused(fault, detail));
        }
    }

    pub(super) fn tell_asked(&mut self) {
        if !self.sequencer.short.is_empty() {
            self.shared.keep.note_short(self.sequencer.short.drain());
        }
        for Asked {
            tag, to, result, ..
        } in self.asked.drain(..)
        {
            if to.post_quietly(Notice::Answer { tag, result }) {
                self.wake.push(to);
            }
        }
    }

    /// A checkpoint out of turn, so that what lies before it need not be kept.
    pub(super) fn ask_for_checkpoint(&mut self) {
        let (_, begin) = self.last_checkpoint;
        if self.checkpoint.is_none() && !self.writer.has_failed() && self.writer.end() > begin {
            self.checkpoint = Some(Checkpoint::begin(self.writer.end(), &self.sequencer));
        }
    }

    /// Moves a cursor; gives its key when the batch writes it.
    pub(super) fn move_cursor(
        &mut self,
        set: &SetCursor,
        now: Micros,
    ) -> Result<Option<CursorKey>, StoreError> {
        if let Some(reason) = self.shared.read_only() {
            return Err(StoreError::ReadOnly { reason });
        }
        let rooms = read(&self.shared.rooms);
        if set.relaxed && set.to.is_some() && set.expected.is_none() {
            return self.sequencer.relax_cursor(&rooms, set, now).map(|()| None);
        }
        self.sequencer.set_cursor(&rooms, set, now).map(Some)
    }

    /// Whether moves of cursors wait for others.
    pub(super) fn has_relaxed_moves(&self) -> bool {
        !self.sequencer.relaxed.is_empty()
    }

    /// Takes as many of them into the batch as are due.
    pub(super) fn take_relaxed_moves(&mut self) {
        // A change has a batch of its own.
        if self.has_relaxed_moves() && self.sequencer.changes().is_empty() {
            let (now, bytes) = (self.clock.monotonic(), self.writer.end().get());
            let most = self.allowance.take(now, bytes);
            self.relaxed_moves = self
                .sequencer
                .stage_relaxed(most.min(self.batch_bytes_max / RECORD_BYTES_MAX));
        }
        let pending = self.sequencer.relaxed.len();
        self.shared
            .space
            .note_cursors(self.sequencer.cursors.len(), pending);
    }

    /// Writes all of them: the store is about to be closed.
    pub(super) fn write_all_relaxed_moves(&mut self, now: Micros) {
        while self.has_relaxed_moves() && self.shared.read_only().is_none() {
            let most = (self.batch_bytes_max / RECORD_BYTES_MAX).max(1);
            self.relaxed_moves = self.sequencer.stage_relaxed(most);
            self.write_batch(now);
            if self.relaxed_moves.is_empty() {
                // It could not be written.
                return;
            }
            self.relaxed_moves.clear();
        }
    }
}

/// Why a change did not happen.
pub(super) fn refused(fault: &WriteFault, detail: &str) -> StoreError {
    let what = detail.to_owned();
    match fault {
        WriteFault::NoSpace(_) | WriteFault::NoSpaceUnknown(_) => StoreError::NoSpace { what },
        WriteFault::Failed(_) => StoreError::ReadOnly { reason: what },
    }
}

//! Rebuilds the state of a store from its log: rooms, producers, cursors.
//!
//! Replaying the same batch twice changes nothing, so a checkpoint whose parts were written while
//! publishing went on (a *fuzzy* one) plus everything since its beginning gives the state at the
//! end.

use std::collections::VecDeque;
use std::io;

use broker_proto::{
    Epoch, Micros, Position, ProducerId, RoomId, RoomName, RoomSettings, SenderName, Seq,
    StoreSettings,
};

use super::batch::BatchRun;
use super::damage::{DamagePart, KNOWN_MAX, Place};
use super::index::IndexBuilder;
use super::position::LogPosition;
use super::scan::BatchView;
use super::segment::SegmentHeader;
use super::state_record::{
    CheckpointChunk, CheckpointEnd, CursorMoveRecord, CursorRecord, DOUBT_SEQS, DoubtRecord,
    InDoubtRecord, ProducerDropRecord, ProducerRunRecord, RawRecord, RoomRemovedRecord,
    RoomSettingsRecord, RoomStateRecord, RoomTrimRecord, StoreSettingsRecord, chunk_records, kind,
};
use super::storage::StorageFile;
use super::unclaimed::unclaimed;
use super::window::Window;
use crate::planted::{Bug, planted};
use crate::store::{
    CursorKey, Cursors, Doubtful, InDoubt, Parent, ProducerKey, Producers, RoomSlot, RoomTable,
    Run, Stand, Versioned, is_nameless,
};

/// The state so far.
#[derive(Debug, Default)]
pub(crate) struct Replay {
    pub(crate) rooms: RoomTable,
    pub(crate) producers: Producers,
    pub(crate) cursors: Cursors,
    /// What is set of the store.
    pub(crate) settings: Versioned<StoreSettings>,
    /// Who made the room that was told of last.
    maker: Option<SenderName>,
    /// Records and batches that could not be read: rises whenever something is missing.
    damaged: u64,
    /// Where they are; a place may be told more than once.
    pub(crate) places: Vec<Place>,
    /// A record that may not be skipped and is not known.
    pub(crate) unknown: Option<(u16, LogPosition)>,
    /// How many rooms the log made behind the beginning of the checkpoint.
    pub(crate) rooms_made: usize,
    /// Parts of the checkpoint seen so far, none of them missing.
    pub(crate) chunks: u64,
    /// Batches whose last state record is one of them, in the order of the log, with its length: it need not be read again.
    parts: VecDeque<(LogPosition, u32)>,
    /// Bytes of these parts.
    pub(crate) checkpoint_bytes: u64,
    /// All parts of the checkpoint were seen.
    pub(crate) checkpoint_is_whole: bool,
    /// Damage ends here, and which rooms it hit is not known.
    pub(crate) doubt: Option<LogPosition>,
    /// Messages that are there, while nobody knows which numbers they are.
    pub(crate) in_doubt: InDoubt,
    /// Where the checkpoint that was taken over begins: it knows whose the numbers before are.
    pub(crate) told_upto: LogPosition,
}

/// What to take from a batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Pass {
    /// Only the parts of the checkpoint that begins here.
    Checkpoint(LogPosition),
    /// Everything else.
    Everything,
}

impl Replay {
    /// Takes one batch. `index` is told of its messages.
    ///
    /// # Errors
    /// Those of the disk.
    pub(crate) fn batch<F: StorageFile>(
        &mut self,
        view: &BatchView,
        window: &mut Window<F>,
        pass: Pass,
        mut index: Option<&mut IndexBuilder>,
    ) -> io::Result<()> {
        let runs = view.runs();
        let damaged = self.damaged;
        if let Some(run) = runs.first().filter(|run| run.room.is_none()) {
            self.state_records(view, run, window, pass, index.as_deref_mut())?;
        }
        if pass == Pass::Everything {
            let may_miss_state = view.damaged || self.damaged > damaged;
            if may_miss_state && view.head.position >= self.told_upto {
                unclaimed(view, &runs, window, |message, time| {
                    self.in_doubt.add(message, time, false);
                })?;
            }
            self.messages(view, &runs, window.header(), index);
        }
        Ok(())
    }

    /// Notes a damaged place.
    pub(crate) fn damage(&mut self, place: Place) {
        self.damaged += 1;
        if self.places.len() < KNOWN_MAX {
            self.places.push(place);
        }
    }

    fn messages(
        &mut self,
        view: &BatchView,
        runs: &[BatchRun],
        header: &SegmentHeader,
        mut index: Option<&mut IndexBuilder>,
    ) {
        let at = view.head.position;
        let time = Micros::new(view.head.time);
        for run in runs.iter().filter(|run| !run.room.is_none()) {
            if self.know_room(run.room) {
                let from = at.plus(u64::from(run.offset));
                let upto = from.plus(u64::from(run.bytes));
                let place = Place::new(header, from, upto, DamagePart::RoomName);
                self.damage(place.of_message(run.room, run.first_seq));
            }
            let Some(slot) = self.rooms.get_mut(run.room) else {
                continue;
            };
            if let Some(index) = &mut index {
                index.messages(run, at, time);
            }
            if run.last_seq() > slot.head {
                slot.head = run.last_seq();
                slot.last_at = at.get();
                slot.bytes += u64::from(run.bytes);
            }
            slot.last_time = slot.last_time.max(time);
        }
    }

    /// Keeps the number of a room whose name was in a part that is lost; says whether that was so.
    fn know_room(&mut self, id: RoomId) -> bool {
        let is_lost = self.rooms.get(id).is_none() && !self.rooms.is_removed(id);
        if is_lost {
            tracing::error!(room = %id, "what named a room is damaged; its messages are kept without a name");
            self.damaged += 1;
            self.rooms.add_nameless(id);
        }
        is_lost
    }

    /// To be called at the end: a producer whose messages are in a room that is lost still gets its
    /// answers. (A checkpoint may tell of a producer's run before the log tells of its room.)
    pub(crate) fn know_rooms_of_producers(&mut self) {
        let runs = self
            .producers
            .iter()
            .flat_map(|(_, producer)| &producer.runs);
        if let Some(last) = runs.map(|run| run.room).max().filter(|id| !id.is_none()) {
            self.know_room(last);
        }
    }

    fn state_records<F: StorageFile>(
        &mut self,
        view: &BatchView,
        run: &BatchRun,
        window: &mut Window<F>,
        pass: Pass,
        index: Option<&mut IndexBuilder>,
    ) -> io::Result<()> {
        let position = view.head.position;
        let at = position.plus(u64::from(run.offset));
        let mut lengths = view.lengths(run);
        let mut wanted = run.bytes;
        if pass == Pass::Everything
            && let Some(known) = lengths.pop_if(|last| self.knows_part(position, *last))
        {
            wanted = wanted.saturating_sub(known);
        }
        let bytes = window.up_to(at, wanted as usize)?;
        if let Some(index) = index {
            index.state_records(&bytes, position);
        }
        let (mut offset, mut ends_in_part) = (0, false);
        for length in lengths.iter().copied() {
            let chunks = self.chunks;
            let record = bytes
                .get(offset..offset + length as usize)
                .and_then(|bytes| RawRecord::parse_state(bytes, position));
            let from = at.plus(offset as u64);
            offset += length as usize;
            let is_good = record.is_some_and(|record| {
                self.state_record(record.head.kind, record.payload(), position, pass)
            });
            // Counted once: every part is passed over by this pass.
            if !is_good && pass == Pass::Everything {
                let upto = from.plus(u64::from(length));
                let place = Place::new(window.header(), from, upto, DamagePart::Record);
                self.damage(place);
            }
            ends_in_part = self.chunks > chunks;
        }
        let part = lengths.last().filter(|_| ends_in_part);
        self.parts.extend(part.map(|length| (position, *length)));
        Ok(())
    }

    /// Whether the last state record of a batch is a part of the checkpoint that was taken over already.
    fn knows_part(&mut self, batch: LogPosition, length: u32) -> bool {
        while self.parts.front().is_some_and(|(at, _)| *at < batch) {
            self.parts.pop_front();
        }
        self.parts
            .pop_front_if(|part| *part == (batch, length))
            .is_some()
    }

    /// Says whether the record makes sense.
    fn state_record(&mut self, kind: u16, payload: &[u8], at: LogPosition, pass: Pass) -> bool {
        if let Pass::Checkpoint(begin) = pass {
            self.checkpoint_record(kind, payload, at, begin);
            return true;
        }
        let rooms = self.rooms.numbers();
        // A checkpoint that is not the last one says nothing new.
        let is_good = kind == kind::CHECKPOINT_CHUNK || self.apply(kind, payload, at);
        self.rooms_made += self.rooms.numbers() - rooms;
        is_good
    }

    fn checkpoint_record(
        &mut self,
        kind: u16,
        payload: &[u8],
        at: LogPosition,
        begin: LogPosition,
    ) {
        if kind == kind::CHECKPOINT_CHUNK
            && let Ok(chunk) = postcard::from_bytes::<CheckpointChunk<'_>>(payload)
            && chunk.begin == begin.get()
        {
            self.chunks += u64::from(u64::from(chunk.number) == self.chunks);
            self.checkpoint_bytes += payload.len() as u64;
            for (kind, payload) in chunk_records(chunk.records) {
                self.apply(kind, payload, at);
            }
        } else if kind == kind::CHECKPOINT_END
            && let Ok(end) = postcard::from_bytes::<CheckpointEnd>(payload)
            && end.begin == begin.get()
        {
            self.checkpoint_is_whole = u64::from(end.chunks) == self.chunks;
        }
    }

    /// Says whether the record makes sense.
    fn apply(&mut self, kind: u16, payload: &[u8], at: LogPosition) -> bool {
        match kind {
            kind::ROOM | kind::ROOM_STATE => {
                RoomStateRecord::parse(kind, payload).is_some_and(|record| self.room(&record))
            }
            kind::ROOM_SETTINGS => {
                postcard::from_bytes(payload).is_ok_and(|record| self.room_settings(&record))
            }
            kind::ROOM_TRIM => postcard::from_bytes(payload)
                .map(|record| self.trim(&record))
                .is_ok(),
            kind::ROOM_REMOVED => postcard::from_bytes(payload)
                .map(|record| self.remove(&record))
                .is_ok(),
            kind::STORE_SETTINGS => {
                postcard::from_bytes(payload).is_ok_and(|record| self.store_settings(&record))
            }
            kind::PRODUCER_RUN => {
                postcard::from_bytes(payload).is_ok_and(|record| self.producer_run(&record))
            }
            kind::PRODUCER_DROP => postcard::from_bytes(payload)
                .map(|record| self.producer_drop(&record))
                .is_ok(),
            kind::CURSOR => postcard::from_bytes::<CursorRecord<'_>>(payload)
                .map(|record| {
                    self.cursor(&CursorMoveRecord {
                        room: record.room,
                        name: record.name,
                        present: record.present,
                        epoch: record.epoch,
                        seq: record.seq,
                        moved: 0,
                    });
                })
                .is_ok(),
            kind::CURSOR_MOVE => postcard::from_bytes(payload)
                .map(|record| self.cursor(&record))
                .is_ok(),
            kind::DOUBT => postcard::from_bytes::<DoubtRecord>(payload)
                .map(|record| self.raise(LogPosition::new(record.upto)))
                .is_ok(),
            kind::IN_DOUBT => postcard::from_bytes(payload)
                .map(|record| self.in_doubt(&record))
                .is_ok(),
            kind::CHECKPOINT_END => postcard::from_bytes::<CheckpointEnd>(payload).is_ok(),
            other if other & kind::CRITICAL != 0 => {
                self.unknown.get_or_insert((other, at));
                true
            }
            _ => true,
        }
    }

    fn room(&mut self, record: &RoomStateRecord<'_>) -> bool {
        let id = RoomId::new(record.room);
        if record.epoch == 0 {
            // None is drawn like this.
            return false;
        }
        if self.rooms.is_removed(id) {
            // What was written before it was removed, behind the beginning of a checkpoint that knows more.
            return true;
        }
        if self.rooms.next_id(0) < Some(id)
            && let Some(before) = record.room.checked_sub(1)
        {
            self.know_room(RoomId::new(before));
        }
        let is_known = self.rooms.get(id).is_some();
        // Most records tell of a room as it is known; looking for its name would be most of the work.
        if !(is_known && self.rooms.name(id) == record.name) {
            if RoomName::check_reserved(record.name).is_err() {
                return false;
            }
            match is_known {
                false => self.new_room(id, record),
                // A room that has a name keeps it, whatever a record claims.
                true if is_nameless(self.rooms.name(id)) => {
                    self.free_name(id, record.name);
                    let epoch = Epoch::new(record.epoch);
                    self.rooms.give_name(id, record.name, epoch);
                }
                true => {}
            }
        }
        if record.parent_epoch != 0 {
            let parent = Parent {
                epoch: Epoch::new(record.parent_epoch),
                fork: Seq::new(record.fork),
            };
            self.rooms.set_parent(id, parent);
        }
        if let Some(slot) = self.rooms.get_mut(id) {
            // The newest record says which epoch it is now.
            slot.epoch = Epoch::new(record.epoch);
            // A record tells of the room as it was then, and a room only grows.
            if record.head > slot.head.get() {
                slot.head = Seq::new(record.head);
                slot.last_at = record.last_at;
                slot.bytes = record.bytes;
            } else if record.head == slot.head.get() && record.first > slot.first.get() {
                slot.bytes = record.bytes;
            }
            slot.first = slot.first.max(Seq::new(record.first));
            slot.last_time = slot.last_time.max(Micros::new(record.last_time));
        }
        true
    }

    fn new_room(&mut self, id: RoomId, record: &RoomStateRecord<'_>) {
        let slot = RoomSlot {
            first: Seq::new(record.first),
            head: Seq::new(record.head),
            last_time: Micros::new(record.last_time),
            last_at: record.last_at,
            bytes: record.bytes,
            created: Micros::new(record.created),
            ..RoomSlot::new(Epoch::new(record.epoch))
        };
        self.know_maker(record.created_by);
        let is_new = |state: &mut Self| {
            let maker = state.maker.as_ref();
            state.rooms.insert(id, record.name, maker, slot.clone())
        };
        if is_new(self) {
            return;
        }
        self.free_name(id, record.name);
        if !is_new(self) {
            // Another room has taken the name meanwhile.
            self.know_room(id);
        }
    }

    /// A name that a room with a higher number has was given up by the one with the lower: that one was removed, and the record
    /// that says so lies further on.
    fn free_name(&mut self, id: RoomId, name: &str) {
        if let Some(holder) = self.rooms.id(name).filter(|holder| *holder < id) {
            self.forget_room(holder);
        }
    }

    /// Who made a room: mostly the same as the one before it.
    fn know_maker(&mut self, name: &str) {
        if self.maker.as_ref().is_none_or(|last| last.as_str() != name) {
            self.maker = SenderName::parse(name).ok();
        }
    }

    fn forget_room(&mut self, id: RoomId) {
        self.rooms.remove(id);
        self.cursors.forget_room(id);
    }

    fn remove(&mut self, record: &RoomRemovedRecord) {
        let id = RoomId::new(record.room);
        if !self.rooms.insert_removed(id) {
            self.forget_room(id);
        }
    }

    fn room_settings(&mut self, record: &RoomSettingsRecord<'_>) -> bool {
        let settings = RoomSettings::decode(record.list).map(|settings| Versioned {
            version: record.version,
            settings,
        });
        settings
            .map(|settings| {
                self.rooms.set_settings(RoomId::new(record.room), settings);
            })
            .is_ok()
    }

    fn store_settings(&mut self, record: &StoreSettingsRecord<'_>) -> bool {
        let settings = StoreSettings::decode(record.list);
        if let Ok(settings) = settings
            && record.version > self.settings.version
        {
            self.settings = Versioned {
                version: record.version,
                settings,
            };
        }
        settings.is_ok()
    }

    fn producer_run(&mut self, record: &ProducerRunRecord<'_>) -> bool {
        let Ok(sender) = SenderName::parse(record.sender) else {
            return false;
        };
        let key = ProducerKey {
            sender,
            producer: ProducerId::new(record.producer),
        };
        if record.begins {
            self.producers.remove(&key);
        }
        let producer = self.producers.entry(&key);
        producer.claimed = record.claimed;
        producer.used = producer.used.max(Micros::new(record.used));
        if record.count > 0 {
            producer.push(Run {
                first: record.first_number,
                count: record.count,
                room: RoomId::new(record.room),
                seq: Seq::new(record.first_seq),
            });
            producer.prune();
        }
        true
    }

    fn producer_drop(&mut self, record: &ProducerDropRecord<'_>) {
        if let Ok(sender) = SenderName::parse(record.sender) {
            self.producers.remove(&ProducerKey {
                sender,
                producer: ProducerId::new(record.producer),
            });
        }
    }

    fn cursor(&mut self, record: &CursorMoveRecord<'_>) {
        let key = CursorKey {
            room: RoomId::new(record.room),
            name: record.name.to_owned(),
        };
        let stand = record.present.then(|| Stand {
            at: Position::new(Epoch::new(record.epoch), Seq::new(record.seq)),
            moved: Micros::new(record.moved),
        });
        // A room that was removed since has no cursors.
        if !self.rooms.is_removed(key.room) {
            self.cursors.set(key, stand);
        }
    }

    fn in_doubt(&mut self, record: &InDoubtRecord<'_>) {
        let room = RoomId::new(record.room);
        let sender = SenderName::parse(record.sender).ok();
        for message in &record.messages {
            let time = Micros::new(message.time);
            match &sender {
                Some(sender) if !room.is_none() => {
                    let doubtful = Doubtful {
                        crc: message.crc,
                        length: message.length,
                        sender: sender.clone(),
                        room,
                        seq: Seq::new(message.seq),
                    };
                    self.in_doubt.add(doubtful, time, true);
                }
                _ => self.in_doubt.add_more(time, true),
            }
        }
    }

    fn trim(&mut self, record: &RoomTrimRecord) {
        if let Some(slot) = self.rooms.get_mut(RoomId::new(record.room))
            && record.first > slot.first.get()
        {
            slot.first = Seq::new(record.first);
            slot.bytes = record.bytes;
        }
    }

    /// Notes that part of the log before `upto` cannot be read at all.
    pub(crate) fn doubt(&mut self, upto: LogPosition) {
        self.doubt = self.doubt.max(Some(upto));
    }

    /// Sends every room on to higher seqs that has nothing behind `upto`: whatever was lost there
    /// may have been its newest messages, and no seq is ever given twice.
    pub(crate) fn raise(&mut self, upto: LogPosition) {
        if planted(Bug::SeqReusedAfterLoss) {
            return;
        }
        for slot in self.rooms.slots_mut() {
            if slot.last_at < upto.get() {
                slot.head = Seq::new(slot.head.get() + DOUBT_SEQS);
                slot.last_at = upto.get();
            }
        }
    }
}

//! A store on a simulated disk, or on a real one, with a writer that is driven by hand and readers that read to the end.

use std::sync::Arc;
use std::time::Duration;

use broker_core::clock::ManualClock;
use broker_core::log::RecoveryError;
use broker_core::log::storage::Storage;
use broker_core::store::{
    Answer, Append, Ask, ChangeRoom, EmbeddedConfig, EmbeddedStore, Engine, Hint, Mailbox, Notice,
    ReadRange, ReadReply, RemoveRoom, SessionId, SetCursor, Store, StoreError, TrimRoom,
};
use broker_proto::record::{encode_message_head, next_record};
use broker_proto::{
    Epoch, Micros, Position, RoomChange, Seq, SkipReason, StartAt, StoreId, publish,
};
use bytes::BytesMut;

use crate::campaign::{Broken, Harm};
use crate::disk::SimDisk;
use crate::oracle::{Ledger, MessageId, Verdict, broken, producer_key, room_name, room_of};
use crate::rng::Rng;

/// Small limits, so that a few messages fill segments and make checkpoints due.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// See [`EmbeddedConfig::segment_bytes_min`].
    pub segment_bytes_min: u64,
    /// See [`EmbeddedConfig::segment_bytes_max`].
    pub segment_bytes_max: u64,
    /// See [`EmbeddedConfig::checkpoint_bytes_min`].
    pub checkpoint_bytes_min: u64,
    /// See [`EmbeddedConfig::batch_bytes_max`].
    pub batch_bytes_max: usize,
    /// See [`EmbeddedConfig::tail_bytes_max`]. With 0, readers ask the disk for all but the newest batch.
    pub tail_bytes_max: usize,
}

impl Limits {
    /// Every few kilobytes something happens.
    #[must_use]
    pub fn draw(rng: &mut Rng) -> Self {
        let pick = |rng: &mut Rng, from: &[u64]| rng.pick(from).copied().unwrap_or(1 << 16);
        let segment_bytes_min = pick(rng, &[12 << 10, 16 << 10, 32 << 10]);
        Self {
            segment_bytes_min,
            segment_bytes_max: segment_bytes_min * pick(rng, &[1, 2, 8]),
            checkpoint_bytes_min: pick(rng, &[4 << 10, 16 << 10, 64 << 10, 1 << 30]),
            batch_bytes_max: usize::try_from(pick(rng, &[1 << 10, 16 << 10, 4 << 20]))
                .unwrap_or(1 << 20),
            tail_bytes_max: usize::from(rng.coin()) << 23,
        }
    }
}

/// What a reader was shown: messages and skips, by seq.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Shown {
    /// Seq, and who sent it.
    pub messages: Vec<(u64, MessageId)>,
    /// Ranges that are told to be damaged, both ends included.
    pub skips: Vec<(u64, u64)>,
    /// The room's newest seq.
    pub head: u64,
}

/// See the module's documentation.
pub struct Rig<S: Storage = SimDisk> {
    /// What it lies on.
    pub disk: Arc<S>,
    /// The store.
    pub store: Arc<EmbeddedStore<S>>,
    /// Its writer.
    pub engine: Engine<S>,
    mailbox: Arc<Mailbox>,
    clock: ManualClock,
    moves: Vec<(u16, u8)>,
    asked: Vec<Asked>,
}

/// What a rig has asked the store to do with a room.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Asked {
    Trim(u16),
    Keep,
    Remove(u16),
}

impl<S: Storage> std::fmt::Debug for Rig<S> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Rig").finish_non_exhaustive()
    }
}

/// Which store all simulations are about.
#[must_use]
pub fn store_id() -> StoreId {
    StoreId::new([9; 16])
}

/// How such a store is set up, with its own time.
#[must_use]
pub fn config(limits: Limits, random: Rng, clock: &ManualClock) -> EmbeddedConfig {
    let mut config = EmbeddedConfig::new(store_id());
    config.segment_bytes_min = limits.segment_bytes_min;
    config.segment_bytes_max = limits.segment_bytes_max;
    config.checkpoint_bytes_min = limits.checkpoint_bytes_min;
    config.batch_bytes_max = limits.batch_bytes_max;
    config.tail_bytes_max = limits.tail_bytes_max;
    config.clock = Arc::new(clock.clone());
    config.random = Box::new(random);
    config
}

/// When every simulated leader starts.
#[must_use]
pub fn start_of_time() -> ManualClock {
    ManualClock::new(Micros::new(1_700_000_000_000_000))
}

impl Rig {
    /// Starts a leader.
    ///
    /// # Errors
    /// As the store's: nothing is wrong with the store when the disk has a fault.
    pub fn open(disk: &SimDisk, limits: Limits, rng: &mut Rng) -> Result<Self, RecoveryError> {
        Self::open_on(Arc::new(disk.clone()), limits, rng)
    }
}

impl<S: Storage> Rig<S> {
    /// Starts a leader on any disk.
    ///
    /// # Errors
    /// As the store's: nothing is wrong with the store when the disk has a fault.
    pub fn open_on(disk: Arc<S>, limits: Limits, rng: &mut Rng) -> Result<Self, RecoveryError> {
        let clock = start_of_time();
        let config = config(limits, rng.fork(), &clock);
        let (store, engine) =
            EmbeddedStore::open_manual(Arc::clone(&disk), config, &mut |_, _| {})?;
        Ok(Self {
            disk,
            store,
            engine,
            mailbox: Mailbox::new(),
            clock,
            moves: Vec::new(),
            asked: Vec::new(),
        })
    }

    /// Sends consecutive numbers of one producer, which the ledger knows, for the first time or over the same connection.
    ///
    /// # Errors
    /// When the ledger does not know them.
    pub fn send(&self, ledger: &Ledger, first: MessageId, count: u32) -> Verdict {
        self.publish(ledger, first, count, false)
    }

    /// Sends them again, and says so, as clients do over another connection.
    ///
    /// # Errors
    /// When the ledger does not know them.
    pub fn send_again(&self, ledger: &Ledger, first: MessageId, count: u32) -> Verdict {
        self.publish(ledger, first, count, true)
    }

    fn publish(&self, ledger: &Ledger, first: MessageId, count: u32, resend: bool) -> Verdict {
        let append = append_of(ledger, first, count, resend)?;
        let queued = self.store.append(append, &self.mailbox);
        queued.map_err(|_| "the queue is full".into())
    }

    /// Asks for a cursor to be moved.
    ///
    /// # Errors
    /// Never, unless the rules for names change.
    pub fn move_cursor(&mut self, key: (u16, u8), to: Option<Position>) -> Verdict {
        let set = SetCursor {
            room: room_name(key.0)?,
            name: format!("cursor-{}", key.1),
            to,
            expected: None,
            relaxed: false,
        };
        let tag = self.tag(key);
        self.store.set_cursor(set, tag, &self.mailbox);
        Ok(())
    }

    /// Asks where a cursor stands.
    ///
    /// # Errors
    /// Never, unless the rules for names change.
    pub fn ask_cursor(&mut self, key: (u16, u8)) -> Verdict {
        let (room, name) = (room_name(key.0)?, format!("cursor-{}", key.1));
        let tag = self.tag(key);
        self.store.cursor(&room, &name, tag, &self.mailbox);
        Ok(())
    }

    /// Asks for a room to be trimmed.
    ///
    /// # Errors
    /// Never, unless the rules for names change.
    pub fn trim(&mut self, room: u16, before: u64) -> Verdict {
        let trim = TrimRoom {
            room: room_name(room)?,
            epoch: Epoch::NONE,
            before: Seq::new(before),
        };
        self.ask(Ask::Trim(trim), Asked::Trim(room));
        Ok(())
    }

    /// Asks for a room to keep so many messages from now on.
    ///
    /// # Errors
    /// Never, unless the rules for names change.
    pub fn keep_count(&mut self, room: u16, count: Option<u64>) -> Verdict {
        let change = ChangeRoom {
            room: room_name(room)?,
            expected: None,
            change: RoomChange {
                keep_count: Some(count),
                ..RoomChange::default()
            },
        };
        self.ask(Ask::ChangeRoom(change), Asked::Keep);
        Ok(())
    }

    /// Asks for a room to be removed.
    ///
    /// # Errors
    /// Never, unless the rules for names change.
    pub fn remove(&mut self, room: u16) -> Verdict {
        let remove = RemoveRoom {
            room: room_name(room)?,
            epoch: Epoch::NONE,
        };
        self.ask(Ask::Remove(remove), Asked::Remove(room));
        Ok(())
    }

    fn ask(&mut self, ask: Ask, asked: Asked) {
        self.asked.push(asked);
        let tag = self.asked.len() as u64 - 1;
        self.store.ask(ask, tag, &self.mailbox);
    }

    /// Lets the store see what is not to be kept any more, and do a little about it.
    pub fn keep(&mut self, times: u64) {
        self.clock.advance(Duration::from_secs(2));
        for _ in 0..times {
            if !self.engine.keep() && !self.engine.step() {
                return;
            }
        }
    }

    fn tag(&mut self, key: (u16, u8)) -> u64 {
        self.moves.push(key);
        self.moves.len() as u64 - 1
    }

    /// Lets the writer take one step, at a later time than the one before.
    pub fn step(&mut self) -> bool {
        self.clock.advance(Duration::from_millis(7));
        self.engine.step()
    }

    /// Lets the writer do all that is queued.
    pub fn work(&mut self) {
        while self.step() {}
    }

    /// Hands all answers to the ledger.
    ///
    /// # Errors
    /// Those of the ledger.
    pub fn answers(&self, ledger: &mut Ledger) -> Verdict {
        let info = self.store.info();
        if info.batches > 0 {
            // A leader that wrote nothing leaves no trace, and its term may be used again.
            ledger.term = info.term.get();
        }
        let mut notices = Vec::new();
        self.mailbox.drain(&mut notices);
        for notice in &notices {
            ledger.hear(notice)?;
            if let Notice::Cursor { tag, result } = notice {
                let key = usize::try_from(*tag)
                    .ok()
                    .and_then(|tag| self.moves.get(tag))
                    .ok_or("an answer to a question that nobody asked")?;
                ledger.cursor(*key, result)?;
            }
            if let Notice::Answer { tag, result } = notice {
                let asked = usize::try_from(*tag)
                    .ok()
                    .and_then(|tag| self.asked.get(tag))
                    .ok_or("an answer to something that nobody asked for")?;
                match (asked, result) {
                    (Asked::Trim(room), Ok(Answer::Room(state))) => {
                        ledger.trimmed(*room, state.info.first.get())?;
                    }
                    (Asked::Remove(room), Ok(_)) => ledger.is_removed(*room),
                    _ => {}
                }
            }
        }
        Ok(())
    }

    /// Reads a room from a seq to its end, in pages of at most so many bytes, and compares every byte with what was sent. `None`
    /// when there is no such room.
    ///
    /// # Errors
    /// When something wrong was served, or nothing at all.
    pub fn read(
        &self,
        ledger: &mut Ledger,
        room: u16,
        from: u64,
        bytes_max: u32,
    ) -> Verdict<Option<Shown>> {
        let mut shown = Shown::default();
        let mut from = from;
        let mut hint = Hint::default();
        loop {
            let Some(reply) = self.page(ledger.lied_to, room, from, bytes_max, hint)? else {
                return Ok(None);
            };
            ledger.epoch(room, reply.epoch)?;
            if let Some(skip) = reply.skip {
                let is_known = [SkipReason::DAMAGED, SkipReason::TRIMMED].contains(&skip.reason);
                if !is_known || skip.from.get() != from {
                    let what = format!("room {room} skips {skip:?} at seq {from}");
                    return broken(Harm::SilentCorruption, what);
                }
                if skip.reason == SkipReason::TRIMMED {
                    ledger.trimmed(room, skip.to.get() + 1)?;
                } else {
                    shown.skips.push((skip.from.get(), skip.to.get()));
                }
                from = skip.to.get() + 1;
            }
            for piece in &reply.records {
                look_at(piece, ledger, room, &mut from, &mut shown)?;
            }
            if reply.next.get() != from {
                let what = format!(
                    "room {room} says that {} is next and it is {from}",
                    reply.next
                );
                return broken(Harm::SilentCorruption, what);
            }
            shown.head = reply.head.get();
            if from > shown.head {
                return Ok(Some(shown));
            }
            if reply.count == 0 && reply.skip.is_none() {
                return Err(format!("room {room} makes no progress at seq {from}").into());
            }
            hint = reply.hint;
        }
    }

    /// One page from a seq on.
    fn page(
        &self,
        lied_to: bool,
        room: u16,
        from: u64,
        bytes_max: u32,
        hint: Hint,
    ) -> Verdict<Option<ReadReply>> {
        let range = ReadRange {
            room: room_name(room)?,
            from: StartAt::seq(Seq::new(from)),
            count_max: u32::MAX,
            bytes_max,
            hint,
        };
        match self.store.read(range, 0, &self.mailbox) {
            None => Err("a store driven by hand kept a reader waiting".into()),
            Some(Err(StoreError::NoSuchRoom { .. })) => Ok(None),
            // The last write never came although the disk said so: the reader is told that it knows more than the store.
            Some(Err(StoreError::BadPosition { .. })) if lied_to => Ok(None),
            Some(Err(error)) => {
                Err(format!("room {room} cannot be read from seq {from}: {error}").into())
            }
            Some(Ok(reply)) => Ok(Some(reply)),
        }
    }

    /// All rooms, with their epochs.
    ///
    /// # Errors
    /// When the list does not come.
    pub fn rooms(&self) -> Verdict<Vec<(u16, Epoch)>> {
        let mailbox = Mailbox::new();
        self.store.rooms("", 1000, 0, &mailbox);
        let mut notices = Vec::new();
        mailbox.drain(&mut notices);
        match notices.pop() {
            Some(Notice::Rooms {
                result: Ok(page), ..
            }) if !page.more => page
                .rooms
                .iter()
                // Messages whose room's name is lost; nobody can ask for them by name.
                .filter(|room| !room.name.is_reserved())
                .map(|room| {
                    let number = room_of(room.name.as_str());
                    number.map(|number| (number, room.epoch)).ok_or_else(|| {
                        let what = format!("room {} was never asked for", room.name);
                        Broken::new(Harm::Phantom, what)
                    })
                })
                .collect(),
            other => Err(format!("the rooms cannot be listed: {other:?}").into()),
        }
    }

    /// Says that a producer will never resend anything.
    ///
    /// # Errors
    /// Never, unless the rules for names change.
    pub fn forget(&self, producer: u16) -> Verdict {
        self.store
            .release(&producer_key(producer)?, SessionId(0), true);
        Ok(())
    }

    /// Says that a session refused a number itself.
    ///
    /// # Errors
    /// Never, unless the rules for names change.
    pub fn hole(&self, id: MessageId) -> Verdict {
        self.store
            .hole(&producer_key(id.producer)?, SessionId(0), id.number, 1);
        Ok(())
    }
}

/// Consecutive numbers of one producer, which the ledger knows, as a session hands them in.
///
/// # Errors
/// When the ledger does not know them.
pub fn append_of(ledger: &Ledger, first: MessageId, count: u32, resend: bool) -> Verdict<Append> {
    let mut entries = BytesMut::new();
    let mut room = 0;
    for n in 0..u64::from(count) {
        let id = MessageId {
            number: first.number + n,
            ..first
        };
        let sent = ledger
            .sent
            .get(&id)
            .ok_or_else(|| format!("{id:?} is not in the ledger"))?;
        room = sent.room;
        let crc = crc32c::crc32c(&sent.payload);
        publish::encode_entry(&mut entries, &sent.payload, &id.extensions(), crc);
    }
    let key = producer_key(first.producer)?;
    let mut head = Vec::new();
    encode_message_head(&mut head, &key.sender, 0, &[]);
    Ok(Append {
        session: SessionId(0),
        key,
        claimed: true,
        room: room_name(room)?,
        first_number: first.number,
        count,
        head: head.into(),
        entries: entries.freeze(),
        expected_head: None,
        resend,
    })
}

/// Compares records with what was sent.
fn look_at(
    records: &[u8],
    ledger: &mut Ledger,
    room: u16,
    from: &mut u64,
    shown: &mut Shown,
) -> Verdict {
    let mut rest = records;
    let wrong = |what: String| Broken::new(Harm::SilentCorruption, what);
    while let Some((record, after)) =
        next_record(rest).map_err(|error| wrong(format!("room {room}: {error}")))?
    {
        record
            .verify_payload()
            .map_err(|error| wrong(format!("room {room} serves damage: {error}")))?;
        let message = record.message().map_err(|error| wrong(error.to_string()))?;
        let seq = message.seq.get();
        let id = MessageId::parse(message.extensions)
            .ok_or_else(|| wrong(format!("seq {seq} of room {room} has no identity")))?;
        ledger.show(room, seq, id)?;
        if ledger.sent.get(&id).map(|sent| sent.payload.as_ref()) != Some(message.payload) {
            return Err(wrong(format!(
                "seq {seq} of room {room} does not have the bytes of {id:?}"
            )));
        }
        if seq != *from {
            return Err(wrong(format!(
                "room {room} shows seq {seq} in place of {from}"
            )));
        }
        shown.messages.push((seq, id));
        *from += 1;
        rest = after;
    }
    Ok(())
}

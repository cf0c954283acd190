//! A store that is driven by hand, and what is asked of it beside messages.

use std::sync::Arc;
use std::time::Duration;

use broker_core::clock::{ManualClock, SeededRandom};
use broker_core::log::storage::{MemoryStorage, Storage, StorageFile};
use broker_core::store::{
    Answer, Ask, ChangeRoom, ChangeStore, EmbeddedConfig, EmbeddedStore, Engine, Hint, MemoryStore,
    Notice, ReadRange, ReadReply, RemoveRoom, RoomState, Store, StoreError, TrimRoom,
};
use broker_proto::{
    Epoch, ErrorCode, Micros, RoomChange, RoomName, Seq, StartAt, StoreChange, StoreId,
};

use crate::talk::Talker;

/// A store, with what drives it if it lies on a disk.
pub(crate) struct Scene {
    pub(crate) disk: MemoryStorage,
    pub(crate) clock: ManualClock,
    pub(crate) store: Arc<dyn Store>,
    engine: Option<Engine<MemoryStorage>>,
    opened: u64,
    pub(crate) talker: Talker,
    /// Small ones, so that much happens.
    pub(crate) segment_bytes: u64,
    /// When a checkpoint is due by itself.
    pub(crate) checkpoint_bytes: u64,
}

impl Scene {
    pub(crate) fn on_disk() -> Self {
        let mut scene = Self::in_memory();
        scene.reopen();
        scene
    }

    pub(crate) fn in_memory() -> Self {
        let clock = ManualClock::new(Micros::new(1_000_000_000));
        let random = Box::new(SeededRandom::new(1));
        Self {
            disk: MemoryStorage::new(),
            store: MemoryStore::new(1 << 20, Arc::new(clock.clone()), random),
            engine: None,
            clock,
            opened: 0,
            talker: Talker::new("ann", 1),
            segment_bytes: 16 << 10,
            checkpoint_bytes: 8 << 10,
        }
    }

    pub(crate) fn both() -> [Self; 2] {
        [Self::in_memory(), Self::on_disk()]
    }

    /// A new leader, after the one before was killed.
    pub(crate) fn reopen(&mut self) {
        self.engine = None;
        self.opened += 1;
        let mut config = EmbeddedConfig::new(StoreId::new([1; 16]));
        config.clock = Arc::new(self.clock.clone());
        config.random = Box::new(SeededRandom::new(self.opened));
        config.checkpoint_bytes_min = self.checkpoint_bytes;
        config.segment_bytes_min = self.segment_bytes;
        config.segment_bytes_max = self.segment_bytes * 4;
        config.tail_bytes_max = 0;
        let disk = Arc::new(self.disk.clone());
        let (store, engine) = EmbeddedStore::open_manual(disk, config, &mut |_, _| {}).unwrap();
        self.store = store;
        self.engine = Some(engine);
    }

    /// Restarts it if it lies on a disk, in order or not.
    pub(crate) fn restart(&mut self, in_order: bool) {
        if let Some(engine) = &mut self.engine {
            if in_order {
                engine.close();
            }
            self.reopen();
        }
    }

    pub(crate) fn work(&mut self) {
        if let Some(engine) = &mut self.engine {
            loop {
                while engine.step() {}
                engine.keep_house();
                if !engine.keep() && !engine.step() {
                    break;
                }
            }
        }
    }

    /// As time passes, so that everything is looked at again.
    pub(crate) fn look(&mut self) {
        self.clock.advance(Duration::from_secs(2));
        self.work();
    }

    pub(crate) fn send(&mut self, room: &str, payloads: &[&[u8]]) {
        self.talker.send(&*self.store, room, payloads);
        self.work();
    }

    pub(crate) fn ask(&mut self, ask: Ask) -> Result<Answer, StoreError> {
        let mailbox = broker_core::store::Mailbox::new();
        self.store.ask(ask, 7, &mailbox);
        self.work();
        let mut notices = Vec::new();
        mailbox.drain(&mut notices);
        match notices.pop() {
            Some(Notice::Answer { tag: 7, result }) if notices.is_empty() => result,
            other => panic!("{other:?}, {notices:?}"),
        }
    }

    pub(crate) fn room(&mut self, room: &str) -> RoomState {
        match self.ask(Ask::Room(name(room))).unwrap() {
            Answer::Room(state) => *state,
            other => panic!("{other:?}"),
        }
    }

    pub(crate) fn change(&mut self, room: &str, change: RoomChange) -> RoomState {
        let change = ChangeRoom {
            room: name(room),
            expected: None,
            change,
        };
        match self.ask(Ask::ChangeRoom(change)).unwrap() {
            Answer::Room(state) => *state,
            other => panic!("{other:?}"),
        }
    }

    pub(crate) fn change_store(&mut self, change: StoreChange) {
        let change = ChangeStore {
            expected: None,
            change,
        };
        assert!(matches!(
            self.ask(Ask::ChangeStore(change)),
            Ok(Answer::Store(_))
        ));
    }

    pub(crate) fn trim(&mut self, room: &str, before: u64) -> Result<Answer, StoreError> {
        self.ask(Ask::Trim(TrimRoom {
            room: name(room),
            epoch: Epoch::new(0),
            before: Seq::new(before),
        }))
    }

    pub(crate) fn remove(&mut self, room: &str) -> Result<Answer, StoreError> {
        self.ask(Ask::Remove(RemoveRoom {
            room: name(room),
            epoch: Epoch::new(0),
        }))
    }

    pub(crate) fn read(&self, room: &str, from: StartAt) -> Result<ReadReply, StoreError> {
        let range = ReadRange {
            room: name(room),
            from,
            count_max: 1000,
            bytes_max: 1 << 20,
            hint: Hint::default(),
        };
        let reply = self
            .store
            .read(range, 1, &broker_core::store::Mailbox::new());
        reply.unwrap()
    }

    /// The seqs that a reader gets who asks for all.
    pub(crate) fn seqs(&self, room: &str) -> Vec<u64> {
        let mut seqs = Vec::new();
        let mut from = StartAt::START;
        loop {
            let reply = self.read(room, from).unwrap();
            assert!(reply.skip.is_none(), "{:?}", reply.skip);
            seqs.extend(
                (0..u64::from(reply.count)).map(|n| reply.next.get() - u64::from(reply.count) + n),
            );
            if reply.next > reply.head {
                return seqs;
            }
            from = StartAt::seq(reply.next);
        }
    }

    pub(crate) fn refusals(&mut self) -> Vec<ErrorCode> {
        let mut notices = Vec::new();
        self.talker.mailbox.drain(&mut notices);
        notices
            .iter()
            .filter_map(|notice| match notice {
                Notice::Refused { code, .. } => Some(*code),
                _ => None,
            })
            .collect()
    }

    /// Why publishes were refused by a limit since the last time, and when to try again.
    pub(crate) fn refused(&mut self) -> Vec<(String, u32)> {
        let mut notices = Vec::new();
        self.talker.mailbox.drain(&mut notices);
        let refused = notices.into_iter().filter_map(|notice| match notice {
            Notice::Refused {
                code: ErrorCode::QUOTA,
                detail,
                retry_after_ms,
                ..
            } => Some((detail, retry_after_ms)),
            _ => None,
        });
        refused.collect()
    }

    /// The same, of a single one.
    pub(crate) fn refusal(&mut self) -> (String, u32) {
        let mut refused = self.refused();
        assert_eq!(refused.len(), 1, "{refused:?}");
        refused.remove(0)
    }

    /// Only what the writer does: nobody looks what may go.
    pub(crate) fn step(&mut self) {
        if let Some(engine) = &mut self.engine {
            while engine.step() {}
        }
    }

    /// What all files together take.
    pub(crate) fn disk_bytes(&self) -> u64 {
        let files = self.disk.list().unwrap().into_iter();
        let length = |file: String| self.disk.open_read(&file).unwrap().len().unwrap();
        files.map(length).sum()
    }

    pub(crate) fn segment_files(&self) -> usize {
        let files = self.disk.list().unwrap();
        files.iter().filter(|file| file.ends_with(".seg")).count()
    }
}

pub(crate) fn name(room: &str) -> RoomName {
    RoomName::parse(room).unwrap()
}

pub(crate) fn keep_count(count: u64) -> RoomChange {
    RoomChange {
        keep_count: Some(Some(count)),
        ..RoomChange::default()
    }
}

pub(crate) fn up_to(first: u64, last: u64) -> Vec<u64> {
    (first..=last).collect()
}

//! Stores as released versions of the format wrote them, kept for good.
//!
//! `tests/golden/v<version>/` holds the files of a store, and `expected.txt`: a line for each message, with its room, its seq, the
//! length of its payload and the CRC-32C of it. They are data and never made again: [`write()`] makes those of a new version, and fails when
//! the directory is there already.

use std::fmt::Write as _;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use broker_core::clock::{ManualClock, SeededRandom};
use broker_core::log::RecoveryError;
use broker_core::log::segment::{FORMAT_VERSION, HEADER_BYTES, HEADER_COPY_OFFSET, SegmentName};
use broker_core::log::storage::{MemoryStorage, Storage, StorageFile};
use broker_core::store::{
    Append, EmbeddedConfig, EmbeddedStore, Engine, Hint, Mailbox, Notice, ReadRange, SessionId,
    SetCursor, Store,
};
use broker_proto::record::{encode_message_head, next_record};
use broker_proto::{Epoch, Micros, Position, RoomName, Seq, StartAt, publish};
use bytes::BytesMut;

use crate::campaign::{Broken, Harm};
use crate::oracle::{Verdict, producer_key};
use crate::rig::store_id;
use crate::rng::Rng;

const EXPECTED: &str = "expected.txt";

/// Files of a directory, by name.
pub type Files = Vec<(String, Vec<u8>)>;

/// A golden store.
#[derive(Debug, Clone)]
pub struct Golden {
    /// The name of its directory.
    pub version: String,
    /// Its files.
    pub files: Files,
    /// What is in it.
    pub expected: String,
}

fn home() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden")
}

fn told(what: &str) -> impl Fn(io::Error) -> Broken {
    let what = what.to_owned();
    move |error| format!("{what}: {error}").into()
}

impl Golden {
    /// All that are kept.
    ///
    /// # Errors
    /// When they cannot be read.
    pub fn all() -> Verdict<Vec<Self>> {
        let mut all = Vec::new();
        for entry in fs::read_dir(home()).map_err(told("golden"))? {
            let path = entry.map_err(told("golden"))?.path();
            if !path.is_dir() {
                continue;
            }
            let mut files = files_of(&path)?;
            let at = files.iter().position(|(name, _)| name == EXPECTED);
            let (_, text) = files.swap_remove(at.ok_or("expected.txt is missing")?);
            files.sort();
            all.push(Self {
                version: path.file_name().unwrap_or_default().display().to_string(),
                files,
                expected: String::from_utf8(text).map_err(|error| error.to_string())?,
            });
        }
        all.sort_by(|one, other| one.version.cmp(&other.version));
        Ok(all)
    }

    /// Segments with their names.
    pub fn segments(&self) -> impl Iterator<Item = &(String, Vec<u8>)> {
        self.files
            .iter()
            .filter(|(name, _)| SegmentName::parse(name).is_some())
    }

    /// A disk with these files, some of them changed.
    ///
    /// # Errors
    /// Never: it is in memory.
    pub fn disk(&self, change: impl Fn(&str, &mut Vec<u8>)) -> Verdict<MemoryStorage> {
        let disk = MemoryStorage::new();
        for (name, bytes) in &self.files {
            let mut bytes = bytes.clone();
            change(name, &mut bytes);
            let file = disk.create(name).map_err(told(name))?;
            file.write_at(0, &bytes).map_err(told(name))?;
        }
        Ok(disk)
    }
}

/// The files of a real directory.
///
/// # Errors
/// When they cannot be read.
pub fn files_of(path: &Path) -> Verdict<Files> {
    let mut files = Vec::new();
    for entry in fs::read_dir(path).map_err(told("directory"))? {
        let entry = entry.map_err(told("directory"))?;
        let name = entry.file_name().to_string_lossy().into_owned();
        let bytes = fs::read(entry.path()).map_err(told(&name))?;
        files.push((name, bytes));
    }
    files.sort();
    Ok(files)
}

/// The files of a disk.
///
/// # Errors
/// Those of the disk.
pub fn files_on(disk: &impl Storage) -> Verdict<Files> {
    let mut files = Vec::new();
    for name in disk.list().map_err(told("list"))? {
        let file = disk.open_read(&name).map_err(told(&name))?;
        let len = file.len().map_err(told(&name))?;
        let mut bytes = vec![0; usize::try_from(len).unwrap_or(0)];
        file.read_at(0, &mut bytes).map_err(told(&name))?;
        files.push((name, bytes));
    }
    Ok(files)
}

/// Fails unless every one of these files is there as it was.
///
/// # Errors
/// What changed.
pub fn unchanged(before: &Files, after: &Files) -> Verdict {
    for (name, bytes) in before {
        match after.iter().find(|(other, _)| other == name) {
            Some((_, other)) if other == bytes => {}
            Some(_) => {
                return Err(Broken::new(
                    Harm::SilentCorruption,
                    format!("{name} was changed"),
                ));
            }
            None => return Err(Broken::new(Harm::LostAck, format!("{name} was deleted"))),
        }
    }
    Ok(())
}

/// Raises the number of `N` bytes at a place of both copies of a segment's header, and gives them right checksums.
pub fn raise<const N: usize>(file: &mut [u8], at: usize, to: [u8; N]) {
    for copy in [0, HEADER_COPY_OFFSET] {
        let Some(copy) = file.get_mut(copy..copy + HEADER_BYTES) else {
            return;
        };
        let set = |copy: &mut [u8], at: usize, bytes: &[u8]| {
            copy.iter_mut()
                .skip(at)
                .zip(bytes)
                .for_each(|(into, from)| *into = *from);
        };
        set(copy, at, &to);
        let crc = crc32c::crc32c(copy.get(..8).unwrap_or_default());
        let crc = crc32c::crc32c_append(crc, copy.get(12..).unwrap_or_default());
        set(copy, 8, &crc.to_le_bytes());
    }
}

/// A leader of a golden store.
#[derive(Debug)]
pub struct Leader<S: Storage> {
    store: Arc<EmbeddedStore<S>>,
    engine: Engine<S>,
    mailbox: Arc<Mailbox>,
}

impl<S: Storage> Leader<S> {
    /// Opens it.
    ///
    /// # Errors
    /// As the store's.
    pub fn open(disk: Arc<S>) -> Result<Self, RecoveryError> {
        let mut config = EmbeddedConfig::new(store_id());
        config.segment_bytes_min = 6 << 10;
        config.segment_bytes_max = 6 << 10;
        config.batch_bytes_max = 4 << 10;
        config.checkpoint_bytes_min = 8 << 10;
        config.tail_bytes_max = 0;
        config.clock = Arc::new(ManualClock::new(Micros::new(1_600_000_000_000_000)));
        config.random = Box::new(SeededRandom::new(1));
        let (store, engine) = EmbeddedStore::open_manual(disk, config, &mut |_, _| {})?;
        Ok(Self {
            store,
            engine,
            mailbox: Mailbox::new(),
        })
    }

    /// Publishes one message, and waits for the acknowledgement.
    ///
    /// # Errors
    /// When there is none.
    pub fn send(&mut self, producer: u16, number: u64, room: &str, payload: &[u8]) -> Verdict {
        let key = producer_key(producer)?;
        let mut head = Vec::new();
        encode_message_head(&mut head, &key.sender, 0, &[]);
        let mut entries = BytesMut::new();
        publish::encode_entry(&mut entries, payload, &[], crc32c::crc32c(payload));
        let append = Append {
            session: SessionId(0),
            key,
            claimed: true,
            room: name(room)?,
            first_number: number,
            count: 1,
            head: head.into(),
            entries: entries.freeze(),
            expected_head: None,
            resend: false,
        };
        self.store
            .append(append, &self.mailbox)
            .map_err(|_| "the queue is full")?;
        while self.engine.step() {}
        let mut notices = Vec::new();
        self.mailbox.drain(&mut notices);
        match notices
            .iter()
            .any(|notice| matches!(notice, Notice::Acked { .. }))
        {
            true => Ok(()),
            false => Err(format!("a message is not acknowledged: {notices:?}").into()),
        }
    }

    /// Writes footers and spares, and ends the log with a mark.
    pub fn close(mut self) {
        self.engine.keep_house();
        self.engine.close();
    }

    /// What is in it, in the words of `expected.txt`.
    ///
    /// # Errors
    /// When a room cannot be read, or something is skipped.
    pub fn content(&self) -> Verdict<String> {
        let mailbox = Mailbox::new();
        self.store.rooms("", 1000, 0, &mailbox);
        let mut notices = Vec::new();
        mailbox.drain(&mut notices);
        let Some(Notice::Rooms {
            result: Ok(page), ..
        }) = notices.pop()
        else {
            return Err("the rooms cannot be listed".into());
        };
        let mut rooms: Vec<String> = page
            .rooms
            .iter()
            .map(|room| room.name.to_string())
            .collect();
        rooms.sort();
        let mut text = String::new();
        for room in rooms {
            self.room(&room, &mut text)?;
        }
        Ok(text)
    }

    fn room(&self, room: &str, text: &mut String) -> Verdict {
        let (mut from, mut hint) = (StartAt::START, Hint::default());
        loop {
            let range = ReadRange {
                room: name(room)?,
                from,
                count_max: u32::MAX,
                bytes_max: 1 << 20,
                hint,
            };
            let reply = match self.store.read(range, 0, &self.mailbox) {
                Some(Ok(reply)) if reply.skip.is_none() => reply,
                other => return Err(format!("{room} cannot be read: {other:?}").into()),
            };
            for piece in &reply.records {
                let mut rest = &piece[..];
                while let Some((record, after)) =
                    next_record(rest).map_err(|error| error.to_string())?
                {
                    record.verify_payload().map_err(|error| error.to_string())?;
                    let (seq, bytes) = (record.fixed.seq, record.payload.len());
                    let crc = crc32c::crc32c(record.payload);
                    let _ = writeln!(text, "{room} {seq} {bytes} {crc:08x}");
                    rest = after;
                }
            }
            if reply.next > reply.head {
                return Ok(());
            }
            if reply.count == 0 {
                return Err(format!("{room} makes no progress").into());
            }
            from = StartAt::seq(reply.next);
            hint = reply.hint;
        }
    }
}

fn name(room: &str) -> Verdict<RoomName> {
    RoomName::parse(room).map_err(|error| error.to_string().into())
}

/// Writes the golden store of the present format version, for good.
///
/// # Errors
/// When there is one already, or the disk fails.
pub fn write() -> Verdict<PathBuf> {
    let into = home().join(format!("v{FORMAT_VERSION}"));
    let disk = Arc::new(MemoryStorage::new());
    let mut rng = Rng::new(u64::from(FORMAT_VERSION));
    let open = || Leader::open(Arc::clone(&disk)).map_err(|error| Broken::from(error.to_string()));
    let mut numbers = [0; 2];
    for leader in [1, 2] {
        let mut rig = open()?;
        for n in 0..12 {
            let producer = u16::from(n % 3 == 0);
            let number = numbers
                .get_mut(usize::from(producer))
                .ok_or("two producers")?;
            *number += 1;
            let room = ["lobby", "kitchen", "cellar"]
                .get(rng.index(3))
                .copied()
                .unwrap_or("lobby");
            let bytes = [0, 5, 90, 900].get(rng.index(4)).copied().unwrap_or(0);
            let payload: Vec<u8> = (0..bytes).map(|_| rng.next().to_le_bytes()[0]).collect();
            rig.send(1 + producer, *number, room, &payload)?;
        }
        let set = SetCursor {
            room: name("lobby")?,
            name: "seen".to_owned(),
            to: Some(Position::new(Epoch::new(1), Seq::new(1))),
            expected: None,
            relaxed: false,
        };
        rig.store.set_cursor(set, 0, &rig.mailbox);
        while rig.engine.step() {}
        // The first leader is killed: its tail is copied by the second.
        if leader == 2 {
            rig.close();
        }
    }
    let files = files_on(&*disk)?;
    let expected = open()?.content()?;
    fs::create_dir(&into).map_err(told("a golden store is never written again"))?;
    for (name, bytes) in files.iter().filter(|(name, _)| !name.ends_with(".tmp")) {
        // The zeros that a segment was prepared with say nothing, and are many.
        let used = bytes
            .iter()
            .rposition(|byte| *byte != 0)
            .map_or(0, |at| at + 1);
        let kept = used.next_multiple_of(4096).min(bytes.len());
        let bytes = bytes.get(..kept).unwrap_or_default();
        fs::write(into.join(name), bytes).map_err(told(name))?;
    }
    fs::write(into.join(EXPECTED), expected).map_err(told(EXPECTED))?;
    Ok(into)
}

//! A disk in memory that knows what would survive a power cut.
//!
//! Every call gives way to other threads, as a real one would. Messages carry a token, and the disk
//! knows which tokens are on stable storage: in a file that was synced, under a name that was.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::sync::{Arc, Mutex};

use broker_core::log::storage::{MemoryStorage, Storage, StorageFile, check_file_name};
use shuttle::sync::atomic::{AtomicU64, Ordering};

/// What every message begins with; its number follows.
pub(crate) const TOKEN: [u8; 8] = *b"<token>=";

#[derive(Debug)]
enum Change {
    Write(usize, Vec<u8>),
    Zero(usize, usize),
    Length(usize),
}

impl Change {
    fn apply(&self, bytes: &mut Vec<u8>) {
        match self {
            Self::Write(at, new) => {
                bytes.resize(bytes.len().max(at + new.len()), 0);
                bytes[*at..at + new.len()].copy_from_slice(new);
            }
            Self::Zero(from, to) => {
                bytes.resize(bytes.len().max(*to), 0);
                bytes[*from..*to].fill(0);
            }
            Self::Length(length) => bytes.resize(*length, 0),
        }
    }
}

#[derive(Debug, Default)]
struct Inode {
    bytes: Vec<u8>,
    unsynced: Vec<Change>,
    durable: Vec<u8>,
    tokens: BTreeSet<u64>,
}

type Shared = Arc<Mutex<Inode>>;

#[derive(Debug, Default)]
struct Directory {
    names: BTreeMap<String, Shared>,
    durable: BTreeMap<String, Shared>,
    moved: bool,
    /// Changes of any file so far.
    writes: u64,
}

/// See the module's documentation; a clone is the same disk.
#[derive(Debug, Clone)]
pub(crate) struct Witness {
    directory: Arc<Mutex<Directory>>,
    /// Looked at so that another thread may go on.
    turn: Arc<AtomicU64>,
}

impl Witness {
    pub(crate) fn new() -> Self {
        Self {
            directory: Arc::default(),
            turn: Arc::new(AtomicU64::new(0)),
        }
    }

    fn give_way(&self) {
        self.turn.load(Ordering::Relaxed);
    }

    /// Whether a power cut would leave this message.
    pub(crate) fn has(&self, token: u64) -> bool {
        let directory = self.directory.lock().unwrap();
        let mut files = directory.durable.values();
        files.any(|file| file.lock().unwrap().tokens.contains(&token))
    }

    /// What a power cut at this moment leaves.
    pub(crate) fn cut(&self) -> MemoryStorage {
        let disk = MemoryStorage::new();
        for (name, file) in &self.directory.lock().unwrap().durable {
            let copy = disk.create(name).unwrap();
            copy.write_at(0, &file.lock().unwrap().durable).unwrap();
        }
        disk
    }

    /// How often anything was written.
    pub(crate) fn writes(&self) -> u64 {
        self.directory.lock().unwrap().writes
    }

    /// Makes the directory look replaced.
    pub(crate) fn move_away(&self) {
        self.directory.lock().unwrap().moved = true;
    }

    fn find(&self, name: &str) -> io::Result<WitnessFile> {
        let directory = self.directory.lock().unwrap();
        let file = directory.names.get(name).ok_or(io::ErrorKind::NotFound)?;
        Ok(WitnessFile {
            disk: self.clone(),
            inode: Arc::clone(file),
        })
    }
}

impl Storage for Witness {
    type File = WitnessFile;

    fn list(&self) -> io::Result<Vec<String>> {
        Ok(self
            .directory
            .lock()
            .unwrap()
            .names
            .keys()
            .cloned()
            .collect())
    }

    fn create(&self, name: &str) -> io::Result<WitnessFile> {
        check_file_name(name)?;
        self.give_way();
        {
            let mut directory = self.directory.lock().unwrap();
            if directory.names.contains_key(name) {
                return Err(io::ErrorKind::AlreadyExists.into());
            }
            directory.names.insert(name.to_owned(), Shared::default());
        }
        self.find(name)
    }

    fn open(&self, name: &str) -> io::Result<WitnessFile> {
        self.find(name)
    }

    fn open_read(&self, name: &str) -> io::Result<WitnessFile> {
        self.find(name)
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        check_file_name(to)?;
        self.give_way();
        let mut directory = self.directory.lock().unwrap();
        let file = directory
            .names
            .remove(from)
            .ok_or(io::ErrorKind::NotFound)?;
        directory.names.insert(to.to_owned(), file);
        Ok(())
    }

    fn delete(&self, name: &str) -> io::Result<()> {
        self.give_way();
        let mut directory = self.directory.lock().unwrap();
        let gone = directory.names.remove(name);
        gone.map(drop).ok_or_else(|| io::ErrorKind::NotFound.into())
    }

    fn sync_dir(&self) -> io::Result<()> {
        let names = self.directory.lock().unwrap().names.clone();
        self.give_way();
        self.directory.lock().unwrap().durable = names;
        Ok(())
    }

    fn free_bytes(&self) -> io::Result<u64> {
        Ok(1 << 40)
    }

    fn check_identity(&self) -> io::Result<()> {
        match self.directory.lock().unwrap().moved {
            true => Err(io::Error::other("moved")),
            false => Ok(()),
        }
    }
}

/// An open file.
#[derive(Debug)]
pub(crate) struct WitnessFile {
    disk: Witness,
    inode: Shared,
}

impl WitnessFile {
    fn change(&self, change: Change) {
        self.disk.give_way();
        self.disk.directory.lock().unwrap().writes += 1;
        let mut inode = self.inode.lock().unwrap();
        change.apply(&mut inode.bytes);
        inode.unsynced.push(change);
    }
}

impl StorageFile for WitnessFile {
    fn len(&self) -> io::Result<u64> {
        Ok(self.inode.lock().unwrap().bytes.len() as u64)
    }

    fn read_at(&self, offset: u64, buf: &mut [u8]) -> io::Result<usize> {
        self.disk.give_way();
        let inode = self.inode.lock().unwrap();
        let rest = usize::try_from(offset)
            .ok()
            .and_then(|at| inode.bytes.get(at..));
        let rest = rest.unwrap_or_default();
        let count = rest.len().min(buf.len());
        buf[..count].copy_from_slice(&rest[..count]);
        Ok(count)
    }

    fn write_at(&self, offset: u64, buf: &[u8]) -> io::Result<()> {
        self.change(Change::Write(
            usize::try_from(offset).unwrap(),
            buf.to_vec(),
        ));
        Ok(())
    }

    fn sync(&self) -> io::Result<()> {
        let reached = self.inode.lock().unwrap().unsynced.len();
        self.disk.give_way();
        let mut inode = self.inode.lock().unwrap();
        let reached = reached.min(inode.unsynced.len());
        for change in inode.unsynced.drain(..reached).collect::<Vec<_>>() {
            change.apply(&mut inode.durable);
            if let Change::Write(_, bytes) = change {
                inode.tokens.extend(tokens(&bytes));
            }
        }
        Ok(())
    }

    fn sync_all(&self) -> io::Result<()> {
        self.sync()
    }

    fn zero_fill(&self, from: u64, to: u64) -> io::Result<()> {
        let place = |at| usize::try_from(at).unwrap();
        self.change(Change::Zero(place(from), place(to)));
        Ok(())
    }

    fn truncate(&self, len: u64) -> io::Result<()> {
        self.change(Change::Length(usize::try_from(len).unwrap()));
        Ok(())
    }

    fn block_bytes(&self) -> u32 {
        512
    }

    fn is_direct(&self) -> bool {
        false
    }
}

/// The messages in these bytes, in their order.
pub(crate) fn tokens(bytes: &[u8]) -> Vec<u64> {
    let mut found = Vec::new();
    let mut rest = bytes;
    while let Some(at) = rest.iter().position(|byte| *byte == TOKEN[0]) {
        rest = &rest[at..];
        match rest
            .strip_prefix(&TOKEN)
            .and_then(|rest| rest.first_chunk())
        {
            Some(number) => {
                found.push(u64::from_le_bytes(*number));
                rest = &rest[16..];
            }
            None => rest = &rest[1..],
        }
    }
    found
}

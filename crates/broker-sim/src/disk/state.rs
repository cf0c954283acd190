//! Files and names, as programs see them and as the disk has them.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::sync::Arc;

use super::content::Content;
use super::fault::{Errno, Fault, Op, OpKind, Plan, power_cut};
use super::injury::{Injuries, Injury};
use crate::rng::Rng;

/// Longest file, in bytes: a wrong offset is an error, not an attempt to allocate the whole memory.
const FILE_BYTES_MAX: u64 = 1 << 28;

/// Unit in which space is given out, in bytes.
const SPACE_BYTES: u64 = 4096;

/// Number of a file, never used twice.
pub(super) type Ino = u64;

/// A change of a file that is not durable yet.
#[derive(Debug, Clone)]
pub(super) enum Change {
    Write {
        at: u64,
        /// Shared by all copies of the disk.
        bytes: Arc<[u8]>,
    },
    Zero {
        from: u64,
        to: u64,
    },
    Truncate(u64),
    /// The file became at least this long, and what was written there is lost.
    Grow(u64),
}

impl Change {
    pub(super) fn apply(&self, content: &mut Content) {
        match self {
            Self::Write { at, bytes } => content.write(*at, bytes),
            Self::Zero { from, to } => content.zero(*from, *to),
            Self::Truncate(len) => content.resize(*len),
            Self::Grow(len) => content.grow(*len),
        }
    }

    /// The bytes that it writes, as a range of the file.
    pub(super) fn range(&self) -> Option<(u64, u64)> {
        match self {
            Self::Write { at, bytes } => Some((*at, at.saturating_add(count(bytes)))),
            Self::Zero { from, to } => Some((*from, *to)),
            Self::Truncate(_) | Self::Grow(_) => None,
        }
    }

    /// Leaves of a write only what it did to the length.
    fn lose_data(&mut self) {
        if let Some((_, end)) = self.range() {
            *self = Self::Grow(end);
        }
    }

    /// The same write at another place, up to `end`.
    fn moved(&self, at: u64, end: u64) -> Option<Self> {
        let (start, stop) = self.range()?;
        let len = (stop - start).min(end.checked_sub(at)?);
        match self {
            Self::Write { bytes, .. } => Some(Self::Write {
                at,
                bytes: bytes.get(..index(len))?.into(),
            }),
            _ => Some(Self::Zero {
                from: at,
                to: at + len,
            }),
        }
    }

    /// The part of a write that lies in `from..to`.
    pub(super) fn part(&self, from: u64, to: u64) -> Option<Self> {
        let (start, end) = self.range()?;
        let (from, to) = (from.max(start), to.min(end));
        match self {
            _ if from >= to => None,
            Self::Write { bytes, .. } => {
                let bytes = bytes.get(index(from - start)..index(to - start))?.into();
                Some(Self::Write { at: from, bytes })
            }
            _ => Some(Self::Zero { from, to }),
        }
    }
}

/// A change of names that is not durable yet.
#[derive(Debug, Clone)]
pub(super) enum NameChange {
    Create { name: String, ino: Ino },
    Rename { from: String, to: String, ino: Ino },
    Delete { name: String },
}

impl NameChange {
    pub(super) fn apply(&self, names: &mut BTreeMap<String, Ino>) {
        match self {
            Self::Create { name, ino } => {
                names.insert(name.clone(), *ino);
            }
            Self::Rename { from, to, ino } => {
                names.remove(from);
                names.insert(to.clone(), *ino);
            }
            Self::Delete { name } => {
                names.remove(name);
            }
        }
    }

    pub(super) fn touched(&self) -> Vec<&str> {
        match self {
            Self::Create { name, .. } | Self::Delete { name } => vec![name],
            Self::Rename { from, to, .. } => vec![from, to],
        }
    }
}

/// Something pending, with its place in the order of all that was asked for.
#[derive(Debug, Clone)]
pub(super) struct Pending<T> {
    pub(super) stamp: u64,
    pub(super) change: T,
}

#[derive(Debug, Clone, Default)]
pub(super) struct Inode {
    /// What reads show. Shared between copies of the disk until one of them changes it, so that a copy costs next to nothing.
    pub(super) cache: Arc<Content>,
    /// What a power cut cannot take.
    pub(super) durable: Arc<Content>,
    pub(super) pending: Vec<Pending<Change>>,
    /// Which blocks have space.
    allocated: Arc<Vec<bool>>,
    /// Open handles share it.
    pub(super) handles: Arc<()>,
}

#[derive(Debug)]
pub(super) struct State {
    pub(super) inodes: BTreeMap<Ino, Inode>,
    next_ino: Ino,
    next_stamp: u64,
    pub(super) names: BTreeMap<String, Ino>,
    pub(super) durable_names: BTreeMap<String, Ino>,
    pub(super) pending_names: Vec<Pending<NameChange>>,
    pub(super) ops: Vec<Op>,
    pub(super) reads: u64,
    pub(super) plan: Plan,
    pub(super) crashed: bool,
    pub(super) unaligned_writes: u64,
    pub(super) block_bytes: u32,
    pub(super) injuries: Injuries,
    /// The disk as it was before each op, if that is wanted.
    pub(super) moments: Option<Vec<Self>>,
    /// Blocks of [`SPACE_BYTES`] that fit.
    capacity: Option<u64>,
    rng: Rng,
}

/// What to write.
#[derive(Debug, Clone, Copy)]
pub(super) enum Data<'a> {
    Bytes(&'a [u8]),
    Zeros(u64),
}

impl State {
    pub(super) fn new(rng: Rng) -> Self {
        Self {
            inodes: BTreeMap::new(),
            next_ino: 1,
            next_stamp: 0,
            names: BTreeMap::new(),
            durable_names: BTreeMap::new(),
            pending_names: Vec::new(),
            ops: Vec::new(),
            reads: 0,
            plan: Plan::default(),
            crashed: false,
            unaligned_writes: 0,
            block_bytes: 512,
            injuries: Injuries::default(),
            moments: None,
            capacity: None,
            rng,
        }
    }

    /// A disk of the same kind with these files, all durable.
    pub(super) fn with_files(
        &self,
        files: BTreeMap<String, Ino>,
        mut content: BTreeMap<Ino, Arc<Content>>,
        rng: Rng,
    ) -> Self {
        let mut inodes = BTreeMap::new();
        for ino in files.values() {
            let content = content.remove(ino).unwrap_or_default();
            let allocated = self
                .inodes
                .get(ino)
                .map(|inode| inode.allocated.clone())
                .unwrap_or_default();
            let mut inode = Inode {
                cache: Arc::clone(&content),
                durable: content,
                allocated,
                ..Inode::default()
            };
            inode.release_beyond_end();
            inodes.insert(*ino, inode);
        }
        Self {
            inodes,
            next_ino: self.next_ino,
            next_stamp: self.next_stamp,
            names: files.clone(),
            durable_names: files,
            injuries: self.injuries,
            block_bytes: self.block_bytes,
            capacity: self.capacity,
            ..Self::new(rng)
        }
    }

    pub(super) fn kill(&self) -> Self {
        let mut after = Self {
            inodes: self.inodes.clone(),
            next_ino: self.next_ino,
            next_stamp: self.next_stamp,
            names: self.names.clone(),
            durable_names: self.durable_names.clone(),
            pending_names: self.pending_names.clone(),
            injuries: self.injuries,
            block_bytes: self.block_bytes,
            capacity: self.capacity,
            ..Self::new(self.rng.clone())
        };
        // The handles were the process's.
        for inode in after.inodes.values_mut() {
            inode.handles = Arc::default();
        }
        after.injuries.add(Injury::Killed);
        after.forget_unreachable();
        after
    }

    pub(super) fn op_count(&self) -> u64 {
        u64::try_from(self.ops.len()).unwrap_or(u64::MAX)
    }

    /// Stamps of all changes that are not durable, in order.
    pub(super) fn pending(&self) -> Vec<u64> {
        let files = self
            .inodes
            .values()
            .flat_map(|inode| inode.pending.iter().map(|pending| pending.stamp));
        let mut stamps: Vec<u64> = files
            .chain(self.pending_names.iter().map(|pending| pending.stamp))
            .collect();
        stamps.sort_unstable();
        stamps
    }

    pub(super) fn begin_read(&mut self) -> io::Result<()> {
        self.reads = self.reads.saturating_add(1);
        match self.plan.of_read(self.reads) {
            _ if self.crashed => Err(power_cut()),
            Some(errno) => {
                self.injuries.add(Injury::ReadIo);
                Err(errno.error())
            }
            None => Ok(()),
        }
    }

    /// Records an op, runs it, and records how it ended.
    fn op<T>(
        &mut self,
        kind: OpKind,
        run: impl FnOnce(&mut Self, Option<Fault>) -> io::Result<T>,
    ) -> io::Result<T> {
        let number = self.op_count().saturating_add(1);
        if self.moments.is_some() && !self.crashed {
            let injuries = self.injuries;
            let mut moment = self.kill();
            moment.injuries = injuries;
            if let Some(moments) = &mut self.moments {
                moments.push(moment);
            }
        }
        let fault = self.plan.of_op(number, &kind);
        if let Some(injury) = fault.and_then(|fault| Injury::of(fault, &kind)) {
            self.injuries.add(injury);
        }
        self.ops.push(Op {
            number,
            kind,
            error: None,
        });
        self.crashed |= fault == Some(Fault::Crash);
        let result = if self.crashed {
            Err(power_cut())
        } else {
            run(self, fault)
        };
        if let (Err(error), Some(op)) = (&result, self.ops.last_mut()) {
            op.error = Some(error.kind());
        }
        result
    }

    fn stamp(&mut self) -> u64 {
        self.next_stamp = self.next_stamp.saturating_add(1);
        self.next_stamp
    }

    pub(super) fn inode_of(&self, name: &str) -> Option<&Inode> {
        self.inodes.get(self.names.get(name)?)
    }

    pub(super) fn durable_inode_of(&self, name: &str) -> Option<&Inode> {
        self.inodes.get(self.durable_names.get(name)?)
    }

    fn name_of(&self, ino: Ino) -> String {
        self.names
            .iter()
            .find(|(_, named)| **named == ino)
            .map_or("(deleted)", |(name, _)| name)
            .to_owned()
    }

    pub(super) fn inode(&mut self, ino: Ino) -> io::Result<&mut Inode> {
        self.inodes.get_mut(&ino).ok_or_else(|| {
            io::Error::other("the file is gone, though it is open: a mistake in the simulation")
        })
    }

    pub(super) fn open(&mut self, name: &str) -> io::Result<Ino> {
        self.begin_read()?;
        self.names.get(name).copied().ok_or_else(|| absent(name))
    }

    pub(super) fn create(&mut self, name: &str) -> io::Result<Ino> {
        self.op(OpKind::Create(name.to_owned()), |state, fault| {
            refuse(fault)?;
            if state.names.contains_key(name) {
                return Err(io::Error::new(
                    io::ErrorKind::AlreadyExists,
                    format!("{name} exists"),
                ));
            }
            let ino = state.next_ino;
            state.next_ino += 1;
            state.inodes.insert(ino, Inode::default());
            state.change_names(NameChange::Create {
                name: name.to_owned(),
                ino,
            });
            Ok(ino)
        })
    }

    pub(super) fn rename(&mut self, from: &str, to: &str) -> io::Result<()> {
        self.op(
            OpKind::Rename(from.to_owned(), to.to_owned()),
            |state, fault| {
                refuse(fault)?;
                let ino = *state.names.get(from).ok_or_else(|| absent(from))?;
                if from != to {
                    state.change_names(NameChange::Rename {
                        from: from.to_owned(),
                        to: to.to_owned(),
                        ino,
                    });
                }
                Ok(())
            },
        )
    }

    pub(super) fn delete(&mut self, name: &str) -> io::Result<()> {
        self.op(OpKind::Delete(name.to_owned()), |state, fault| {
            refuse(fault)?;
            if !state.names.contains_key(name) {
                return Err(absent(name));
            }
            state.change_names(NameChange::Delete {
                name: name.to_owned(),
            });
            Ok(())
        })
    }

    fn change_names(&mut self, change: NameChange) {
        change.apply(&mut self.names);
        let stamp = self.stamp();
        self.pending_names.push(Pending { stamp, change });
    }

    pub(super) fn sync_dir(&mut self) -> io::Result<()> {
        self.op(OpKind::SyncDir, |state, fault| {
            if fault == Some(Fault::LostSync) {
                state.pending_names.clear();
            }
            refuse(fault)?;
            for pending in std::mem::take(&mut state.pending_names) {
                pending.change.apply(&mut state.durable_names);
            }
            state.forget_unreachable();
            Ok(())
        })
    }

    /// Drops files that have no name, cannot get one back by a power cut, and are not open.
    fn forget_unreachable(&mut self) {
        let mut reachable: BTreeSet<Ino> = self
            .names
            .values()
            .chain(self.durable_names.values())
            .copied()
            .collect();
        for pending in &self.pending_names {
            if let NameChange::Create { ino, .. } | NameChange::Rename { ino, .. } = pending.change
            {
                reachable.insert(ino);
            }
        }
        self.inodes
            .retain(|ino, inode| reachable.contains(ino) || Arc::strong_count(&inode.handles) > 1);
    }

    pub(super) fn write(&mut self, ino: Ino, at: u64, data: Data<'_>) -> io::Result<()> {
        let len = data.len();
        let end = at.saturating_add(len);
        let name = self.name_of(ino);
        let kind = match data {
            Data::Bytes(_) => OpKind::Write { name, at, len },
            Data::Zeros(_) => OpKind::ZeroFill {
                name,
                from: at,
                to: end,
            },
        };
        self.op(kind, |state, fault| {
            if end > FILE_BYTES_MAX {
                return Err(too_large());
            }
            let (wanted, error) = match fault {
                Some(Fault::ShortWrite(errno)) => (state.rng.below(len), Some(errno)),
                Some(Fault::DroppedWrite | Fault::MisdirectedWrite) | None => (len, None),
                Some(_) => return refuse(fault),
            };
            let done = state
                .allocate(ino, at, at.saturating_add(wanted))?
                .saturating_sub(at);
            let error = error.or((done < wanted).then_some(Errno::NoSpace));
            if done < wanted {
                state.injuries.add(Injury::NoSpace);
            }
            let change = data.change(at, done);
            if let (Some(Fault::MisdirectedWrite), Some(change)) = (fault, &change) {
                state.misdirect(ino, change);
            }
            let stamp = state.stamp();
            let inode = state.inode(ino)?;
            if let Some(mut change) = change {
                change.apply(Arc::make_mut(&mut inode.cache));
                if matches!(fault, Some(Fault::DroppedWrite | Fault::MisdirectedWrite)) {
                    change.lose_data();
                }
                inode.pending.push(Pending { stamp, change });
            }
            error.map_or(Ok(()), |errno| Err(errno.error()))
        })
    }

    /// Puts a write where it does not belong, at once and for good.
    fn misdirect(&mut self, ino: Ino, change: &Change) {
        let block = u64::from(self.block_bytes);
        let own = change.range().map_or(0, |(from, _)| from / block);
        let places: Vec<(Ino, u64)> = self
            .inodes
            .iter()
            .flat_map(|(ino, inode)| {
                (0..inode.durable.len().div_ceil(block)).map(|number| (*ino, number))
            })
            .filter(|place| *place != (ino, own))
            .collect();
        // Every file the same odds, or the largest would get nearly all.
        let mut files: Vec<Ino> = places.iter().map(|(ino, _)| *ino).collect();
        files.dedup();
        let Some(target) = self.rng.pick(&files).copied() else {
            return;
        };
        let blocks: Vec<u64> = places
            .into_iter()
            .filter_map(|(ino, number)| (ino == target).then_some(number))
            .collect();
        let number = self.rng.pick(&blocks).copied().unwrap_or(0);
        let is_seen = self.rng.coin();
        let Some(inode) = self.inodes.get_mut(&target) else {
            return;
        };
        let Some(moved) = change.moved(number * block, inode.durable.len()) else {
            return;
        };
        moved.apply(Arc::make_mut(&mut inode.durable));
        if is_seen {
            moved.apply(Arc::make_mut(&mut inode.cache));
        }
    }

    pub(super) fn truncate(&mut self, ino: Ino, len: u64) -> io::Result<()> {
        let kind = OpKind::Truncate {
            name: self.name_of(ino),
            len,
        };
        self.op(kind, |state, fault| {
            refuse(fault)?;
            if len > FILE_BYTES_MAX {
                return Err(too_large());
            }
            let stamp = state.stamp();
            let inode = state.inode(ino)?;
            Change::Truncate(len).apply(Arc::make_mut(&mut inode.cache));
            inode.pending.push(Pending {
                stamp,
                change: Change::Truncate(len),
            });
            inode.release_beyond_end();
            Ok(())
        })
    }

    pub(super) fn sync(&mut self, ino: Ino, all: bool) -> io::Result<()> {
        let name = self.name_of(ino);
        let kind = if all {
            OpKind::SyncAll(name)
        } else {
            OpKind::Sync(name)
        };
        self.op(kind, |state, fault| {
            let inode = state.inode(ino)?;
            if fault == Some(Fault::LostSync) {
                // The kernel takes the pages for clean. It still knows how long the file is.
                inode
                    .pending
                    .iter_mut()
                    .for_each(|pending| pending.change.lose_data());
            }
            refuse(fault)?;
            for pending in std::mem::take(&mut inode.pending) {
                pending.change.apply(Arc::make_mut(&mut inode.durable));
            }
            Ok(())
        })
    }

    pub(super) fn drop_cache(&mut self) {
        for inode in self.inodes.values_mut() {
            inode.cache.clone_from(&inode.durable);
            for pending in &inode.pending {
                pending.change.apply(Arc::make_mut(&mut inode.cache));
            }
        }
    }

    pub(super) fn corrupt(&mut self, name: &str, at: u64, bytes: &[u8]) -> bool {
        let Some(inode) = self
            .names
            .get(name)
            .and_then(|ino| self.inodes.get_mut(ino))
        else {
            return false;
        };
        for content in [&mut inode.cache, &mut inode.durable] {
            let rest = index(content.len().saturating_sub(at)).min(bytes.len());
            Arc::make_mut(content).write(at, bytes.get(..rest).unwrap_or_default());
        }
        true
    }

    pub(super) fn set_capacity(&mut self, bytes: Option<u64>) {
        self.capacity = bytes.map(|bytes| bytes / SPACE_BYTES);
    }

    /// Without an end, as much as a real disk could say.
    pub(super) fn free_bytes(&self) -> u64 {
        self.free_blocks()
            .map_or(1 << 40, |blocks| blocks.saturating_mul(SPACE_BYTES))
    }

    fn free_blocks(&self) -> Option<u64> {
        let in_use = |ino: &Ino, inode: &Inode| {
            Arc::strong_count(&inode.handles) > 1 || self.names.values().any(|named| named == ino)
        };
        let used = |inode: &Inode| {
            u64::try_from(inode.allocated.iter().filter(|block| **block).count())
                .unwrap_or(u64::MAX)
        };
        let total = |capacity: u64| {
            let used: u64 = self
                .inodes
                .iter()
                .filter(|(ino, inode)| in_use(ino, inode))
                .map(|(_, inode)| used(inode))
                .sum();
            capacity.saturating_sub(used)
        };
        self.capacity.map(total)
    }

    /// Gives space to `from..to`, and says up to where it sufficed.
    fn allocate(&mut self, ino: Ino, from: u64, to: u64) -> io::Result<u64> {
        let mut free = self.free_blocks().unwrap_or(u64::MAX);
        let inode = self.inode(ino)?;
        let allocated = Arc::make_mut(&mut inode.allocated);
        for block in from / SPACE_BYTES..to.div_ceil(SPACE_BYTES) {
            let at = index(block);
            if allocated.len() <= at {
                allocated.resize(at + 1, false);
            }
            let Some(slot) = allocated.get_mut(at).filter(|taken| !**taken) else {
                continue;
            };
            if free == 0 {
                return Ok((block * SPACE_BYTES).max(from));
            }
            free -= 1;
            *slot = true;
        }
        Ok(to)
    }
}

impl Inode {
    fn release_beyond_end(&mut self) {
        let blocks = index(self.cache.len().div_ceil(SPACE_BYTES));
        if blocks < self.allocated.len() {
            Arc::make_mut(&mut self.allocated).truncate(blocks);
        }
    }
}

impl Data<'_> {
    fn len(&self) -> u64 {
        match self {
            Self::Bytes(bytes) => count(bytes),
            Self::Zeros(len) => *len,
        }
    }

    /// The change that writes the first `done` bytes.
    fn change(&self, at: u64, done: u64) -> Option<Change> {
        match self {
            _ if done == 0 => None,
            Self::Bytes(bytes) => Some(Change::Write {
                at,
                bytes: bytes.get(..index(done))?.into(),
            }),
            Self::Zeros(_) => Some(Change::Zero {
                from: at,
                to: at.saturating_add(done),
            }),
        }
    }
}

/// The error that a fault means for an op that it does not know better.
fn refuse(fault: Option<Fault>) -> io::Result<()> {
    match fault {
        None | Some(Fault::DroppedWrite | Fault::MisdirectedWrite) => Ok(()),
        Some(Fault::Error(errno) | Fault::ShortWrite(errno)) => Err(errno.error()),
        Some(Fault::LostSync) => Err(Errno::Io.error()),
        Some(Fault::Crash) => Err(power_cut()),
    }
}

pub(super) fn count(bytes: &[u8]) -> u64 {
    u64::try_from(bytes.len()).unwrap_or(u64::MAX)
}

/// Offsets are checked against [`FILE_BYTES_MAX`] where they come in.
pub(super) fn index(offset: u64) -> usize {
    usize::try_from(offset).unwrap_or(usize::MAX)
}

fn too_large() -> io::Error {
    io::Error::new(
        io::ErrorKind::FileTooLarge,
        format!("a simulated file holds at most {FILE_BYTES_MAX} bytes"),
    )
}

fn absent(name: &str) -> io::Error {
    io::Error::new(io::ErrorKind::NotFound, format!("{name} does not exist"))
}

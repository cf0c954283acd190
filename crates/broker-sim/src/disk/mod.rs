//! A hostile disk: it forgets what was not synced, tears what it was writing, fails when told, and remembers every call.
//!
//! [`SimDisk`] stands in for a directory wherever the log takes a [`Storage`]. A test runs the log on it, then asks what a power
//! cut ([`SimDisk::crash`]) or the death of the process ([`SimDisk::kill`]) would leave, and starts the log again on that.
//!
//! # What it promises, as little as a real disk does
//!
//! - A file has a **cache**, which is what reads show, and a **durable** content, with the list of changes between the two. `sync`
//!   makes the changes of that file durable, including its length; nothing else does.
//! - Names are the same one level up: made, changed and removed at once, durable only after `sync_dir`. A file whose name was not
//!   synced is gone after a power cut, however well its content was.
//! - After a power cut each change that was not durable is kept, lost or torn, and kept ones may have overtaken each other; a file
//!   may be longer than its data (then zeros). Bytes that were durable and are not being written stay as they are.
//! - Changes of one name are not reordered among themselves, and a rename is never half done: no journalling file system does that,
//!   and with it no protocol could be right.
//!
//! # Faults
//!
//! Calls that change something are numbered from 1 ([`SimDisk::op_count`]), reads apart from them, and each can be told to fail
//! ([`SimDisk::fail_op`], [`SimDisk::fail_read`]). A test loops: a fresh disk, fail op N, run; for N = 1, 2, ... until a run needs
//! fewer than N ops.

use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use broker_core::log::storage::{Storage, check_file_name};

mod content;
mod crash;
mod fault;
mod file;
mod injury;
mod state;
#[cfg(test)]
mod tests;

pub use crash::{CrashMode, Tear};
pub use fault::{Errno, Fault, Op, OpKind, is_crash};
pub use file::SimFile;
pub use injury::{Injuries, Injury};

use crate::rng::Rng;
use state::State;

/// A simulated disk with one flat directory; a clone is the same disk.
#[derive(Debug, Clone)]
pub struct SimDisk {
    state: Arc<Mutex<State>>,
}

impl SimDisk {
    /// An empty disk without faults, with direct I/O by blocks of 512 bytes. The seed decides where short writes end.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        Self::from_state(State::new(Rng::new(seed)))
    }

    fn from_state(state: State) -> Self {
        Self {
            state: Arc::new(Mutex::new(state)),
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // A test that panicked elsewhere still wants to print what the disk did.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Sets the unit of writes, 512 or 4096 bytes.
    #[must_use]
    pub fn with_block_bytes(self, bytes: u32) -> Self {
        self.lock().block_bytes = bytes;
        self
    }

    /// Sets how many bytes fit; `None` is no end. What is there stays there. Space is given out by 4096 bytes.
    pub fn set_capacity(&self, bytes: Option<u64>) {
        self.lock().set_capacity(bytes);
    }

    /// Tells the `n`-th op from the beginning (the first is 1) to fail.
    pub fn fail_op(&self, n: u64, fault: Fault) {
        self.lock().plan.ops.insert(n, fault);
    }

    /// Tells the `n`-th op and all after it to fail.
    pub fn fail_ops_from(&self, n: u64, fault: Fault) {
        self.lock().plan.ops_from = Some((n, fault));
    }

    /// Tells the first op from the `n`-th on that this fault is made for to fail: a short write waits for a write, a lost sync for a
    /// sync.
    pub fn fail_next(&self, n: u64, fault: Fault) {
        self.lock().plan.aimed.push((n, fault));
    }

    /// Tells the `n`-th read from the beginning to fail.
    pub fn fail_read(&self, n: u64, errno: Errno) {
        self.lock().plan.reads.insert(n, errno);
    }

    /// Tells the `n`-th read and all after it to fail.
    pub fn fail_reads_from(&self, n: u64, errno: Errno) {
        self.lock().plan.reads_from = Some((n, errno));
    }

    /// Forgets all faults that have not happened yet.
    pub fn clear_faults(&self) {
        self.lock().plan = fault::Plan::default();
    }

    /// Number of ops so far: creates, renames, deletes, writes, zero fills, truncates and syncs, failed ones too.
    #[must_use]
    pub fn op_count(&self) -> u64 {
        self.lock().op_count()
    }

    /// Number of reads so far: opening, listing, lengths, free space and identity count too.
    #[must_use]
    pub fn read_count(&self) -> u64 {
        self.lock().reads
    }

    /// All ops so far.
    #[must_use]
    pub fn ops(&self) -> Vec<Op> {
        self.lock().ops.clone()
    }

    /// All ops so far, a line each, for the message of a failed test.
    #[must_use]
    pub fn history(&self) -> String {
        self.lock().ops.iter().map(|op| format!("{op}\n")).collect()
    }

    /// Whether a [`Fault::Crash`] has happened: every call fails from there on.
    #[must_use]
    pub fn is_crashed(&self) -> bool {
        self.lock().crashed
    }

    /// Writes to direct files whose offset, length or address was not a multiple of the block: slow on a real disk.
    #[must_use]
    pub fn unaligned_writes(&self) -> u64 {
        self.lock().unaligned_writes
    }

    /// Number of changes, to files and names, that a power cut could take back.
    #[must_use]
    pub fn pending_count(&self) -> usize {
        self.lock().pending().len()
    }

    /// What a power cut at this moment may leave, chosen by `rng`: a new disk without faults. This one is not changed, so the same
    /// moment can be cut many times.
    #[must_use]
    pub fn crash(&self, rng: &mut Rng, mode: CrashMode) -> Self {
        Self::from_state(crash::crash(&self.lock(), rng, mode))
    }

    /// Keeps the disk as it is before each op from now on, for [`take_moments`](Self::take_moments).
    pub fn keep_moments(&self) {
        self.lock().moments = Some(Vec::new());
    }

    /// The disk as it was before each op since the last time it was asked, without faults: any of them can be cut off there.
    #[must_use]
    pub fn take_moments(&self) -> Vec<Self> {
        let moments = self.lock().moments.as_mut().map(std::mem::take);
        moments
            .unwrap_or_default()
            .into_iter()
            .map(Self::from_state)
            .collect()
    }

    /// What the death of the process leaves: all that was written, but what was not synced is no safer than before. A new disk
    /// without faults.
    #[must_use]
    pub fn kill(&self) -> Self {
        Self::from_state(self.lock().kill())
    }

    /// Forgets the cache where it differs from what is, or will be, on the disk: after a failed sync reads show the truth.
    pub fn drop_cache(&self) {
        self.lock().drop_cache();
    }

    /// What reads show of a file.
    #[must_use]
    pub fn content(&self, name: &str) -> Option<Vec<u8>> {
        self.lock().inode_of(name).map(|inode| inode.cache.to_vec())
    }

    /// What a file would hold if a power cut lost all that is not durable; `None` if its name would be lost too.
    #[must_use]
    pub fn durable_content(&self, name: &str) -> Option<Vec<u8>> {
        self.lock()
            .durable_inode_of(name)
            .map(|inode| inode.durable.to_vec())
    }

    /// Which kinds of trouble it, and the disks that it came from, have had.
    #[must_use]
    pub fn injuries(&self) -> Injuries {
        self.lock().injuries
    }

    /// Whether a read has failed because it was told to.
    #[must_use]
    pub fn read_failed(&self) -> bool {
        self.injuries().has(Injury::ReadIo)
    }

    /// Overwrites bytes of a file behind everybody's back, on the disk and in the cache: bit rot, or a misdirected write. Bytes
    /// beyond the end are left out. False if there is no such file.
    #[must_use]
    pub fn corrupt(&self, name: &str, at: u64, bytes: &[u8]) -> bool {
        self.lock().corrupt(name, at, bytes)
    }
}

impl Storage for SimDisk {
    type File = SimFile;

    fn list(&self) -> io::Result<Vec<String>> {
        let mut state = self.lock();
        state.begin_read()?;
        Ok(state.names.keys().cloned().collect())
    }

    fn create(&self, name: &str) -> io::Result<SimFile> {
        check_file_name(name)?;
        let mut state = self.lock();
        let ino = state.create(name)?;
        SimFile::new(&self.state, &mut state, ino, true)
    }

    fn open(&self, name: &str) -> io::Result<SimFile> {
        check_file_name(name)?;
        let mut state = self.lock();
        let ino = state.open(name)?;
        SimFile::new(&self.state, &mut state, ino, true)
    }

    fn open_read(&self, name: &str) -> io::Result<SimFile> {
        check_file_name(name)?;
        let mut state = self.lock();
        let ino = state.open(name)?;
        SimFile::new(&self.state, &mut state, ino, false)
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        check_file_name(from)?;
        check_file_name(to)?;
        self.lock().rename(from, to)
    }

    fn delete(&self, name: &str) -> io::Result<()> {
        check_file_name(name)?;
        self.lock().delete(name)
    }

    fn sync_dir(&self) -> io::Result<()> {
        self.lock().sync_dir()
    }

    fn free_bytes(&self) -> io::Result<u64> {
        let mut state = self.lock();
        state.begin_read()?;
        Ok(state.free_bytes())
    }

    fn check_identity(&self) -> io::Result<()> {
        self.lock().begin_read()
    }
}

//! The file `store`: which store this is, and which builds may touch it.
//!
//! One block of 512 bytes, integers little-endian:
//!
//! | at | bytes | field |
//! |---|---|---|
//! | 0 | 8 | `BRKRSTOR` |
//! | 8 | 2 | format version |
//! | 10 | 2 | zero |
//! | 12 | 4 | feature level |
//! | 16 | 16 | store id |
//! | 32 | 8 | inode of this file |
//! | 40 | 8 | birth time of this file: nanoseconds since 1970, signed; 0 if the file system does not know it |
//! | 48 | 8 | when the store was made: microseconds since 1970, signed |
//! | 56 | 16 | log id: what segments carry; the first store id, and the same ever after |
//! | 72 | 436 | zero |
//! | 508 | 4 | CRC-32C of bytes 0 to 507 |
//!
//! Magic, format version, feature level and checksum keep their places in all later versions, so that an old build can refuse a new
//! store and tell it from a damaged one.
//!
//! The inode and birth time are the file's own. A copy, a restored backup or a move to another disk has others: then the content may
//! be older than what clients have seen, and the store must get a new identity ([`Identity::Copied`]). Device numbers are left out,
//! as they change when the machine starts.

use std::fs::File;
use std::io;

use broker_proto::{Micros, StoreId};
use rustix::fs::{AtFlags, OFlags};

use super::block::{BLOCK_BYTES, Block};
use super::store_dir::sync_name;
use super::{DirError, HEALTH_SOCKET_NAME, LOCK_NAME, Lock, SOCKET_NAME, STORE_NAME, StoreDir};

/// Highest format version of a store that this build understands, and the one that it writes.
pub const FORMAT_VERSION: u16 = 1;

/// Highest feature level of a store that this build understands, and the one that it gives to a new store.
pub const FEATURE_LEVEL: u32 = 1;

const MAGIC: [u8; 8] = *b"BRKRSTOR";
const FORMAT_AT: usize = 8;
const FEATURE_AT: usize = 12;
const ID_AT: usize = 16;
const INODE_AT: usize = 32;
const BIRTH_AT: usize = 40;
const CREATED_AT: usize = 48;
const LOG_ID_AT: usize = 56;

/// Name under which a new `store` is prepared.
const TEMPORARY_NAME: &str = "store.tmp";

/// What the file `store` says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct StoreFile {
    /// Identity of the store.
    pub id: StoreId,
    /// Identity of its log, which segments carry: it stays when the store gets a new identity.
    pub log_id: StoreId,
    /// Features that the store may use.
    pub feature_level: u32,
    /// When the store was made.
    pub created: Micros,
    /// Whether this is the file that was written, or a copy.
    pub identity: Identity,
}

/// Where a file `store` comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Identity {
    /// It was made just now.
    Created,
    /// It is the file that was made here.
    Same,
    /// It was copied, restored or moved from another disk: call [`StoreDir::renew_identity`] before anything is appended.
    Copied,
}

/// What a store that does not exist yet shall be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NewStore {
    /// Its identity, 16 random bytes.
    pub id: StoreId,
    /// Now.
    pub created: Micros,
}

impl StoreDir {
    /// Reads the file `store`; `None` if there is none yet. It takes no lock and changes nothing.
    ///
    /// # Errors
    /// The store is newer than this build ([`DirError::NewerFormat`], [`DirError::NewerFeatureLevel`]), damaged or unreadable.
    pub fn read_store(&self) -> Result<Option<StoreFile>, DirError> {
        let read = |source| DirError::StoreIo {
            path: self.store_path(),
            action: "read",
            source,
        };
        let file = match self.open_file(STORE_NAME, OFlags::RDONLY) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(read(error)),
        };
        let Some(block) = Block::read(&file).map_err(read)? else {
            return Err(self.damaged(format!("it is shorter than {BLOCK_BYTES} bytes")));
        };
        self.check(&block)?;
        let recorded = Origin {
            inode: u64::from_le_bytes(block.array(INODE_AT)),
            birth_nanos: i64::from_le_bytes(block.array(BIRTH_AT)),
        };
        let identity = if recorded.is_same(Origin::of(&file).map_err(read)?) {
            Identity::Same
        } else {
            Identity::Copied
        };
        Ok(Some(StoreFile {
            id: StoreId::new(block.array(ID_AT)),
            log_id: StoreId::new(block.array(LOG_ID_AT)),
            feature_level: u32::from_le_bytes(block.array(FEATURE_AT)),
            created: Micros::new(i64::from_le_bytes(block.array(CREATED_AT))),
            identity,
        }))
    }

    /// Reads the file `store`, or makes it when the directory is empty. The lock shows that nobody else does the same.
    ///
    /// # Errors
    /// As [`read_store`](Self::read_store); or it is missing beside other files ([`DirError::StoreMissing`]), or cannot be made.
    pub fn open_store(&self, lock: &Lock, new: NewStore) -> Result<StoreFile, DirError> {
        if let Some(store) = self.read_store()? {
            return Ok(store);
        }
        let io = |source| DirError::StoreIo {
            path: self.store_path(),
            action: "write",
            source,
        };
        if let Some(found) = self.find_content().map_err(io)? {
            return Err(DirError::StoreMissing {
                path: self.path().to_owned(),
                found,
            });
        }
        let store = StoreFile {
            id: new.id,
            log_id: new.id,
            feature_level: FEATURE_LEVEL,
            created: new.created,
            identity: Identity::Created,
        };
        self.write_store(lock, &store).map_err(io)?;
        // The directory may be as new as the store, made by a process that died before it could sync the name.
        sync_name(self.path()).map_err(io)?;
        Ok(store)
    }

    /// Gives a copied store an identity of its own.
    ///
    /// # Errors
    /// As [`read_store`](Self::read_store), or the file cannot be written; then the old one is still there.
    pub fn renew_identity(&self, lock: &Lock, id: StoreId) -> Result<StoreFile, DirError> {
        let Some(store) = self.read_store()? else {
            return Err(self.damaged("it is gone".to_owned()));
        };
        let store = StoreFile {
            id,
            identity: Identity::Same,
            ..store
        };
        self.write_store(lock, &store)
            .map_err(|source| DirError::StoreIo {
                path: self.store_path(),
                action: "write",
                source,
            })?;
        Ok(store)
    }

    /// Refuses what cannot be trusted, and what only newer builds understand.
    fn check(&self, block: &Block) -> Result<(), DirError> {
        if block.array(0) != MAGIC {
            return Err(self.damaged("it does not begin with BRKRSTOR".to_owned()));
        }
        if !block.is_whole() {
            return Err(self.damaged(format!(
                "its crc32c is {:08x}, expected {:08x}",
                block.found_crc(),
                block.crc()
            )));
        }
        let path = || self.path().to_owned();
        let (format, level) = (
            u16::from_le_bytes(block.array(FORMAT_AT)),
            u32::from_le_bytes(block.array(FEATURE_AT)),
        );
        if format > FORMAT_VERSION {
            return Err(DirError::NewerFormat {
                path: path(),
                found: format,
                understood: FORMAT_VERSION,
            });
        }
        if level > FEATURE_LEVEL {
            return Err(DirError::NewerFeatureLevel {
                path: path(),
                found: level,
                understood: FEATURE_LEVEL,
            });
        }
        Ok(())
    }

    /// Replaces the file `store` in one step: until the rename the old one is the truth.
    fn write_store(&self, _lock: &Lock, store: &StoreFile) -> io::Result<()> {
        let dir = self.file();
        match rustix::fs::unlinkat(dir, TEMPORARY_NAME, AtFlags::empty()) {
            Ok(()) | Err(rustix::io::Errno::NOENT) => {}
            Err(errno) => return Err(errno.into()),
        }
        let file = self.open_file(TEMPORARY_NAME, OFlags::RDWR | OFlags::CREATE | OFlags::EXCL)?;
        let origin = Origin::of(&file)?;
        let mut block = Block::new();
        block.put(0, &MAGIC);
        block.put(FORMAT_AT, &FORMAT_VERSION.to_le_bytes());
        block.put(FEATURE_AT, &store.feature_level.to_le_bytes());
        block.put(ID_AT, store.id.as_bytes());
        block.put(INODE_AT, &origin.inode.to_le_bytes());
        block.put(BIRTH_AT, &origin.birth_nanos.to_le_bytes());
        block.put(CREATED_AT, &store.created.get().to_le_bytes());
        block.put(LOG_ID_AT, store.log_id.as_bytes());
        block.seal_and_write(&file)?;
        file.sync_all()?;
        rustix::fs::renameat(dir, TEMPORARY_NAME, dir, STORE_NAME)?;
        dir.sync_all()
    }

    /// Something that a broker would not have put here before the file `store`, or that shows that there was one.
    fn find_content(&self) -> io::Result<Option<String>> {
        for entry in rustix::fs::Dir::read_from(self.file())? {
            let name = entry?.file_name().to_string_lossy().into_owned();
            let ours = [
                LOCK_NAME,
                SOCKET_NAME,
                HEALTH_SOCKET_NAME,
                TEMPORARY_NAME,
                "lost+found",
            ]
            .contains(&name.as_str());
            // The leader binds a temporary name beside each socket first; names with a dot are other programs' marks.
            if !ours
                && !name.starts_with('.')
                && !name.starts_with("sock.")
                && !name.starts_with("health.sock.")
            {
                return Ok(Some(name));
            }
        }
        Ok(None)
    }

    fn damaged(&self, problem: String) -> DirError {
        DirError::StoreDamaged {
            path: self.store_path(),
            problem,
        }
    }
}

/// What a copy of a file does not share with it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Origin {
    inode: u64,
    /// 0 if unknown.
    birth_nanos: i64,
}

impl Origin {
    fn of(file: &File) -> io::Result<Self> {
        use std::os::unix::fs::MetadataExt;
        let metadata = file.metadata()?;
        Ok(Self {
            inode: metadata.ino(),
            birth_nanos: birth_nanos(file),
        })
    }

    fn is_same(self, other: Self) -> bool {
        let birth_known = self.birth_nanos != 0 && other.birth_nanos != 0;
        self.inode == other.inode && (!birth_known || self.birth_nanos == other.birth_nanos)
    }
}

#[cfg(target_os = "linux")]
fn birth_nanos(file: &File) -> i64 {
    use rustix::fs::StatxFlags;

    match rustix::fs::statx(file, c"", AtFlags::EMPTY_PATH, StatxFlags::BTIME) {
        Ok(stat) if stat.stx_mask & StatxFlags::BTIME.bits() != 0 => stat
            .stx_btime
            .tv_sec
            .saturating_mul(1_000_000_000)
            .saturating_add(i64::from(stat.stx_btime.tv_nsec)),
        _ => 0,
    }
}

#[cfg(not(target_os = "linux"))]
fn birth_nanos(file: &File) -> i64 {
    let birth = file.metadata().and_then(|metadata| metadata.created()).ok();
    let since_1970 =
        birth.and_then(|birth| birth.duration_since(std::time::SystemTime::UNIX_EPOCH).ok());
    since_1970
        .and_then(|since| i64::try_from(since.as_nanos()).ok())
        .unwrap_or(0)
}

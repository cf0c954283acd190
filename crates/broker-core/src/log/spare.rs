//! Files of zeros that are ready to become segments.
//!
//! Writing into space that is there already needs no change of the file's size, so that one sync of the data is enough. Making
//! that space takes long, so it is done ahead, by another thread than the writer.

use std::io;

use super::storage::{Storage, StorageFile};

/// A spare is filled in pieces of this size when nothing else uses the disk, or when it is needed soon.
pub(crate) const FILL_BYTES: u64 = 1 << 20;

/// A file of zeros, ready to become a segment.
#[derive(Debug)]
pub(crate) struct Spare<F> {
    pub(super) file: F,
    pub(super) name: String,
    pub(super) bytes: u64,
}

impl<F> Spare<F> {
    /// The name of its file.
    pub(crate) fn name(&self) -> &str {
        &self.name
    }
}

/// The name of a file that is not a segment yet.
pub(super) fn spare_name(number: u64) -> String {
    format!("spare-{number:08x}.tmp")
}

/// Spares that are left over and have a lower number than this can stay a while: there are numbers enough above them.
pub(super) const SPARES_NAMED: u64 = 1 << 32;

/// The number in the name of a spare.
pub(super) fn spare_number(name: &str) -> Option<u64> {
    let digits = name.strip_prefix("spare-")?.strip_suffix(".tmp")?;
    let number = u64::from_str_radix(digits, 16).ok()?;
    (spare_name(number) == name).then_some(number)
}

/// Deletes files that leaders which were killed had prepared. Only space is lost if one stays.
pub(crate) fn delete_spares<S: Storage>(storage: &S, names: &[String]) {
    for name in names {
        let _ = storage.delete(name);
    }
}

/// Makes a file of zeros, on stable storage. `next_piece` is asked before each piece how large it may be, and sets the pace;
/// `None` gives up, so that a store that is closed need not wait for all.
///
/// # Errors
/// Those of the disk; nothing is left behind.
pub(crate) fn make_spare<S: Storage>(
    storage: &S,
    name: &str,
    bytes: u64,
    next_piece: &mut dyn FnMut() -> Option<u64>,
) -> io::Result<Spare<S::File>> {
    make(storage, name, bytes, |file| fill(file, bytes, next_piece))
}

/// Makes a file that begins with these bytes and has zeros behind them, on stable storage.
///
/// # Errors
/// Those of the disk; nothing is left behind.
pub(super) fn make_begun<S: Storage>(
    storage: &S,
    name: &str,
    content: &[u8],
    bytes: u64,
) -> io::Result<Spare<S::File>> {
    make(storage, name, bytes, |file| {
        file.write_at(0, content)?;
        file.zero_fill(content.len() as u64, bytes)
    })
}

fn make<S: Storage>(
    storage: &S,
    name: &str,
    bytes: u64,
    fill: impl FnOnce(&S::File) -> io::Result<()>,
) -> io::Result<Spare<S::File>> {
    match storage.delete(name) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let file = storage.create(name)?;
    if let Err(error) = fill(&file).and_then(|()| file.sync_all()) {
        let _ = storage.delete(name);
        return Err(error);
    }
    Ok(Spare {
        file,
        name: name.to_owned(),
        bytes,
    })
}

fn fill(
    file: &impl StorageFile,
    bytes: u64,
    next_piece: &mut dyn FnMut() -> Option<u64>,
) -> io::Result<()> {
    let mut from = 0;
    while from < bytes {
        let piece = next_piece().ok_or(io::ErrorKind::Interrupted)?;
        let to = from.saturating_add(piece.max(1)).min(bytes);
        file.zero_fill(from, to)?;
        from = to;
    }
    Ok(())
}

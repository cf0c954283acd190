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

/// Whether a file of that name is a spare, left over by a leader that was killed.
pub(crate) fn is_spare_name(name: &str) -> bool {
    let number = name
        .strip_prefix("spare-")
        .and_then(|rest| rest.strip_suffix(".tmp"));
    number
        .and_then(|digits| u64::from_str_radix(digits, 16).ok())
        .is_some_and(|number| spare_name(number) == name)
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
    match storage.delete(name) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let file = storage.create(name)?;
    let filled = fill(&file, bytes, next_piece).and_then(|()| file.sync_all());
    if let Err(error) = filled {
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

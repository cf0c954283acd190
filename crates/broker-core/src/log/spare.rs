//! Files of zeros that are ready to become segments.
//!
//! Writing into space that is there already needs no change of the file's size, so that one sync of the data is enough. Making
//! that space takes long, so it is done ahead, by another thread than the writer.

use std::io;

use super::storage::{Storage, StorageFile};

/// A spare is filled in pieces of this size.
const FILL_BYTES: u64 = 1 << 20;

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

/// Makes a file of zeros, on stable storage.
///
/// # Errors
/// Those of the disk; nothing is left behind.
pub(crate) fn make_spare<S: Storage>(
    storage: &S,
    name: &str,
    bytes: u64,
    given_up: &dyn Fn() -> bool,
) -> io::Result<Spare<S::File>> {
    match storage.delete(name) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let file = storage.create(name)?;
    let filled = fill(&file, bytes, given_up).and_then(|()| file.sync_all());
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

/// Fills a file with zeros, piece by piece, so that a store that is closed need not wait for all.
fn fill(file: &impl StorageFile, bytes: u64, given_up: &dyn Fn() -> bool) -> io::Result<()> {
    let mut from = 0;
    while from < bytes {
        if given_up() {
            return Err(io::ErrorKind::Interrupted.into());
        }
        let to = (from + FILL_BYTES).min(bytes);
        file.zero_fill(from, to)?;
        from = to;
    }
    Ok(())
}

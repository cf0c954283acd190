//! The segment files of a directory, and which of them count.
//!
//! A file of a higher generation stands for the segments that it was made of. As long as those are still there they are
//! *superseded*: nobody reads them, and they are deleted once the log has been opened.
//!
//! **Invariant:** no two of the files that count stand for the same segment or the same place of the log.

use std::cmp::Ordering;
use std::io;

use broker_proto::StoreId;

use super::batch::{BATCH_BYTES_MAX, BatchHead};
use super::check::header_block;
use super::error::RecoveryError;
use super::pack::is_pack_name;
use super::position::{LogPosition, Marker};
use super::recovery::FEATURE_LEVEL;
use super::scan::{head_at, next_head};
use super::segment::{
    DATA_OFFSET, FORMAT_VERSION, HeaderFault, SegmentHeader, SegmentId, SegmentName,
};
use super::spare::{SPARES_NAMED, spare_number};
use super::storage::{Storage, StorageFile};
use super::window::Window;
use crate::planted::{Bug, planted};

/// Read this much at a time while looking for the end of a file.
const READ_AHEAD: usize = 1 << 20;

/// With so many bytes free on the disk, what was prepared by a leader that was killed can stay until this one serves: to delete 64 MiB
/// has been seen to take 10 ms.
const SPARES_STAY: u64 = 1 << 30;

/// See the module's documentation.
#[derive(Debug)]
pub(super) struct Catalog {
    /// The headers of the files that count, in the order of the log.
    pub(super) headers: Vec<SegmentHeader>,
    /// Files that another one stands for, and footers of segments that are not there.
    pub(super) leftovers: Vec<String>,
    /// Files that a leader which was killed had prepared: they hold nothing.
    pub(super) spares: Vec<String>,
    /// Rewritten files without a readable header that never held anything else: they are left alone.
    pub(super) hollow: Vec<SegmentName>,
}

impl Catalog {
    /// Reads the headers of all segments. Temporary files of a leader that was killed are removed, or listed as spares: they hold
    /// nothing. Any other file that is not exactly a segment is left alone.
    pub(super) fn read<S: Storage>(storage: &S, store: StoreId) -> Result<Self, RecoveryError> {
        let files = io_of("the directory", storage.list())?;
        let mut headers: Vec<SegmentHeader> = Vec::new();
        let mut unreadable: Vec<(SegmentName, RecoveryError)> = Vec::new();
        let (mut hollow, mut spares) = (Vec::new(), Vec::new());
        let may_stay = storage.free_bytes().is_ok_and(|free| free >= SPARES_STAY);
        for file in &files {
            if may_stay && spare_number(file).is_some_and(|number| number < SPARES_NAMED) {
                spares.push(file.clone());
            } else if spare_number(file).is_some() || is_pack_name(file) {
                // Only space is lost if it stays.
                let _ = storage.delete(file);
            }
            let Some(name) = parse_name(file) else {
                continue;
            };
            match read_header(storage, file, name) {
                Err(RecoveryError::Unreadable { .. }) if planted(Bug::UnreadableDeleted) => {
                    io_of(file, storage.delete(file))?;
                }
                Err(RecoveryError::Unreadable { .. }) if is_hollow(storage, file, name) => {
                    hollow.push(name);
                }
                Err(error @ RecoveryError::Unreadable { .. }) => unreadable.push((name, error)),
                header => headers.push(header?),
            }
        }
        for header in &headers {
            check_origin(header, store)?;
        }
        headers.sort_by_key(|header| header.name);
        // Before anything is believed of a header that was put together.
        check_put_together(&headers)?;
        mend_covers(&mut headers);
        let unsafe_names = leave_out_unsafe(&mut headers);
        let (gone, headers): (Vec<_>, Vec<_>) = headers.iter().cloned().partition(|header| {
            let is_superseded = headers.iter().any(|other| other.supersedes(header));
            is_superseded && !planted(Bug::SupersededLoaded)
        });
        // Nothing is deleted on the word of a header that was put together.
        let vouched = |gone: &&SegmentHeader| {
            let known = headers.iter().filter(|header| !header.store.is_none());
            known.into_iter().any(|header| header.supersedes(gone))
        };
        let gone = gone.iter().filter(vouched).map(|header| header.name);
        let mut gone: Vec<SegmentName> = gone.collect();
        for (name, error) in unreadable {
            let is_covered = |header: &SegmentHeader| {
                header.name.generation > name.generation && header.covers().contains(&name.id)
            };
            if !headers.iter().any(is_covered) {
                return Err(error);
            }
            gone.push(name);
        }
        check_order(&headers)?;
        gone.extend(unsafe_names);
        let mut leftovers: Vec<String> = gone.iter().map(SegmentName::file).collect();
        leftovers.extend(files.iter().filter_map(|file| {
            let name = SegmentName::parse_footer(file)?;
            let is_there = headers.iter().any(|header| header.name == name);
            (!is_there).then(|| file.clone())
        }));
        Ok(Self {
            headers,
            leftovers,
            spares,
            hollow,
        })
    }
}

/// Deletes what the log does not need: it has been read without these files.
pub(super) fn delete_leftovers<S: Storage>(storage: &S, catalog: &Catalog) {
    for file in &catalog.leftovers {
        if let Err(error) = storage.delete(file) {
            tracing::warn!(file, %error, "a file that is not needed any more is kept until the next start");
        }
    }
}

/// Whether a file is one that stands for segments of which nothing was left: a header, and no batch behind it.
fn is_hollow<S: Storage>(storage: &S, file: &str, name: SegmentName) -> bool {
    let bytes = storage.open_read(file).and_then(|file| file.len());
    name.generation > 0 && bytes.is_ok_and(|bytes| bytes <= DATA_OFFSET)
}

/// Leaves out every file that stands for others which are all still there, and gives their names. Whoever made it may have been
/// killed before its name was safe, or after that could not be made sure of: then the page cache shows a name that the disk
/// may never have, whatever a later sync says. The others are deleted one by one only when it is safe, so one that is missing
/// says that it is.
fn leave_out_unsafe(headers: &mut Vec<SegmentHeader>) -> Vec<SegmentName> {
    let mut packed: Vec<SegmentHeader> = headers.clone();
    packed.retain(|header| header.packed_end().is_some());
    packed.sort_by_key(|header| std::cmp::Reverse(header.name.generation));
    let mut left_out = Vec::new();
    for new in packed {
        let within: Vec<&SegmentHeader> = headers
            .iter()
            .filter(|header| new.supersedes(header))
            .collect();
        let sources = within
            .iter()
            .filter(|header| !within.iter().any(|other| other.supersedes(header)));
        let found = SegmentHeader::fingerprint(sources.map(|header| header.name));
        if !within.is_empty() && found == new.sources && !planted(Bug::UnsafeNameBelieved) {
            headers.retain(|header| header.name != new.name);
            left_out.push(new.name);
        }
    }
    left_out
}

/// The segment that came before this one, as far as it is known which that was.
pub(crate) fn before(header: &SegmentHeader) -> SegmentName {
    let id = match header.previous.0 {
        0 => header.name.id.0.saturating_sub(1),
        known => known,
    };
    SegmentName {
        id: SegmentId(id),
        generation: 0,
    }
}

fn check_origin(header: &SegmentHeader, store: StoreId) -> Result<(), RecoveryError> {
    let file = header.name.file();
    // A header that was put together does not know whose it is.
    if header.store != store && !header.store.is_none() {
        return Err(RecoveryError::Foreign {
            file,
            found: header.store,
            expected: store,
        });
    }
    if header.feature_level > FEATURE_LEVEL {
        return Err(RecoveryError::NewerFeatures {
            file,
            level: header.feature_level,
            known: FEATURE_LEVEL,
        });
    }
    Ok(())
}

/// A rewritten file whose header is lost does not know for which segments it stands: it takes the place of the older ones
/// that begin within it.
fn mend_covers(headers: &mut [SegmentHeader]) {
    for at in 0..headers.len() {
        let Some(header) = headers.get(at).filter(|header| header.store.is_none()) else {
            continue;
        };
        let Some(end) = header.packed_end() else {
            continue;
        };
        let within = headers.iter().skip(at).take_while(|other| {
            other.name.id == header.name.id
                || (other.base < end && other.name.generation < header.name.generation)
        });
        let last = within.map(|other| *other.covers().end()).max();
        if let (Some(last), Some(header)) = (last, headers.get_mut(at)) {
            header.covers_last = last;
        }
    }
}

/// No two segments may stand for the same part of the log.
fn check_order(headers: &[SegmentHeader]) -> Result<(), RecoveryError> {
    for pair in headers.windows(2) {
        let [before, header] = pair else { continue };
        let file = header.name.file();
        if before.covers().contains(&header.name.id) {
            return Err(RecoveryError::Ambiguous {
                file,
                other: before.name.file(),
            });
        }
        let ends = before.packed_end().unwrap_or(before.base);
        if header.base < ends.max(before.base) {
            return Err(RecoveryError::Overlap {
                file,
                base: header.base,
            });
        }
    }
    Ok(())
}

/// Where a disk wrote a batch of another segment over the first one of this, a header cannot be put
/// together: the marker is that of the other, or the place does not lie between the neighbours.
fn check_put_together(headers: &[SegmentHeader]) -> Result<(), RecoveryError> {
    for (at, header) in headers.iter().enumerate() {
        if !header.store.is_none() {
            continue;
        }
        let belongs_elsewhere = headers
            .iter()
            .enumerate()
            .any(|(n, other)| match n.cmp(&at) {
                Ordering::Less => other.base > header.base || other.marker == header.marker,
                Ordering::Equal => false,
                Ordering::Greater => other.base < header.base || other.marker == header.marker,
            });
        if belongs_elsewhere {
            return Err(RecoveryError::Unreadable {
                file: header.name.file(),
            });
        }
    }
    Ok(())
}

fn parse_name(file: &str) -> Option<SegmentName> {
    if planted(Bug::TemporaryFileLoaded) {
        return SegmentName::parse(file.get(..25)?);
    }
    SegmentName::parse(file)
}

fn read_header<S: Storage>(
    storage: &S,
    file: &str,
    name: SegmentName,
) -> Result<SegmentHeader, RecoveryError> {
    let opened = io_of(file, storage.open_read(file))?;
    let block = io_of(file, header_block(&opened))?;
    match SegmentHeader::parse(&block) {
        Ok(header) if header.name == name => Ok(header),
        Err(HeaderFault::Newer { version }) => Err(RecoveryError::Newer {
            file: file.to_owned(),
            version,
            known: FORMAT_VERSION,
        }),
        _ => io_of(file, put_together(opened, &block, name))?.ok_or_else(|| {
            RecoveryError::Unreadable {
                file: file.to_owned(),
            }
        }),
    }
}

/// A header that is lost can be made again: the marker heads the first batch, and the batch knows
/// its place. What it does not know is not needed for reading. `block` is how the file begins.
///
/// # Errors
/// Those of the disk.
pub(super) fn put_together<F: StorageFile>(
    file: F,
    block: &[u8],
    name: SegmentName,
) -> io::Result<Option<SegmentHeader>> {
    let header = header_from_first_batch(block, name);
    let Some(header) = header.filter(|_| name.generation > 0) else {
        return Ok(header_from_first_batch(block, name));
    };
    let mut window = Window::new(file, header.clone(), READ_AHEAD);
    let data_end = last_end(&mut window)?;
    Ok(Some(SegmentHeader { data_end, ..header }))
}

fn header_from_first_batch(block: &[u8], name: SegmentName) -> Option<SegmentHeader> {
    let batch = block.get(usize::try_from(DATA_OFFSET).ok()?..)?;
    let marker = Marker(u64::from_le_bytes(*batch.first_chunk()?));
    let head = BatchHead::parse_any(batch, marker)?;
    Some(SegmentHeader {
        store: StoreId::NONE,
        name,
        covers_last: name.id,
        marker,
        base: head.position,
        term: head.term,
        created: head.time,
        previous: SegmentId(0),
        checkpoint: head.checkpoint,
        batch_align: 4096,
        feature_level: 0,
        data_end: LogPosition::START,
        sources: 0,
    })
}

/// Where the last batch of a file ends that can be found.
fn last_end<F: StorageFile>(window: &mut Window<F>) -> io::Result<LogPosition> {
    let mut at = window.header().base;
    loop {
        let head = match head_at(window, at)? {
            Some(head) => Some(head),
            None => next_head(window, at, at.plus(BATCH_BYTES_MAX as u64))?,
        };
        match head.filter(|head| !head.kind.is_mark()) {
            Some(head) => at = head.end(),
            None => return Ok(at),
        }
    }
}

/// Says which file it was.
pub(super) fn io_of<T>(file: &str, result: io::Result<T>) -> Result<T, RecoveryError> {
    result.map_err(|source| RecoveryError::Io {
        file: file.to_owned(),
        source,
    })
}

//! Bytes as a segment: what the scanner makes of them.

use std::io;

use broker_proto::StoreId;
use broker_proto::record::{RECORD_FIXED_BYTES, RecordHead};

use crate::log::batch::{BATCH_BYTES_MAX, HEAD_BYTES, MARK_BYTES, RUN_BYTES, TRAILER_BYTES};
use crate::log::position::{LogPosition, Marker};
use crate::log::scan::{BatchView, Scanner, Step, whole_batch};
use crate::log::segment::{SegmentHeader, SegmentId, SegmentName};
use crate::log::storage::StorageFile;
use crate::log::window::Window;

/// The marker of the example in `docs/log-format.md`, so that its bytes are good seeds.
const MARKER: Marker = Marker(0x43d2_41e2_e562_3d7b);

/// A record that the scanner believes in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct FoundRecord {
    /// Where in the log it begins.
    at: u64,
    /// How many bytes it has.
    bytes: u32,
    /// Number of its room; 0 for state records.
    room: u32,
    /// Its seq; 0 for state records.
    seq: u64,
}

/// What the scanner came upon.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Found {
    /// A batch.
    Batch {
        /// Where in the log it begins.
        at: u64,
        /// Where it ends.
        end: u64,
        /// Whether head and table are both whole.
        is_whole: bool,
        /// Its records.
        records: Vec<FoundRecord>,
    },
    /// A stretch of which nothing can be said.
    Lost {
        /// Where it begins.
        at: u64,
        /// Where it ends.
        end: u64,
    },
}

/// A file that is there to be read.
#[derive(Debug)]
struct Flat(Vec<u8>);

/// What a file has from an offset on.
fn rest(file: &[u8], offset: u64) -> &[u8] {
    usize::try_from(offset)
        .ok()
        .and_then(|at| file.get(at..))
        .unwrap_or_default()
}

fn read_only<T>() -> io::Result<T> {
    Err(io::ErrorKind::ReadOnlyFilesystem.into())
}

impl StorageFile for Flat {
    fn len(&self) -> io::Result<u64> {
        Ok(self.0.len() as u64)
    }

    fn read_at(&self, offset: u64, buf: &mut [u8]) -> io::Result<usize> {
        let rest = rest(&self.0, offset);
        let len = rest.len().min(buf.len());
        if let (Some(into), Some(from)) = (buf.get_mut(..len), rest.get(..len)) {
            into.copy_from_slice(from);
        }
        Ok(len)
    }

    fn write_at(&self, _: u64, _: &[u8]) -> io::Result<()> {
        read_only()
    }

    fn sync(&self) -> io::Result<()> {
        read_only()
    }

    fn sync_all(&self) -> io::Result<()> {
        read_only()
    }

    fn zero_fill(&self, _: u64, _: u64) -> io::Result<()> {
        read_only()
    }

    fn truncate(&self, _: u64) -> io::Result<()> {
        read_only()
    }

    fn block_bytes(&self) -> u32 {
        512
    }

    fn is_direct(&self) -> bool {
        false
    }
}

/// Walks a segment up to the place where the log is known to have been written.
fn steps(header: &SegmentHeader, file: &[u8], limit: LogPosition, ahead: usize) -> Vec<Found> {
    let window = Window::new(Flat(file.to_vec()), header.clone(), ahead);
    let mut scanner = Scanner::new(window, header.base, limit);
    let mut found = Vec::new();
    let mut at = header.base;
    loop {
        let step = scanner.step().expect("a file in memory can be read");
        assert!(
            scanner.window.held_bytes() <= file.len(),
            "it holds more than there is"
        );
        let (from, end) = match &step {
            Step::Batch(view) => (view.head.position, view.head.end()),
            Step::Lost { from, upto } => (*from, *upto),
            Step::End => break,
        };
        assert_eq!(from, at, "it begins where the one before ended");
        assert!(
            end > from && end <= limit,
            "it makes progress, and not too much: {from} to {end} of {limit}"
        );
        at = end;
        found.push(match &step {
            Step::Batch(view) => batch(header, file, view),
            _ => Found::Lost {
                at: from.get(),
                end: end.get(),
            },
        });
    }
    assert!(at >= limit, "it stopped at {at} of {limit}");
    found
}

/// Checks a batch with nothing of the code that found it but the format.
fn batch(header: &SegmentHeader, file: &[u8], view: &BatchView) -> Found {
    let head = &view.head;
    let bytes = rest(file, header.offset_of(head.position));
    let bytes = bytes.get(..head.length as usize).unwrap_or_default();
    let part = |from: usize, to: usize| bytes.get(from..to).unwrap_or_default();
    let word = |at: usize| {
        part(at, at + 4)
            .first_chunk()
            .map(|word| u32::from_le_bytes(*word))
    };
    let crc = |pieces: &[&[u8]]| {
        let joined = pieces
            .iter()
            .fold(0, |crc, piece| crc32c::crc32c_append(crc, piece));
        Some(joined)
    };
    let head_is_right = word(8) == crc(&[part(0, 8), part(12, HEAD_BYTES)]);
    let end = head.length as usize;
    let table_is_right = word(end - 4) == crc(&[part(head.table as usize, end - 4)]);
    assert!(
        head_is_right || table_is_right,
        "a batch at {} that nothing vouches for",
        head.position
    );
    assert!(
        view.damaged || head_is_right && table_is_right,
        "a whole batch at {} that is not",
        head.position
    );
    let mut records = Vec::new();
    for run in view.runs() {
        let mut at = run.offset;
        for (n, length) in view.lengths(&run).into_iter().enumerate() {
            let record = part(at as usize, at as usize + length as usize);
            assert_eq!(
                record.len(),
                length as usize,
                "a record ends behind its batch"
            );
            assert!(
                table_is_right || record_is_right(record),
                "a record at {at} of a batch without a table"
            );
            let seq = match run.room.is_none() {
                true => 0,
                false => run.first_seq.get().saturating_add(n as u64),
            };
            records.push(FoundRecord {
                at: head.position.get() + u64::from(at),
                bytes: length,
                room: run.room.get(),
                seq,
            });
            at += length;
        }
    }
    Found::Batch {
        at: head.position.get(),
        end: head.end().get(),
        is_whole: !view.damaged,
        records,
    }
}

fn record_is_right(record: &[u8]) -> bool {
    let Some((fixed, rest)) = record.split_first_chunk::<RECORD_FIXED_BYTES>() else {
        return false;
    };
    let head = RecordHead::parse(fixed);
    rest.get(..usize::from(head.head_bytes))
        .is_some_and(|rest| head.record_len() == record.len() && head.compute_crc(rest) == head.crc)
}

/// Any bytes as the data of a segment, as they are and with right checksums.
///
/// No panic; every byte is accounted for, once; nothing is believed that has a wrong checksum; what is read ahead changes nothing;
/// and a batch that is called whole has only records that are.
///
/// # Panics
/// When one of these does not hold.
pub fn scan(data: &[u8]) {
    let name = SegmentName {
        id: SegmentId(1),
        generation: 0,
    };
    let header = SegmentHeader {
        store: StoreId::new([1; 16]),
        name,
        covers_last: name.id,
        marker: MARKER,
        base: LogPosition::START,
        term: 1,
        created: 0,
        previous: SegmentId(0),
        checkpoint: LogPosition::NONE,
        batch_align: 4096,
        feature_level: 1,
        data_end: LogPosition::START,
        sources: 0,
    };
    let limit = LogPosition::new(data.len() as u64 / 8 * 8);
    for is_sealed in [false, true] {
        let mut file = header.encode();
        let start = file.len();
        file.extend_from_slice(data);
        if is_sealed && let Some(data) = file.get_mut(start..) {
            seal(data);
        }
        let found = steps(&header, &file, limit, 1 << 20);
        assert_eq!(steps(&header, &file, limit, 0), found);
        whole_batches(&header, &file, &found);
    }
}

/// Looks at each batch once more, as recovery does behind what is proven.
fn whole_batches(header: &SegmentHeader, file: &[u8], found: &[Found]) {
    let mut window = Window::new(Flat(file.to_vec()), header.clone(), 0);
    for step in found {
        let Found::Batch {
            at,
            end,
            is_whole,
            records,
        } = step
        else {
            continue;
        };
        let whole = whole_batch(&mut window, LogPosition::new(*at)).expect("it can be read");
        let Some((head, bytes)) = whole else {
            continue;
        };
        // A mark that is not the end of the log is damage, but for the bytes it is made of.
        if head.kind.is_mark() {
            continue;
        }
        assert!(
            *is_whole,
            "a damaged batch at {at} is taken for a whole one"
        );
        assert_eq!(head.end().get(), *end);
        for record in records {
            let from = usize::try_from(record.at - at).unwrap_or(usize::MAX);
            let record = bytes
                .get(from..from + record.bytes as usize)
                .unwrap_or_default();
            let payload = record.get(RECORD_FIXED_BYTES..).unwrap_or_default();
            let fixed = record.first_chunk().map(RecordHead::parse);
            assert!(record_is_right(record));
            assert!(fixed.is_some_and(|fixed| {
                payload
                    .get(usize::from(fixed.head_bytes)..)
                    .is_some_and(|payload| fixed.payload_crc == crc32c::crc32c(payload))
            }));
        }
    }
}

fn set(bytes: &mut [u8], at: usize, value: &[u8]) {
    for (into, from) in bytes.iter_mut().skip(at).zip(value) {
        *into = *from;
    }
}

/// Gives every batch whose marker and lengths fit its place and right checksums.
fn seal(data: &mut [u8]) {
    let mut at = 0;
    while let Some(rest) = data.get_mut(at..) {
        if rest.len() < MARK_BYTES {
            return;
        }
        let word = |at: usize| {
            let bytes = rest.get(at..at + 4).and_then(<[u8]>::first_chunk);
            bytes.map_or(0, |word| u32::from_le_bytes(*word)) as usize
        };
        let (length, table, count) = (word(12), word(52), word(48));
        let is_head = rest.starts_with(&MARKER.0.to_le_bytes());
        if is_head && (MARK_BYTES..=BATCH_BYTES_MAX.min(rest.len())).contains(&length) {
            let place = (at as u64).to_le_bytes();
            if let Some(batch) = rest.get_mut(..length) {
                seal_batch(batch, &place, table, count);
            }
        }
        at += 8;
    }
}

fn seal_batch(batch: &mut [u8], place: &[u8; 8], table: usize, count: usize) {
    let end = batch.len();
    set(batch, 16, place);
    let durable = batch.get(24..32).and_then(<[u8]>::first_chunk);
    if durable.is_none_or(|durable| u64::from_le_bytes(*durable) > u64::from_le_bytes(*place)) {
        set(batch, 24, place);
    }
    let mut at = HEAD_BYTES;
    while at < table.min(end) {
        let Some(bytes) = batch.get_mut(at..table.min(end)).and_then(seal_record) else {
            break;
        };
        at += bytes;
    }
    set(batch, end - TRAILER_BYTES, place);
    set(
        batch,
        end - 12,
        &u32::try_from(count).unwrap_or(0).to_le_bytes(),
    );
    set(
        batch,
        end - 8,
        &u32::try_from(end).unwrap_or(0).to_le_bytes(),
    );
    if (HEAD_BYTES..end - TRAILER_BYTES).contains(&table) && count * 4 + RUN_BYTES <= end {
        let crc = crc32c::crc32c(batch.get(table..end - 4).unwrap_or_default());
        set(batch, end - 4, &crc.to_le_bytes());
    }
    let crc = crc32c::crc32c(batch.get(..8).unwrap_or_default());
    let crc = crc32c::crc32c_append(crc, batch.get(12..HEAD_BYTES).unwrap_or_default());
    set(batch, 8, &crc.to_le_bytes());
}

/// Gives a record right checksums, and says how long it is.
fn seal_record(bytes: &mut [u8]) -> Option<usize> {
    let mut head = RecordHead::parse(bytes.first_chunk()?);
    let payload = head.payload_len()?;
    let text = RECORD_FIXED_BYTES + usize::from(head.head_bytes);
    let end = text.checked_add(payload)?;
    head.payload_crc = crc32c::crc32c(bytes.get(text..end)?);
    head.crc = head.compute_crc(bytes.get(RECORD_FIXED_BYTES..text)?);
    set(bytes, 0, &head.to_bytes());
    Some(end)
}

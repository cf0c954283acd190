//! What the fuzz targets and the property tests call: each function panics when an invariant does not hold.
//!
//! Not part of the API. Checksums would stop random bytes early, so [`record`] also tries its input with right ones.

use bytes::{Bytes, BytesMut};

use crate::decode::{DecodeError, Decoder, decode};
use crate::frame::{Frame, publish};
use crate::limits::{
    FRAME_BYTES_MAX, HELLO_BYTES_MAX, MESSAGE_HEAD_BYTES_MAX, PAYLOAD_BYTES_MAX,
    ROOM_NAME_BYTES_MAX,
};
use crate::name::{CursorName, RoomName, SenderName};
use crate::record::{Messages, RECORD_FIXED_BYTES, RecordHead, encoded_len, fixed, next_record};

/// The frames at the start of a stream, and what ended it.
type Stream = (Vec<Frame>, Option<DecodeError>);

/// Decodes a stream that arrives in pieces of the given sizes, again and again; checks how far the buffer grows.
///
/// # Panics
/// When the buffer grows beyond what has arrived explains.
#[must_use]
pub fn decode_in_pieces(data: &[u8], sizes: &[usize], limit: usize) -> Stream {
    let mut decoder = Decoder::new();
    let mut buf = BytesMut::new();
    let mut frames = Vec::new();
    let mut rest = data;
    for &size in sizes.iter().cycle() {
        let (piece, after) = rest.split_at(size.clamp(1, rest.len().max(1)).min(rest.len()));
        rest = after;
        buf.extend_from_slice(piece);
        loop {
            match decoder.decode(&mut buf, limit) {
                Ok(Some(frame)) => frames.push(frame),
                Ok(None) => break,
                Err(error) => return (frames, Some(error)),
            }
        }
        // `BytesMut` doubles, and starts again with up to 64 KiB after its first buffer is shared.
        let arrived = data.len() - rest.len();
        assert!(
            buf.capacity() <= 4 * arrived + (128 << 10),
            "room for {} bytes after {arrived}",
            buf.capacity()
        );
        if rest.is_empty() {
            break;
        }
    }
    (frames, None)
}

/// Any bytes: decoding never panics, does not depend on how they were split, and what it accepts survives a round trip.
///
/// # Panics
/// When one of these does not hold.
pub fn frame(data: &[u8]) {
    for limit in [FRAME_BYTES_MAX, HELLO_BYTES_MAX] {
        let whole = decode_in_pieces(data, &[usize::MAX], limit);
        // The input itself says how it is split.
        let sizes = [
            1,
            data.first().copied().unwrap_or(1).into(),
            data.last().copied().unwrap_or(1).into(),
        ];
        assert_eq!(decode_in_pieces(data, &sizes, limit), whole);
        assert_eq!(decode_in_pieces(data, &[1], limit), whole);
        whole.0.iter().for_each(survives);
    }
}

/// Checks that a frame survives a round trip, and that what its body holds can be walked.
fn survives(frame: &Frame) {
    let mut wire = BytesMut::new();
    frame.encode(&mut wire);
    let again = decode(&mut wire, FRAME_BYTES_MAX).expect("an encoded frame decodes");
    assert_eq!(again.as_ref(), Some(frame));
    assert!(wire.is_empty(), "an encoded frame is taken whole");
    match frame {
        Frame::Publish(publish) => {
            let count = publish.entries().count();
            if publish::check(&publish.body, publish.count, PAYLOAD_BYTES_MAX).is_ok() {
                assert_eq!(count, publish.count as usize);
            }
        }
        Frame::Ack(ack) => assert_eq!(ack.iter().count(), ack.runs as usize),
        Frame::Deliver(deliver) => walk(deliver.messages()),
        Frame::Page(page) => walk(page.messages()),
        _ => {}
    }
}

/// Walks messages, reading all of each.
fn walk(messages: Messages) {
    for message in messages.map_while(Result::ok) {
        assert!(message.sender.as_str().len() <= message.sender.len());
        assert!(message.extensions.iter().count() <= message.extensions.as_bytes().len() / 4);
    }
}

/// Any bytes: records never panic, are exactly what encoding them again gives, and right checksums are accepted.
///
/// # Panics
/// When one of these does not hold.
pub fn record(data: &[u8]) {
    walk_records(data);
    let mut sealed = data.to_vec();
    let count = seal(&mut sealed);
    assert!(
        walk_records(&sealed) >= count,
        "a record with right lengths and checksums is accepted"
    );
}

/// Walks records and gives their number; each must be what encoding its parts gives.
fn walk_records(data: &[u8]) -> usize {
    let mut count = 0;
    let mut rest = data;
    while let Ok(Some((record, after))) = next_record(rest) {
        let head = record.fixed;
        let start = fixed(
            head.kind,
            head.room,
            head.seq,
            head.time,
            record.head,
            record.payload.len(),
            head.payload_crc,
        );
        assert_eq!(start, head.to_bytes());
        assert_eq!(
            encoded_len(record.head.len(), record.payload.len()),
            head.record_len()
        );
        assert_eq!(rest.len() - after.len(), head.record_len());
        count += 1;
        rest = after;
    }
    walk(Messages::new(Bytes::copy_from_slice(data), u32::MAX));
    count
}

/// Writes right checksums into every record whose lengths fit, and gives their number.
fn seal(data: &mut [u8]) -> usize {
    let mut count = 0;
    let mut rest = data;
    loop {
        let Some((start, after)) = rest.split_first_chunk_mut::<RECORD_FIXED_BYTES>() else {
            return count;
        };
        let mut head = RecordHead::parse(start);
        let Some(payload_len) = head.payload_len() else {
            return count;
        };
        if payload_len > PAYLOAD_BYTES_MAX || usize::from(head.head_bytes) > MESSAGE_HEAD_BYTES_MAX
        {
            return count;
        }
        let Some((text, after)) = after.split_at_mut_checked(head.head_bytes.into()) else {
            return count;
        };
        let Some((payload, after)) = after.split_at_mut_checked(payload_len) else {
            return count;
        };
        head.payload_crc = crc32c::crc32c(payload);
        head.crc = head.compute_crc(text);
        *start = head.to_bytes();
        count += 1;
        rest = after;
    }
}

/// Any bytes: names never panic, and an accepted one keeps the rules and is accepted again.
///
/// # Panics
/// When one of these does not hold.
pub fn name(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    if let Ok(room) = RoomName::parse_reserved(&text) {
        assert!((1..=ROOM_NAME_BYTES_MAX).contains(&room.len()));
        assert!(unicode_normalization::is_nfc(&room));
        assert!(
            !room.contains(|c: char| c.is_control() || c.is_whitespace() || "/\\*>?".contains(c))
        );
        assert_eq!(RoomName::parse(&text).is_err(), room.is_reserved());
        assert_eq!(CursorName::parse(&text).as_deref(), Ok(room.as_str()));
    } else {
        assert!(RoomName::parse(&text).is_err());
        assert!(SenderName::parse(&text).is_err());
    }
    if let Ok(sender) = SenderName::parse(&text) {
        assert!(!sender.contains('@') && sender.len() < ROOM_NAME_BYTES_MAX);
    }
}

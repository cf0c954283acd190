//! [`ReadBuffer`]: where a connection reads to, in blocks that all connections of a thread share.
//!
//! Frames are handed out as parts of the block that they came in. A connection gives its block back as soon as all frames in
//! it are complete, while readers still look at them; whoever reads next on that thread gets the block that was free last. So
//! a hundred connections read into a few blocks that stay in the processor's cache and are not given back to the system and
//! asked for again, and an idle connection has none.
//!
//! **Invariants:** what a reader holds is never read into, and keeps little more than itself alive; at most [`SPARES_MAX`] blocks of [`BLOCK_BYTES`]
//! are kept for a thread; memory grows with what arrives, at most to twice that, never because a length field says so.

use std::cell::RefCell;
use std::mem;

use broker_proto::limits::LENGTH_FIELD_BYTES;
use bytes::BytesMut;

/// Size of a block. The broker's frames of 64 KiB fit, and the beginning of the next.
pub(super) const BLOCK_BYTES: usize = 128 << 10;
/// Blocks that are kept for a thread; readers may still hold parts of them. With 8 of them, what a hundred busy connections
/// hold of incomplete frames makes the rest come from the system again and again; CPU time of the client for 1 KiB to 100 subscribers: 342 ns
/// a delivery with 8, 307 with 32, 282 with 64.
const SPARES_MAX: usize = 48;
/// Rest of a block, behind what readers hold, that is still read into: who keeps small messages keeps at most four times
/// their bytes, and a frame of 64 KiB fits.
const REST_BYTES_MIN: usize = BLOCK_BYTES / 4 * 3;
/// Room below which a read is not worth its call, unless it completes the frame.
const ROOM_BYTES_MIN: usize = 16 << 10;

thread_local! {
    /// The one given back last stands last.
    static SPARES: RefCell<Vec<BytesMut>> = const { RefCell::new(Vec::new()) };
}

/// The last used block that is free, or nearly, or a new one.
fn take_block() -> BytesMut {
    // There are none any more when a runtime is dropped with its thread.
    let kept = SPARES.try_with(|spares| {
        let mut spares = spares.borrow_mut();
        let free = spares.iter_mut().rposition(|spare| {
            spare.try_reclaim(BLOCK_BYTES) || spare.capacity() >= REST_BYTES_MIN
        })?;
        Some(spares.remove(free))
    });
    kept.ok()
        .flatten()
        .unwrap_or_else(|| BytesMut::with_capacity(BLOCK_BYTES))
}

/// Keeps a block for later reads. When there are enough, the oldest goes: it is cold, or its readers are slow.
fn give_block(mut block: BytesMut) {
    block.clear();
    let _kept = SPARES.try_with(|spares| {
        let mut spares = spares.borrow_mut();
        if spares.len() >= SPARES_MAX {
            spares.remove(0);
        }
        spares.push(block);
    });
}

/// See the module's documentation.
#[derive(Debug)]
pub(super) struct ReadBuffer {
    bytes: BytesMut,
    /// Whether `bytes` is in a block, not in memory of its own.
    in_block: bool,
}

impl ReadBuffer {
    /// Goes on behind bytes that were read elsewhere.
    pub(super) const fn new(bytes: BytesMut) -> Self {
        Self {
            bytes,
            in_block: false,
        }
    }

    /// What was read and not taken out, and behind it the room for more.
    pub(super) const fn bytes(&mut self) -> &mut BytesMut {
        &mut self.bytes
    }

    /// Makes room for the next read.
    pub(super) fn make_room(&mut self) {
        if self.bytes.is_empty() {
            self.leave();
            self.bytes = take_block();
            self.in_block = true;
            return;
        }
        let missing = self.missing();
        // The frame will have to be in one piece, so if this block is too short for it, it is left while little of the
        // frame is there to be copied.
        let fits = self.bytes.len() + missing <= BLOCK_BYTES;
        let room = if fits { missing } else { ROOM_BYTES_MIN };
        if self.bytes.try_reclaim(room.min(missing)) {
            return;
        }
        let mut next = if fits {
            take_block()
        } else {
            let more = missing.min(self.bytes.len().max(BLOCK_BYTES));
            BytesMut::with_capacity(self.bytes.len() + more)
        };
        next.extend_from_slice(&self.bytes);
        self.leave();
        self.bytes = next;
        self.in_block = fits;
    }

    /// Gives the block back when all that was read is taken out.
    pub(super) fn tidy(&mut self) {
        if self.bytes.is_empty() {
            self.leave();
        }
    }

    /// How many bytes of the frame that has begun are to come; at least one.
    fn missing(&self) -> usize {
        let total = self
            .bytes
            .first_chunk::<LENGTH_FIELD_BYTES>()
            .map_or(LENGTH_FIELD_BYTES, |length| {
                LENGTH_FIELD_BYTES.saturating_add(u32::from_be_bytes(*length) as usize)
            });
        total.saturating_sub(self.bytes.len()).max(1)
    }

    fn leave(&mut self) {
        let left = mem::take(&mut self.bytes);
        if mem::replace(&mut self.in_block, false) {
            give_block(left);
        }
    }
}

impl Drop for ReadBuffer {
    fn drop(&mut self) {
        self.leave();
    }
}

#[cfg(test)]
mod tests {
    use bytes::{BufMut, Bytes};

    use super::*;

    fn address(buffer: &mut ReadBuffer) -> usize {
        buffer.bytes().as_ptr().addr()
    }

    /// Reads bytes as a connection does; gives what is complete.
    fn read(buffer: &mut ReadBuffer, bytes: &[u8]) -> Vec<Bytes> {
        let mut frames = Vec::new();
        let mut rest = bytes;
        while !rest.is_empty() {
            buffer.make_room();
            let room = buffer.bytes().capacity() - buffer.bytes().len();
            let (now, later) = rest.split_at(rest.len().min(room));
            let before = buffer.bytes().capacity();
            buffer.bytes().put_slice(now);
            assert_eq!(buffer.bytes().capacity(), before, "there was room");
            rest = later;
            while buffer.bytes().len() >= LENGTH_FIELD_BYTES
                && buffer.bytes().len() >= LENGTH_FIELD_BYTES + length(buffer.bytes())
            {
                let total = LENGTH_FIELD_BYTES + length(buffer.bytes());
                frames.push(buffer.bytes().split_to(total).freeze());
            }
            buffer.tidy();
        }
        frames
    }

    fn length(bytes: &[u8]) -> usize {
        bytes
            .first_chunk()
            .map_or(0, |length| u32::from_be_bytes(*length) as usize)
    }

    fn frame(byte: u8, len: u32) -> Vec<u8> {
        let mut frame = len.to_be_bytes().to_vec();
        frame.resize(LENGTH_FIELD_BYTES + len as usize, byte);
        frame
    }

    #[test]
    fn connections_read_into_the_block_that_was_free_last() {
        let mut first = ReadBuffer::new(BytesMut::new());
        first.make_room();
        let block = address(&mut first);
        drop(read(&mut first, &frame(1, 60_000)));
        for byte in 0..50 {
            let mut other = ReadBuffer::new(BytesMut::new());
            other.make_room();
            assert_eq!(address(&mut other), block);
            drop(read(&mut other, &frame(byte, 60_000)));
        }
    }

    #[test]
    fn a_block_whose_frames_are_held_is_not_read_into() {
        let mut buffer = ReadBuffer::new(BytesMut::new());
        let held: Vec<Vec<Bytes>> = (0..200)
            .map(|byte| read(&mut buffer, &frame(byte, 60_000)))
            .collect();
        for (byte, frames) in (0..).zip(&held) {
            assert_eq!(frames.as_slice(), [frame(byte, 60_000)]);
        }
        assert!(SPARES.with_borrow(Vec::len) <= SPARES_MAX);
        drop(held);
        assert_eq!(
            read(&mut buffer, &frame(7, 60_000)).as_slice(),
            [frame(7, 60_000)]
        );
    }

    #[test]
    fn who_keeps_small_messages_does_not_keep_a_block_for_each() {
        let mut buffer = ReadBuffer::new(BytesMut::new());
        let held: Vec<Bytes> = (0..10_000)
            .flat_map(|_| read(&mut buffer, &frame(1, 96)))
            .collect();
        let ends = held.iter().map(|frame| frame.as_ptr().addr() + frame.len());
        let starts = held.iter().skip(1).map(|frame| frame.as_ptr().addr());
        let blocks = 1 + ends.zip(starts).filter(|(end, start)| end != start).count();
        assert!(blocks <= 4 * 1_000_000 / BLOCK_BYTES + 1, "{blocks} blocks");
    }

    #[test]
    fn frames_arrive_whole_however_they_are_cut() {
        let block = u32::try_from(BLOCK_BYTES).unwrap_or(0);
        let lengths = [
            0,
            1,
            70_000,
            block - 4,
            block - 3,
            block,
            5 * block,
            3,
            65_560,
        ];
        let frames: Vec<Vec<u8>> = (1..).zip(lengths).map(|(n, len)| frame(n, len)).collect();
        let stream = frames.concat();
        for step in [1, 4099, 65_536, 100_000, 1 << 20] {
            let mut buffer = ReadBuffer::new(BytesMut::new());
            let got: Vec<Bytes> = stream
                .chunks(step)
                .flat_map(|piece| read(&mut buffer, piece))
                .collect();
            assert!(got == frames, "in pieces of {step}");
        }
    }

    #[test]
    fn a_length_field_alone_asks_for_no_more_than_a_block() {
        let mut buffer = ReadBuffer::new(BytesMut::new());
        let begun = read(&mut buffer, &[0, 0xff, 0xff, 0xff, 1, 2, 3]);
        assert!(begun.is_empty());
        buffer.make_room();
        assert!(buffer.bytes().capacity() <= BLOCK_BYTES);
    }

    #[test]
    fn what_was_read_before_goes_on_in_a_block() {
        let whole = frame(9, 30_000);
        let (before, after) = whole.split_at(20_000);
        let mut buffer = ReadBuffer::new(BytesMut::from(before));
        assert_eq!(read(&mut buffer, after).as_slice(), [whole]);
        assert!(
            buffer.bytes().capacity() == 0,
            "an idle connection has no block"
        );
    }
}

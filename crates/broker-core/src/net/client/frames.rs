//! [`Frame`]: one publish frame of the window of unacknowledged sends, and how its bytes are built.
//!
//! Consecutive messages to one room share a frame. Small payloads are copied beside each other into a block that many
//! frames share, large ones keep their own bytes; nothing is copied again until the frame is written.

use std::sync::Arc;

use broker_proto::publish::{self, ENTRY_FIXED_BYTES, PublishExtensions};
use broker_proto::{Micros, ProducerId, RoomName};
use bytes::{BufMut, Bytes, BytesMut};

use super::batch::Batch;

/// Messages of one frame.
pub(super) const MESSAGES_MAX: u32 = 512;
/// Bytes of a frame after which it takes no further message; a single larger one has a frame of its own.
pub(super) const BODY_BYTES_MAX: usize = 256 << 10;
/// Payloads up to this size are copied, larger ones shared: beyond it a copy costs more than a piece of a write.
const COPY_BYTES_MAX: usize = 1024;
/// Size of the blocks that copied payloads go to.
const BLOCK_BYTES: usize = 64 << 10;
/// Blocks of answered frames that are kept for the next ones.
const SPARES_MAX: usize = 4;

/// Who numbers a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Key {
    /// The client: the next number of its own.
    Own,
    /// The caller, under an id of its own.
    Given { producer: ProducerId, number: u64 },
}

impl Key {
    pub(super) fn producer(self) -> Option<ProducerId> {
        match self {
            Self::Own => None,
            Self::Given { producer, .. } => Some(producer),
        }
    }
}

/// A message that is to be sent; checked, its checksum computed.
#[derive(Debug, Clone, Copy)]
pub(super) struct Outgoing<'a> {
    pub(super) room: &'a RoomName,
    pub(super) key: Key,
    pub(super) payload: &'a Bytes,
    pub(super) crc: u32,
}

/// One publish frame whose messages have not all been answered.
#[derive(Debug)]
pub(super) struct Frame {
    pub(super) room: RoomName,
    pub(super) batch: Arc<Batch>,
    /// Place of the first message in the batch.
    pub(super) index: u32,
    pub(super) producer: Option<ProducerId>,
    pub(super) first_number: u64,
    pub(super) count: u32,
    /// How many messages were answered.
    pub(super) settled: u32,
    pub(super) payload_bytes: usize,
    body_bytes: usize,
    /// The head, once the frame is closed, and the body.
    parts: Vec<Bytes>,
    /// Whether messages may still join; only the last frame is ever open.
    pub(super) open: bool,
    /// On how many connections it was written.
    pub(super) attempts: u32,
    /// Wall clock when it was written first.
    pub(super) first_sent: Option<Micros>,
    /// Refused because the broker does not know the producer, and waiting for a new one.
    pub(super) parked: bool,
    /// Got a number of a new producer once; not done twice.
    pub(super) renewed: bool,
}

/// The blocks that frames are built in.
#[derive(Debug, Default)]
pub(super) struct Blocks {
    /// Bytes of the open frame that are not among its parts yet, and free space.
    body: BytesMut,
    heads: BytesMut,
    /// Blocks that nobody holds any more, empty. Memory that goes back to the system and comes again from it costs more than
    /// what is done with it.
    spares: Vec<BytesMut>,
}

impl Blocks {
    /// Forgets the bytes of the open frame.
    pub(super) fn clear(&mut self) {
        self.body.clear();
    }

    /// Begins the next frame: at the front of the block again, when all frames in it were answered, because that memory is
    /// in the processor's cache.
    pub(super) fn rewind(&mut self) {
        if self.body.is_empty() {
            // Fails while a frame is in it; the rest of the block is used then.
            let _front = self.body.try_reclaim(BLOCK_BYTES);
        }
    }

    /// Keeps the blocks that only this frame was in.
    pub(super) fn recycle(&mut self, frame: Frame) {
        for part in frame.parts.into_iter().skip(1) {
            if self.spares.len() >= SPARES_MAX {
                return;
            }
            if !part.is_unique() {
                continue;
            }
            if let Ok(mut block) = part.try_into_mut() {
                block.clear();
                // Payloads of the application are of any size.
                if block.try_reclaim(BLOCK_BYTES) && block.capacity() <= 2 * BLOCK_BYTES {
                    self.spares.push(block);
                }
            }
        }
    }

    /// Another block, or the same from its front.
    fn renew(&mut self, need: usize) {
        let bytes = need.max(BLOCK_BYTES);
        if self.body.try_reclaim(bytes) {
            return;
        }
        match self.spares.pop().filter(|spare| spare.capacity() >= bytes) {
            Some(spare) => self.body = spare,
            None => self.body.reserve(bytes),
        }
    }

    /// The bytes of the open frame so far.
    fn cut(&mut self, parts: &mut Vec<Bytes>) {
        if !self.body.is_empty() {
            parts.push(self.body.split().freeze());
        }
    }
}

/// Room for the head and, nearly always, one piece of a block.
fn first_parts() -> Vec<Bytes> {
    let mut parts = Vec::with_capacity(2);
    parts.push(Bytes::new());
    parts
}

impl Frame {
    /// A frame without messages.
    pub(super) fn open(message: &Outgoing<'_>, first_number: u64) -> Self {
        Self {
            room: message.room.clone(),
            batch: Arc::new(Batch::new(message.room.clone())),
            index: 0,
            producer: message.key.producer(),
            first_number,
            count: 0,
            settled: 0,
            payload_bytes: 0,
            body_bytes: 0,
            parts: first_parts(),
            open: true,
            attempts: 0,
            first_sent: None,
            parked: false,
            renewed: false,
        }
    }

    /// The number after its last one.
    pub(super) fn end(&self) -> u64 {
        self.first_number.saturating_add(self.count.into())
    }

    /// Whether a message with this number can join.
    pub(super) fn takes(&self, message: &Outgoing<'_>, number: u64) -> bool {
        self.open
            && self.count < MESSAGES_MAX
            && self.body_bytes + ENTRY_FIXED_BYTES + message.payload.len() <= BODY_BYTES_MAX
            && self.producer == message.key.producer()
            && self.end() == number
            && self.room == *message.room
    }

    /// Adds a message and tells its place in the batch.
    pub(super) fn push(&mut self, message: &Outgoing<'_>, blocks: &mut Blocks) -> u32 {
        let payload = message.payload;
        let copied = payload.len() <= COPY_BYTES_MAX;
        let need = ENTRY_FIXED_BYTES + if copied { payload.len() } else { 0 };
        if blocks.body.capacity() - blocks.body.len() < need {
            // The block stays with the frames in it, and is used again when they are answered.
            blocks.cut(&mut self.parts);
            blocks.renew(need);
        }
        publish::encode_entry_head(&mut blocks.body, payload.len(), &[], message.crc);
        if copied {
            blocks.body.put_slice(payload);
        } else {
            blocks.cut(&mut self.parts);
            self.parts.push(payload.clone());
        }
        self.body_bytes += ENTRY_FIXED_BYTES + payload.len();
        self.payload_bytes += payload.len();
        let index = self.index + self.count;
        self.count += 1;
        index
    }

    /// Lets no further message join and makes the bytes complete.
    pub(super) fn close(&mut self, blocks: &mut Blocks) {
        if self.open {
            self.open = false;
            blocks.cut(&mut self.parts);
            self.write_head(blocks);
        }
    }

    /// Makes the head anew, after numbers or producer have changed, or because it is sent again now: the broker is told so.
    pub(super) fn write_head(&mut self, blocks: &mut Blocks) {
        let extensions = PublishExtensions {
            producer: self.producer,
            expected_head: None,
            resend: self.attempts > 0,
        };
        publish::encode_head(
            &mut blocks.heads,
            &self.room,
            self.first_number,
            self.count,
            &extensions,
            self.body_bytes,
        );
        if let Some(head) = self.parts.first_mut() {
            *head = blocks.heads.split().freeze();
        }
    }

    /// All bytes of a closed frame.
    pub(super) fn parts(&self) -> &[Bytes] {
        &self.parts
    }

    /// The frame without the messages that were answered: none, one or more frames.
    pub(super) fn without_settled(self, blocks: &mut Blocks) -> Vec<Self> {
        if self.settled == 0 {
            return vec![self];
        }
        let mut body = BytesMut::with_capacity(self.body_bytes);
        for part in self.parts.iter().skip(1) {
            body.extend_from_slice(part);
        }
        let body = body.freeze();
        let gaps = self.batch.unsettled(self.index, self.count);
        gaps.into_iter()
            .map(|(index, count)| self.piece(&body, index, count, blocks))
            .collect()
    }

    /// A frame of some of the messages of this one.
    fn piece(&self, body: &Bytes, index: u32, count: u32, blocks: &mut Blocks) -> Self {
        let before = index - self.index;
        let mut entries = publish::entries(body);
        for _ in 0..before {
            entries.next();
        }
        let from = body.len() - entries.rest().len();
        let payload_bytes = entries
            .by_ref()
            .take(count as usize)
            .map(|entry| entry.payload.len())
            .sum();
        let to = body.len() - entries.rest().len();
        let mut piece = Self {
            room: self.room.clone(),
            batch: Arc::clone(&self.batch),
            index,
            producer: self.producer,
            first_number: self.first_number.saturating_add(before.into()),
            count,
            settled: 0,
            payload_bytes,
            body_bytes: to - from,
            parts: vec![Bytes::new(), body.slice(from..to)],
            open: false,
            attempts: self.attempts,
            first_sent: self.first_sent,
            parked: self.parked,
            renewed: self.renewed,
        };
        piece.write_head(blocks);
        piece
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test may panic")]

    use super::*;

    fn send(blocks: &mut Blocks, payload: &Bytes, count: u64) -> Frame {
        let room = RoomName::parse("r").unwrap();
        let message = Outgoing {
            room: &room,
            key: Key::Own,
            payload,
            crc: 0,
        };
        blocks.rewind();
        let mut frame = Frame::open(&message, 1);
        for _ in 0..count {
            frame.push(&message, blocks);
        }
        frame.close(blocks);
        frame
    }

    fn address(frame: &Frame) -> usize {
        frame.parts.get(1).unwrap().as_ptr().addr()
    }

    #[test]
    fn frames_that_are_answered_one_by_one_are_built_in_the_same_place() {
        let mut blocks = Blocks::default();
        let payload = Bytes::from(vec![7; 1000]);
        let first = address(&send(&mut blocks, &payload, 16));
        for _ in 0..20 {
            assert_eq!(address(&send(&mut blocks, &payload, 16)), first);
        }
        let held = send(&mut blocks, &payload, 16);
        let body = held.parts.get(1).unwrap().clone();
        assert_ne!(address(&send(&mut blocks, &payload, 16)), first);
        assert!(body.iter().filter(|byte| **byte == 7).count() >= 16_000);
    }

    #[test]
    fn blocks_are_used_again_and_payloads_of_the_application_are_not_kept() {
        let mut blocks = Blocks::default();
        let payload = Bytes::from(vec![7; 1000]);
        let frames: Vec<Frame> = (0..16).map(|_| send(&mut blocks, &payload, 60)).collect();
        frames.into_iter().for_each(|frame| blocks.recycle(frame));
        assert_eq!(blocks.spares.len(), SPARES_MAX);
        let mut blocks = Blocks::default();
        let large = Bytes::from(vec![7; 1 << 20]);
        let frame = send(&mut blocks, &large, 1);
        drop(large);
        blocks.recycle(frame);
        assert!(
            blocks
                .spares
                .iter()
                .all(|spare| spare.capacity() <= 2 * BLOCK_BYTES)
        );
    }
}

//! [`Block`]: the messages of one frame, checked in one pass and then handed out without further cost.
//!
//! Checking all of them in one tight loop lets the processor compute the checksums of neighbours beside each other, and
//! what most messages of a frame have in common, their sender, is looked at once. Afterwards a message costs neither a
//! checksum nor an allocation.
//!
//! **Invariant:** whatever comes out of a block has both of its checksums right and is the next of its room.

use bytes::Bytes;

use crate::byte_str::ByteStr;
use crate::extension::Extensions;
use crate::record::{
    KIND_MESSAGE, Message, MessageView, RECORD_FIXED_BYTES, Record, RecordError, RecordHead,
    next_record,
};
use crate::seq::Seq;

/// Why not all messages of a frame can be handed out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum BlockError {
    /// The bytes are not those that were stored.
    #[error(transparent)]
    Record(#[from] RecordError),
    /// A whole message that is not the next one of its room.
    #[error("message {found} came instead of {expected}")]
    Order {
        /// The message.
        found: Seq,
        /// The one that was due.
        expected: Seq,
    },
}

/// Messages that follow each other in a room, all of them checked, in the bytes they came in.
#[derive(Debug, Clone, Default)]
pub struct Block {
    /// Only what was checked.
    records: Bytes,
    count: u32,
    first: Seq,
}

impl Block {
    /// Checks the body of a deliver or page frame that states `count` messages, the first of which must be `first` if that
    /// is known. Gives the messages up to the first that is wrong, and what is wrong with that.
    #[must_use]
    pub fn check(mut records: Bytes, count: u32, first: Option<Seq>) -> (Self, Option<BlockError>) {
        let mut checking = Checking {
            rest: &records,
            head: None,
            expected: first,
            count,
            good: 0,
        };
        let error = loop {
            match checking.step() {
                Ok(true) => {}
                Ok(false) => break None,
                Err(error) => break Some(error),
            }
        };
        let (good, left) = (checking.good, checking.rest.len());
        let end = checking.expected.unwrap_or(Seq::FIRST);
        records.truncate(records.len() - left);
        let block = Self {
            records,
            count: good,
            first: Seq::new(end.get().saturating_sub(good.into())),
        };
        (block, error)
    }

    /// How many messages there are.
    #[must_use]
    pub const fn len(&self) -> u32 {
        self.count
    }

    /// Whether there is none.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// The place of the first message. The others follow without gaps.
    #[must_use]
    pub const fn first(&self) -> Seq {
        self.first
    }

    /// Bytes that the messages take, as they are stored.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.records.len()
    }

    /// The messages, borrowed.
    #[must_use]
    pub fn views(&self) -> Views<'_> {
        Views {
            rest: &self.records,
            left: self.count,
            last: None,
        }
    }
}

/// The one pass over the bytes of a block.
struct Checking<'a> {
    /// What was not found right yet.
    rest: &'a [u8],
    /// The last head that was found right: most messages of a frame have the same.
    head: Option<&'a [u8]>,
    /// The next message, once the first is known.
    expected: Option<Seq>,
    count: u32,
    good: u32,
}

impl Checking<'_> {
    /// Checks the next message; false at the end.
    fn step(&mut self) -> Result<bool, BlockError> {
        let left = self.count - self.good;
        let count = |left| RecordError::Count {
            expected: self.count,
            left,
        };
        let Some((record, rest)) = next_record(self.rest)? else {
            return if left > 0 {
                Err(count(left).into())
            } else {
                Ok(false)
            };
        };
        if left == 0 {
            return Err(count(0).into());
        }
        record.verify_payload()?;
        if self.head != Some(record.head) || record.fixed.kind != KIND_MESSAGE {
            record.message()?;
            self.head = Some(record.head);
        }
        let found = record.fixed.seq;
        let expected = self.expected.unwrap_or(found);
        if found != expected {
            return Err(BlockError::Order { found, expected });
        }
        // Seqs end only with the u64; a broker that gets there has other troubles.
        self.expected = Some(found.next().unwrap_or(found));
        self.rest = rest;
        self.good += 1;
        Ok(true)
    }
}

/// Takes a record that was checked before off the front.
fn split(bytes: &[u8]) -> Option<(Record<'_>, &[u8])> {
    let (fixed, rest) = bytes.split_first_chunk::<RECORD_FIXED_BYTES>()?;
    let fixed = RecordHead::parse(fixed);
    let (head, rest) = rest.split_at_checked(fixed.head_bytes.into())?;
    let (payload, rest) = rest.split_at_checked(fixed.payload_len()?)?;
    let record = Record {
        fixed,
        head,
        payload,
    };
    Some((record, rest))
}

/// The messages of a [`Block`], borrowed from it.
#[derive(Debug, Clone)]
pub struct Views<'a> {
    rest: &'a [u8],
    left: u32,
    /// The last message and its head.
    last: Option<(&'a [u8], MessageView<'a>)>,
}

impl<'a> Iterator for Views<'a> {
    type Item = MessageView<'a>;

    #[inline]
    fn next(&mut self) -> Option<MessageView<'a>> {
        let (record, rest) = split(self.rest)?;
        let view = match self.last {
            Some((head, last)) if head == record.head => MessageView {
                seq: record.fixed.seq,
                time: record.fixed.time,
                payload: record.payload,
                ..last
            },
            _ => record.message().ok()?,
        };
        self.last = Some((record.head, view));
        self.rest = rest;
        self.left = self.left.saturating_sub(1);
        Some(view)
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        (self.left as usize, Some(self.left as usize))
    }
}

impl ExactSizeIterator for Views<'_> {}

impl std::iter::FusedIterator for Views<'_> {}

impl<'a> IntoIterator for &'a Block {
    type Item = MessageView<'a>;
    type IntoIter = Views<'a>;

    fn into_iter(self) -> Views<'a> {
        self.views()
    }
}

/// The messages of a [`Block`], each sharing its bytes.
#[derive(Debug, Clone, Default)]
pub struct IntoMessages {
    /// What was not handed out yet.
    block: Block,
    /// The last head, and what it says.
    last: Option<Common>,
}

#[derive(Debug, Clone)]
struct Common {
    head: Bytes,
    sender: ByteStr,
    flags: u32,
    extensions: Extensions,
}

impl IntoMessages {
    /// What is left.
    #[must_use]
    pub fn into_block(self) -> Block {
        self.block
    }

    /// Whether none is left.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.block.is_empty()
    }
}

impl IntoIterator for Block {
    type Item = Message;
    type IntoIter = IntoMessages;

    fn into_iter(self) -> IntoMessages {
        IntoMessages {
            block: self,
            last: None,
        }
    }
}

impl Iterator for IntoMessages {
    type Item = Message;

    #[inline]
    fn next(&mut self) -> Option<Message> {
        let block = &mut self.block;
        let (record, _) = split(&block.records)?;
        let (fixed, head_end) = (record.fixed, RECORD_FIXED_BYTES + record.head.len());
        let common = match &self.last {
            Some(last) if last.head == record.head => last,
            _ => {
                let view = record.message().ok()?;
                self.last.insert(Common {
                    head: block.records.slice_ref(record.head),
                    sender: ByteStr::slice_of(&block.records, view.sender),
                    flags: view.flags,
                    extensions: Extensions::checked(block.records.slice_ref(view.extensions)),
                })
            }
        };
        let message = Message {
            seq: fixed.seq,
            time: fixed.time,
            sender: common.sender.clone(),
            flags: common.flags,
            extensions: common.extensions.clone(),
            payload: block.records.slice(head_end..fixed.record_len()),
        };
        bytes::Buf::advance(&mut block.records, fixed.record_len());
        block.count = block.count.saturating_sub(1);
        block.first = fixed.seq.next().unwrap_or(fixed.seq);
        Some(message)
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        (self.block.count as usize, Some(self.block.count as usize))
    }
}

impl ExactSizeIterator for IntoMessages {}

impl std::iter::FusedIterator for IntoMessages {}

//! What waits to be written to one peer: small bytes collected, bodies shared.
//!
//! The bytes leave in the order in which they were put in. Control frames are encoded into one
//! growing buffer; the body of a delivery stays the store's own `Bytes`, so that a batch is shared
//! by all its readers and copied by none. Two marks in the stream are remembered: where the last
//! delivery ends and where the last ack ends. They decide when the next turn of deliveries may
//! begin and whether a peer that takes nothing is keeping an ack from itself.
//!
//! Leaves out: who writes, and when. The driver asks for [`Outbox::chunks`], writes what the
//! transport takes, and says how much with [`Outbox::advance`].

use std::collections::VecDeque;
use std::io::IoSlice;

use bytes::{Buf, Bytes, BytesMut};

/// Bodies below this many bytes are copied beside their head: for a transport, a segment of its own
/// costs more than copying half a kilobyte, and a tiny message does not pin the batch it came from.
const COPY_BELOW: usize = 512;

/// Most bytes of shared bodies that a blocked write copies out; one message beyond it stays shared,
/// because it is most of the batch that it pins.
const RELEASE_BYTES_MAX: usize = 64 << 10;

/// Capacity that the collecting buffer begins with.
const OPEN_BYTES: usize = 1024;

/// The bytes on their way to one peer.
#[derive(Debug, Default)]
pub struct Outbox {
    /// Finished pieces, oldest first.
    segments: VecDeque<Segment>,
    /// Bytes in `segments`.
    segment_bytes: usize,
    /// Small bytes being collected; they come after all segments.
    open: BytesMut,
    /// How many bytes have been written since the connection began.
    written: u64,
    /// Where in the stream the last delivery ends.
    delivery_end: u64,
    /// Where in the stream the last ack ends.
    ack_end: u64,
}

#[derive(Debug)]
struct Segment {
    bytes: Bytes,
    shared: bool,
}

impl Outbox {
    /// Where control frames are encoded. They leave after everything that is in already.
    pub(super) fn control(&mut self) -> &mut BytesMut {
        if self.open.capacity() == 0 {
            self.open.reserve(OPEN_BYTES);
        }
        &mut self.open
    }

    /// Puts the body of a delivery behind the head that was just encoded into
    /// [`Self::control`].
    pub(super) fn body(&mut self, body: Bytes) {
        if body.len() < COPY_BELOW {
            self.open.extend_from_slice(&body);
            return;
        }
        self.close_open();
        self.segment_bytes += body.len();
        self.segments.push_back(Segment {
            bytes: body,
            shared: true,
        });
    }

    /// Remembers that a delivery ends here.
    pub(super) fn mark_delivery(&mut self) {
        self.delivery_end = self.end();
    }

    /// Remembers that an ack ends here.
    pub(super) fn mark_ack(&mut self) {
        self.ack_end = self.end();
    }

    /// Whether no byte of a delivery waits any more.
    pub(super) fn deliveries_written(&self) -> bool {
        self.written >= self.delivery_end
    }

    /// Whether a byte of an ack waits.
    pub(super) fn ack_waits(&self) -> bool {
        self.written < self.ack_end
    }

    /// How many bytes wait behind the last delivery: control frames that a slow peer leaves lying.
    pub(super) fn behind_deliveries(&self) -> usize {
        let before = self.delivery_end.saturating_sub(self.written);
        self.len()
            .saturating_sub(usize::try_from(before).unwrap_or(usize::MAX))
    }

    /// How many bytes wait.
    #[must_use]
    pub fn len(&self) -> usize {
        self.segment_bytes + self.open.len()
    }

    /// Whether nothing waits.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.segments.is_empty() && self.open.is_empty()
    }

    /// Fills `slices` with the next bytes to write, in order; says how many slices it used.
    pub fn chunks<'a>(&'a self, slices: &mut [IoSlice<'a>]) -> usize {
        let pieces = self.segments.iter().map(|segment| &segment.bytes[..]);
        let open = Some(&self.open[..]).filter(|open| !open.is_empty());
        let mut used = 0;
        for (slice, piece) in slices.iter_mut().zip(pieces.chain(open)) {
            *slice = IoSlice::new(piece);
            used += 1;
        }
        used
    }

    /// Says that the next `written` bytes have left.
    pub(super) fn advance(&mut self, mut written: usize) {
        self.written = self.written.saturating_add(written as u64);
        while let Some(segment) = self.segments.front_mut() {
            let part = segment.bytes.len().min(written);
            self.segment_bytes -= part;
            written -= part;
            if part < segment.bytes.len() {
                segment.bytes.advance(part);
                return;
            }
            self.segments.pop_front();
        }
        let part = self.open.len().min(written);
        self.open.advance(part);
        if self.open.is_empty() && self.open.capacity() > RELEASE_BYTES_MAX {
            // One burst of errors or listings must not size an idle connection for ever.
            self.open = BytesMut::new();
        }
    }

    /// Copies shared bodies, so that a peer that is slow to take them pins nothing of the store.
    pub fn release(&mut self) {
        let mut copied = 0;
        for segment in self.segments.iter_mut().filter(|segment| segment.shared) {
            copied += segment.bytes.len();
            if copied > RELEASE_BYTES_MAX {
                return;
            }
            segment.bytes = Bytes::copy_from_slice(&segment.bytes);
            segment.shared = false;
        }
    }

    /// Where the stream ends when everything has left.
    fn end(&self) -> u64 {
        self.written.saturating_add(self.len() as u64)
    }

    fn close_open(&mut self) {
        if !self.open.is_empty() {
            self.segment_bytes += self.open.len();
            self.segments.push_back(Segment {
                bytes: self.open.split().freeze(),
                shared: false,
            });
        }
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test may panic")]

    use std::sync::Arc;

    use super::*;

    fn take(outbox: &mut Outbox, most: usize) -> Vec<u8> {
        let mut all = Vec::new();
        {
            let mut slices = [IoSlice::new(&[]); 8];
            let used = outbox.chunks(&mut slices);
            for slice in slices.get(..used).unwrap() {
                all.extend_from_slice(slice);
            }
        }
        all.truncate(most);
        outbox.advance(all.len());
        all
    }

    /// Bytes whose owner can be asked whether anybody still holds them.
    fn watched(len: usize) -> (Bytes, Arc<Vec<u8>>) {
        struct Owner(Arc<Vec<u8>>);
        impl AsRef<[u8]> for Owner {
            fn as_ref(&self) -> &[u8] {
                &self.0
            }
        }
        let kept = Arc::new(vec![7; len]);
        (Bytes::from_owner(Owner(Arc::clone(&kept))), kept)
    }

    #[test]
    fn bytes_leave_in_the_order_they_came_however_the_writes_are_cut() {
        for step in [1, 3, 511, 512, 4000] {
            let mut outbox = Outbox::default();
            let mut expected = Vec::new();
            for (round, len) in [0, 1, 511, 512, 2000].into_iter().enumerate() {
                let body = vec![u8::try_from(round).unwrap() + 10; len];
                outbox.control().extend_from_slice(&[1, 2, 3]);
                outbox.body(Bytes::from(body.clone()));
                expected.extend_from_slice(&[1, 2, 3]);
                expected.extend_from_slice(&body);
            }
            assert_eq!(outbox.len(), expected.len());
            let mut written = Vec::new();
            while !outbox.is_empty() {
                written.extend(take(&mut outbox, step));
                assert_eq!(outbox.len(), expected.len() - written.len());
            }
            assert_eq!(written, expected);
        }
    }

    #[test]
    fn a_large_body_is_shared_until_a_blocked_write_releases_it() {
        let (body, owner) = watched(4096);
        let mut outbox = Outbox::default();
        outbox.body(body);
        assert_eq!(Arc::strong_count(&owner), 2, "the body was copied");
        take(&mut outbox, 100);
        outbox.release();
        assert_eq!(
            Arc::strong_count(&owner),
            1,
            "a blocked write still pins the batch"
        );
        assert_eq!(take(&mut outbox, usize::MAX), vec![7; 3996]);
    }

    #[test]
    fn a_body_that_is_most_of_its_batch_is_not_copied_by_a_blocked_write() {
        let (body, owner) = watched(RELEASE_BYTES_MAX + 1);
        let mut outbox = Outbox::default();
        outbox.body(body);
        outbox.release();
        assert_eq!(Arc::strong_count(&owner), 2);
    }

    #[test]
    fn a_small_body_never_pins_its_batch() {
        let (body, owner) = watched(COPY_BELOW - 1);
        let mut outbox = Outbox::default();
        outbox.body(body);
        assert_eq!(Arc::strong_count(&owner), 1);
    }

    #[test]
    fn the_marks_follow_the_stream() {
        let mut outbox = Outbox::default();
        assert!(outbox.deliveries_written() && !outbox.ack_waits());
        outbox.control().extend_from_slice(b"ack");
        outbox.mark_ack();
        outbox.body(Bytes::from(vec![0; 1000]));
        outbox.mark_delivery();
        outbox.control().extend_from_slice(b"pong");
        take(&mut outbox, 2);
        assert!(outbox.ack_waits());
        take(&mut outbox, 1);
        assert!(!outbox.ack_waits() && !outbox.deliveries_written());
        take(&mut outbox, 999);
        assert!(!outbox.deliveries_written());
        take(&mut outbox, 1);
        assert!(outbox.deliveries_written() && !outbox.is_empty());
    }
}

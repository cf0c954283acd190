//! [`Turn`]: what the parts of a ready session work with; [`Fault`]: what ends a session.

use std::time::Duration;

use broker_proto::{Error, ErrorCode, Frame, Kind, Refused};

use super::liveness::Liveness;
use super::{Outbox, Terms};
use crate::store::{Mailbox, SessionId};
use crate::sync::Arc;

/// What ends a session: the peer did what the protocol does not allow.
#[derive(Debug)]
pub(super) struct Fault {
    pub(super) code: ErrorCode,
    pub(super) kind: u8,
    pub(super) detail: String,
}

impl Fault {
    pub(super) fn new(code: ErrorCode, kind: Kind, detail: impl Into<String>) -> Self {
        Self {
            code,
            kind: kind.get(),
            detail: detail.into(),
        }
    }

    pub(super) fn unexpected(kind: Kind, why: &str) -> Self {
        Self::new(
            ErrorCode::UNEXPECTED_FRAME,
            kind,
            format!("{kind} has no place here: {why}"),
        )
    }
}

/// What the parts of a ready session work with.
pub(super) struct Turn<'a, S> {
    pub(super) now: Duration,
    pub(super) session: SessionId,
    pub(super) store: &'a Arc<S>,
    pub(super) mailbox: &'a Arc<Mailbox>,
    pub(super) terms: &'a Terms,
    pub(super) payload_bytes_max: usize,
    pub(super) out: &'a mut Outbox,
    pub(super) liveness: &'a mut Liveness,
    pub(super) next_tag: &'a mut u64,
}

impl<S> Turn<'_, S> {
    /// A name for a question to the store, never used again in this session.
    pub(super) fn tag(&mut self) -> u64 {
        *self.next_tag += 1;
        *self.next_tag
    }

    /// Sends a control frame.
    pub(super) fn send(&mut self, frame: &Frame) {
        frame.encode(self.out.control());
    }

    /// Tells that a request failed; the connection goes on.
    pub(super) fn error(&mut self, code: ErrorCode, about: u64, kind: Kind, detail: String) {
        let error = Error {
            code,
            about,
            kind: kind.get(),
            detail,
            retry_after_ms: 0,
        };
        error.encode(self.out.control());
    }

    /// Sends the refusal of a publish, which counts as an ack: it must be taken in time.
    pub(super) fn answer_publish(&mut self, refused: &Refused) {
        refused.encode(self.out.control());
        self.ack_queued();
    }

    /// Says that the last bytes are an ack.
    pub(super) fn ack_queued(&mut self) {
        self.out.mark_ack();
        self.liveness.ack_queued(self.now);
    }
}

//! [`Requests`]: questions that wait for one answer each, told apart by a correlation number.
//!
//! They are rare beside messages, so each has a channel of its own. After a reconnect they are asked again, except those
//! that may not be done twice: they fail, saying that their outcome is unknown.

use std::collections::BTreeMap;

use broker_proto::{ErrorCode, Frame, Kind};
use bytes::{Bytes, BytesMut};
use tokio::sync::oneshot;

use super::error::{Error, ErrorKind, Result};

/// Most requests of one client that wait at the same time; further ones wait for their turn.
pub(super) const REQUESTS_MAX: usize = 256;

/// Requests that have not been answered.
#[derive(Debug)]
pub(super) struct Requests {
    next: u32,
    pending: BTreeMap<u32, Pending>,
}

#[derive(Debug)]
struct Pending {
    frame: Bytes,
    kind: Kind,
    what: String,
    repeatable: bool,
    /// What a broker of the first version takes for an error.
    recent: bool,
    sent: bool,
    reply: oneshot::Sender<Result<Frame>>,
}

/// A request that is to be made.
pub(super) struct Question<'a> {
    /// What it does, for errors, such as `reading room "ops"`.
    pub(super) what: String,
    /// Whether doing it twice is the same as doing it once.
    pub(super) repeatable: bool,
    /// Its frame with this correlation number.
    pub(super) frame: &'a (dyn Fn(u32) -> Frame + Sync),
}

impl Requests {
    pub(super) fn new() -> Self {
        Self {
            next: 1,
            pending: BTreeMap::new(),
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.pending.is_empty()
    }

    /// Takes a request; its bytes go to `control` when there is a connection.
    pub(super) fn ask(
        &mut self,
        question: &Question<'_>,
        control: Option<&mut BytesMut>,
    ) -> (u32, oneshot::Receiver<Result<Frame>>) {
        let correlation = self.number();
        let asked = (question.frame)(correlation);
        let kind = asked.kind();
        let recent = is_recent(&asked);
        let mut frame = BytesMut::new();
        asked.encode(&mut frame);
        let sent = control.is_some();
        if let Some(control) = control {
            control.extend_from_slice(&frame);
        }
        let (reply, answer) = oneshot::channel();
        let (what, repeatable) = (question.what.clone(), question.repeatable);
        self.pending.insert(
            correlation,
            Pending {
                frame: frame.freeze(),
                kind,
                what,
                repeatable,
                recent,
                sent,
                reply,
            },
        );
        (correlation, answer)
    }

    /// A number that no pending request has; never zero, which means the connection in an error.
    fn number(&mut self) -> u32 {
        loop {
            let number = self.next;
            self.next = self.next.checked_add(1).unwrap_or(1);
            if !self.pending.contains_key(&number) {
                return number;
            }
        }
    }

    /// Nobody waits for the answer any more.
    pub(super) fn forget(&mut self, correlation: u32) {
        self.pending.remove(&correlation);
    }

    /// The answer came. Answers to forgotten requests are dropped.
    pub(super) fn answered(&mut self, correlation: u32, answer: Frame) {
        if let Some(pending) = self.pending.remove(&correlation) {
            // The receiver may be gone at this very moment; then nobody wants the answer.
            let _ = pending.reply.send(Ok(answer));
        }
    }

    /// The broker refused.
    pub(super) fn refused(&mut self, error: &broker_proto::Error) {
        let pending = u32::try_from(error.about)
            .ok()
            .and_then(|number| self.pending.remove(&number));
        if let Some(Pending { what, reply, .. }) = pending {
            let _ = reply.send(Err(Error::refused(
                what,
                error.code,
                &error.detail,
                error.retry_after_ms,
            )));
        }
    }

    /// The broker ends the connection because of a frame: fails the requests that came as such, when a broker of an earlier
    /// version does not understand them. Asked again, they would end the next connection too.
    pub(super) fn not_understood(&mut self, error: &broker_proto::Error) {
        if !matches!(error.code, ErrorCode::UNKNOWN_KIND | ErrorCode::BAD_FRAME) {
            return;
        }
        let asked = |pending: &mut Pending| {
            pending.sent && pending.recent && pending.kind.get() == error.kind
        };
        for (_, pending) in self.pending.extract_if(.., |_, pending| asked(pending)) {
            let Pending { what, reply, .. } = pending;
            let old = "the broker is older than this program and cannot do that, run a newer one";
            let detail = format!("{}; {old}", error.detail);
            let _ = reply.send(Err(Error::refused(what, error.code, &detail, 0)));
        }
    }

    /// The broker is leaving and has not done it: it is asked again on the next connection.
    pub(super) fn postponed(&mut self, error: &broker_proto::Error) {
        let number = u32::try_from(error.about).unwrap_or(0);
        if let Some(pending) = self.pending.get_mut(&number) {
            pending.sent = false;
        }
    }

    /// Asks everything again on a new connection.
    pub(super) fn restart(&mut self, control: &mut BytesMut) {
        let unrepeatable: Vec<u32> = self
            .pending
            .iter()
            .filter(|(_, pending)| pending.sent && !pending.repeatable)
            .map(|(&correlation, _)| correlation)
            .collect();
        for correlation in unrepeatable {
            if let Some(Pending { what, reply, .. }) = self.pending.remove(&correlation) {
                let text = format!(
                    "{what}: the connection was lost before the answer, so it is unknown whether it was done"
                );
                let _ = reply.send(Err(Error::new(ErrorKind::OutcomeUnknown, text)));
            }
        }
        for pending in self.pending.values_mut() {
            pending.sent = true;
            control.extend_from_slice(&pending.frame);
        }
    }

    /// Fails everything with what `why` makes of its description.
    pub(super) fn fail_all(&mut self, why: impl Fn(&str, bool) -> Error) {
        for Pending {
            what,
            reply,
            repeatable,
            sent,
            ..
        } in std::mem::take(&mut self.pending).into_values()
        {
            let _ = reply.send(Err(why(&what, sent && !repeatable)));
        }
    }
}

/// Whether a broker of the first version takes a request for an error.
fn is_recent(frame: &Frame) -> bool {
    match frame {
        Frame::SetCursor(set) => set.is_relaxed(),
        other => other.kind() >= Kind::GetRoom,
    }
}

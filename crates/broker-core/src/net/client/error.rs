//! [`Error`]: what went wrong for the caller of a client, a broker or a node.
//!
//! One type with a [kind](ErrorKind) to branch on, a text that says what failed, where and what to do next, and the cause
//! as `source`. It is cheap to clone, because one refusal or one lost connection may answer hundreds of sends.
//!
//! **Invariant:** [`Error::is_retryable`] is true only when repeating the same call cannot store a message twice.

use std::error::Error as StdError;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use broker_proto::{ErrorCode, NameError};

/// The result of what a client does.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// What went wrong, to branch on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ErrorKind {
    /// No broker could be reached.
    Connect,
    /// The broker does not let this client in, or not do this.
    Auth,
    /// Nothing moved for the whole timeout. The text says whether the outcome is known.
    Timeout,
    /// The client was shut down, or gave up for the reason in the text.
    Closed,
    /// The broker refused, with this code.
    Refused(ErrorCode),
    /// A payload or a list is over a limit; nothing was sent.
    TooLarge,
    /// A part of the room's history is gone and the position lies in it.
    Gap,
    /// The room that was asked for does not exist.
    Absent,
    /// It cannot be known whether the request took effect.
    OutcomeUnknown,
    /// Bytes did not match their checksum.
    Damaged,
    /// The peer broke the protocol.
    Protocol,
    /// Another store answers at this address than before.
    OtherStore,
    /// The store has lost messages that this client has seen acknowledged or delivered: its disk lied, or an old copy was put
    /// in its place. Only a new client goes on.
    LostSuffix,
    /// A name, an address or a setting is not valid; nothing was sent.
    Usage,
    /// The disk failed, or the directory cannot be used.
    Disk,
    /// The lock on the store is held by another process.
    Locked,
}

/// What went wrong, where, and what to do next.
#[derive(Clone)]
pub struct Error(Arc<Inner>);

struct Inner {
    kind: ErrorKind,
    code: Option<ErrorCode>,
    text: Box<str>,
    retryable: bool,
    retry_after: Option<Duration>,
    source: Option<Box<dyn StdError + Send + Sync>>,
}

impl Error {
    /// An error that repeating the call does not mend.
    pub(crate) fn new(kind: ErrorKind, text: impl Into<String>) -> Self {
        Self::build(Inner {
            kind,
            code: None,
            text: text.into().into_boxed_str(),
            retryable: false,
            retry_after: None,
            source: None,
        })
    }

    fn build(inner: Inner) -> Self {
        Self(Arc::new(inner))
    }

    /// The same with a cause. Used while the error is being made, before it is shared.
    #[must_use]
    pub(crate) fn with_source(self, source: impl Into<Box<dyn StdError + Send + Sync>>) -> Self {
        self.change(|inner| inner.source = Some(source.into()))
    }

    /// The same, safe and worthwhile to repeat.
    #[must_use]
    pub(crate) fn retryable(self) -> Self {
        self.change(|inner| inner.retryable = true)
    }

    fn change(mut self, change: impl FnOnce(&mut Inner)) -> Self {
        if let Some(inner) = Arc::get_mut(&mut self.0) {
            change(inner);
        }
        self
    }

    /// What the broker answered instead of doing `what`.
    pub(crate) fn refused(
        what: impl fmt::Display,
        code: ErrorCode,
        detail: &str,
        retry_after_ms: u32,
    ) -> Self {
        let kind = match code {
            ErrorCode::UNAUTHORIZED => ErrorKind::Auth,
            ErrorCode::TOO_LARGE => ErrorKind::TooLarge,
            ErrorCode::NO_SUCH_ROOM => ErrorKind::Absent,
            ErrorCode::LOST_SUFFIX => ErrorKind::Gap,
            ErrorCode::OUTCOME_UNKNOWN | ErrorCode::IN_DOUBT => ErrorKind::OutcomeUnknown,
            ErrorCode::BAD_CHECKSUM => ErrorKind::Damaged,
            other => ErrorKind::Refused(other),
        };
        let colon = if detail.is_empty() { "" } else { ": " };
        let text = format!(
            "{what}: refused as {code}{colon}{}{}",
            detail.escape_debug(),
            advice(code, retry_after_ms)
        );
        Self::build(Inner {
            kind,
            code: Some(code),
            text: text.into_boxed_str(),
            // Only the broker knows whether space is being made.
            retryable: code.is_retryable() || (code == ErrorCode::QUOTA && retry_after_ms > 0),
            retry_after: (retry_after_ms > 0).then(|| Duration::from_millis(retry_after_ms.into())),
            source: None,
        })
    }

    /// The broker does not have what this client has seen.
    pub(crate) fn lost_suffix(address: &str, detail: &str) -> Self {
        let text = format!(
            "the store at {address} has lost messages: {}; make a new client to go on all the same",
            detail.escape_debug()
        );
        Self::build(Inner {
            kind: ErrorKind::LostSuffix,
            code: Some(ErrorCode::LOST_SUFFIX),
            text: text.into_boxed_str(),
            retryable: false,
            retry_after: None,
            source: None,
        })
    }

    /// A name that breaks the rules.
    pub(crate) fn name(error: NameError) -> Self {
        Self::new(ErrorKind::Usage, "the name cannot be used").with_source(error)
    }

    /// The peer broke the protocol.
    pub(crate) fn protocol(text: impl Into<String>) -> Self {
        Self::new(ErrorKind::Protocol, text)
    }

    /// What kind of failure it is.
    #[must_use]
    pub fn kind(&self) -> ErrorKind {
        self.0.kind
    }

    /// The code that the broker answered with, when it was the broker that refused.
    #[must_use]
    pub fn code(&self) -> Option<ErrorCode> {
        self.0.code
    }

    /// Whether the same call can succeed later without a person acting, and cannot do its work twice.
    ///
    /// A send whose outcome is unknown is never retryable in this sense: repeat it under an id of your own
    /// ([`Room::send_with_id`](crate::net::client::Room::send_with_id)) to be safe.
    #[must_use]
    pub fn is_retryable(&self) -> bool {
        self.0.retryable
    }

    /// How long the broker asks to wait before the call is repeated.
    #[must_use]
    pub fn retry_after(&self) -> Option<Duration> {
        self.0.retry_after
    }

    /// Whether trying the same address again is of no use.
    pub(crate) fn is_final(&self) -> bool {
        matches!(
            self.0.kind,
            ErrorKind::Auth | ErrorKind::OtherStore | ErrorKind::LostSuffix | ErrorKind::Usage
        ) || self.0.code == Some(ErrorCode::UNSUPPORTED_VERSION)
    }
}

/// What a caller can do about a code, where its name does not say it.
fn advice(code: ErrorCode, retry_after_ms: u32) -> &'static str {
    match code {
        ErrorCode::DUPLICATE => "; it was stored or given up before, its seq is no longer known",
        ErrorCode::OUTCOME_UNKNOWN => {
            "; the message was not stored now: read the room to see whether it was stored before"
        }
        ErrorCode::IN_DOUBT => {
            "; read the room after the broker's next start to see whether it was stored"
        }
        ErrorCode::SUPERSEDED => {
            "; a newer connection of the same producer exists, nothing was stored"
        }
        ErrorCode::NO_SPACE => "; nothing was stored, send again when the disk has space",
        ErrorCode::QUOTA if retry_after_ms > 0 => {
            "; nothing was stored, some space is being made: send again in a moment"
        }
        ErrorCode::QUOTA => "; nothing was stored, and sending again does not help by itself",
        ErrorCode::READ_ONLY => "; nothing was stored, a person must look at the broker's log",
        ErrorCode::BUSY | ErrorCode::STARTING | ErrorCode::NOT_LEADER => {
            "; nothing was stored, try again"
        }
        ErrorCode::LOST_SUFFIX => "; subscribe again from a position of your choice",
        _ => "",
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.text)
    }
}

impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let inner = &self.0;
        let mut out = f.debug_struct("Error");
        out.field("kind", &inner.kind).field("text", &inner.text);
        if let Some(source) = &inner.source {
            out.field("source", source);
        }
        out.finish_non_exhaustive()
    }
}

impl StdError for Error {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        self.0
            .source
            .as_deref()
            .map(|source| source as &(dyn StdError + 'static))
    }
}

impl From<NameError> for Error {
    fn from(error: NameError) -> Self {
        Self::name(error)
    }
}

#[cfg(test)]
mod tests {
    use super::{Error, ErrorKind};
    use broker_proto::{ErrorCode, RoomName};
    use std::error::Error as _;
    use std::time::Duration;

    #[test]
    fn a_refusal_says_what_why_and_what_next() {
        let error = Error::refused(
            "message 7 to room \"ops\"",
            ErrorCode::NO_SPACE,
            "3 MiB\nleft",
            250,
        );
        assert_eq!(
            error.to_string(),
            "message 7 to room \"ops\": refused as no_space (11): 3 MiB\\nleft; nothing was stored, send again when the disk has space"
        );
        assert_eq!(error.kind(), ErrorKind::Refused(ErrorCode::NO_SPACE));
        assert!(error.is_retryable());
        assert_eq!(error.retry_after(), Some(Duration::from_millis(250)));
    }

    #[test]
    fn at_a_limit_it_is_said_whether_waiting_helps() {
        let refused = |retry_after_ms| {
            let detail = "the room has 9 of at most 10 bytes and this takes 2 more";
            Error::refused("message 7", ErrorCode::QUOTA, detail, retry_after_ms)
        };
        let error = refused(250);
        assert!(error.is_retryable() && error.to_string().ends_with("send again in a moment"));
        assert_eq!(error.retry_after(), Some(Duration::from_millis(250)));
        let error = refused(0);
        assert!(!error.is_retryable() && error.to_string().contains("does not help"));
        assert!(error.retry_after().is_none());
    }

    #[test]
    fn an_unknown_outcome_is_never_retryable() {
        let error = Error::refused("message 7", ErrorCode::OUTCOME_UNKNOWN, "", 0);
        assert_eq!(error.kind(), ErrorKind::OutcomeUnknown);
        assert!(!error.is_retryable());
        assert!(error.retry_after().is_none());
    }

    #[test]
    fn a_bad_name_keeps_its_cause() {
        let cause = RoomName::parse("a b").err();
        let error = cause.map(Error::from);
        assert_eq!(error.as_ref().map(Error::kind), Some(ErrorKind::Usage));
        assert!(error.as_ref().is_some_and(|error| error.source().is_some()));
    }
}

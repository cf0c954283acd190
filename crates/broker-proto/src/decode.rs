//! Bytes to frames: [`decode()`], [`Decoder`] and [`DecodeError`].
//!
//! A frame is judged as its bytes arrive: its length at byte 4, its kind at byte 5, magic and version of a hello at
//! byte 11, the rest when it is complete. So a wrong peer is refused before its frame is waited for, and the answer never
//! depends on how the bytes were split. After an error the connection must be closed: where the next frame begins is unknown.
//!
//! **Invariant:** the buffer grows with what arrives, at most to twice that, never because a length field says so.

use bytes::BytesMut;

use crate::error_code::ErrorCode;
use crate::extension::ExtensionError;
use crate::frame::head::Parts;
use crate::frame::{Frame, Kind};
use crate::limits::{LENGTH_FIELD_BYTES, MAGIC, PROTOCOL_VERSION, PROTOCOL_VERSION_MIN};
use crate::name::{NameCache, NameError};

/// The least room that is made for more bytes, so that a trickle does not grow the buffer byte by byte.
const RESERVE_BYTES_MIN: usize = 4096;

/// Why bytes are not a frame. Every one of them ends the connection.
///
/// The text goes to the peer, so it holds the whole reason and there is no `source` beside it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum DecodeError {
    /// The frame is over the limit of this moment.
    #[error("the frame has {length} bytes, at most {limit} are allowed now")]
    TooLarge {
        /// Its length field, in bytes.
        length: usize,
        /// The limit, in bytes.
        limit: usize,
    },
    /// The frame ends before its kind.
    #[error("the frame is empty")]
    Empty,
    /// The kind is unknown.
    #[error("frames of kind 0x{kind:02x} are unknown")]
    UnknownKind {
        /// The kind.
        kind: u8,
    },
    /// The first frame does not carry the protocol's mark.
    #[error("the hello begins with {found:02x?} instead of \"BRKR\"")]
    BadMagic {
        /// The bytes in its place.
        found: [u8; 4],
    },
    /// The version of the protocol is not served.
    #[error(
        "version {asked} of the protocol is not served; served are {PROTOCOL_VERSION_MIN} to {PROTOCOL_VERSION}"
    )]
    UnsupportedVersion {
        /// The version that the hello asks for.
        asked: u16,
    },
    /// The bytes break the layout of their frame.
    #[error("{frame}: {what}")]
    Malformed {
        /// The frame.
        frame: Kind,
        /// What is wrong, such as `the header is cut short`.
        what: &'static str,
    },
    /// The frame's extensions are malformed, or one must be understood and is not.
    #[error("{frame}: {cause}")]
    Extension {
        /// The frame.
        frame: Kind,
        /// What is wrong.
        cause: ExtensionError,
    },
    /// A name breaks the rules.
    #[error("{frame}: {cause}")]
    Name {
        /// The frame.
        frame: Kind,
        /// Which rule, and where.
        cause: NameError,
    },
}

impl DecodeError {
    /// The code that tells the peer about it.
    #[must_use]
    pub const fn code(&self) -> ErrorCode {
        match self {
            Self::TooLarge { .. } => ErrorCode::TOO_LARGE,
            Self::Empty | Self::BadMagic { .. } | Self::Malformed { .. } => ErrorCode::BAD_FRAME,
            Self::UnknownKind { .. } => ErrorCode::UNKNOWN_KIND,
            Self::UnsupportedVersion { .. } => ErrorCode::UNSUPPORTED_VERSION,
            Self::Extension { cause, .. } => cause.code(),
            Self::Name { cause, .. } => cause.code(),
        }
    }

    /// Whether the connection must be closed: always, because where the next frame begins cannot be trusted.
    #[must_use]
    pub const fn is_fatal(&self) -> bool {
        true
    }

    /// The kind of the frame that is wrong, as an error frame names it; zero when it is not known.
    #[must_use]
    pub const fn kind(&self) -> u8 {
        match self {
            Self::TooLarge { .. } | Self::Empty => 0,
            Self::UnknownKind { kind } => *kind,
            Self::BadMagic { .. } | Self::UnsupportedVersion { .. } => Kind::Hello.get(),
            Self::Malformed { frame, .. }
            | Self::Extension { frame, .. }
            | Self::Name { frame, .. } => frame.get(),
        }
    }
}

/// Takes the next frame off the front of `buf`; `None` when it is not complete, with room made for more bytes.
///
/// `limit` is the largest frame allowed now, in bytes after the length field: [`HELLO_BYTES_MAX`] until the hello is
/// accepted, [`FRAME_BYTES_MAX`] or less afterwards. A connection that decodes more than one frame is better served by
/// a [`Decoder`], which does not check the same room name again and again.
///
/// # Errors
/// When the bytes are not a frame; the connection must be closed.
///
/// [`HELLO_BYTES_MAX`]: crate::limits::HELLO_BYTES_MAX
/// [`FRAME_BYTES_MAX`]: crate::limits::FRAME_BYTES_MAX
pub fn decode(buf: &mut BytesMut, limit: usize) -> Result<Option<Frame>, DecodeError> {
    Decoder::new().decode(buf, limit)
}

/// Decodes the frames of one connection, remembering its last few room names.
#[derive(Debug, Clone, Default)]
pub struct Decoder {
    names: NameCache,
}

impl Decoder {
    /// A decoder for a new connection.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Takes the next frame off the front of `buf`, as [`decode()`] does.
    ///
    /// # Errors
    /// When the bytes are not a frame; the connection must be closed.
    pub fn decode(
        &mut self,
        buf: &mut BytesMut,
        limit: usize,
    ) -> Result<Option<Frame>, DecodeError> {
        let frame = self.take(buf, limit)?;
        if frame.is_none()
            && let Some((length, _)) = buf.split_first_chunk::<LENGTH_FIELD_BYTES>()
        {
            let total = LENGTH_FIELD_BYTES + u32::from_be_bytes(*length) as usize;
            let wanted = total.min((2 * buf.len()).max(RESERVE_BYTES_MIN));
            buf.reserve(wanted.saturating_sub(buf.len()));
        }
        Ok(frame)
    }

    /// As [`decode`](Self::decode), but the buffer is the caller's to make room in.
    ///
    /// # Errors
    /// When the bytes are not a frame; the connection must be closed.
    pub fn take(&mut self, buf: &mut BytesMut, limit: usize) -> Result<Option<Frame>, DecodeError> {
        let Some((length, _)) = buf.split_first_chunk::<LENGTH_FIELD_BYTES>() else {
            return Ok(None);
        };
        let length = u32::from_be_bytes(*length) as usize;
        let kind = judge_start(buf, length, limit)?;
        let total = LENGTH_FIELD_BYTES + length;
        if buf.len() < total {
            return Ok(None);
        }
        let kind = kind.ok_or(DecodeError::Empty)?;
        let bytes = buf.split_to(total).freeze();
        Frame::parse(Parts::split(kind, bytes)?, &mut self.names).map(Some)
    }
}

/// Judges what has arrived of a frame; `None` when not even its kind has.
fn judge_start(buf: &[u8], length: usize, limit: usize) -> Result<Option<Kind>, DecodeError> {
    if length > limit {
        return Err(DecodeError::TooLarge { length, limit });
    }
    if length == 0 {
        return Err(DecodeError::Empty);
    }
    let Some(&kind) = buf.get(LENGTH_FIELD_BYTES) else {
        return Ok(None);
    };
    let kind = Kind::new(kind).ok_or(DecodeError::UnknownKind { kind })?;
    if kind != Kind::Hello {
        return Ok(Some(kind));
    }
    // Only this frame's bytes: the next frame may have arrived too.
    let end = buf.len().min(LENGTH_FIELD_BYTES + length);
    judge_hello(buf.get(LENGTH_FIELD_BYTES + 1..end).unwrap_or_default())?;
    Ok(Some(kind))
}

/// Judges as much of a hello's magic and version as has arrived.
fn judge_hello(prefix: &[u8]) -> Result<(), DecodeError> {
    let Some((found, rest)) = prefix.split_first_chunk() else {
        return Ok(());
    };
    if *found != MAGIC {
        return Err(DecodeError::BadMagic { found: *found });
    }
    let Some((version, _)) = rest.split_first_chunk() else {
        return Ok(());
    };
    let asked = u16::from_le_bytes(*version);
    if !(PROTOCOL_VERSION_MIN..=PROTOCOL_VERSION).contains(&asked) {
        return Err(DecodeError::UnsupportedVersion { asked });
    }
    Ok(())
}

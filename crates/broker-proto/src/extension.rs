//! Extensions: how frames and messages grow without changing a released header.
//!
//! A list is entries of {u16 key, u16 length, bytes}, little-endian, to the end of the head that holds it. Bit 15 of the
//! key says that the entry is critical; the other 15 bits are its number. A receiver skips numbers that it does not know,
//! and refuses the whole when such an entry is critical. A number stands at most once in a list, in any order.

use bytes::{BufMut, Bytes};

use crate::error_code::ErrorCode;
use crate::limits::EXTENSIONS_MAX;

/// Bit of a key that makes a receiver refuse what it does not know.
pub const CRITICAL: u16 = 0x8000;

/// Frame key, in publish, ack and refused: the 16 bytes of a producer other than the connection's own.
pub const PRODUCER: u16 = 1;
/// Frame key, in publish: the u64 seq that the room's head must have for the publish to be stored.
pub const EXPECTED_HEAD: u16 = 2;

/// Frame key, in hello: the newest places that the client knows to be stored, see [`KnownHeads`](crate::KnownHeads).
pub const KNOWN_HEADS: u16 = 3;
/// Frame key, in publish, without a value: these numbers were sent before, over another connection.
pub const RESEND: u16 = 4;

/// Message key, reserved: media type of the payload.
pub const CONTENT_TYPE: u16 = 1;
/// Message key, reserved: the message that this one answers.
pub const REPLY_TO: u16 = 2;
/// Message key, reserved: senders that this message calls.
pub const MENTIONS: u16 = 3;
/// Message key, reserved: the publisher's own keys and values.
pub const HEADERS: u16 = 4;
/// Message key, reserved: what sort of message it is.
pub const MESSAGE_KIND: u16 = 5;
/// Message key, reserved: the draft that this message completes.
pub const DRAFT: u16 = 6;
/// Message key, reserved: how often automatic answers have followed each other.
pub const HOPS: u16 = 7;
/// Message key, reserved: how the payload is encrypted.
pub const ENCRYPTION: u16 = 8;
/// Message key, reserved: asks for a receipt, or is one.
pub const RECEIPT: u16 = 9;

/// Message keys that this version acts upon. All others are carried; a critical one among them is refused.
pub const MESSAGE_KEYS: &[u16] = &[];

/// What is wrong with a list of extensions.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ExtensionError {
    /// The bytes end inside an entry.
    #[error("an extension is cut short at byte {at} of its list")]
    Short {
        /// Start of the entry, in bytes from the start of the list.
        at: usize,
    },
    /// A number stands twice.
    #[error("extension {key} stands twice")]
    Twice {
        /// The number, without the critical bit.
        key: u16,
    },
    /// There are too many entries or bytes.
    #[error(
        "the list of extensions has {bytes} bytes, at most {bytes_max} in {EXTENSIONS_MAX} entries are allowed"
    )]
    TooMany {
        /// Length of the list in bytes.
        bytes: usize,
        /// The limit in bytes.
        bytes_max: usize,
    },
    /// A critical entry is not known here.
    #[error("critical extension {key} is unknown")]
    UnknownCritical {
        /// The number, without the critical bit.
        key: u16,
    },
    /// A known entry has a value of the wrong length.
    #[error("extension {key} has {bytes} bytes, {expected} are expected")]
    Value {
        /// The number, without the critical bit.
        key: u16,
        /// Length of the value in bytes.
        bytes: usize,
        /// The length it must have.
        expected: usize,
    },
}

impl ExtensionError {
    /// The code that tells a peer about it.
    #[must_use]
    pub const fn code(&self) -> ErrorCode {
        match self {
            Self::UnknownCritical { .. } => ErrorCode::UNKNOWN_EXTENSION,
            Self::TooMany { .. } => ErrorCode::TOO_LARGE,
            _ => ErrorCode::BAD_FRAME,
        }
    }
}

/// One entry of a list.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Extension<'a> {
    /// Its number, without the critical bit.
    pub key: u16,
    /// Whether a receiver that does not know the number must refuse.
    pub critical: bool,
    /// Its value.
    pub value: &'a [u8],
}

impl Extension<'_> {
    /// The value as an array.
    pub(crate) fn array<const N: usize>(&self) -> Result<[u8; N], ExtensionError> {
        let wrong = ExtensionError::Value {
            key: self.key,
            bytes: self.value.len(),
            expected: N,
        };
        self.value.try_into().map_err(|_| wrong)
    }
}

/// Splits the first entry off a list; `None` when it is cut short.
fn split(list: &[u8]) -> Option<(Extension<'_>, &[u8])> {
    let (key, rest) = list.split_first_chunk()?;
    let (length, rest) = rest.split_first_chunk()?;
    let (value, rest) = rest.split_at_checked(u16::from_le_bytes(*length).into())?;
    let key = u16::from_le_bytes(*key);
    Some((
        Extension {
            key: key & !CRITICAL,
            critical: key & CRITICAL != 0,
            value,
        },
        rest,
    ))
}

/// Checks a list: well-formed, within its limits, no number twice, no critical number that is not in `known`.
///
/// # Errors
/// The first rule that it breaks.
pub fn check(list: &[u8], bytes_max: usize, known: &[u16]) -> Result<(), ExtensionError> {
    check_each(list, bytes_max, |entry| {
        if entry.critical && !known.contains(&entry.key) {
            return Err(ExtensionError::UnknownCritical { key: entry.key });
        }
        Ok(())
    })
}

/// Checks a list as [`check`] does, without regard to what is critical.
pub(crate) fn check_form(list: &[u8], bytes_max: usize) -> Result<(), ExtensionError> {
    check_each(list, bytes_max, |_| Ok(()))
}

/// Checks the form of a list, and each entry as told.
fn check_each(
    list: &[u8],
    bytes_max: usize,
    judge: impl Fn(&Extension<'_>) -> Result<(), ExtensionError>,
) -> Result<(), ExtensionError> {
    // Nearly every message has none: do not even clear the table for them.
    if list.is_empty() {
        return Ok(());
    }
    let too_many = ExtensionError::TooMany {
        bytes: list.len(),
        bytes_max,
    };
    if list.len() > bytes_max {
        return Err(too_many);
    }
    // On the stack, because publishes check a list per message; the limit on entries bounds the search too.
    let mut seen = [0_u16; EXTENSIONS_MAX];
    let mut rest = list;
    let mut count = 0;
    while !rest.is_empty() {
        let at = list.len() - rest.len();
        let (entry, after) = split(rest).ok_or(ExtensionError::Short { at })?;
        if seen.iter().take(count).any(|&key| key == entry.key) {
            return Err(ExtensionError::Twice { key: entry.key });
        }
        judge(&entry)?;
        *seen.get_mut(count).ok_or(too_many)? = entry.key;
        count += 1;
        rest = after;
    }
    Ok(())
}

/// The entries of a list that was checked; an unchecked one ends where it is cut short.
#[must_use]
pub const fn iter(list: &[u8]) -> Iter<'_> {
    Iter { rest: list }
}

/// Appends an entry; `key` may have the critical bit. The caller keeps the list within its limits.
///
/// # Panics
/// When the value has more than 65,535 bytes, which no list may hold.
pub fn push(out: &mut impl BufMut, key: u16, value: &[u8]) {
    let length = u16::try_from(value.len()).expect("the value of an extension fits its list");
    out.put_u16_le(key);
    out.put_u16_le(length);
    out.put_slice(value);
}

/// The entries of a list, borrowed.
#[derive(Debug, Clone)]
pub struct Iter<'a> {
    rest: &'a [u8],
}

impl<'a> Iterator for Iter<'a> {
    type Item = Extension<'a>;

    fn next(&mut self) -> Option<Extension<'a>> {
        let (entry, rest) = split(self.rest)?;
        self.rest = rest;
        Some(entry)
    }
}

/// A list that was checked, in shared bytes.
///
/// **Invariant:** well-formed and without a number twice; critical numbers may be unknown, see
/// [`unknown_critical`](Self::unknown_critical).
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Extensions(Bytes);

impl Extensions {
    /// No extensions.
    #[must_use]
    pub const fn empty() -> Self {
        Self(Bytes::new())
    }

    /// Checks a list of at most `bytes_max` bytes, without regard to what is critical.
    ///
    /// # Errors
    /// The first rule that it breaks.
    pub fn parse(list: Bytes, bytes_max: usize) -> Result<Self, ExtensionError> {
        check_form(&list, bytes_max)?;
        Ok(Self(list))
    }

    /// The list that [`check_form`] has accepted.
    pub(crate) const fn checked(list: Bytes) -> Self {
        Self(list)
    }

    /// The value of the entry with this number.
    #[must_use]
    pub fn get(&self, key: u16) -> Option<&[u8]> {
        self.iter()
            .find(|entry| entry.key == key & !CRITICAL)
            .map(|entry| entry.value)
    }

    /// The entries, in the order they were written.
    #[must_use]
    pub fn iter(&self) -> Iter<'_> {
        iter(&self.0)
    }

    /// The first critical number that is not in `known`: who finds one must not act on the message.
    #[must_use]
    pub fn unknown_critical(&self, known: &[u16]) -> Option<u16> {
        self.iter()
            .find(|entry| entry.critical && !known.contains(&entry.key))
            .map(|entry| entry.key)
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The list as it stands on the wire.
    #[must_use]
    pub fn as_bytes(&self) -> &Bytes {
        &self.0
    }
}

impl<'a> IntoIterator for &'a Extensions {
    type Item = Extension<'a>;
    type IntoIter = Iter<'a>;

    fn into_iter(self) -> Iter<'a> {
        self.iter()
    }
}

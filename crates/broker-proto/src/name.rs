//! Names of rooms, senders and cursors: checked once here, held as proof everywhere else.
//!
//! The rules (`docs/protocol.md`, "Names"): UTF-8 in NFC within a length limit; no control, bidirectional or white-space
//! character; none of `/ \ * > ?`; not starting with `-` or `.`. Upper and lower case differ. A leading `@` or `$` and the
//! ending `.dead` are the broker's. Names never become paths.

use std::borrow::Borrow;
use std::fmt;
use std::ops::Deref;
use std::sync::Arc;

use unicode_normalization::{UnicodeNormalization, is_nfc};

use crate::error_code::ErrorCode;
use crate::limits::{CURSOR_NAME_BYTES_MAX, ROOM_NAME_BYTES_MAX, SENDER_NAME_BYTES_MAX};

/// Which rule a name breaks, and where.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum NameError {
    /// It has no character at all.
    #[error("the {what} is empty")]
    Empty {
        /// What is named: `room name`, `sender name` or `cursor name`.
        what: &'static str,
    },
    /// It is over the limit.
    #[error("the {what} has {bytes} bytes, at most {max} are allowed")]
    TooLong {
        /// What is named.
        what: &'static str,
        /// Its length in bytes.
        bytes: usize,
        /// The limit in bytes.
        max: usize,
    },
    /// A character is not allowed anywhere in it.
    #[error("the {what} has {why} '{}' at byte {at}", shown(*.found))]
    Character {
        /// What is named.
        what: &'static str,
        /// Place of the character, in bytes from the start.
        at: usize,
        /// The character.
        found: char,
        /// Why it is not allowed, such as `a control character`.
        why: &'static str,
    },
    /// It starts with a character that may only stand later.
    #[error("the {what} starts with '{found}'")]
    Start {
        /// What is named.
        what: &'static str,
        /// The first character.
        found: char,
    },
    /// Its characters are not in Unicode's normal form NFC, so that two names could look the same.
    #[error("the {what} is not in Unicode's normal form NFC from byte {at} on ('{}')", .found.escape_unicode())]
    NotNfc {
        /// What is named.
        what: &'static str,
        /// Where the normal form differs first, in bytes from the start.
        at: usize,
        /// The character there.
        found: char,
    },
    /// It is well-formed but belongs to the broker.
    #[error("the {what} {why}: such names belong to the broker")]
    Reserved {
        /// What is named.
        what: &'static str,
        /// What makes it the broker's, such as `starts with '@'`.
        why: &'static str,
    },
}

impl NameError {
    /// The code that tells a peer about it.
    #[must_use]
    pub const fn code(&self) -> ErrorCode {
        match self {
            Self::Reserved { .. } => ErrorCode::RESERVED_NAME,
            _ => ErrorCode::BAD_NAME,
        }
    }
}

/// A character as a person can tell it, also when it cannot be seen.
fn shown(found: char) -> String {
    if found.is_ascii_graphic() {
        found.to_string()
    } else {
        found.escape_unicode().to_string()
    }
}

/// Why a character may stand in no name, or `None` when it may.
fn refusal(found: char) -> Option<&'static str> {
    match found {
        '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}' => {
            Some("the bidirectional character")
        }
        // Spaces by name that Unicode does not list as white space, because they have no width.
        '\u{200b}' | '\u{2060}' | '\u{feff}' => Some("the white space"),
        '/' | '\\' | '*' | '>' | '?' => Some("the character"),
        _ if found.is_control() => Some("the control character"),
        _ if found.is_whitespace() => Some("the white space"),
        _ => None,
    }
}

/// Checks every rule but those of the broker's own names.
fn check(what: &'static str, name: &str, max: usize) -> Result<(), NameError> {
    if name.len() > max {
        return Err(NameError::TooLong {
            what,
            bytes: name.len(),
            max,
        });
    }
    // Nearly all names are plain: one look at every byte is enough then.
    let is_plain = name.bytes().all(|byte| {
        byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.' | b'@' | b'#')
    });
    if is_plain && !name.is_empty() && !name.starts_with(['-', '.']) {
        return Ok(());
    }
    for (at, found) in name.char_indices() {
        if let Some(why) = refusal(found) {
            return Err(NameError::Character {
                what,
                at,
                found,
                why,
            });
        }
    }
    match name.chars().next() {
        None => return Err(NameError::Empty { what }),
        Some(found @ ('-' | '.')) => return Err(NameError::Start { what, found }),
        Some(_) => {}
    }
    if name.is_ascii() || is_nfc(name) {
        return Ok(());
    }
    let mut normal = name.nfc();
    let differs = name
        .char_indices()
        .find(|&(_, found)| normal.next() != Some(found));
    // When all characters agree the normal form is only longer, which composing never is; name the end then.
    let (at, found) = differs.unwrap_or((name.len(), '\u{fffd}'));
    Err(NameError::NotNfc { what, at, found })
}

/// Refuses names that belong to the broker.
fn check_not_reserved(what: &'static str, name: &str) -> Result<(), NameError> {
    let why = match name.chars().next() {
        Some('@') => "starts with '@'",
        Some('$') => "starts with '$'",
        _ if name.ends_with(".dead") => "ends in \".dead\"",
        _ => return Ok(()),
    };
    Err(NameError::Reserved { what, why })
}

macro_rules! name {
    ($(#[doc = $doc:literal])+ $name:ident) => {
        $(#[doc = $doc])+
        #[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(Arc<str>);

        impl $name {
            /// The name as text.
            #[must_use]
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl Deref for $name {
            type Target = str;

            fn deref(&self) -> &str {
                &self.0
            }
        }

        impl AsRef<str> for $name {
            fn as_ref(&self) -> &str {
                &self.0
            }
        }

        impl Borrow<str> for $name {
            fn borrow(&self) -> &str {
                &self.0
            }
        }

        impl PartialEq<str> for $name {
            fn eq(&self, other: &str) -> bool {
                &*self.0 == other
            }
        }

        impl PartialEq<&str> for $name {
            fn eq(&self, other: &&str) -> bool {
                &*self.0 == *other
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.pad(&self.0)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!(stringify!($name), "({:?})"), &self.0)
            }
        }

        impl std::str::FromStr for $name {
            type Err = NameError;

            fn from_str(name: &str) -> Result<Self, NameError> {
                Self::parse(name)
            }
        }

        impl TryFrom<&str> for $name {
            type Error = NameError;

            fn try_from(name: &str) -> Result<Self, NameError> {
                Self::parse(name)
            }
        }
    };
}

name! {
    /// Name of a room: 1 to 128 bytes of UTF-8 in NFC, checked once here; never used as a path. Cloning is cheap.
    RoomName
}

impl RoomName {
    const WHAT: &str = "room name";

    /// Checks a name that a client chose.
    ///
    /// # Errors
    /// When it breaks a rule or belongs to the broker; the error says which and where.
    pub fn parse(name: &str) -> Result<Self, NameError> {
        let parsed = Self::parse_reserved(name)?;
        check_not_reserved(Self::WHAT, name)?;
        Ok(parsed)
    }

    /// Checks a name, letting the broker's own (`@name`, `$name`, `name.dead`) through.
    ///
    /// # Errors
    /// When it breaks a rule; the error says which and where.
    pub fn parse_reserved(name: &str) -> Result<Self, NameError> {
        Self::check_reserved(name)?;
        Ok(Self(name.into()))
    }

    /// As [`Self::parse_reserved`], for who keeps the text elsewhere.
    ///
    /// # Errors
    /// When it breaks a rule; the error says which and where.
    pub fn check_reserved(name: &str) -> Result<(), NameError> {
        check(Self::WHAT, name, ROOM_NAME_BYTES_MAX)
    }

    /// Whether the name belongs to the broker.
    #[must_use]
    pub fn is_reserved(&self) -> bool {
        check_not_reserved(Self::WHAT, &self.0).is_err()
    }
}

name! {
    /// Identity that the broker stamps on messages: 1 to 64 bytes under the rules of rooms, without `@`. Cloning is cheap.
    SenderName
}

impl SenderName {
    const WHAT: &str = "sender name";

    /// Checks a name that a client chose.
    ///
    /// # Errors
    /// When it breaks a rule or belongs to the broker; the error says which and where.
    pub fn parse(name: &str) -> Result<Self, NameError> {
        let what = Self::WHAT;
        check(what, name, SENDER_NAME_BYTES_MAX)?;
        // `@name` is the room of a sender's inbox, so that an `@` here would make two senders share one.
        if let Some(at) = name.find('@') {
            return Err(NameError::Character {
                what,
                at,
                found: '@',
                why: "the character",
            });
        }
        check_not_reserved(what, name)?;
        Ok(Self(name.into()))
    }
}

name! {
    /// Name of a reader's durable position in a room: 1 to 128 bytes under the rules of rooms. Cloning is cheap.
    CursorName
}

impl CursorName {
    /// Checks a name that a client chose. Cursors belong to clients, so none is reserved.
    ///
    /// # Errors
    /// When it breaks a rule; the error says which and where.
    pub fn parse(name: &str) -> Result<Self, NameError> {
        check("cursor name", name, CURSOR_NAME_BYTES_MAX)?;
        Ok(Self(name.into()))
    }
}

/// The last few room names of a connection, so that a stream of publishes allocates and checks none of them again.
#[derive(Debug, Clone, Default)]
pub(crate) struct NameCache {
    names: [Option<RoomName>; 8],
    oldest: usize,
}

impl NameCache {
    /// The room name with this text, from the cache or checked now; the broker's own are let through.
    pub(crate) fn room(&mut self, text: &str) -> Result<RoomName, NameError> {
        if let Some(known) = self
            .names
            .iter()
            .flatten()
            .find(|name| name.as_str() == text)
        {
            return Ok(known.clone());
        }
        let name = RoomName::parse_reserved(text)?;
        if let Some(slot) = self.names.get_mut(self.oldest) {
            *slot = Some(name.clone());
        }
        self.oldest = (self.oldest + 1) % self.names.len();
        Ok(name)
    }
}

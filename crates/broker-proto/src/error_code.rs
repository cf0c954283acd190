//! [`ErrorCode`]: what went wrong, as a number that programs of any version understand.
//!
//! A number and its meaning never change once released; new ones are added. A peer may send a code that this version
//! does not know, so the type is open. What a client should do about each is in `docs/protocol.md`.

use std::fmt;

use serde::{Deserialize, Serialize};

/// What went wrong, as it travels in refusals, errors and goodbyes.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize,
)]
pub struct ErrorCode(u16);

macro_rules! codes {
    ($($(#[doc = $doc:literal])+ $name:ident = $number:literal, $text:literal;)+) => {
        impl ErrorCode {
            $($(#[doc = $doc])+ pub const $name: Self = Self($number);)+

            /// Every code that this version knows, in rising order.
            pub const ALL: &[Self] = &[$(Self::$name),+];

            /// The name for people and scripts; `unknown` when this version does not know the code.
            #[must_use]
            pub const fn name(self) -> &'static str {
                match self.0 {
                    $($number => $text,)+
                    _ => "unknown",
                }
            }
        }
    };
}

codes! {
    /// Nothing is wrong; only in a goodbye.
    NONE = 0, "none";
    /// The bytes are not a well-formed frame.
    BAD_FRAME = 1, "bad_frame";
    /// The kind of the frame is unknown.
    UNKNOWN_KIND = 2, "unknown_kind";
    /// A critical extension is unknown.
    UNKNOWN_EXTENSION = 3, "unknown_extension";
    /// The version of the protocol is not served.
    UNSUPPORTED_VERSION = 4, "unsupported_version";
    /// The frame is well-formed but has no place here, such as a publish before the hello.
    UNEXPECTED_FRAME = 5, "unexpected_frame";
    /// A frame, payload or list is over its limit.
    TOO_LARGE = 6, "too_large";
    /// A name breaks the rules of names.
    BAD_NAME = 7, "bad_name";
    /// The name belongs to the broker.
    RESERVED_NAME = 8, "reserved_name";
    /// There is no such room.
    NO_SUCH_ROOM = 9, "no_such_room";
    /// A checksum does not match its bytes.
    BAD_CHECKSUM = 10, "bad_checksum";
    /// The disk is full; acking resumes by itself when there is space.
    NO_SPACE = 11, "no_space";
    /// The store serves reads only until a person acts.
    READ_ONLY = 12, "read_only";
    /// A queue is full; try again.
    BUSY = 13, "busy";
    /// Stored before, so long ago that its seq is no longer known.
    DUPLICATE = 14, "duplicate";
    /// Whether it was stored before cannot be known, so it was not stored now.
    OUTCOME_UNKNOWN = 15, "outcome_unknown";
    /// A newer connection of the same producer has taken over.
    SUPERSEDED = 16, "superseded";
    /// The head of the room is not the one that the publish expected.
    WRONG_HEAD = 17, "wrong_head";
    /// Too many of something: unacked numbers, subscriptions, connections, rooms.
    LIMIT = 18, "limit";
    /// The position lies in a part of history that was lost.
    LOST_SUFFIX = 19, "lost_suffix";
    /// The broker is still recovering its store.
    STARTING = 20, "starting";
    /// The broker is shutting down or handing over.
    GOING_AWAY = 21, "going_away";
    /// This process does not lead the store.
    NOT_LEADER = 22, "not_leader";
    /// The client is not allowed to do this.
    UNAUTHORIZED = 23, "unauthorized";
    /// The position is not one of this room.
    BAD_POSITION = 24, "bad_position";
    /// The cursor is not at the expected position.
    CONFLICT = 25, "conflict";
    /// It took too long.
    TIMED_OUT = 26, "timed_out";
    /// The broker failed in a way that is its own fault.
    INTERNAL = 27, "internal";
    /// The peer left pings unanswered or took no bytes for too long.
    SLOW_PEER = 28, "slow_peer";
    /// The number was passed over; it was not stored and cannot be any more without breaking the order.
    NOT_STORED = 29, "not_stored";
    /// The disk failed or was full in the middle of the write; a restart shows whether it was stored.
    IN_DOUBT = 30, "in_doubt";
    /// A setting has a value that it cannot have.
    BAD_SETTING = 31, "bad_setting";
    /// The room, or the store, is at the limit of bytes that was set for it.
    QUOTA = 32, "quota";
}

impl ErrorCode {
    /// The code with this number, known or not.
    #[must_use]
    pub const fn new(code: u16) -> Self {
        Self(code)
    }

    /// The number.
    #[must_use]
    pub const fn get(self) -> u16 {
        self.0
    }

    /// Whether nothing is wrong.
    #[must_use]
    pub const fn is_none(self) -> bool {
        self.0 == 0
    }

    /// Whether the same request, unchanged, can succeed later without a person acting.
    #[must_use]
    pub const fn is_retryable(self) -> bool {
        matches!(
            self,
            Self::NO_SPACE
                | Self::BUSY
                | Self::STARTING
                | Self::GOING_AWAY
                | Self::NOT_LEADER
                | Self::TIMED_OUT
                | Self::SLOW_PEER
        )
    }
}

impl fmt::Display for ErrorCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({})", self.name(), self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::ErrorCode;

    #[test]
    fn codes_are_numbered_from_zero_without_holes_and_named_once() {
        let mut names = std::collections::BTreeSet::new();
        for (number, code) in (0_u16..).zip(ErrorCode::ALL) {
            assert_eq!(code.get(), number);
            assert!(names.insert(code.name()), "{code} has the name of another");
        }
        assert_eq!(names.len(), 33);
    }

    #[test]
    fn display_shows_name_and_number() {
        assert_eq!(ErrorCode::TOO_LARGE.to_string(), "too_large (6)");
        assert_eq!(ErrorCode::new(999).to_string(), "unknown (999)");
    }

    #[test]
    fn only_passing_states_are_retryable() {
        let retryable: Vec<u16> = ErrorCode::ALL
            .iter()
            .filter(|code| code.is_retryable())
            .map(|code| code.get())
            .collect();
        assert_eq!(retryable, [11, 13, 20, 21, 22, 26, 28]);
    }
}

//! [`Skip`]: a range of a room that will not come, and why. Nothing is ever left out silently.

use std::fmt;

use bytes::BytesMut;
use serde::{Deserialize, Serialize};

use super::Kind;
use super::head::{Parts, Wire, put_plain};
use crate::decode::DecodeError;
use crate::name::NameCache;
use crate::seq::{Epoch, Seq};

/// Why messages are left out. Open: a later broker may send reasons that this version does not know.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct SkipReason(u8);

impl SkipReason {
    /// Removed by retention or on request.
    pub const TRIMMED: Self = Self(1);
    /// Lost or unreadable.
    pub const DAMAGED: Self = Self(2);
    /// Not asked for.
    pub const FILTERED: Self = Self(3);

    /// The reason with this number.
    #[must_use]
    pub const fn new(reason: u8) -> Self {
        Self(reason)
    }

    /// The number.
    #[must_use]
    pub const fn get(self) -> u8 {
        self.0
    }

    /// The name for people and scripts; `unknown` when this version does not know the reason.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self.0 {
            1 => "trimmed",
            2 => "damaged",
            3 => "filtered",
            _ => "unknown",
        }
    }
}

impl fmt::Display for SkipReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

/// A range of a room that is left out, and why.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct SkipRange {
    /// The first message left out.
    pub from: Seq,
    /// The last message left out.
    pub to: Seq,
    /// Why.
    pub reason: SkipReason,
}

impl SkipRange {
    /// Refuses a range that is empty or begins before the first message.
    pub(crate) fn check(self, parts: &Parts) -> Result<Self, DecodeError> {
        if self.from.is_none() || self.from > self.to {
            return Err(parts.malformed("the skipped range is empty or begins at zero"));
        }
        if self.reason.get() == 0 {
            return Err(parts.malformed("the skip has no reason"));
        }
        Ok(self)
    }
}

/// Broker: the messages of this range will not come on this subscription.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Skip {
    /// The subscription.
    pub sub: u32,
    /// What is left out, and why.
    pub range: SkipRange,
    /// The history that the range is in.
    pub epoch: Epoch,
}

#[derive(Serialize, Deserialize)]
struct SkipHeader {
    sub: u32,
    from: Seq,
    to: Seq,
    reason: SkipReason,
    epoch: Epoch,
}

impl Wire for Skip {
    const KIND: Kind = Kind::Skip;

    fn put(&self, out: &mut BytesMut) {
        let SkipRange { from, to, reason } = self.range;
        put_plain(
            out,
            Self::KIND,
            &SkipHeader {
                sub: self.sub,
                from,
                to,
                reason,
                epoch: self.epoch,
            },
        );
    }

    fn take(parts: Parts, _: &mut NameCache) -> Result<Self, DecodeError> {
        let SkipHeader {
            sub,
            from,
            to,
            reason,
            epoch,
        } = parts.only_header()?;
        let range = SkipRange { from, to, reason }.check(&parts)?;
        Ok(Self { sub, range, epoch })
    }
}

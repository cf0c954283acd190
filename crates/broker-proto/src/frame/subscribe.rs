//! Following a room: [`Subscribe`], [`Subscribed`], [`Unsubscribe`], and [`StartAt`], where to begin.

use std::fmt;

use bytes::BytesMut;
use serde::{Deserialize, Serialize};

use super::Kind;
use super::head::{Parts, Wire, plain_frame, put_plain};
use crate::decode::DecodeError;
use crate::name::{NameCache, RoomName};
use crate::seq::{Epoch, Micros, Position, Seq};

/// Where reading begins, as it travels: a kind, and a value and an epoch whose meaning depends on it.
///
/// **Invariant:** the kind is known, and what the kind does not use is zero.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct StartAt {
    kind: u8,
    value: u64,
    epoch: u64,
}

/// Where reading begins, to match on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum StartView {
    /// At the oldest message kept.
    Start,
    /// After the newest message.
    End,
    /// At this seq, whatever history it is in.
    Seq(Seq),
    /// At the last so many messages.
    Last(u64),
    /// At the first message that is not older.
    Time(Micros),
    /// At this seq of this history: the next one wanted, not the last one seen.
    Position(Position),
}

impl StartAt {
    /// At the oldest message kept.
    pub const START: Self = Self {
        kind: 0,
        value: 0,
        epoch: 0,
    };
    /// After the newest message.
    pub const END: Self = Self {
        kind: 1,
        value: 0,
        epoch: 0,
    };

    /// At this seq, whatever history it is in.
    #[must_use]
    pub const fn seq(seq: Seq) -> Self {
        Self {
            kind: 2,
            value: seq.get(),
            epoch: 0,
        }
    }

    /// At the last `count` messages.
    #[must_use]
    pub const fn last(count: u64) -> Self {
        Self {
            kind: 3,
            value: count,
            epoch: 0,
        }
    }

    /// At the first message that is not older.
    #[must_use]
    pub const fn time(time: Micros) -> Self {
        Self {
            kind: 4,
            value: time.get().cast_unsigned(),
            epoch: 0,
        }
    }

    /// At this seq of this history: the next one wanted, not the last one seen.
    #[must_use]
    pub const fn position(next: Position) -> Self {
        Self {
            kind: 5,
            value: next.seq.get(),
            epoch: next.epoch.get(),
        }
    }

    /// What it says, to match on.
    #[must_use]
    pub const fn view(self) -> StartView {
        match self.kind {
            1 => StartView::End,
            2 => StartView::Seq(Seq::new(self.value)),
            3 => StartView::Last(self.value),
            4 => StartView::Time(Micros::new(self.value.cast_signed())),
            5 => StartView::Position(Position::new(Epoch::new(self.epoch), Seq::new(self.value))),
            _ => StartView::Start,
        }
    }

    /// What travels in a header.
    pub(crate) const fn header(self) -> StartHeader {
        StartHeader {
            kind: self.kind,
            value: self.value,
            epoch: self.epoch,
        }
    }
}

impl From<StartView> for StartAt {
    fn from(view: StartView) -> Self {
        match view {
            StartView::Start => Self::START,
            StartView::End => Self::END,
            StartView::Seq(seq) => Self::seq(seq),
            StartView::Last(count) => Self::last(count),
            StartView::Time(time) => Self::time(time),
            StartView::Position(next) => Self::position(next),
        }
    }
}

impl fmt::Debug for StartAt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "StartAt({:?})", self.view())
    }
}

/// Where reading begins, as part of a header.
#[derive(Clone, Copy, Serialize, Deserialize)]
pub(crate) struct StartHeader {
    kind: u8,
    value: u64,
    epoch: u64,
}

impl StartHeader {
    /// Checks the kind and drops what it does not use.
    pub(crate) fn start(self, parts: &Parts) -> Result<StartAt, DecodeError> {
        let Self { kind, value, epoch } = self;
        if kind > 5 {
            return Err(parts.malformed("the kind of start is unknown"));
        }
        Ok(StartAt { kind, value, epoch }.view().into())
    }
}

/// Client: send me a room from a place on, history first and then what comes, without a seam.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Subscribe {
    /// The client's number of this subscription, not used by another one on this connection.
    pub sub: u32,
    /// The room.
    pub room: RoomName,
    /// Where to begin.
    pub start: StartAt,
    /// Bytes of deliveries admitted to begin with.
    pub window: u32,
    /// Bits of [`WAIT`](Self::WAIT).
    pub flags: u32,
}

#[derive(Serialize, Deserialize)]
struct SubscribeHeader<'a> {
    sub: u32,
    room: &'a str,
    start: StartHeader,
    window: u32,
    flags: u32,
}

impl Subscribe {
    /// Flag: when the room does not exist, wait for its first message.
    pub const WAIT: u32 = 1;

    /// Whether to wait for a room that does not exist.
    #[must_use]
    pub const fn waits(&self) -> bool {
        self.flags & Self::WAIT != 0
    }
}

impl Wire for Subscribe {
    const KIND: Kind = Kind::Subscribe;

    fn put(&self, out: &mut BytesMut) {
        let header = SubscribeHeader {
            sub: self.sub,
            room: &self.room,
            start: self.start.header(),
            window: self.window,
            flags: self.flags,
        };
        put_plain(out, Self::KIND, &header);
    }

    fn take(parts: Parts, names: &mut NameCache) -> Result<Self, DecodeError> {
        let header: SubscribeHeader<'_> = parts.only_header()?;
        Ok(Self {
            sub: header.sub,
            room: names
                .room(header.room)
                .map_err(|cause| parts.name_error(cause))?,
            start: header.start.start(&parts)?,
            window: header.window,
            flags: parts.flags(header.flags, Self::WAIT)?,
        })
    }
}

/// Broker: the subscription stands. Sent again when its history changes, or a room that was waited for is made.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Subscribed {
    /// The subscription.
    pub sub: u32,
    /// The room's history; `NONE` while it is waited for.
    pub epoch: Epoch,
    /// The oldest message kept; one after the head when there is none.
    pub first: Seq,
    /// The first message that will come, or be told as skipped.
    pub next: Seq,
    /// The newest message that is stored.
    pub head: Seq,
}

plain_frame!(Subscribed);

/// Client: end a subscription. Deliveries under way may still come.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Unsubscribe {
    /// The subscription.
    pub sub: u32,
}

plain_frame!(Unsubscribe);

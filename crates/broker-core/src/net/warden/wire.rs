//! What goes over `DIR/health.sock`: messages of 128 bytes, integers little-endian.
//!
//! | at | bytes | field |
//! |---|---|---|
//! | 0 | 4 | `BRKW` |
//! | 4 | 2 | version of this layout: 1 |
//! | 6 | 1 | kind, see [`kind`] |
//! | 7 | 1 | flags, of `estate` alone: which descriptors come, in this order: 1 lock, 2 Unix listener, 4 TCP listener |
//! | 8 | 120 | as the kind says; the rest is zeros, which a reader does not look at |
//!
//! | kind | who sends it | fields |
//! |---|---|---|
//! | 1 `ask` | anybody | none |
//! | 2 `stand_by`, 3 `claim` | a node | pid u32, feature level u32, bytes of build u8, build (at most 64 bytes of UTF-8) |
//! | 4 `ready`, 5 `decline` | a node that was offered | none |
//! | 17 `health` | the leader | pid u32, stage u8, writer u8, 2 zeros, term u64, milliseconds in the writer's call u64, milliseconds in the stage u64, bytes of build u8, build |
//! | 18 `offer` | the leader | feature level of the store u32 |
//! | 19 `estate` | the leader | none; descriptors come with its first byte |
//! | 20 `refused` | the leader | bytes of the text u8, text (at most 119 bytes of UTF-8) |
//!
//! A message with another magic, version or kind ends the connection: whoever knows more has to offer
//! what is understood here too. The layout is frozen; what is new gets a kind of its own.

use std::time::Duration;

use broker_proto::Term;

/// Length of every message.
pub(super) const MESSAGE_BYTES: usize = 128;

/// Longest name of a program, in bytes.
const BUILD_BYTES_MAX: usize = 64;

/// Longest reason of a refusal, in bytes.
const TEXT_BYTES_MAX: usize = MESSAGE_BYTES - HEAD_BYTES - 1;

const MAGIC: [u8; 4] = *b"BRKW";
const VERSION: u16 = 1;
const HEAD_BYTES: usize = 8;

/// Numbers of the messages.
mod kind {
    pub(super) const ASK: u8 = 1;
    pub(super) const STAND_BY: u8 = 2;
    pub(super) const CLAIM: u8 = 3;
    pub(super) const READY: u8 = 4;
    pub(super) const DECLINE: u8 = 5;
    pub(super) const HEALTH: u8 = 17;
    pub(super) const OFFER: u8 = 18;
    pub(super) const ESTATE: u8 = 19;
    pub(super) const REFUSED: u8 = 20;
}

const WITH_LOCK: u8 = 1;
const WITH_UNIX: u8 = 2;
const WITH_TCP: u8 = 4;

/// A message, whole.
pub(super) type Bytes = [u8; MESSAGE_BYTES];

/// What the two ends say to each other.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Message {
    Ask,
    StandBy(Introduction),
    Claim(Introduction),
    Ready,
    Decline,
    Health(Health),
    Offer { feature_level: u32 },
    Estate(Descriptors),
    Refused(String),
}

/// Who holds a line.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Introduction {
    pub(super) pid: u32,
    pub(super) build: String,
    /// Highest feature level of a store that it could lead.
    pub(super) feature_level: u32,
}

/// Which descriptors come beside the lock, in this order.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Descriptors {
    pub(super) unix: bool,
    pub(super) tcp: bool,
}

impl Descriptors {
    /// How many come, the lock among them.
    pub(super) fn count(self) -> usize {
        1 + usize::from(self.unix) + usize::from(self.tcp)
    }
}

/// How far a leader is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::net) enum Stage {
    /// It opens the store.
    Starting,
    /// It serves.
    Serving,
    /// It finishes what is under way, and leaves.
    Draining,
    /// It leads no more.
    Left,
}

/// What the thread that writes the log is doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::net) enum Writer {
    /// It waits for work.
    Idle,
    /// It works, since so long; it may be waiting for the disk.
    InCall {
        /// Since how long.
        lasting: Duration,
    },
    /// It has given up writing.
    ReadOnly,
}

/// How a leader is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::net) struct Health {
    /// Its process.
    pub(in crate::net) pid: u32,
    /// Its term; that of the leader before while it is starting.
    pub(in crate::net) term: Term,
    /// How far it is.
    pub(in crate::net) stage: Stage,
    /// For how long it has been that far.
    pub(in crate::net) stage_for: Duration,
    /// What the writer of the log does.
    pub(in crate::net) writer: Writer,
    /// Name and version of its program.
    pub(in crate::net) build: String,
}

impl Message {
    /// The bytes on the wire. Texts that are too long are cut.
    pub(super) fn encode(&self) -> Bytes {
        let mut out = Layout::new(self.kind());
        match self {
            Self::Ask | Self::Ready | Self::Decline => {}
            Self::StandBy(who) | Self::Claim(who) => {
                out.put(&who.pid.to_le_bytes());
                out.put(&who.feature_level.to_le_bytes());
                out.put_text(&who.build, BUILD_BYTES_MAX);
            }
            Self::Health(health) => put_health(&mut out, health),
            Self::Offer { feature_level } => out.put(&feature_level.to_le_bytes()),
            Self::Estate(with) => {
                let unix = if with.unix { WITH_UNIX } else { 0 };
                let tcp = if with.tcp { WITH_TCP } else { 0 };
                out.set_flags(WITH_LOCK | unix | tcp);
            }
            Self::Refused(text) => out.put_text(text, TEXT_BYTES_MAX),
        }
        out.bytes
    }

    /// The message in these bytes; `None` for what this build does not know.
    pub(super) fn decode(bytes: &Bytes) -> Option<Self> {
        let mut fields = Fields(bytes);
        if fields.array()? != MAGIC || u16::from_le_bytes(fields.array()?) != VERSION {
            return None;
        }
        let [kind, flags] = fields.array()?;
        Some(match kind {
            kind::ASK => Self::Ask,
            kind::STAND_BY => Self::StandBy(introduction(&mut fields)?),
            kind::CLAIM => Self::Claim(introduction(&mut fields)?),
            kind::READY => Self::Ready,
            kind::DECLINE => Self::Decline,
            kind::HEALTH => Self::Health(health(&mut fields)?),
            kind::OFFER => Self::Offer {
                feature_level: u32::from_le_bytes(fields.array()?),
            },
            kind::ESTATE if flags & WITH_LOCK != 0 => Self::Estate(Descriptors {
                unix: flags & WITH_UNIX != 0,
                tcp: flags & WITH_TCP != 0,
            }),
            kind::REFUSED => Self::Refused(fields.text(TEXT_BYTES_MAX)?),
            _ => return None,
        })
    }

    fn kind(&self) -> u8 {
        match self {
            Self::Ask => kind::ASK,
            Self::StandBy(_) => kind::STAND_BY,
            Self::Claim(_) => kind::CLAIM,
            Self::Ready => kind::READY,
            Self::Decline => kind::DECLINE,
            Self::Health(_) => kind::HEALTH,
            Self::Offer { .. } => kind::OFFER,
            Self::Estate(_) => kind::ESTATE,
            Self::Refused(_) => kind::REFUSED,
        }
    }
}

fn put_health(out: &mut Layout, health: &Health) {
    let (writer, lasting) = match health.writer {
        Writer::Idle => (0, Duration::ZERO),
        Writer::InCall { lasting } => (1, lasting),
        Writer::ReadOnly => (2, Duration::ZERO),
    };
    out.put(&health.pid.to_le_bytes());
    out.put(&[health.stage.number(), writer, 0, 0]);
    out.put(&health.term.get().to_le_bytes());
    out.put(&millis(lasting).to_le_bytes());
    out.put(&millis(health.stage_for).to_le_bytes());
    out.put_text(&health.build, BUILD_BYTES_MAX);
}

fn health(fields: &mut Fields<'_>) -> Option<Health> {
    let pid = u32::from_le_bytes(fields.array()?);
    let [stage, writer, _, _] = fields.array()?;
    let term = Term::new(u64::from_le_bytes(fields.array()?));
    let lasting = Duration::from_millis(u64::from_le_bytes(fields.array()?));
    let stage_for = Duration::from_millis(u64::from_le_bytes(fields.array()?));
    Some(Health {
        pid,
        term,
        stage: Stage::of(stage)?,
        stage_for,
        writer: match writer {
            0 => Writer::Idle,
            1 => Writer::InCall { lasting },
            2 => Writer::ReadOnly,
            _ => return None,
        },
        build: fields.text(BUILD_BYTES_MAX)?,
    })
}

fn introduction(fields: &mut Fields<'_>) -> Option<Introduction> {
    Some(Introduction {
        pid: u32::from_le_bytes(fields.array()?),
        feature_level: u32::from_le_bytes(fields.array()?),
        build: fields.text(BUILD_BYTES_MAX)?,
    })
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

impl Stage {
    /// As it is written.
    pub(super) const fn number(self) -> u8 {
        match self {
            Self::Starting => 0,
            Self::Serving => 1,
            Self::Draining => 2,
            Self::Left => 3,
        }
    }

    pub(super) const fn of(number: u8) -> Option<Self> {
        Some(match number {
            0 => Self::Starting,
            1 => Self::Serving,
            2 => Self::Draining,
            3 => Self::Left,
            _ => return None,
        })
    }
}

/// A message that is being laid out.
struct Layout {
    bytes: Bytes,
    at: usize,
}

impl Layout {
    fn new(kind: u8) -> Self {
        let mut layout = Self {
            bytes: [0; MESSAGE_BYTES],
            at: 0,
        };
        layout.put(&MAGIC);
        layout.put(&VERSION.to_le_bytes());
        layout.put(&[kind, 0]);
        layout
    }

    /// Adds bytes. What is put is bounded by the limits above, so that it always fits.
    fn put(&mut self, bytes: &[u8]) {
        let end = self.at.saturating_add(bytes.len());
        if let Some(place) = self.bytes.get_mut(self.at..end) {
            place.copy_from_slice(bytes);
        }
        self.at = end;
    }

    fn put_text(&mut self, text: &str, bytes_max: usize) {
        let text = text.get(..text.floor_char_boundary(bytes_max));
        let text = text.unwrap_or_default().as_bytes();
        self.put(&[u8::try_from(text.len()).unwrap_or(u8::MAX)]);
        self.put(text);
    }

    fn set_flags(&mut self, flags: u8) {
        if let Some(place) = self.bytes.get_mut(HEAD_BYTES - 1) {
            *place = flags;
        }
    }
}

const _: () = assert!(TEXT_BYTES_MAX <= 255);
const _: () = assert!(HEAD_BYTES + 4 + 4 + 8 + 8 + 8 + 1 + BUILD_BYTES_MAX <= MESSAGE_BYTES);

/// What is left of a message that is being read.
struct Fields<'a>(&'a [u8]);

impl Fields<'_> {
    fn array<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (array, rest) = self.0.split_first_chunk()?;
        self.0 = rest;
        Some(*array)
    }

    fn text(&mut self, bytes_max: usize) -> Option<String> {
        let [len] = self.array()?;
        let len = usize::from(len);
        let text = self.0.get(..len).filter(|_| len <= bytes_max)?;
        String::from_utf8(text.to_vec()).ok()
    }
}

/// A message that is coming in, perhaps in pieces.
#[derive(Debug)]
pub(super) struct Inbound {
    bytes: Bytes,
    filled: usize,
}

impl Inbound {
    pub(super) const fn new() -> Self {
        Self {
            bytes: [0; MESSAGE_BYTES],
            filled: 0,
        }
    }

    /// Where the rest of the message goes; never empty.
    pub(super) fn rest(&mut self) -> &mut [u8] {
        self.bytes.get_mut(self.filled..).unwrap_or_default()
    }

    /// Takes note of bytes that came, and gives the message when it is whole; the next one begins
    /// then. The error is a message that this build does not know.
    pub(super) fn came(&mut self, bytes: usize) -> Result<Option<Message>, Unknown> {
        self.filled = self.filled.saturating_add(bytes);
        if self.filled < MESSAGE_BYTES {
            return Ok(None);
        }
        self.filled = 0;
        Message::decode(&self.bytes).map(Some).ok_or(Unknown)
    }
}

/// Bytes that are no message this build knows.
#[derive(Debug)]
pub(super) struct Unknown;

#[cfg(test)]
mod tests {
    #![expect(
        clippy::unwrap_used,
        clippy::indexing_slicing,
        reason = "a test may panic"
    )]

    use proptest::prelude::*;

    use super::*;

    fn introduction() -> Introduction {
        Introduction {
            pid: 0x0102_0304,
            build: "brokerd 0.1.0".to_owned(),
            feature_level: 7,
        }
    }

    fn health() -> Health {
        Health {
            pid: 4711,
            term: Term::new(0x1122_3344_5566_7788),
            stage: Stage::Serving,
            stage_for: Duration::from_millis(90_000),
            writer: Writer::InCall {
                lasting: Duration::from_millis(301),
            },
            build: "b 1".to_owned(),
        }
    }

    /// The bytes up to the zeros at the end, in hexadecimal.
    fn hex(message: &Message) -> String {
        let bytes = message.encode();
        let end = bytes.iter().rposition(|byte| *byte != 0).unwrap() + 1;
        bytes[..end]
            .iter()
            .map(|byte| format!("{byte:02x}"))
            .collect()
    }

    #[test]
    fn golden_bytes() {
        let both = Descriptors {
            unix: true,
            tcp: true,
        };
        let none = Descriptors {
            unix: false,
            tcp: false,
        };
        let head = |rest: &str| format!("42524b570100{rest}");
        let who = "04030201070000000d62726f6b65726420302e312e30";
        for (message, expected) in [
            (Message::Ask, head("01")),
            (
                Message::StandBy(introduction()),
                head(&format!("0200{who}")),
            ),
            (Message::Claim(introduction()), head(&format!("0300{who}"))),
            (Message::Ready, head("04")),
            (Message::Decline, head("05")),
            (
                Message::Health(health()),
                head(
                    "11006712000001010000887766554433221\
                     12d01000000000000905f010000000000036220 31"
                        .replace(' ', "")
                        .as_str(),
                ),
            ),
            (Message::Offer { feature_level: 258 }, head("12000201")),
            (Message::Estate(both), head("1307")),
            (Message::Estate(none), head("1301")),
            (Message::Refused("no".to_owned()), head("1400026e6f")),
        ] {
            assert_eq!(hex(&message), expected, "{message:?}");
            assert_eq!(Message::decode(&message.encode()), Some(message));
        }
    }

    #[test]
    fn the_example_in_the_protocol() {
        let text = include_str!("../../../../../docs/protocol.md");
        let text = text.split_whitespace().collect::<Vec<_>>().join(" ");
        let example = Message::Health(Health {
            term: Term::new(3),
            ..health()
        });
        let bytes = example.encode();
        let shown: Vec<_> = bytes[..44]
            .iter()
            .map(|byte| format!("{byte:02x}"))
            .collect();
        assert!(text.contains(&shown.join(" ")), "{shown:?}");
    }

    #[test]
    fn what_is_not_known_is_refused() {
        let good = Message::Claim(introduction()).encode();
        let with = |at: usize, byte: u8| {
            let mut bytes = good;
            bytes[at] = byte;
            Message::decode(&bytes)
        };
        assert!(with(0, b'X').is_none(), "magic");
        assert!(with(4, 2).is_none(), "version");
        assert!(with(6, 0).is_none(), "kind");
        assert!(with(6, 21).is_none(), "kind");
        assert!(with(16, 65).is_none(), "length of the build");
        assert!(with(17, 0xff).is_none(), "UTF-8");
        assert!(with(6, kind::ESTATE).is_none(), "an estate without a lock");
        // Later bytes are the next version's.
        assert!(with(127, 1).is_some());
    }

    #[test]
    fn long_texts_are_cut_at_a_letter() {
        let long = Message::Refused("ü".repeat(200));
        let Some(Message::Refused(text)) = Message::decode(&long.encode()) else {
            panic!("not a refusal");
        };
        assert_eq!(text, "ü".repeat(59));
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_or_refused(mut bytes in prop::array::uniform32(any::<u8>()), kind in 0u8..24) {
            let head = Layout::new(kind).bytes;
            bytes[..7].copy_from_slice(&head[..7]);
            let mut whole = [0; MESSAGE_BYTES];
            for chunk in whole.chunks_mut(32) {
                chunk.copy_from_slice(&bytes);
            }
            if let Some(message) = Message::decode(&whole) {
                prop_assert_eq!(Message::decode(&message.encode()), Some(message));
            }
        }

        #[test]
        fn pieces_make_a_message(cuts in prop::collection::vec(1usize..100, 1..20)) {
            let bytes = Message::StandBy(introduction()).encode();
            let mut inbound = Inbound::new();
            let (mut sent, mut read) = (0, 0);
            for cut in cuts {
                let rest = inbound.rest();
                let len = cut.min(rest.len());
                for (to, at) in rest.iter_mut().zip(sent..sent + len) {
                    *to = bytes[at % MESSAGE_BYTES];
                }
                sent += len;
                if let Some(message) = inbound.came(len).unwrap() {
                    prop_assert_eq!(message, Message::StandBy(introduction()));
                    read += 1;
                }
            }
            prop_assert_eq!(read, sent / MESSAGE_BYTES);
        }
    }
}

//! Every limit of the protocol, in one place; the compiler checks how they relate.
//!
//! `docs/protocol.md` repeats them for other languages. Numbers of a released version are never lowered.

/// Version of the protocol that this crate speaks, sent in the first frame.
pub const PROTOCOL_VERSION: u16 = 1;

/// Oldest version of the protocol that this crate still serves.
pub const PROTOCOL_VERSION_MIN: u16 = 1;

/// The four bytes that follow the kind of the first frame.
pub const MAGIC: [u8; 4] = *b"BRKR";

/// TCP port of a broker that was not told another.
pub const DEFAULT_PORT: u16 = 9876;

/// Bytes of the length field that begins every frame.
pub const LENGTH_FIELD_BYTES: usize = 4;

/// Largest frame, in bytes after the length field; so the first byte on the wire is always zero.
pub const FRAME_BYTES_MAX: usize = (1 << 24) - 1;

/// Largest frame before a hello is accepted, in bytes after the length field.
pub const HELLO_BYTES_MAX: usize = 4096;

/// Largest payload, in bytes, that a setting can allow.
pub const PAYLOAD_BYTES_MAX: usize = 8 << 20;

/// Largest payload, in bytes, when nothing else is set.
pub const PAYLOAD_BYTES_DEFAULT: usize = 1 << 20;

/// Longest room name, in bytes of UTF-8.
pub const ROOM_NAME_BYTES_MAX: usize = 128;

/// Longest sender name, in bytes of UTF-8.
pub const SENDER_NAME_BYTES_MAX: usize = 64;

/// Longest cursor name, in bytes of UTF-8.
pub const CURSOR_NAME_BYTES_MAX: usize = 128;

/// Longest name of a build in hello and welcome, in bytes of UTF-8.
pub const BUILD_BYTES_MAX: usize = 64;

/// Longest free text (details, progress, addresses), in bytes of UTF-8. Longer ones are cut when they are sent.
pub const DETAIL_BYTES_MAX: usize = 1024;

/// Most publish numbers that a producer may have unacknowledged.
pub const UNACKED_NUMBERS_MAX: u32 = 4096;

/// Bytes of deliveries that a subscription admits when the client does not say otherwise.
pub const WINDOW_BYTES_DEFAULT: u32 = 1 << 20;

/// Largest head of a message: its sender, flags and extensions, in bytes.
pub const MESSAGE_HEAD_BYTES_MAX: usize = 4096;

/// Most bytes that sender and flags take of a message's head: length, name, and flags as a varint.
pub const MESSAGE_HEADER_BYTES_MAX: usize = 1 + SENDER_NAME_BYTES_MAX + 5;

/// Most bytes of extensions that a message may carry.
pub const MESSAGE_EXTENSIONS_BYTES_MAX: usize = MESSAGE_HEAD_BYTES_MAX - MESSAGE_HEADER_BYTES_MAX;

/// Most bytes of extensions in the head of a frame.
pub const EXTENSIONS_BYTES_MAX: usize = 4096;

/// Most extensions in one list.
pub const EXTENSIONS_MAX: usize = 64;

/// Largest head of a frame, header and extensions, in bytes.
pub const FRAME_HEAD_BYTES_MAX: usize = 8192;

/// Largest record, in bytes, with its fixed part.
pub const RECORD_BYTES_MAX: usize =
    crate::record::RECORD_FIXED_BYTES + MESSAGE_HEAD_BYTES_MAX + PAYLOAD_BYTES_MAX;

/// Most subscriptions of one connection.
pub const SUBSCRIPTIONS_PER_CONNECTION_MAX: usize = 65_536;

/// Most rooms in one answer to a listing.
pub const ROOM_LIST_MAX: usize = 1000;

/// Bytes of rooms after which an answer with all that is known of each is closed; one room may go beyond.
pub const ROOMS_FOUND_BYTES_TARGET: usize = 256 << 10;

/// Most cursors in one answer to a listing.
pub const CURSOR_LIST_MAX: usize = 1000;

/// Bytes of records after which a deliver frame is closed; one message may go beyond.
///
/// Less than 64 KiB, so that a frame, with its head and with a message of up to 4 KiB that goes beyond, fits into one segment
/// of 65,483 bytes, the largest that loopback carries. The few bytes more of a larger frame are a segment of their own, with
/// all that it costs on both sides: 1 KiB to ten subscribers took half as much time again.
pub const DELIVER_BYTES_TARGET: usize = 60 << 10;

/// Seconds without traffic after which a side pings.
pub const PING_AFTER_SECS: u64 = 15;

/// Seconds that a ping may stay unanswered before the connection is closed.
pub const PING_UNANSWERED_SECS_MAX: u64 = 60;

/// Most rooms whose newest known place a hello may state.
pub const KNOWN_HEADS_MAX: usize = 64;

/// Most bytes that they take in it.
pub const KNOWN_HEADS_BYTES_MAX: usize = 3584;

/// Seconds that a new connection has for its hello.
pub const HELLO_SECS_MAX: u64 = 5;

// A payload at the hard cap fits into one frame, published, delivered or read.
const _: () = assert!(RECORD_BYTES_MAX + FRAME_HEAD_BYTES_MAX + 7 <= FRAME_BYTES_MAX);
const _: () = assert!(PAYLOAD_BYTES_DEFAULT <= PAYLOAD_BYTES_MAX);
// The first byte on the wire is zero, which tells this protocol from the others on the port.
const _: () = assert!(FRAME_BYTES_MAX < 1 << 24);
// Headers hold at most two free texts or two names; with a full list of extensions they stay below the u16 on the wire.
const _: () = assert!(2 * DETAIL_BYTES_MAX + 512 + EXTENSIONS_BYTES_MAX <= FRAME_HEAD_BYTES_MAX);
const _: () = assert!(FRAME_HEAD_BYTES_MAX <= u16::MAX as usize);
const _: () = assert!(MESSAGE_HEAD_BYTES_MAX <= u16::MAX as usize);
// Lengths of names are one byte in the bodies of acks and room lists, and one byte as a varint in message heads.
const _: () = assert!(ROOM_NAME_BYTES_MAX <= u8::MAX as usize && SENDER_NAME_BYTES_MAX < 128);
// A full hello: kind, mark and version, head length; the header with two texts, three times 16 bytes and a level; the known heads.
const _: () = assert!(
    9 + (1 + BUILD_BYTES_MAX)
        + (1 + SENDER_NAME_BYTES_MAX)
        + (3 * 16 + 5)
        + (4 + KNOWN_HEADS_BYTES_MAX)
        <= HELLO_BYTES_MAX
);
const _: () = assert!(KNOWN_HEADS_BYTES_MAX >= 8 + ROOM_NAME_BYTES_MAX + 17);
// A full answer to a listing and an ack of everything outstanding fit into one frame.
const _: () =
    assert!(ROOM_LIST_MAX * (ROOM_NAME_BYTES_MAX + 33) + FRAME_HEAD_BYTES_MAX <= FRAME_BYTES_MAX);
const _: () = assert!(
    CURSOR_LIST_MAX * (CURSOR_NAME_BYTES_MAX + 25) + FRAME_HEAD_BYTES_MAX <= FRAME_BYTES_MAX
);
const _: () = assert!(
    ROOM_LIST_MAX
        * (ROOM_NAME_BYTES_MAX + SENDER_NAME_BYTES_MAX + crate::settings::SETTINGS_BYTES_MAX + 60)
        + FRAME_HEAD_BYTES_MAX
        <= FRAME_BYTES_MAX
);
const _: () = assert!(
    UNACKED_NUMBERS_MAX as usize * (ROOM_NAME_BYTES_MAX + 29) + FRAME_HEAD_BYTES_MAX
        <= FRAME_BYTES_MAX
);
const _: () =
    assert!(HELLO_BYTES_MAX <= FRAME_BYTES_MAX && DELIVER_BYTES_TARGET <= FRAME_BYTES_MAX);

//! What a record says, for a look at it.

use std::borrow::Cow;

use broker_proto::record::next_record;

use crate::log::state_record::{
    CheckpointChunk, CheckpointEnd, CursorMoveRecord, CursorRecord, DoubtRecord, InDoubtRecord,
    ProducerDropRecord, ProducerRunRecord, RawRecord, RoomRecord, RoomRemovedRecord,
    RoomSettingsRecord, RoomStateRecord, RoomTrimRecord, StoreSettingsRecord, chunk_records, kind,
    names_room,
};

/// A value in a record.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Field<'a> {
    /// A number.
    Number(u64),
    /// A moment: microseconds since 1970 UTC.
    Time(i64),
    /// Text, which may come from a stranger.
    Text(Cow<'a, str>),
    /// Bytes that name something.
    Id([u8; 16]),
    /// Yes or no.
    Flag(bool),
}

type Fields<'a> = Vec<(&'static str, Field<'a>)>;

/// The name of a kind of record, if this program knows it.
#[must_use]
pub fn kind_name(kind: u16) -> Option<&'static str> {
    Some(match kind {
        kind::MESSAGE => "message",
        kind::ROOM | kind::ROOM_STATE => "room",
        kind::ROOM_SETTINGS => "room_settings",
        kind::ROOM_TRIM => "trim",
        kind::ROOM_REMOVED => "room_removed",
        kind::STORE_SETTINGS => "store_settings",
        kind::PRODUCER_RUN => "producer_run",
        kind::PRODUCER_DROP => "producer_drop",
        kind::CURSOR | kind::CURSOR_MOVE => "cursor",
        kind::CHECKPOINT_CHUNK => "checkpoint_chunk",
        kind::CHECKPOINT_END => "checkpoint_end",
        kind::DOUBT => "doubt",
        kind::IN_DOUBT => "in_doubt",
        _ => return None,
    })
}

/// What a whole record says; nothing when it makes no sense.
pub(super) fn fields<'a>(record: &RawRecord<'a>) -> Fields<'a> {
    let payload = record.payload();
    let told = match record.head.kind {
        kind::MESSAGE => return message(record),
        kind::ROOM => postcard::from_bytes(payload).map(room),
        kind::PRODUCER_RUN => postcard::from_bytes(payload).map(producer_run),
        kind::PRODUCER_DROP => postcard::from_bytes(payload).map(producer_drop),
        kind::CURSOR => postcard::from_bytes(payload).map(cursor),
        kind::ROOM_STATE => postcard::from_bytes(payload).map(room_state),
        kind::ROOM_SETTINGS => postcard::from_bytes(payload).map(room_settings),
        kind::STORE_SETTINGS => postcard::from_bytes(payload).map(store_settings),
        kind::ROOM_TRIM => postcard::from_bytes(payload).map(|record: RoomTrimRecord| {
            vec![
                number("room", record.room),
                number("first", record.first),
                number("bytes", record.bytes),
            ]
        }),
        kind::ROOM_REMOVED => postcard::from_bytes(payload)
            .map(|record: RoomRemovedRecord| vec![number("room", record.room)]),
        kind::CURSOR_MOVE => postcard::from_bytes(payload).map(cursor_move),
        kind::CHECKPOINT_CHUNK => postcard::from_bytes(payload).map(chunk),
        kind::CHECKPOINT_END => postcard::from_bytes(payload).map(|record: CheckpointEnd| {
            vec![
                number("begin", record.begin),
                number("chunks", record.chunks),
                number("rooms", record.rooms),
            ]
        }),
        kind::DOUBT => postcard::from_bytes(payload)
            .map(|record: DoubtRecord| vec![number("upto", record.upto)]),
        kind::IN_DOUBT => postcard::from_bytes(payload).map(|record| in_doubt(&record)),
        _ => Ok(Vec::new()),
    };
    told.unwrap_or_default()
}

fn number<'a>(key: &'static str, value: impl Into<u64>) -> (&'static str, Field<'a>) {
    (key, Field::Number(value.into()))
}

fn text<'a>(key: &'static str, value: &'a str) -> (&'static str, Field<'a>) {
    (key, Field::Text(Cow::Borrowed(value)))
}

fn message<'a>(record: &RawRecord<'a>) -> Fields<'a> {
    let sender = next_record(record.bytes)
        .ok()
        .flatten()
        .and_then(|(whole, _)| Some(whole.message().ok()?.sender));
    sender
        .map(|sender| vec![text("sender", sender)])
        .unwrap_or_default()
}

fn room(record: RoomRecord<'_>) -> Fields<'_> {
    vec![
        number("room", record.room),
        text("name", record.name),
        number("epoch", record.epoch),
        number("parent_epoch", record.parent_epoch),
        number("fork", record.fork),
        number("first", record.first),
        number("head", record.head),
        ("last_time", Field::Time(record.last_time)),
        number("last_at", record.last_at),
    ]
}

fn room_state(record: RoomStateRecord<'_>) -> Fields<'_> {
    let mut fields = room(RoomRecord {
        room: record.room,
        name: record.name,
        epoch: record.epoch,
        parent_epoch: record.parent_epoch,
        fork: record.fork,
        first: record.first,
        head: record.head,
        last_time: record.last_time,
        last_at: record.last_at,
    });
    fields.push(number("bytes", record.bytes));
    fields.push(("created", Field::Time(record.created)));
    fields.push(text("created_by", record.created_by));
    fields
}

fn room_settings(record: RoomSettingsRecord<'_>) -> Fields<'_> {
    vec![
        number("room", record.room),
        number("version", record.version),
        number("list_bytes", record.list.len() as u64),
    ]
}

fn store_settings(record: StoreSettingsRecord<'_>) -> Fields<'_> {
    vec![
        number("version", record.version),
        number("list_bytes", record.list.len() as u64),
    ]
}

fn producer_run(record: ProducerRunRecord<'_>) -> Fields<'_> {
    vec![
        text("sender", record.sender),
        ("producer", Field::Id(record.producer)),
        ("claimed", Field::Flag(record.claimed)),
        ("used", Field::Time(record.used)),
        number("room", record.room),
        number("first_number", record.first_number),
        number("count", record.count),
        number("first_seq", record.first_seq),
        ("begins", Field::Flag(record.begins)),
    ]
}

fn producer_drop(record: ProducerDropRecord<'_>) -> Fields<'_> {
    vec![
        text("sender", record.sender),
        ("producer", Field::Id(record.producer)),
    ]
}

fn cursor(record: CursorRecord<'_>) -> Fields<'_> {
    vec![
        number("room", record.room),
        text("name", record.name),
        ("present", Field::Flag(record.present)),
        number("epoch", record.epoch),
        number("seq", record.seq),
    ]
}

fn cursor_move(record: CursorMoveRecord<'_>) -> Fields<'_> {
    let mut fields = cursor(CursorRecord {
        room: record.room,
        name: record.name,
        present: record.present,
        epoch: record.epoch,
        seq: record.seq,
    });
    fields.push(("moved", Field::Time(record.moved)));
    fields
}

fn chunk(record: CheckpointChunk<'_>) -> Fields<'_> {
    vec![
        number("begin", record.begin),
        number("number", record.number),
        number("records", chunk_records(record.records).count() as u64),
    ]
}

fn in_doubt<'a>(record: &InDoubtRecord<'a>) -> Fields<'a> {
    let mut fields = vec![
        text("sender", record.sender),
        number("room", record.room),
        number("messages", record.messages.len() as u64),
    ];
    if let (Some(first), Some(last)) = (record.messages.first(), record.messages.last()) {
        fields.push(number("first_seq", first.seq));
        fields.push(number("last_seq", last.seq));
        fields.push(("newest", Field::Time(last.time)));
    }
    fields
}

/// The rooms that a state record names.
pub(super) fn named_rooms(record: &RawRecord<'_>, mut found: impl FnMut(u32, &str)) {
    let mut take = |kind, payload: &[u8]| {
        if let Some(room) = RoomStateRecord::parse(kind, payload) {
            found(room.room, room.name);
        }
    };
    match record.head.kind {
        kind if names_room(kind) => take(kind, record.payload()),
        kind::CHECKPOINT_CHUNK => {
            if let Ok(chunk) = postcard::from_bytes::<CheckpointChunk<'_>>(record.payload()) {
                chunk_records(chunk.records)
                    .filter(|(inner, _)| names_room(*inner))
                    .for_each(|(inner, payload)| take(inner, payload));
            }
        }
        _ => {}
    }
}

/// What a record says of a checkpoint.
pub(super) enum CheckpointPart {
    /// One piece: where the checkpoint begins, and its number.
    Chunk(u64, u64),
    /// Its end: where it begins, and how many pieces it has.
    End(u64, u64),
}

/// Reads the parts of checkpoints.
pub(super) fn checkpoint_part(record: &RawRecord<'_>) -> Option<CheckpointPart> {
    match record.head.kind {
        kind::CHECKPOINT_CHUNK => {
            let chunk: CheckpointChunk<'_> = postcard::from_bytes(record.payload()).ok()?;
            Some(CheckpointPart::Chunk(chunk.begin, chunk.number.into()))
        }
        kind::CHECKPOINT_END => {
            let end: CheckpointEnd = postcard::from_bytes(record.payload()).ok()?;
            Some(CheckpointPart::End(end.begin, end.chunks.into()))
        }
        _ => None,
    }
}

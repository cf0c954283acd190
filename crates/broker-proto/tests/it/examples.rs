//! One example of every frame, as `docs/protocol.md` shows them.
#![expect(clippy::unwrap_used, reason = "a test may panic")]

use broker_proto::frame::read::PageHead;
use broker_proto::{
    Ack, AckWriter, ChangeRoom, ChangeSettings, Credit, Cursor, CursorEntry, CursorList,
    CursorName, Deliver, Epoch, Error, ErrorCode, FindRooms, Frame, GetCursor, GetRoom,
    GetSettings, GetStatus, Goodbye, Hello, KnownHead, KnownHeads, LabelWanted, Level, ListCursors,
    ListRooms, Micros, Page, Ping, Pong, Position, ProducerId, Publish, PublishExtensions, Read,
    Refused, RemoveRoom, RoomChange, RoomDetails, RoomEntry, RoomFacts, RoomId, RoomList, RoomName,
    RoomsFound, SenderName, Seq, SetCursor, Skip, SkipRange, SkipReason, StartAt, Starting, Status,
    StoreChange, StoreDetails, StoreId, Subscribe, Subscribed, Term, TrimRoom, Unsubscribe,
    Welcome, ack, record,
};
use bytes::Bytes;
use std::time::Duration;

pub(crate) const EPOCH: Epoch = Epoch::new(0x1122_3344_5566_7788);
pub(crate) const STORE: StoreId = StoreId::new([0xa0; 16]);
pub(crate) const PRODUCER: ProducerId = ProducerId::new([0xb0; 16]);
pub(crate) const TIME: Micros = Micros::new(1_700_000_000_000_000);

pub(crate) fn room() -> RoomName {
    RoomName::parse("tea").unwrap()
}

fn cursor_name() -> CursorName {
    CursorName::parse("desk").unwrap()
}

/// The record of the message "hi" by "ann", seq 7.
pub(crate) fn record() -> Bytes {
    let mut head = Vec::new();
    record::encode_message_head(&mut head, &SenderName::parse("ann").unwrap(), 0, &[]);
    let mut out = Vec::new();
    record::encode_message(
        &mut out,
        RoomId::new(5),
        Seq::new(7),
        TIME,
        &head,
        b"hi",
        crc32c::crc32c(b"hi"),
    );
    out.into()
}

pub(crate) fn hello() -> Hello {
    Hello {
        build: "demo 1".into(),
        sender: SenderName::parse("ann").unwrap(),
        producer: PRODUCER,
        feature_level: 1,
        known_store: StoreId::NONE,
        nonce: [0xc0; 16],
        known_heads: KnownHeads::default(),
    }
}

pub(crate) fn hello_again() -> Hello {
    Hello {
        known_store: STORE,
        known_heads: KnownHeads {
            term: Term::new(3),
            heads: Box::new([KnownHead {
                room: room(),
                at: Position::new(EPOCH, Seq::new(8)),
            }]),
        },
        ..hello()
    }
}

pub(crate) fn welcome() -> Welcome {
    Welcome {
        store: STORE,
        term: Term::new(3),
        build: "broker 0.1".into(),
        feature_level: 1,
        payload_bytes_max: 1 << 20,
        unacked_max: 4096,
        window_bytes_max: 1 << 24,
        producer_window_secs: 604_800,
        pid: 4242,
        auth: 0,
        nonce: [0xd0; 16],
        connection: 9,
    }
}

pub(crate) fn starting() -> Starting {
    Starting {
        done: 300,
        total: 1000,
        what: "scan".into(),
    }
}

pub(crate) fn publish() -> Publish {
    Publish::of(room(), 1, ["hi", ""])
}

pub(crate) fn publish_if_head() -> Publish {
    let extensions = PublishExtensions {
        producer: Some(PRODUCER),
        expected_head: Some(Seq::new(6)),
        resend: false,
    };
    Publish {
        extensions,
        ..Publish::of(room(), 1, ["hi"])
    }
}

pub(crate) fn publish_again() -> Publish {
    let extensions = PublishExtensions {
        resend: true,
        ..PublishExtensions::NONE
    };
    Publish {
        extensions,
        ..Publish::of(room(), 1, ["hi"])
    }
}

pub(crate) fn ack() -> Ack {
    let mut writer = AckWriter::new();
    writer.push(&ack::Run {
        room: "tea",
        epoch: EPOCH,
        first_number: 1,
        count: 2,
        first_seq: Seq::new(7),
    });
    writer.into_frame(Level::SYNCED, None)
}

pub(crate) fn refused() -> Refused {
    Refused {
        first_number: 3,
        count: 1,
        code: ErrorCode::NO_SPACE,
        detail: "disk full".into(),
        retry_after_ms: 1000,
        producer: None,
    }
}

pub(crate) fn subscribe() -> Subscribe {
    let start = StartAt::position(Position::new(EPOCH, Seq::new(7)));
    Subscribe {
        sub: 1,
        room: room(),
        start,
        window: 1 << 20,
        flags: Subscribe::WAIT,
    }
}

pub(crate) fn subscribed() -> Subscribed {
    Subscribed {
        sub: 1,
        epoch: EPOCH,
        first: Seq::FIRST,
        next: Seq::new(7),
        head: Seq::new(8),
    }
}

pub(crate) fn unsubscribe() -> Unsubscribe {
    Unsubscribe { sub: 1 }
}

pub(crate) fn credit() -> Credit {
    Credit {
        sub: 1,
        bytes: 65_536,
    }
}

pub(crate) fn deliver() -> Deliver {
    Deliver {
        sub: 1,
        count: 1,
        next: Seq::new(8),
        body: record(),
    }
}

fn skip_range() -> SkipRange {
    SkipRange {
        from: Seq::new(2),
        to: Seq::new(6),
        reason: SkipReason::TRIMMED,
    }
}

pub(crate) fn skip() -> Skip {
    Skip {
        sub: 1,
        range: skip_range(),
        epoch: EPOCH,
    }
}

pub(crate) fn read() -> Read {
    Read {
        correlation: 5,
        room: room(),
        start: StartAt::last(10),
        count_max: 100,
        bytes_max: 65_536,
    }
}

pub(crate) fn page() -> Page {
    let head = PageHead {
        correlation: 5,
        epoch: EPOCH,
        first: Seq::new(7),
        head: Seq::new(7),
        next: Seq::new(8),
        count: 1,
        skip: Some(skip_range()),
    };
    Page {
        head,
        body: record(),
    }
}

pub(crate) fn list_rooms() -> ListRooms {
    ListRooms {
        correlation: 6,
        after: String::new(),
        limit: 100,
    }
}

pub(crate) fn room_list() -> RoomList {
    let tea = RoomEntry {
        name: room(),
        epoch: EPOCH,
        first: Seq::FIRST,
        head: Seq::new(8),
        last_time: TIME,
    };
    RoomList {
        correlation: 6,
        rooms: vec![tea],
        more: false,
    }
}

pub(crate) fn get_cursor() -> GetCursor {
    GetCursor {
        correlation: 7,
        room: room(),
        name: cursor_name(),
    }
}

pub(crate) fn set_cursor() -> SetCursor {
    SetCursor {
        correlation: 8,
        room: room(),
        name: cursor_name(),
        position: Position::new(EPOCH, Seq::new(8)),
        expected: Position::NONE,
        flags: SetCursor::COMPARE,
    }
}

pub(crate) fn cursor() -> Cursor {
    Cursor {
        correlation: 7,
        position: Some(Position::new(EPOCH, Seq::new(8))),
    }
}

pub(crate) fn get_status() -> GetStatus {
    GetStatus { correlation: 9 }
}

pub(crate) fn status() -> Status {
    Status {
        correlation: 9,
        json: r#"{"rooms":1}"#.into(),
    }
}

pub(crate) fn ping() -> Ping {
    Ping { nonce: 300 }
}

pub(crate) fn pong() -> Pong {
    Pong { nonce: 300 }
}

pub(crate) fn error() -> Error {
    Error {
        code: ErrorCode::NO_SUCH_ROOM,
        about: 5,
        kind: 0x0d,
        detail: "no room tea".into(),
        retry_after_ms: 0,
    }
}

pub(crate) fn goodbye() -> Goodbye {
    Goodbye {
        code: ErrorCode::GOING_AWAY,
        retry_after_ms: 2,
        successor: "tcp://127.0.0.1:9876".into(),
        flags: 0,
    }
}

pub(crate) fn set_cursor_relaxed() -> SetCursor {
    SetCursor {
        expected: Position::NONE,
        flags: SetCursor::RELAXED,
        ..set_cursor()
    }
}

pub(crate) fn get_room() -> GetRoom {
    GetRoom {
        correlation: 10,
        room: room(),
    }
}

fn a_change() -> RoomChange {
    RoomChange {
        topic: Some("hot".to_owned()),
        set_labels: [("team".to_owned(), "red".to_owned())].into(),
        keep_count: Some(Some(1000)),
        ..RoomChange::default()
    }
}

pub(crate) fn change_room() -> ChangeRoom {
    let change = RoomChange {
        keep_age: Some(None),
        ..a_change()
    };
    ChangeRoom::new(11, room(), &change, Some(2))
}

pub(crate) fn trim_room() -> TrimRoom {
    TrimRoom {
        correlation: 12,
        room: room(),
        epoch: EPOCH,
        before: Seq::new(8),
    }
}

pub(crate) fn remove_room() -> RemoveRoom {
    RemoveRoom {
        correlation: 13,
        room: room(),
        epoch: Epoch::NONE,
    }
}

fn facts() -> RoomFacts {
    let mut settings = Vec::new();
    a_change().encode(&mut settings);
    RoomFacts {
        name: room(),
        epoch: EPOCH,
        first: Seq::new(7),
        head: Seq::new(8),
        last_time: TIME,
        bytes: 300,
        created: TIME,
        created_by: Some(SenderName::parse("ann").unwrap()),
        version: 3,
        settings: settings.into(),
    }
}

pub(crate) fn room_details() -> RoomDetails {
    RoomDetails {
        correlation: 11,
        room: Box::new(facts()),
    }
}

pub(crate) fn find_rooms() -> FindRooms {
    let wanted = |name: &str, value: Option<&str>| LabelWanted {
        name: name.to_owned(),
        value: value.map(str::to_owned),
    };
    FindRooms {
        correlation: 14,
        after: "tar".to_owned(),
        limit: 100,
        prefix: "t".to_owned(),
        labels: vec![wanted("team", Some("red")), wanted("urgent", None)],
    }
}

pub(crate) fn rooms_found() -> RoomsFound {
    let plain = RoomFacts {
        created_by: None,
        version: 0,
        settings: Bytes::new(),
        ..facts()
    };
    RoomsFound {
        correlation: 14,
        rooms: vec![plain],
        next: Some("tea".to_owned()),
    }
}

pub(crate) fn get_settings() -> GetSettings {
    GetSettings { correlation: 15 }
}

fn a_limit() -> StoreChange {
    StoreChange {
        bytes_max: Some(Some(1 << 30)),
        ..StoreChange::default()
    }
}

pub(crate) fn change_settings() -> ChangeSettings {
    let change = StoreChange {
        cursor_idle: Some(Some(Duration::from_secs(86_400))),
        ..a_limit()
    };
    ChangeSettings::new(16, &change, None)
}

pub(crate) fn store_details() -> StoreDetails {
    let mut settings = Vec::new();
    a_limit().encode(&mut settings);
    StoreDetails {
        correlation: 15,
        version: 1,
        settings: settings.into(),
    }
}

pub(crate) fn list_cursors() -> ListCursors {
    ListCursors {
        correlation: 17,
        room: room(),
        after: String::new(),
        limit: 100,
    }
}

pub(crate) fn cursor_list() -> CursorList {
    let desk = CursorEntry {
        name: cursor_name(),
        position: Position::new(EPOCH, Seq::new(8)),
        moved: TIME,
    };
    CursorList {
        correlation: 17,
        cursors: vec![desk],
        more: false,
    }
}

/// All of them.
pub(crate) fn all() -> Vec<Frame> {
    vec![
        hello().into(),
        hello_again().into(),
        welcome().into(),
        starting().into(),
        publish().into(),
        ack().into(),
        refused().into(),
        subscribe().into(),
        subscribed().into(),
        unsubscribe().into(),
        credit().into(),
        deliver().into(),
        skip().into(),
        read().into(),
        page().into(),
        list_rooms().into(),
        room_list().into(),
        get_cursor().into(),
        set_cursor().into(),
        cursor().into(),
        get_status().into(),
        status().into(),
        ping().into(),
        pong().into(),
        error().into(),
        goodbye().into(),
        get_room().into(),
        change_room().into(),
        trim_room().into(),
        remove_room().into(),
        room_details().into(),
        find_rooms().into(),
        rooms_found().into(),
        get_settings().into(),
        change_settings().into(),
        store_details().into(),
        list_cursors().into(),
        cursor_list().into(),
    ]
}

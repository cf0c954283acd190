//! What is asked and changed of rooms, cursors and the store. The store's answers are the test's.

use broker_proto::limits::ROOMS_FOUND_BYTES_TARGET;
use broker_proto::{
    ChangeRoom, ChangeSettings, CursorList, CursorName, Epoch, ErrorCode, FindRooms, Frame,
    GetRoom, GetSettings, Kind, LabelWanted, ListCursors, Micros, Position, Read, RemoveRoom,
    RoomChange, RoomDetails, RoomSettings, RoomsFound, SenderName, Seq, SetCursor, StartAt,
    StoreChange, StoreDetails, StoreSettings, TrimRoom,
};

use super::peer::{Peer, room, terms};
use super::store::{Call, Gate, position};
use crate::session::Terms;
use crate::store::{
    Answer, CursorState, CursorsPage, FoundRooms, RoomInfo, RoomState, StoreError, StoreState,
};
use crate::sync::Arc;

const EPOCH: Epoch = Epoch::new(77);

fn welcomed() -> (Arc<Gate>, Peer) {
    let store = Gate::new();
    let peer = Peer::welcomed(&store, "ann");
    (store, peer)
}

fn state(name: &str, description: usize) -> RoomState {
    RoomState {
        info: RoomInfo {
            name: room(name),
            epoch: EPOCH,
            first: Seq::new(3),
            head: Seq::new(9),
            last_time: Micros::new(5),
        },
        bytes: 700,
        created: Micros::new(4),
        created_by: SenderName::parse("bob").ok(),
        version: 2,
        settings: RoomSettings {
            topic: "tea".to_owned(),
            description: "x".repeat(description),
            ..RoomSettings::default()
        },
    }
}

fn get(correlation: u32, name: &str) -> GetRoom {
    GetRoom {
        correlation,
        room: room(name),
    }
}

fn change(correlation: u32, name: &str, expected: Option<u64>) -> ChangeRoom {
    let change = RoomChange {
        topic: Some("new".to_owned()),
        ..RoomChange::default()
    };
    ChangeRoom::new(correlation, room(name), &change, expected)
}

fn trim(correlation: u32, name: &str) -> TrimRoom {
    TrimRoom {
        correlation,
        room: room(name),
        epoch: EPOCH,
        before: Seq::new(7),
    }
}

fn remove(correlation: u32, name: &str) -> RemoveRoom {
    RemoveRoom {
        correlation,
        room: room(name),
        epoch: Epoch::NONE,
    }
}

fn find(correlation: u32, limit: u32) -> FindRooms {
    FindRooms {
        correlation,
        after: "a".to_owned(),
        limit,
        prefix: "b".to_owned(),
        labels: vec![LabelWanted {
            name: "team".to_owned(),
            value: Some("red".to_owned()),
        }],
    }
}

/// The only question that waits for an answer.
fn asked(store: &Gate) -> String {
    let mut asks = store.asks();
    assert_eq!(asks.len(), 1, "{asks:?}");
    asks.remove(0)
}

#[test]
fn all_that_is_known_of_a_room_is_told() {
    let (store, mut ann) = welcomed();
    ann.say(get(5, "@ann")).hear_nothing();
    let ask = asked(&store);
    assert!(ask.starts_with("Room(") && ask.contains("@ann"), "{ask}");
    store.answer(Ok(Answer::Room(Box::new(state("@ann", 10)))));
    let details: RoomDetails = ann.hear_one();
    let room = details.room;
    assert_eq!((details.correlation, room.name.as_str()), (5, "@ann"));
    assert_eq!(
        (room.epoch, room.first, room.head),
        (EPOCH, Seq::new(3), Seq::new(9))
    );
    assert_eq!(
        (room.last_time, room.created),
        (Micros::new(5), Micros::new(4))
    );
    assert_eq!((room.bytes, room.version), (700, 2));
    assert_eq!(room.created_by.as_deref(), Some("bob"));
    assert_eq!(room.settings().unwrap(), state("@ann", 10).settings);
    ann.say(get(6, "none")).hear_nothing();
    store.answer(Err(StoreError::NoSuchRoom {
        room: super::peer::room("none"),
    }));
    ann.hear_error(ErrorCode::NO_SUCH_ROOM, 6, Kind::GetRoom);
}

#[test]
fn changes_go_to_the_store_at_once_and_side_by_side() {
    let (store, mut ann) = welcomed();
    ann.say(change(1, "ops", Some(4)))
        .say(trim(2, "ops"))
        .say(remove(3, "ops"));
    ann.hear_nothing();
    let asks = store.asks();
    assert!(
        asks[0].contains("ChangeRoom") && asks[0].contains("expected: Some(4)"),
        "{asks:?}"
    );
    assert!(asks[0].contains("topic: Some(\"new\")"), "{asks:?}");
    assert!(
        asks[1].contains("Trim") && asks[1].contains('7') && asks[1].contains("77"),
        "{asks:?}"
    );
    assert!(asks[2].contains("Remove"), "{asks:?}");
    store.answer(Ok(Answer::Room(Box::new(state("ops", 0)))));
    store.answer(Ok(Answer::Room(Box::new(state("ops", 0)))));
    store.answer(Err(StoreError::WrongVersion {
        expected: 4,
        found: 5,
    }));
    let frames = ann.hear();
    let [
        Frame::RoomDetails(changed),
        Frame::RoomDetails(trimmed),
        Frame::Error(error),
    ] = frames.as_slice()
    else {
        panic!("{frames:?}")
    };
    assert_eq!(
        (changed.correlation, trimmed.correlation, error.about),
        (1, 2, 3)
    );
    assert_eq!(
        (error.code, error.kind),
        (ErrorCode::CONFLICT, Kind::RemoveRoom.get())
    );
}

#[test]
fn the_brokers_own_rooms_are_told_of_and_not_changed() {
    let (store, mut ann) = welcomed();
    ann.say(change(1, "$sys", None))
        .hear_error(ErrorCode::RESERVED_NAME, 1, Kind::ChangeRoom);
    ann.say(trim(2, "$sys"))
        .hear_error(ErrorCode::RESERVED_NAME, 2, Kind::TrimRoom);
    ann.say(remove(3, "$sys"))
        .hear_error(ErrorCode::RESERVED_NAME, 3, Kind::RemoveRoom);
    assert!(store.asks().is_empty());
    ann.say(get(4, "$sys")).hear_nothing();
    assert_eq!(store.asks().len(), 1);
}

#[test]
fn a_setting_that_cannot_be_taken_fails_its_request_alone() {
    let (store, mut ann) = welcomed();
    let raw = |correlation, list: &'static [u8]| ChangeRoom {
        change: list.into(),
        ..change(correlation, "ops", None)
    };
    ann.say(raw(1, &[0x84, 3, 0, 0]))
        .hear_error(ErrorCode::UNKNOWN_EXTENSION, 1, Kind::ChangeRoom);
    ann.say(raw(2, &[7, 0, 8]))
        .hear_error(ErrorCode::BAD_SETTING, 2, Kind::ChangeRoom);
    ann.say(raw(3, &[7, 0, 8, 0, 0, 0, 0, 0, 0, 0, 0, 0]));
    ann.hear_error(ErrorCode::BAD_SETTING, 3, Kind::ChangeRoom);
    let list = ChangeSettings {
        correlation: 4,
        expected: 0,
        flags: 0,
        change: (&[1, 0, 0, 0][..]).into(),
    };
    ann.say(list)
        .hear_error(ErrorCode::UNKNOWN_EXTENSION, 4, Kind::ChangeSettings);
    assert!(store.asks().is_empty());
}

#[test]
fn settings_of_the_store_are_told_and_changed() {
    let (store, mut ann) = welcomed();
    ann.say(GetSettings { correlation: 1 }).hear_nothing();
    assert_eq!(asked(&store), "Store");
    let settings = StoreSettings {
        bytes_max: Some(1 << 30),
        ..StoreSettings::default()
    };
    store.answer(Ok(Answer::Store(StoreState {
        version: 3,
        settings,
    })));
    let details: StoreDetails = ann.hear_one();
    assert_eq!((details.correlation, details.version), (1, 3));
    assert_eq!(details.settings().unwrap(), settings);
    let change = StoreChange {
        bytes_max: Some(None),
        ..StoreChange::default()
    };
    ann.say(ChangeSettings::new(2, &change, Some(3)))
        .hear_nothing();
    let ask = asked(&store);
    assert!(
        ask.contains("expected: Some(3)") && ask.contains("bytes_max: Some(None)"),
        "{ask}"
    );
    store.answer(Err(StoreError::Limit {
        what: "no".to_owned(),
    }));
    ann.hear_error(ErrorCode::LIMIT, 2, Kind::ChangeSettings);
}

#[test]
fn rooms_that_are_found_come_in_answers_of_bounded_size() {
    let (store, mut ann) = welcomed();
    ann.say(find(1, u32::MAX)).hear_nothing();
    let ask = asked(&store);
    for part in [
        "after: \"a\"",
        "limit: 1000",
        "prefix: \"b\"",
        "(\"team\", Some(\"red\"))",
    ] {
        assert!(ask.contains(part), "no {part} in {ask}");
    }
    let rooms: Vec<RoomState> = (0..1000)
        .map(|n| state(&format!("b{n:03}"), 2000))
        .collect();
    store.answer(Ok(Answer::Found(FoundRooms { rooms, next: None })));
    let found: RoomsFound = ann.hear_one();
    let bytes: usize = found.rooms.iter().map(|room| room.encoded_len()).sum();
    let largest = found.rooms[0].encoded_len();
    assert!((ROOMS_FOUND_BYTES_TARGET..ROOMS_FOUND_BYTES_TARGET + largest).contains(&bytes));
    assert_eq!(
        found.next.as_deref(),
        found.rooms.last().map(|room| room.name.as_str())
    );
    ann.say(find(2, 0)).hear_nothing();
    assert!(asked(&store).contains("limit: 1,"), "{}", asked(&store));
    // The store has looked at many and found none.
    let next = Some("bz".to_owned());
    store.answer(Ok(Answer::Found(FoundRooms {
        rooms: Vec::new(),
        next: next.clone(),
    })));
    let found: RoomsFound = ann.hear_one();
    assert_eq!(
        (found.correlation, found.rooms.len(), found.next),
        (2, 0, next)
    );
}

#[test]
fn large_answers_are_asked_for_one_by_one_and_in_order() {
    let (store, mut ann) = welcomed();
    ann.publish("ops", ["x"]).hear();
    ann.say(find(1, 10)).say(get(2, "ops")).say(Read {
        correlation: 3,
        room: room("ops"),
        start: StartAt::START,
        count_max: 1,
        bytes_max: 1,
    });
    ann.say(find(4, 10)).hear_nothing();
    assert!(asked(&store).starts_with("Find"));
    store.answer(Err(StoreError::Closed));
    ann.hear_error(ErrorCode::GOING_AWAY, 1, Kind::FindRooms);
    assert!(asked(&store).starts_with("Room"));
    store.answer(Ok(Answer::Room(Box::new(state("ops", 0)))));
    let frames = ann.hear();
    let kinds: Vec<Kind> = frames.iter().map(Frame::kind).collect();
    assert_eq!(kinds, [Kind::RoomDetails, Kind::Page]);
    assert!(asked(&store).starts_with("Find"));
}

#[test]
fn questions_without_an_answer_are_bounded() {
    let store = Gate::new();
    let terms = Terms {
        requests_max: 3,
        ..terms()
    };
    let mut ann = Peer::welcomed_under(&store, 3, "ann", terms);
    ann.say(find(1, 1)).say(get(2, "a")).say(trim(3, "a"));
    ann.hear_nothing();
    ann.say(change(4, "a", None))
        .hear_error(ErrorCode::LIMIT, 4, Kind::ChangeRoom);
    store.answer(Ok(Answer::Found(FoundRooms::default())));
    let _: RoomsFound = ann.hear_one();
    ann.say(GetSettings { correlation: 5 }).hear_nothing();
}

#[test]
fn cursors_are_listed() {
    let (store, mut ann) = welcomed();
    ann.say(ListCursors {
        correlation: 1,
        room: room("ops"),
        after: "b".to_owned(),
        limit: 5000,
    });
    ann.hear_nothing();
    let ask = asked(&store);
    assert!(
        ask.contains("after: \"b\"") && ask.contains("limit: 1000"),
        "{ask}"
    );
    let cursor = CursorState {
        name: "desk".to_owned(),
        position: Position::new(EPOCH, Seq::new(8)),
        moved: Micros::new(6),
    };
    let page = CursorsPage {
        cursors: vec![cursor],
        more: true,
    };
    store.answer(Ok(Answer::Cursors(page)));
    let list: CursorList = ann.hear_one();
    assert_eq!(
        (list.correlation, list.more, list.cursors.len()),
        (1, true, 1)
    );
    let desk = &list.cursors[0];
    assert_eq!(
        (desk.name.as_str(), desk.position.seq, desk.moved),
        ("desk", Seq::new(8), Micros::new(6))
    );
}

#[test]
fn a_relaxed_move_is_told_to_the_store() {
    let (store, mut ann) = welcomed();
    ann.publish("ops", ["x"]).hear();
    let set = |flags| SetCursor {
        correlation: 9,
        room: room("ops"),
        name: CursorName::parse("me").unwrap(),
        position: position(&store, "ops", 1),
        expected: Position::NONE,
        flags,
    };
    store.calls();
    ann.say(set(SetCursor::RELAXED)).say(set(0)).hear();
    assert_eq!(
        store.calls(),
        [Call::SetCursor(true), Call::SetCursor(false)]
    );
}

#[test]
fn answers_are_not_for_a_broker() {
    let (_, mut ann) = welcomed();
    ann.say(StoreDetails {
        correlation: 1,
        version: 0,
        settings: bytes::Bytes::new(),
    });
    ann.hear_the_end(ErrorCode::UNEXPECTED_FRAME);
}

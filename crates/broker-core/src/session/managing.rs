//! What is asked and changed of rooms, cursors and the store, as frames say it: what the store is asked for, and its answer
//! as a frame.
//!
//! Everything known of a room can be asked for, also of the broker's own. Names that begin with `$` are changed by nobody.

use broker_proto::limits::{CURSOR_LIST_MAX, ROOM_LIST_MAX, ROOMS_FOUND_BYTES_TARGET};
use broker_proto::{
    CursorEntry, CursorList, CursorName, ErrorCode, Frame, Kind, RoomDetails, RoomFacts, RoomName,
    RoomsFound, SettingsError, StoreDetails,
};
use bytes::Bytes;

use crate::store::{self, Answer, Ask, CursorsPage, FoundRooms, RoomState, StoreError, StoreState};

/// Why a request is refused, for programs and for people.
pub(super) type Refusal = (ErrorCode, String);

/// A request of a peer that the store answers.
#[derive(Debug)]
pub(super) struct Asking {
    /// The peer's number of it.
    pub(super) correlation: u32,
    /// What it came as.
    pub(super) kind: Kind,
    /// What to ask the store for, when it can be asked at all.
    pub(super) ask: Result<Ask, Refusal>,
}

impl Asking {
    /// What a frame asks for; the frame comes back when it asks for nothing of the kind.
    pub(super) fn new(frame: Frame) -> Result<Self, Frame> {
        let kind = frame.kind();
        let (correlation, ask) = match frame {
            Frame::GetRoom(get) => (get.correlation, Ok(Ask::Room(get.room))),
            Frame::FindRooms(find) => (find.correlation, Ok(Ask::Find(wanted(find)))),
            Frame::ListCursors(list) => (list.correlation, Ok(Ask::Cursors(cursors(list)))),
            Frame::GetSettings(get) => (get.correlation, Ok(Ask::Store)),
            Frame::ChangeRoom(change) => (change.correlation, change_room(change)),
            Frame::TrimRoom(trim) => (trim.correlation, trim_room(trim)),
            Frame::RemoveRoom(remove) => (remove.correlation, remove_room(remove)),
            Frame::ChangeSettings(change) => (change.correlation, change_store(&change)),
            other => return Err(other),
        };
        Ok(Self {
            correlation,
            kind,
            ask,
        })
    }

    /// Whether the answer may be so large that it waits for its turn.
    pub(super) const fn is_large(&self) -> bool {
        matches!(
            self.kind,
            Kind::GetRoom | Kind::FindRooms | Kind::ListCursors
        )
    }
}

/// The room, if it may be changed.
fn changeable(room: RoomName) -> Result<RoomName, Refusal> {
    if room.starts_with('$') {
        let detail = format!("room {room} belongs to the broker");
        return Err((ErrorCode::RESERVED_NAME, detail));
    }
    Ok(room)
}

fn judged<T>(change: Result<T, SettingsError>) -> Result<T, Refusal> {
    change.map_err(|error| (error.code(), error.to_string()))
}

fn change_room(frame: broker_proto::ChangeRoom) -> Result<Ask, Refusal> {
    let change = judged(frame.change())?;
    let expected = frame.expected();
    let room = changeable(frame.room)?;
    Ok(Ask::ChangeRoom(store::ChangeRoom {
        room,
        expected,
        change,
    }))
}

fn trim_room(frame: broker_proto::TrimRoom) -> Result<Ask, Refusal> {
    Ok(Ask::Trim(store::TrimRoom {
        room: changeable(frame.room)?,
        epoch: frame.epoch,
        before: frame.before,
    }))
}

fn remove_room(frame: broker_proto::RemoveRoom) -> Result<Ask, Refusal> {
    Ok(Ask::Remove(store::RemoveRoom {
        room: changeable(frame.room)?,
        epoch: frame.epoch,
    }))
}

fn change_store(frame: &broker_proto::ChangeSettings) -> Result<Ask, Refusal> {
    Ok(Ask::ChangeStore(store::ChangeStore {
        expected: frame.expected(),
        change: judged(frame.change())?,
    }))
}

fn wanted(frame: broker_proto::FindRooms) -> store::FindRooms {
    let labels = frame.labels.into_iter();
    store::FindRooms {
        after: frame.after,
        limit: at_most(frame.limit, ROOM_LIST_MAX),
        prefix: frame.prefix,
        labels: labels.map(|label| (label.name, label.value)).collect(),
    }
}

fn cursors(frame: broker_proto::ListCursors) -> store::ListCursors {
    store::ListCursors {
        room: frame.room,
        after: frame.after,
        limit: at_most(frame.limit, CURSOR_LIST_MAX),
    }
}

fn at_most(wanted: u32, max: usize) -> u32 {
    wanted.clamp(1, u32::try_from(max).unwrap_or(u32::MAX))
}

/// The store's answer as it goes over the wire.
pub(super) fn frame(
    correlation: u32,
    result: Result<Answer, StoreError>,
) -> Result<Frame, Refusal> {
    match result.map_err(|error| (error.code(), error.to_string()))? {
        Answer::Room(room) => Ok(Frame::from(RoomDetails {
            correlation,
            room: Box::new(facts(*room)),
        })),
        Answer::Found(rooms) => Ok(Frame::from(found(correlation, rooms))),
        Answer::Cursors(page) => cursor_list(correlation, page).map(Frame::from),
        Answer::Store(StoreState { version, settings }) => {
            let mut list = Vec::new();
            settings.encode(&mut list);
            Ok(Frame::from(StoreDetails {
                correlation,
                version,
                settings: list.into(),
            }))
        }
    }
}

fn facts(room: RoomState) -> RoomFacts {
    let mut settings = Vec::new();
    room.settings.encode(&mut settings);
    RoomFacts {
        name: room.info.name,
        epoch: room.info.epoch,
        first: room.info.first,
        head: room.info.head,
        last_time: room.info.last_time,
        bytes: room.bytes,
        created: room.created,
        created_by: room.created_by,
        version: room.version,
        settings: Bytes::from(settings),
    }
}

/// As many rooms as fit into one answer; the peer asks again for the others.
fn found(correlation: u32, mut page: FoundRooms) -> RoomsFound {
    let mut rooms = Vec::new();
    let mut bytes = 0;
    let mut rest = page.rooms.into_iter();
    while bytes < ROOMS_FOUND_BYTES_TARGET && rooms.len() < ROOM_LIST_MAX {
        let Some(room) = rest.next() else {
            break;
        };
        let room = facts(room);
        bytes += room.encoded_len();
        rooms.push(room);
    }
    if rest.next().is_some() {
        page.next = rooms.last().map(|room| room.name.to_string());
    }
    RoomsFound {
        correlation,
        rooms,
        next: page.next,
    }
}

fn cursor_list(correlation: u32, page: CursorsPage) -> Result<CursorList, Refusal> {
    let more = page.more || page.cursors.len() > CURSOR_LIST_MAX;
    let mut cursors = Vec::with_capacity(page.cursors.len().min(CURSOR_LIST_MAX));
    for cursor in page.cursors.into_iter().take(CURSOR_LIST_MAX) {
        let name = CursorName::parse(&cursor.name).map_err(|error| {
            let detail = format!("a cursor has an impossible name: {error}");
            (ErrorCode::INTERNAL, detail)
        })?;
        cursors.push(CursorEntry {
            name,
            position: cursor.position,
            moved: cursor.moved,
        });
    }
    Ok(CursorList {
        correlation,
        cursors,
        more,
    })
}

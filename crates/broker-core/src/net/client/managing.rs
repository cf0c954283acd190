//! What is known and set of rooms and of the store, as a client asks for it and changes it.
//!
//! Reading, and changes that may be made twice, are asked again on the next connection when one is lost. A change that
//! depends on what was there before, and a removal, are not: then it is unknown whether they were made.

use broker_proto::limits::{CURSOR_LIST_MAX, ROOM_LIST_MAX, ROOM_NAME_BYTES_MAX};
use broker_proto::settings::{LABEL_NAME_BYTES_MAX, LABEL_VALUE_BYTES_MAX, LABELS_MAX};
use broker_proto::{
    ChangeRoom, ChangeSettings, Epoch, Frame, GetRoom, GetSettings, LabelWanted, ListCursors,
    RemoveRoom, RoomChange, RoomFacts, Seq, SettingsError, StoreChange, TrimRoom,
};

use super::error::{Error, ErrorKind, Result};
use super::handle::{Client, unexpected};
use super::room::Room;
use crate::store::{
    CursorState, CursorsPage, FindRooms, FoundRooms, RoomInfo, RoomState, StoreState,
};

impl Room {
    /// All that is known of the room: its figures and what is set of it. Dropping the future is safe.
    ///
    /// # Errors
    /// `Absent` for a room that does not exist, `Timeout` when nothing moves for the timeout, or what the broker refused.
    ///
    /// # Examples
    /// ```
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let dir = tempfile::tempdir()?;
    /// # let broker = broker_core::Broker::open(dir.path()).await?;
    /// # let room = broker.client().room("lobby")?;
    /// room.send_all(["one", "two", "three"]).await?.await?;
    /// let info = room.info().await?;
    /// assert_eq!((info.messages(), info.info.head.get()), (3, 3));
    /// assert!(info.settings.retention.keeps_all()); // nothing is set
    /// # broker.shutdown().await?;
    /// # Ok(())
    /// # }
    /// ```
    pub async fn info(&self) -> Result<RoomState> {
        let room = self.name();
        self.details(
            format!("asking about room \"{room}\""),
            true,
            &|correlation| {
                Frame::GetRoom(GetRoom {
                    correlation,
                    room: room.clone(),
                })
            },
        )
        .await
    }

    /// Changes what is set of the room; ready when the change is on stable storage, with how the room is then. Messages that it
    /// does away with are gone soon after.
    ///
    /// With `expected`, the [`version`](RoomState::version) that was read, the change is made only if nobody has changed
    /// anything since. Dropping the future may leave it made or not.
    ///
    /// # Errors
    /// `Absent` for a room that does not exist; `Refused` with `CONFLICT` when the settings were changed meanwhile, with
    /// `BAD_SETTING` when a value cannot be taken, and nothing has changed then; `OutcomeUnknown` when the connection was lost
    /// after a change with `expected` was sent: read the settings to see.
    ///
    /// # Examples
    /// ```
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let dir = tempfile::tempdir()?;
    /// use broker_core::RoomChange;
    ///
    /// # let broker = broker_core::Broker::open(dir.path()).await?;
    /// # let room = broker.client().room("lobby")?;
    /// # room.send("hello").await?;
    /// let change = RoomChange {
    ///     topic: Some("who comes and goes".to_owned()),
    ///     keep_count: Some(Some(10_000)), // the oldest go when there are more
    ///     ..RoomChange::default()
    /// };
    /// let now = room.change(&change, None).await?;
    /// assert_eq!(now.settings.retention.count, Some(10_000));
    ///
    /// let outdated = room.change(&change, Some(now.version + 1)).await;
    /// assert!(outdated.is_err());
    /// # broker.shutdown().await?;
    /// # Ok(())
    /// # }
    /// ```
    pub async fn change(&self, change: &RoomChange, expected: Option<u64>) -> Result<RoomState> {
        let room = self.name();
        let what = format!("changing room \"{room}\"");
        judge(&what, RoomChange::decode, |list| change.encode(list))?;
        self.details(what, expected.is_none(), &|correlation| {
            Frame::ChangeRoom(ChangeRoom::new(correlation, room.clone(), change, expected))
        })
        .await
    }

    /// Removes the messages before `before`; ready when they are gone for every reader, with how the room is then. Seqs go on as
    /// if they were there, and readers are told of the gap. Dropping the future may leave them removed or not.
    ///
    /// # Errors
    /// `Absent` for a room that does not exist, `Timeout`: then trim again, twice is as good as once; or what the broker refused.
    ///
    /// # Examples
    /// ```
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let dir = tempfile::tempdir()?;
    /// # let broker = broker_core::Broker::open(dir.path()).await?;
    /// # let room = broker.client().room("lobby")?;
    /// room.send_all(["one", "two"]).await?.await?;
    /// let third = room.send("three").await?;
    /// let left = room.trim(third.seq).await?;
    /// assert_eq!((left.messages(), left.info.first), (1, third.seq));
    /// # broker.shutdown().await?;
    /// # Ok(())
    /// # }
    /// ```
    pub async fn trim(&self, before: Seq) -> Result<RoomState> {
        self.trim_if(Epoch::NONE, before).await
    }

    /// As [`trim`](Self::trim), but only in this history: not in a room of the same name that was made anew.
    ///
    /// # Errors
    /// As [`trim`](Self::trim), and `Refused` with `CONFLICT` when the room has another epoch.
    pub async fn trim_if(&self, epoch: Epoch, before: Seq) -> Result<RoomState> {
        let room = self.name();
        self.details(format!("trimming room \"{room}\""), true, &|correlation| {
            Frame::TrimRoom(TrimRoom {
                correlation,
                room: room.clone(),
                epoch,
                before,
            })
        })
        .await
    }

    /// Removes the room with its messages, cursors and settings; ready when that is on stable storage, with how it was. A message
    /// makes it again, with another epoch. Dropping the future may leave it removed or not.
    ///
    /// # Errors
    /// `Absent` for a room that does not exist; `OutcomeUnknown` when the connection was lost after the request was sent: look
    /// whether it is there.
    ///
    /// # Examples
    /// ```
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let dir = tempfile::tempdir()?;
    /// # use broker_core::ErrorKind;
    /// # let broker = broker_core::Broker::open(dir.path()).await?;
    /// # let room = broker.client().room("lobby")?;
    /// let old = room.send("hello").await?;
    /// assert_eq!(room.remove().await?.info.epoch, old.epoch);
    /// assert_eq!(room.info().await.unwrap_err().kind(), ErrorKind::Absent);
    /// let new = room.send("hello again").await?;
    /// assert_ne!(new.epoch, old.epoch);
    /// # broker.shutdown().await?;
    /// # Ok(())
    /// # }
    /// ```
    pub async fn remove(&self) -> Result<RoomState> {
        self.remove_if(Epoch::NONE).await
    }

    /// As [`remove`](Self::remove), but only this history: not a room of the same name that was made anew.
    ///
    /// # Errors
    /// As [`remove`](Self::remove), and `Refused` with `CONFLICT` when the room has another epoch.
    pub async fn remove_if(&self, epoch: Epoch) -> Result<RoomState> {
        let room = self.name();
        self.details(format!("removing room \"{room}\""), false, &|correlation| {
            Frame::RemoveRoom(RemoveRoom {
                correlation,
                room: room.clone(),
                epoch,
            })
        })
        .await
    }

    /// At most `limit` cursors of the room (up to 1,000) whose names sort after `after`, which is empty for the first page.
    ///
    /// Dropping the future is safe.
    ///
    /// # Errors
    /// `Absent` for a room that does not exist, `Timeout` when nothing moves for the timeout, or what the broker refused.
    ///
    /// # Examples
    /// ```
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let dir = tempfile::tempdir()?;
    /// # let broker = broker_core::Broker::open(dir.path()).await?;
    /// # let room = broker.client().room("lobby")?;
    /// let ack = room.send("hello").await?;
    /// room.cursor("indexer")?.set(ack.position()).await?;
    /// let page = room.cursors("", 100).await?;
    /// assert_eq!((page.cursors[0].name.as_str(), page.more), ("indexer", false));
    /// # broker.shutdown().await?;
    /// # Ok(())
    /// # }
    /// ```
    pub async fn cursors(&self, after: &str, limit: usize) -> Result<CursorsPage> {
        let what = format!("listing the cursors of room \"{}\"", self.name());
        let limit = u32::try_from(limit.min(CURSOR_LIST_MAX)).unwrap_or(0);
        let frame = |correlation| {
            Frame::ListCursors(ListCursors {
                correlation,
                room: self.name().clone(),
                after: after.to_owned(),
                limit,
            })
        };
        match self.client().ask(what.clone(), true, &frame).await? {
            Frame::CursorList(list) => {
                let cursors = list.cursors.into_iter().map(|cursor| CursorState {
                    name: cursor.name.as_str().to_owned(),
                    position: cursor.position,
                    moved: cursor.moved,
                });
                Ok(CursorsPage {
                    cursors: cursors.collect(),
                    more: list.more,
                })
            }
            other => Err(unexpected(&what, &other)),
        }
    }

    /// Asks something that is answered with how the room is.
    async fn details(
        &self,
        what: String,
        repeatable: bool,
        frame: &(dyn Fn(u32) -> Frame + Sync),
    ) -> Result<RoomState> {
        match self.client().ask(what.clone(), repeatable, frame).await? {
            Frame::RoomDetails(details) => state(&what, *details.room),
            other => Err(unexpected(&what, &other)),
        }
    }
}

impl Client {
    /// Rooms in the order of the bytes of their names, with all that is known of each: those that `wanted` describes, at most as
    /// many as it says (up to 1,000; 0 is taken for that) and as one answer holds. Go on after [`FoundRooms::next`] until
    /// that is `None`; a page may be empty before the end.
    ///
    /// Dropping the future is safe.
    ///
    /// # Errors
    /// `Usage` for a prefix or label that no room can have, `Timeout` when nothing moves for the timeout, or what the broker
    /// refused.
    ///
    /// # Examples
    /// ```
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let dir = tempfile::tempdir()?;
    /// use broker_core::FindRooms;
    ///
    /// # let broker = broker_core::Broker::open(dir.path()).await?;
    /// # let client = broker.client();
    /// # for name in ["app-a", "app-b", "web"] { client.room(name)?.send("x").await?; }
    /// let mut wanted = FindRooms { prefix: "app-".to_owned(), ..FindRooms::default() };
    /// let mut names = Vec::new();
    /// loop {
    ///     let page = client.find_rooms(&wanted).await?;
    ///     names.extend(page.rooms.iter().map(|room| room.info.name.to_string()));
    ///     match page.next {
    ///         Some(after) => wanted.after = after,
    ///         None => break,
    ///     }
    /// }
    /// assert_eq!(names, ["app-a", "app-b"]);
    /// # broker.shutdown().await?;
    /// # Ok(())
    /// # }
    /// ```
    pub async fn find_rooms(&self, wanted: &FindRooms) -> Result<FoundRooms> {
        let what = "looking for rooms";
        check(wanted)?;
        let most = u32::try_from(ROOM_LIST_MAX).unwrap_or(u32::MAX);
        let limit = if wanted.limit == 0 {
            most
        } else {
            wanted.limit
        };
        let label = |(name, value): &(String, Option<String>)| LabelWanted {
            name: name.clone(),
            value: value.clone(),
        };
        let frame = |correlation| {
            Frame::FindRooms(broker_proto::FindRooms {
                correlation,
                after: wanted.after.clone(),
                limit,
                prefix: wanted.prefix.clone(),
                labels: wanted.labels.iter().map(label).collect(),
            })
        };
        match self.ask(what.to_owned(), true, &frame).await? {
            Frame::RoomsFound(found) => {
                let rooms = found.rooms.into_iter().map(|room| state(what, room));
                Ok(FoundRooms {
                    rooms: rooms.collect::<Result<_>>()?,
                    next: found.next,
                })
            }
            other => Err(unexpected(what, &other)),
        }
    }

    /// What is set of the whole store. Dropping the future is safe.
    ///
    /// # Errors
    /// `Timeout` when nothing moves for the timeout, or what the broker refused.
    pub async fn store_settings(&self) -> Result<StoreState> {
        let frame = |correlation| Frame::GetSettings(GetSettings { correlation });
        self.settings("asking for the settings of the store", true, &frame)
            .await
    }

    /// Changes what is set of the whole store; ready when the change is on stable storage. `expected` is as for
    /// [`Room::change`]. Dropping the future may leave it made or not.
    ///
    /// # Errors
    /// As for [`Room::change`].
    ///
    /// # Examples
    /// ```
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let dir = tempfile::tempdir()?;
    /// use broker_core::StoreChange;
    ///
    /// # let broker = broker_core::Broker::open(dir.path()).await?;
    /// # let client = broker.client();
    /// let change = StoreChange {
    ///     bytes_max: Some(Some(10 << 30)), // 10 GiB of log; publishes beyond are refused
    ///     ..StoreChange::default()
    /// };
    /// client.change_store_settings(&change, None).await?;
    /// assert_eq!(client.store_settings().await?.settings.bytes_max, Some(10 << 30));
    /// # broker.shutdown().await?;
    /// # Ok(())
    /// # }
    /// ```
    pub async fn change_store_settings(
        &self,
        change: &StoreChange,
        expected: Option<u64>,
    ) -> Result<StoreState> {
        let what = "changing the settings of the store";
        judge(what, StoreChange::decode, |list| change.encode(list))?;
        let frame =
            |correlation| Frame::ChangeSettings(ChangeSettings::new(correlation, change, expected));
        self.settings(what, expected.is_none(), &frame).await
    }

    async fn settings(
        &self,
        what: &str,
        repeatable: bool,
        frame: &(dyn Fn(u32) -> Frame + Sync),
    ) -> Result<StoreState> {
        match self.ask(what.to_owned(), repeatable, frame).await? {
            Frame::StoreDetails(details) => Ok(StoreState {
                version: details.version,
                settings: details.settings().map_err(|error| malformed(what, error))?,
            }),
            other => Err(unexpected(what, &other)),
        }
    }
}

/// Refuses a change that no broker takes, before it is sent.
fn judge<T>(
    what: &str,
    decode: impl FnOnce(&[u8]) -> Result<T, SettingsError>,
    encode: impl FnOnce(&mut Vec<u8>),
) -> Result<()> {
    let mut list = Vec::new();
    encode(&mut list);
    match decode(&list) {
        Ok(_) => Ok(()),
        Err(error) => {
            let text = format!("{what}: this cannot be set");
            Err(Error::new(ErrorKind::Usage, text).with_source(error))
        }
    }
}

/// Refuses to look for what no room can have.
fn check(wanted: &FindRooms) -> Result<()> {
    let longest = wanted.after.len().max(wanted.prefix.len());
    let long_label = wanted.labels.iter().any(|(name, value)| {
        name.len() > LABEL_NAME_BYTES_MAX
            || value.as_ref().map_or(0, String::len) > LABEL_VALUE_BYTES_MAX
    });
    let text = if longest > ROOM_NAME_BYTES_MAX {
        format!(
            "looking for rooms: names of rooms have at most {ROOM_NAME_BYTES_MAX} bytes, not {longest}"
        )
    } else if wanted.labels.len() > LABELS_MAX {
        let count = wanted.labels.len();
        format!("looking for rooms: a room has at most {LABELS_MAX} labels, not {count}")
    } else if long_label {
        format!(
            "looking for rooms: a label's name has at most {LABEL_NAME_BYTES_MAX} bytes, its value {LABEL_VALUE_BYTES_MAX}"
        )
    } else {
        return Ok(());
    };
    Err(Error::new(ErrorKind::Usage, text))
}

fn state(what: &str, room: RoomFacts) -> Result<RoomState> {
    let settings = room.settings().map_err(|error| malformed(what, error))?;
    Ok(RoomState {
        info: RoomInfo {
            name: room.name,
            epoch: room.epoch,
            first: room.first,
            head: room.head,
            last_time: room.last_time,
        },
        bytes: room.bytes,
        created: room.created,
        created_by: room.created_by,
        version: room.version,
        settings,
    })
}

fn malformed(what: &str, error: SettingsError) -> Error {
    Error::protocol(format!("{what}: the broker's settings cannot be read")).with_source(error)
}

//! Reading, and moving a cursor along.

use std::io;
use std::sync::Arc;

use broker_core::{Cursor, Error, ErrorKind, Item, Room, StartAt, Subscription};
use tokio::sync::watch;

use super::{Phase, Stage};
use crate::history::{Event, Id, Place};

/// Reads a room until the agent leaves.
pub(super) async fn subscribe(stage: Arc<Stage>, index: usize) -> io::Result<()> {
    let Some(name) = stage.args.work.rooms.get(index) else {
        return Ok(());
    };
    let room = stage.client.room(name).map_err(io::Error::other)?;
    let reader = Reader {
        stage: &stage,
        number: u32::try_from(index).map_or(0, |index| index + 1),
        index,
        room: name,
    };
    let cursor = room
        .cursor(&format!("agent-{}", stage.args.agent))
        .map_err(io::Error::other)?;
    reader.look(&cursor).await?;
    let Some(mut subscription) = reader.open(&room).await? else {
        return Ok(());
    };
    loop {
        let item = tokio::select! {
            biased;
            () = stage.reached(Phase::Leaving) => return Ok(()),
            item = subscription.next() => item,
        };
        match item {
            None => return reader.ended(),
            Some(Err(error)) => stage.unanswered("subscription", &error)?,
            Some(Ok(item)) => {
                if reader.took(&item)? && reader.moves_cursor(&item) {
                    reader
                        .advance(&cursor, subscription.position().into())
                        .await?;
                }
            }
        }
    }
}

struct Reader<'a> {
    stage: &'a Stage,
    number: u32,
    index: usize,
    room: &'a str,
}

impl Reader<'_> {
    async fn open(&self, room: &Room) -> io::Result<Option<Subscription>> {
        let from = self.stage.args.from.get(self.index).copied();
        let from = from.filter(|place| place.seq > 0);
        self.stage.record(&Event::Opened {
            subscription: self.number,
            room: self.room,
            next: from.map_or(1, |place| place.seq),
        })?;
        if let (Some(place), Some(progress)) = (from, self.progress()) {
            // An earlier life has read what lies before.
            progress.send_replace(place.seq - 1);
        }
        let start = from.map_or(StartAt::START, |place| StartAt::position(place.into()));
        tokio::select! {
            () = self.stage.reached(Phase::Leaving) => Ok(None),
            begun = async { room.subscribe(start).wait(true).await } => match begun {
                Ok(subscription) => Ok(Some(subscription)),
                Err(error) => self.stage.unanswered("subscribe", &error).map(|()| None),
            }
        }
    }

    /// Writes an item down, and says whether it was a message.
    fn took(&self, item: &Item) -> io::Result<bool> {
        let (subscription, room) = (self.number, self.room);
        match item {
            Item::Message(message) => {
                self.stage.record(&Event::Delivered {
                    subscription,
                    room,
                    place: message.position().into(),
                    id: Id::of_payload(&message.payload),
                })?;
                self.progress().inspect(|now| {
                    now.send_replace(message.seq.get());
                });
                return Ok(true);
            }
            Item::Skip(range) => self.stage.record(&Event::Skipped {
                subscription,
                room,
                from: range.from.get(),
                to: range.to.get(),
                reason: range.reason.as_str(),
            })?,
            Item::Reset {
                previous,
                epoch,
                next,
            } => self.stage.record(&Event::Reset {
                subscription,
                room,
                previous: previous.get(),
                next: Place {
                    epoch: epoch.get(),
                    seq: next.get(),
                },
            })?,
            _ => {}
        }
        Ok(false)
    }

    fn progress(&self) -> Option<&watch::Sender<u64>> {
        self.stage.progress.get(self.index)
    }

    fn ended(&self) -> io::Result<()> {
        let (subscription, room) = (self.number, self.room);
        self.stage.record(&Event::Ended { subscription, room })
    }

    fn moves_cursor(&self, item: &Item) -> bool {
        let every = self.stage.args.work.cursor_every;
        matches!(item, Item::Message(message) if every > 0 && message.seq.get() % every == 0)
    }

    /// Reads the cursor.
    async fn look(&self, cursor: &Cursor) -> io::Result<()> {
        if self.stage.args.work.cursor_every == 0 {
            return Ok(());
        }
        let at = match cursor.get().await {
            Ok(at) => at,
            Err(error) if error.kind() == ErrorKind::Absent => None,
            Err(error) => return self.stage.unanswered("cursor", &error),
        };
        self.stage.record(&Event::Cursor {
            cursor: cursor.name(),
            room: self.room,
            at: at.map(Place::from),
        })
    }

    /// Moves the cursor and waits until that is kept.
    async fn advance(&self, cursor: &Cursor, to: Place) -> io::Result<()> {
        let (room, name) = (self.room, cursor.name());
        self.stage.record(&Event::Moving {
            cursor: name,
            room,
            to,
        })?;
        let moved: Result<(), Error> = cursor.set(to.into()).await;
        match moved {
            Ok(()) => self.stage.record(&Event::Moved {
                cursor: name,
                room,
                to,
            }),
            Err(error) => self.stage.unanswered("cursor", &error),
        }
    }
}

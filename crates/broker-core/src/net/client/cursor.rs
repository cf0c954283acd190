//! [`Cursor`]: a named position of a reader, kept by the broker. It moves only when asked.

use broker_proto::{CursorName, Frame, GetCursor, Position, SetCursor};

use super::error::Result;
use super::handle::unexpected;
use super::room::Room;

/// A named position of a reader in a room. It holds the next message wanted, as
/// [`Subscription::position`](super::subscription::Subscription::position) and [`Page::next_position`](super::message::Page::next_position) give it.
///
/// # Examples
/// ```
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let dir = tempfile::tempdir()?;
/// # use broker_core::StartAt;
/// # let broker = broker_core::Broker::open(dir.path()).await?;
/// # let room = broker.client().room("lobby")?;
/// room.send_all(["one", "two"]).await?.await?;
/// let cursor = room.cursor("indexer")?;
/// let page = room.read(StartAt::START, 1, 1 << 20).await?;
/// cursor.set(page.next_position()).await?; // "one" is dealt with
///
/// let at = cursor.get().await?.expect("it was set");
/// let rest = room.read(StartAt::position(at), 10, 1 << 20).await?;
/// assert_eq!(rest.messages[0].payload, "two");
/// # broker.shutdown().await?;
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone)]
pub struct Cursor {
    room: Room,
    name: CursorName,
}

impl Cursor {
    pub(super) const fn new(room: Room, name: CursorName) -> Self {
        Self { room, name }
    }

    /// Its name.
    #[must_use]
    pub const fn name(&self) -> &CursorName {
        &self.name
    }

    /// Where it is; `None` when there is none of this name. Dropping the future is safe.
    ///
    /// # Errors
    /// What the broker refused, or `Timeout` when nothing moves for the timeout.
    pub async fn get(&self) -> Result<Option<Position>> {
        let what = format!(
            "reading cursor \"{}\" of room \"{}\"",
            self.name,
            self.room.name()
        );
        let frame = |correlation| {
            Frame::GetCursor(GetCursor {
                correlation,
                room: self.room.name().clone(),
                name: self.name.clone(),
            })
        };
        self.ask(what, true, &frame).await
    }

    /// Moves it; ready when the move is on stable storage. Dropping the future may leave it moved or not.
    ///
    /// # Errors
    /// What the broker refused, or `Timeout`: then set it again, setting it twice is as good as once.
    pub async fn set(&self, to: Position) -> Result<()> {
        self.change(to, Position::NONE, 0).await
    }

    /// Moves it without waiting for the disk: it is stored within about a second, together with others, and of several moves only
    /// the last. After a crash it may be where it was before, and messages since then are read again. This is for readers that
    /// move it often; dropping the future may leave it moved or not.
    ///
    /// # Errors
    /// What the broker refused, or `Timeout`: then set it again.
    ///
    /// # Examples
    /// ```
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let dir = tempfile::tempdir()?;
    /// # let broker = broker_core::Broker::open(dir.path()).await?;
    /// # let room = broker.client().room("lobby")?;
    /// # use broker_core::StartAt;
    /// # room.send_all(["one", "two"]).await?.await?;
    /// let cursor = room.cursor("indexer")?;
    /// let page = room.read(StartAt::START, 10, 1 << 20).await?;
    /// cursor.set_relaxed(page.next_position()).await?; // seen by all at once, on disk a little later
    /// assert_eq!(cursor.get().await?, Some(page.next_position()));
    /// # broker.shutdown().await?;
    /// # Ok(())
    /// # }
    /// ```
    pub async fn set_relaxed(&self, to: Position) -> Result<()> {
        self.change(to, Position::NONE, SetCursor::RELAXED).await
    }

    /// Moves it if it is at `expected`, which is `None` when it must not exist yet. Dropping the future may leave it moved
    /// or not.
    ///
    /// # Errors
    /// `Refused` with `CONFLICT` when it is elsewhere; `OutcomeUnknown` when the connection was lost after the request was
    /// sent: read the cursor to see.
    pub async fn compare_and_set(&self, expected: Option<Position>, to: Position) -> Result<()> {
        self.change(to, expected.unwrap_or(Position::NONE), SetCursor::COMPARE)
            .await
    }

    /// Removes it; it need not be there. Dropping the future may leave it removed or not.
    ///
    /// # Errors
    /// What the broker refused, or `Timeout`: then remove it again.
    pub async fn delete(&self) -> Result<()> {
        self.change(Position::NONE, Position::NONE, SetCursor::DELETE)
            .await
    }

    /// Removes it if it is at `expected`. Dropping the future may leave it removed or not.
    ///
    /// # Errors
    /// As [`compare_and_set`](Self::compare_and_set).
    pub async fn compare_and_delete(&self, expected: Option<Position>) -> Result<()> {
        let flags = SetCursor::COMPARE | SetCursor::DELETE;
        self.change(Position::NONE, expected.unwrap_or(Position::NONE), flags)
            .await
    }

    async fn change(&self, position: Position, expected: Position, flags: u32) -> Result<()> {
        let what = format!(
            "moving cursor \"{}\" of room \"{}\"",
            self.name,
            self.room.name()
        );
        let frame = |correlation| {
            let (room, name) = (self.room.name().clone(), self.name.clone());
            Frame::SetCursor(SetCursor {
                correlation,
                room,
                name,
                position,
                expected,
                flags,
            })
        };
        let repeatable = flags & SetCursor::COMPARE == 0;
        self.ask(what, repeatable, &frame).await.map(|_| ())
    }

    async fn ask(
        &self,
        what: String,
        repeatable: bool,
        frame: &(dyn Fn(u32) -> Frame + Sync),
    ) -> Result<Option<Position>> {
        match self
            .room
            .client()
            .ask(what.clone(), repeatable, frame)
            .await?
        {
            Frame::Cursor(cursor) => Ok(cursor.position),
            other => Err(unexpected(&what, &other)),
        }
    }
}

//! [`Client`]: a connection to a broker that outlives connections, and what concerns no single room.

use std::sync::Arc;
use std::time::Duration;

use broker_proto::limits::ROOM_LIST_MAX;
use broker_proto::{Frame, GetStatus, ListRooms, Ping, RoomEntry, RoomName, SenderName};
use tokio::sync::watch;
use tokio::time::Instant;

use super::config::ClientConfig;
use super::connector::Connector;
use super::driver;
use super::error::{Error, ErrorKind, Result};
use super::requests::Question;
use super::room::Room;
use super::shared::Shared;
use super::state::State;

/// A client of a broker. Cloning is cheap, and all clones share one connection.
///
/// The connection is served by a task on the runtime where the client was made, and made again when it is lost:
/// unacknowledged sends are sent again with the same numbers, so that each is stored once; subscriptions go on where they
/// stood; requests are asked again. Callers see a pause, and an error only when nothing moves for the whole
/// [timeout](ClientConfig::timeout).
///
/// When the last handle (clone, [`Room`], [`Subscription`](super::subscription::Subscription), cursor) is dropped, what was
/// queued is still sent and waited for in the background, then the connection is closed. Who wants to know how that went
/// calls [`shutdown`](Self::shutdown).
///
/// # Examples
/// ```
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let dir = tempfile::tempdir()?;
/// use broker_core::{Broker, StartAt};
///
/// let broker = Broker::open(dir.path()).await?;
/// let client = broker.client();
/// let room = client.room("lobby")?;
/// let ack = room.send("hello").await?; // on stable storage now
///
/// let mut messages = room.subscribe(StartAt::START).await?;
/// let message = messages.next_message().await.expect("the client is open")?;
/// assert_eq!((message.seq, &message.payload[..]), (ack.seq, &b"hello"[..]));
/// # broker.shutdown().await?;
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone)]
pub struct Client {
    handle: Arc<Handle>,
}

/// What all handles of a client have in common. When the last goes, the client closes.
#[derive(Debug)]
pub(super) struct Handle {
    shared: Arc<Shared>,
}

impl Drop for Handle {
    fn drop(&mut self) {
        self.shared
            .update(|core, wakes| core.begin_closing(&self.shared.address, wakes));
    }
}

/// Some of the rooms of a store.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct RoomsPage {
    /// The rooms, in the order of the bytes of their names.
    pub rooms: Vec<RoomEntry>,
    /// Whether there are more after the last one.
    pub more: bool,
}

impl Client {
    /// Connects to `tcp://host:port` or `unix:/path` with the usual settings.
    ///
    /// Dropping this future gives up.
    ///
    /// # Errors
    /// As [`ClientConfig::connect`].
    ///
    /// # Examples
    /// ```
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let dir = tempfile::tempdir()?;
    /// use broker_core::{Client, Config, Node};
    ///
    /// // Here a node in the same process; usually a daemon or another program.
    /// let node = Node::join(Config::new(dir.path()).listen("127.0.0.1:0".parse::<std::net::SocketAddr>()?)).await?;
    /// let address = node.address().expect("it listens");
    /// let client = Client::connect(&format!("tcp://{address}")).await?;
    /// assert_eq!(client.room("lobby")?.send("hello").await?.seq.get(), 1);
    /// client.shutdown().await?;
    /// # node.shutdown().await?;
    /// # Ok(())
    /// # }
    /// ```
    pub async fn connect(address: &str) -> Result<Self> {
        ClientConfig::new().connect(address).await
    }

    /// Settings for a client.
    pub fn builder() -> ClientConfig {
        ClientConfig::new()
    }

    pub(in crate::net) fn start(
        config: ClientConfig,
        connector: Connector,
        gives_up: bool,
    ) -> Result<Self> {
        let runtime = tokio::runtime::Handle::try_current().map_err(|error| {
            Error::new(ErrorKind::Usage, "a client needs a tokio runtime").with_source(error)
        })?;
        let sender = config.sender_name()?;
        let shared = Arc::new(Shared::new(config, sender, connector.address()));
        shared.config.show(shared.state.subscribe());
        runtime.spawn(driver::run(Arc::clone(&shared), connector, gives_up));
        Ok(Self {
            handle: Arc::new(Handle { shared }),
        })
    }

    /// Waits for the first connection, or until the client gives up.
    pub(in crate::net) async fn connected(self) -> Result<Self> {
        let mut state = self.state();
        let end = state
            .wait_for(|state| state.is_connected() || matches!(state, State::Closed { .. }))
            .await;
        match end.as_deref() {
            Ok(State::Closed { cause: Some(cause) }) => Err(cause.clone()),
            Ok(State::Closed { cause: None }) | Err(_) => Err(self.shared().closed_error()),
            Ok(_) => {
                drop(end);
                Ok(self)
            }
        }
    }

    pub(super) fn shared(&self) -> &Arc<Shared> {
        &self.handle.shared
    }

    /// A room, by name. Nothing is sent: rooms come into being with their first message.
    ///
    /// # Errors
    /// When the name breaks the rules of names. The broker's own names pass: such rooms can be read, not sent to.
    pub fn room(&self, name: &str) -> Result<Room> {
        Ok(Room::new(self.clone(), RoomName::parse_reserved(name)?))
    }

    /// A room whose name was checked before.
    #[must_use]
    pub fn room_named(&self, name: RoomName) -> Room {
        Room::new(self.clone(), name)
    }

    /// Who this client's messages are from.
    #[must_use]
    pub fn sender(&self) -> &SenderName {
        &self.shared().sender
    }

    /// How the connection is, now and as it changes.
    #[must_use]
    pub fn state(&self) -> watch::Receiver<State> {
        self.shared().state.subscribe()
    }

    /// At most `limit` rooms (up to 1,000) whose names sort after `after`, which is empty for the first page.
    ///
    /// Dropping the future is safe.
    ///
    /// # Errors
    /// `Timeout` when nothing moves for the timeout, or what the broker refused.
    pub async fn rooms(&self, after: &str, limit: usize) -> Result<RoomsPage> {
        let limit = u32::try_from(limit.min(ROOM_LIST_MAX)).unwrap_or(0);
        let frame = |correlation| {
            Frame::ListRooms(ListRooms {
                correlation,
                after: after.to_owned(),
                limit,
            })
        };
        match self.ask("listing rooms".to_owned(), true, &frame).await? {
            Frame::RoomList(list) => Ok(RoomsPage {
                rooms: list.rooms,
                more: list.more,
            }),
            other => Err(unexpected("listing rooms", &other)),
        }
    }

    /// What the broker says about itself: a JSON object.
    ///
    /// Dropping the future is safe.
    ///
    /// # Errors
    /// `Timeout` when nothing moves for the timeout, or what the broker refused.
    pub async fn status(&self) -> Result<String> {
        let frame = |correlation| Frame::GetStatus(GetStatus { correlation });
        match self
            .ask("asking for the status".to_owned(), true, &frame)
            .await?
        {
            Frame::Status(status) => Ok(status.json.to_string()),
            other => Err(unexpected("asking for the status", &other)),
        }
    }

    /// How long the broker takes to answer, with the time to connect again when the connection is lost.
    ///
    /// Dropping the future is safe.
    ///
    /// # Errors
    /// `Timeout` when nothing moves for the timeout.
    pub async fn ping(&self) -> Result<Duration> {
        let begun = Instant::now();
        self.ask("pinging".to_owned(), true, &|correlation| {
            Frame::Ping(Ping {
                nonce: correlation.into(),
            })
        })
        .await?;
        Ok(begun.elapsed())
    }

    /// Waits until everything sent was answered, says goodbye and closes; every clone ends with it.
    ///
    /// Sends that wait for space in the window fail at once, unanswered requests when the rest is done. Dropping the future
    /// does not stop the shutdown.
    ///
    /// # Errors
    /// `Timeout` when sends were still unanswered after the timeout without anything moving; their own tickets say the
    /// same. Otherwise why the client had given up before.
    pub async fn shutdown(&self) -> Result<()> {
        let shared = self.shared();
        shared.update(|core, wakes| {
            if !core.closing {
                core.expired = None;
            }
            core.begin_closing(&shared.address, wakes);
        });
        let mut state = self.state();
        let end = state
            .wait_for(|state| matches!(state, State::Closed { .. }))
            .await;
        if let Ok(State::Closed { cause: Some(cause) }) = end.as_deref() {
            return Err(cause.clone());
        }
        drop(end);
        match shared.core().expired.clone() {
            None => Ok(()),
            Some(error) => Err(error),
        }
    }

    /// Asks the broker one thing and waits for the answer.
    pub(super) async fn ask(
        &self,
        what: String,
        repeatable: bool,
        frame: &(dyn Fn(u32) -> Frame + Sync),
    ) -> Result<Frame> {
        let shared = self.shared();
        let permit = shared
            .requests
            .acquire()
            .await
            .map_err(|_| shared.closed_error())?;
        let question = Question {
            what,
            repeatable,
            frame,
        };
        let asked = shared.update(|core, _| match core.check_open(shared) {
            Some(error) => Err(error),
            None => Ok(core.ask(&question)),
        });
        let (correlation, answer) = asked?;
        let pending = PendingRequest {
            shared,
            correlation,
        };
        let answer = answer.await.ok();
        drop(pending);
        drop(permit);
        answer.unwrap_or_else(|| Err(shared.closed_error()))
    }
}

/// Forgets a request whose caller has gone away.
struct PendingRequest<'a> {
    shared: &'a Shared,
    correlation: u32,
}

impl Drop for PendingRequest<'_> {
    fn drop(&mut self) {
        self.shared.core().requests.forget(self.correlation);
    }
}

/// The broker answered something else.
pub(super) fn unexpected(what: &str, answer: &Frame) -> Error {
    Error::protocol(format!("{what}: the broker answers with {}", answer.kind()))
}

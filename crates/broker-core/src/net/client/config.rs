//! [`ClientConfig`]: the few things about a client that can be set, each safe when it is not.

use std::fmt;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use broker_proto::limits::WINDOW_BYTES_DEFAULT;
use broker_proto::{SenderName, StoreId};
use tokio::sync::watch;

use super::connector::Connector;
use super::error::{Error, ErrorKind, Result};
use super::handle::Client;
use super::state::State;
use super::url::Address;
use crate::clock::{Clock, Random, SystemClock, SystemRandom};
use crate::sync::lock;

/// Shortest timeout that can be set.
const TIMEOUT_MIN: Duration = Duration::from_millis(10);
/// Longest timeout that can be set; far below the time for which a broker remembers a producer.
const TIMEOUT_MAX: Duration = Duration::from_secs(24 * 60 * 60);
/// Timeout when none is set.
const TIMEOUT_DEFAULT: Duration = Duration::from_secs(10);

/// How a client behaves. Made by [`Client::builder`], used up by [`connect`](Self::connect).
#[derive(Debug, Clone)]
#[must_use]
pub struct ClientConfig {
    sender: Option<String>,
    build: String,
    pub(super) timeout: Duration,
    pub(super) window_bytes: u32,
    pub(super) known_store: StoreId,
    pub(super) clock: Arc<dyn Clock>,
    random: Arc<Mutex<Box<dyn Random>>>,
    observer: Option<Observer>,
}

/// Who is shown the state of a client from its beginning.
#[derive(Clone)]
pub(in crate::net) struct Observer(Arc<dyn Fn(watch::Receiver<State>) + Send + Sync>);

impl Observer {
    pub(in crate::net) fn new(
        observe: impl Fn(watch::Receiver<State>) + Send + Sync + 'static,
    ) -> Self {
        Self(Arc::new(observe))
    }
}

impl fmt::Debug for Observer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Observer")
    }
}

impl Default for ClientConfig {
    fn default() -> Self {
        Self {
            sender: None,
            build: concat!("broker-core ", env!("CARGO_PKG_VERSION")).to_owned(),
            timeout: TIMEOUT_DEFAULT,
            window_bytes: WINDOW_BYTES_DEFAULT,
            known_store: StoreId::NONE,
            clock: Arc::new(SystemClock::new()),
            random: Arc::new(Mutex::new(Box::new(SystemRandom))),
            observer: None,
        }
    }
}

impl ClientConfig {
    /// The settings with which [`Client::connect`] connects.
    pub fn new() -> Self {
        Self::default()
    }

    /// Who the messages are from, 1 to 64 bytes; the broker stamps it on each. Default: the login name.
    pub fn sender(mut self, sender: impl Into<String>) -> Self {
        self.sender = Some(sender.into());
        self
    }

    /// How long nothing may move before what is waited for fails. Default 10 s, at least 10 ms, at most a day.
    ///
    /// A disk that takes longer than this to store a message makes sends fail with an unknown outcome, so a short
    /// timeout costs certainty, not only patience.
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout = timeout.clamp(TIMEOUT_MIN, TIMEOUT_MAX);
        self
    }

    /// Bytes that a subscription may have under way or unread. Default 1 MiB; the broker may allow less.
    ///
    /// It is the memory that a subscription takes while the application does not read, beyond one message.
    pub fn window_bytes(mut self, bytes: u32) -> Self {
        self.window_bytes = bytes.max(1);
        self
    }

    /// Name and version of the program, for the broker's logs. Cut at 64 bytes.
    pub fn build(mut self, build: impl Into<String>) -> Self {
        self.build = build.into();
        self
    }

    /// The store that must answer. Default: the first one that does is kept to.
    pub fn known_store(mut self, store: StoreId) -> Self {
        self.known_store = store;
        self
    }

    /// The clock by which the client judges whether the broker still remembers it. Default: the machine's. Timeouts go by
    /// the clock of the runtime.
    pub fn clock(mut self, clock: impl Clock + 'static) -> Self {
        self.clock = Arc::new(clock);
        self
    }

    /// Where identities and jitter come from. Default: the kernel. Seeded numbers are for simulations alone: two clients
    /// with the same ones would take each other's messages for their own.
    pub fn random(mut self, random: impl Random + 'static) -> Self {
        self.random = Arc::new(Mutex::new(Box::new(random)));
        self
    }

    /// Has `observe` called with the client's state before the first connection is made, for a program that wants to say why
    /// that takes long. It is called on the runtime that carries the client, and must not block.
    pub fn observe(self, observe: impl Fn(watch::Receiver<State>) + Send + Sync + 'static) -> Self {
        self.observer(Some(Observer::new(observe)))
    }

    pub(in crate::net) fn observer(mut self, observer: Option<Observer>) -> Self {
        self.observer = observer;
        self
    }

    pub(super) fn show(&self, state: watch::Receiver<State>) {
        if let Some(Observer(observe)) = &self.observer {
            observe(state);
        }
    }

    /// Connects to `tcp://host:port` or `unix:/path`.
    ///
    /// The connection is served by a task on the current tokio runtime. Dropping this future gives up.
    ///
    /// # Errors
    /// `Usage` for an address or sender that is none; otherwise why the last attempt failed, after the timeout.
    pub async fn connect(self, address: &str) -> Result<Client> {
        let address: Address = address.parse()?;
        self.connect_with(address.into()).await
    }

    /// Connects over streams of `connector`.
    ///
    /// # Errors
    /// As [`connect`](Self::connect).
    pub async fn connect_with(self, connector: Connector) -> Result<Client> {
        Client::start(self, connector, true)?.connected().await
    }

    /// A client that connects in the background, for as long as it takes.
    ///
    /// What is sent before it is connected waits, at most for the timeout.
    ///
    /// # Errors
    /// `Usage` for a sender that is none, or when there is no tokio runtime here.
    pub fn open(self, connector: Connector) -> Result<Client> {
        Client::start(self, connector, false)
    }

    /// 16 random bytes.
    pub(super) fn bytes_16(&self) -> [u8; 16] {
        lock(&self.random).bytes_16()
    }

    /// 64 random bits.
    pub(super) fn bits_64(&self) -> u64 {
        lock(&self.random).bits_64()
    }

    pub(super) fn build_name(&self) -> &str {
        &self.build
    }

    pub(super) fn sender_name(&self) -> Result<SenderName> {
        if let Some(sender) = &self.sender {
            return Ok(SenderName::parse(sender)?);
        }
        let login = ["LOGNAME", "USER"]
            .into_iter()
            .find_map(|key| SenderName::parse(&std::env::var(key).ok()?).ok());
        login.map_or_else(
            || {
                SenderName::parse("anonymous").map_err(|error| {
                    Error::new(ErrorKind::Usage, "no sender is set").with_source(error)
                })
            },
            Ok,
        )
    }
}

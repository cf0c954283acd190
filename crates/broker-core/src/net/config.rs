//! [`Config`]: how a process takes part in a store.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::Duration;

use broker_proto::limits::{DEFAULT_PORT, PAYLOAD_BYTES_DEFAULT, PAYLOAD_BYTES_MAX};

use tokio::sync::watch;

use super::client::{ClientConfig, Error, ErrorKind, Observer, Result, State};
use crate::dir::role;
use crate::store::SCRUB_EVERY_DEFAULT;

/// The store's address when nobody has set one: loopback, because nobody is asked who they are.
pub(super) const DEFAULT_ADDRESS: SocketAddr =
    SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), DEFAULT_PORT);

/// Longest time to wait when none is set.
const TIMEOUT_DEFAULT: Duration = Duration::from_secs(10);

/// What a process is to its store.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum Role {
    /// Leads when nobody else does, and serves others at the store's address for as long as it runs.
    #[default]
    Eligible,
    /// Leads when nobody else does at that moment, for one short piece of work, and only at the
    /// store's Unix socket.
    OneShot,
    /// Never leads.
    ClientOnly,
    /// A daemon: leads, or fails when another process does. Fails also when it cannot have its port.
    ServeAlways,
}

impl Role {
    /// Whether it may lead.
    pub(super) fn leads(self) -> bool {
        !matches!(self, Self::ClientOnly)
    }

    /// Whether others rely on it for longer than one piece of work, so that it opens a TCP port.
    pub(super) fn lasts(self) -> bool {
        matches!(self, Self::Eligible | Self::ServeAlways)
    }

    /// For the status.
    pub(super) fn as_str(self) -> &'static str {
        match self {
            Self::Eligible => "eligible",
            Self::OneShot => "one_shot",
            Self::ClientOnly => "client_only",
            Self::ServeAlways => "serve_always",
        }
    }

    /// For the lock file.
    pub(super) fn number(self) -> u8 {
        match self {
            Self::Eligible | Self::ClientOnly => role::ELIGIBLE,
            Self::OneShot => role::ONE_SHOT,
            Self::ServeAlways => role::SERVE_ALWAYS,
        }
    }
}

/// Where a leader listens beside the store's Unix socket.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) enum Listen {
    /// At the store's own address.
    #[default]
    Stored,
    /// Nowhere.
    Nowhere,
    /// Here.
    At(SocketAddr),
}

/// How a process takes part in a store. Only the directory has to be named.
#[derive(Debug, Clone)]
#[must_use]
pub struct Config {
    pub(super) dir: PathBuf,
    pub(super) listen: Listen,
    pub(super) role: Role,
    pub(super) payload_bytes_max: u32,
    pub(super) timeout: Duration,
    pub(super) insecure_no_auth: bool,
    pub(super) build: String,
    pub(super) scrub_every: Option<Duration>,
    may_be_fenced: Option<bool>,
    observe: Option<Observer>,
    sender: Option<String>,
}

impl Config {
    /// Takes part in the store in `dir`, which is made when it does not exist.
    pub fn new(dir: impl AsRef<Path>) -> Self {
        Self {
            dir: dir.as_ref().to_owned(),
            listen: Listen::default(),
            role: Role::default(),
            payload_bytes_max: u32::try_from(PAYLOAD_BYTES_DEFAULT).unwrap_or(u32::MAX),
            timeout: TIMEOUT_DEFAULT,
            insecure_no_auth: false,
            build: concat!("broker-core ", env!("CARGO_PKG_VERSION")).to_owned(),
            scrub_every: Some(SCRUB_EVERY_DEFAULT),
            may_be_fenced: None,
            observe: None,
            sender: None,
        }
    }

    /// Where to listen for TCP connections when this process leads; `None` listens nowhere, port 0
    /// at a free port. Default: the store's own address, `127.0.0.1:9876` unless a daemon has set
    /// another.
    pub fn listen(mut self, address: impl Into<Option<SocketAddr>>) -> Self {
        self.listen = address.into().map_or(Listen::Nowhere, Listen::At);
        self
    }

    /// Who the messages of this process are from. Default: the login name.
    pub fn sender(mut self, sender: impl Into<String>) -> Self {
        self.sender = Some(sender.into());
        self
    }

    /// What this process is to the store. Default: [`Role::Eligible`].
    pub fn role(mut self, role: Role) -> Self {
        self.role = role;
        self
    }

    /// Largest payload that this process takes when it leads, in bytes. Default 1 MiB, at most 8 MiB.
    pub fn payload_bytes_max(mut self, bytes: u32) -> Self {
        self.payload_bytes_max =
            bytes.clamp(1, u32::try_from(PAYLOAD_BYTES_MAX).unwrap_or(u32::MAX));
        self
    }

    /// How long nothing may move before what is waited for fails. Default 10 s.
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout = timeout;
        self
    }

    /// Lets the leader listen at addresses that other machines can reach, although nobody is asked
    /// who they are: everybody who reaches the port may read and write everything. Default: refused.
    pub fn insecure_no_auth(mut self, allow: bool) -> Self {
        self.insecure_no_auth = allow;
        self
    }

    /// Whether another process of this user may kill this one when it leads and hangs: when it is stopped, or answers nobody,
    /// not even the question how it is, for 2 s. A leader that waits for the disk is never killed. Default: only a daemon
    /// ([`Role::ServeAlways`]) may be, because nothing but the store is lost with it.
    pub fn may_be_fenced(mut self, allow: bool) -> Self {
        self.may_be_fenced = Some(allow);
        self
    }

    /// Within what time this process, when it leads, reads and checks everything that the log keeps, in
    /// the background; `None` never does. Default: 7 days.
    pub fn scrub_every(mut self, every: impl Into<Option<Duration>>) -> Self {
        self.scrub_every = every.into();
        self
    }

    /// Has `observe` called with the state of the node's client before the first connection is made; see
    /// [`ClientConfig::observe`].
    pub fn observe(
        mut self,
        observe: impl Fn(watch::Receiver<State>) + Send + Sync + 'static,
    ) -> Self {
        self.observe = Some(Observer::new(observe));
        self
    }

    /// Name and version of the program, for status and logs, at most 64 bytes.
    pub fn build(mut self, build: impl Into<String>) -> Self {
        self.build = build.into();
        self.build.truncate(
            self.build
                .floor_char_boundary(broker_proto::limits::BUILD_BYTES_MAX),
        );
        self
    }

    /// The client that talks to whoever leads.
    pub(super) fn client(&self) -> ClientConfig {
        let config = ClientConfig::new()
            .timeout(self.timeout)
            .build(self.build.clone());
        let config = match &self.sender {
            Some(sender) => config.sender(sender.clone()),
            None => config,
        };
        config.observer(self.observe.clone())
    }

    /// For the lock file.
    pub(super) fn fencing_allowed(&self) -> bool {
        self.may_be_fenced.unwrap_or(self.role == Role::ServeAlways)
    }

    /// What can be refused before anything is touched.
    pub(super) fn check(&self) -> Result<()> {
        match self.listen {
            Listen::At(address) => self.check_address(address),
            Listen::Stored | Listen::Nowhere => Ok(()),
        }
    }

    /// Whether this process may listen there.
    pub(super) fn check_address(&self, address: SocketAddr) -> Result<()> {
        if self.insecure_no_auth || is_loopback(address.ip()) {
            return Ok(());
        }
        let text = format!(
            "{address} can be reached from other machines, and nobody would be asked who they are: listen at 127.0.0.1 or [::1], or allow it with insecure_no_auth"
        );
        Err(Error::new(ErrorKind::Usage, text))
    }
}

/// Whether only this machine reaches an address, in all its spellings.
fn is_loopback(ip: IpAddr) -> bool {
    ip.to_canonical().is_loopback()
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test may panic")]

    use super::*;

    #[test]
    fn refuses_open_bind() {
        let config = |address: &str| Config::new("x").listen(Some(address.parse().unwrap()));
        for open in [
            "0.0.0.0:1",
            "[::]:1",
            "192.168.1.2:1",
            "[::ffff:10.0.0.1]:1",
            "[fe80::1]:1",
            "8.8.8.8:1",
        ] {
            let error = config(open).check().unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Usage, "{open}");
            assert!(error.to_string().contains("insecure_no_auth"), "{error}");
            config(open).insecure_no_auth(true).check().unwrap();
        }
        for closed in [
            "127.0.0.1:1",
            "127.9.9.9:0",
            "[::1]:1",
            "[::ffff:127.0.0.1]:1",
        ] {
            config(closed).check().unwrap();
        }
        Config::new("x").listen(None).check().unwrap();
    }

    #[test]
    fn limits_are_kept() {
        assert_eq!(
            Config::new("x")
                .payload_bytes_max(u32::MAX)
                .payload_bytes_max,
            8 << 20
        );
        assert_eq!(Config::new("x").build("ü".repeat(40)).build.len(), 64);
    }
}

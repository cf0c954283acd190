//! The way to a broker: the one that was named, or whoever serves the store, which may be us.

use std::error::Error as StdError;
use std::future::Future;
use std::path::Path;
use std::time::Duration;

use broker_core::dir::DirError;
use broker_core::{Client, ClientConfig, Error, ErrorKind, Node, Role, Stall, StallKind, State};
use broker_proto::{ErrorCode, RoomName};
use tokio::sync::watch;
use tokio::time::{Instant, timeout};

use crate::config::{Config, Listen, Target};
use crate::exit::{Exit, Failure, chain};
use crate::output::say;
use crate::signals::{self, Stop};

/// How long a command means to stay.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Stay {
    /// For one request. If it serves the store meanwhile, then only at the Unix socket.
    OneShot,
    /// Until its work ends; it serves the store to others as long as nobody else does.
    Lasting,
}

/// A connected client, and the node behind it when there is one.
#[derive(Debug)]
pub(crate) struct Link {
    client: Client,
    node: Option<Node>,
}

impl Link {
    /// Connects, or leads.
    pub(crate) async fn open(config: &Config, stay: Stay) -> Result<Self, Failure> {
        match &config.target {
            Target::Server(address) => {
                let client = connect(config, address).await?;
                Ok(Self { client, node: None })
            }
            Target::Store(dir) => {
                let node = Node::join(node_config(config, dir, stay)).await?;
                node.warnings().iter().for_each(|warning| say(warning));
                if stay == Stay::Lasting {
                    tokio::spawn(signals::suspend(node.control()));
                }
                Ok(Self {
                    client: node.client(),
                    node: Some(node),
                })
            }
        }
    }

    /// The client.
    pub(crate) fn client(&self) -> &Client {
        &self.client
    }

    /// Whether this process leads the store, because nobody else did.
    pub(crate) fn is_leader(&self) -> bool {
        self.node.as_ref().is_some_and(Node::is_leader)
    }

    /// Leaves in order: nothing that was acknowledged depends on it, but the next start is quicker.
    pub(crate) async fn close(self) -> Result<(), Failure> {
        match self.node {
            Some(node) => Ok(node.shutdown().await?),
            None => Ok(self.client.shutdown().await?),
        }
    }
}

/// Connects, or leads, for one piece of work, and leaves in order.
pub(crate) async fn once<T>(
    config: &Config,
    stop: &mut Stop,
    work: impl AsyncFnOnce(&Client) -> Result<T, Failure>,
) -> Result<T, Failure> {
    let link = unless_stopped(stop, Link::open(config, Stay::OneShot)).await?;
    let done = unless_stopped(stop, work(link.client())).await;
    let closed = link.close().await;
    let value = done?;
    closed.map(|()| value)
}

fn node_config(config: &Config, dir: &Path, stay: Stay) -> broker_core::Config {
    let role = match stay {
        Stay::OneShot => Role::OneShot,
        Stay::Lasting => Role::Eligible,
    };
    let node = broker_core::Config::new(dir)
        .role(role)
        .sender(config.sender.as_str())
        .timeout(config.timeout)
        .observe(watch)
        .build(BUILD);
    match config.listen {
        Listen::Default => node,
        Listen::None => node.listen(None),
        Listen::At(address) => node.listen(address),
    }
}

/// Connects to an address, trying until the timeout.
pub(crate) async fn connect(config: &Config, address: &str) -> Result<Client, Failure> {
    let client = ClientConfig::new()
        .sender(config.sender.as_str())
        .timeout(config.timeout)
        .observe(watch)
        .build(BUILD);
    Ok(client.connect(address).await?)
}

/// Says when the broker does not answer, and when it does again.
fn watch(state: watch::Receiver<State>) {
    tokio::spawn(tell(state));
}

/// A broker that is busy, or waits for the disk, is told of after so long a time more: it may be a
/// moment, and there is nothing to be done about it.
const PERHAPS_A_MOMENT: Duration = Duration::from_secs(1);

async fn tell(mut state: watch::Receiver<State>) {
    let stalled = |state: &State| matches!(state, State::Stalled { .. });
    while let Some(report) = stall(&mut state).await {
        let began = Instant::now() - report.silent_for();
        let may_pass = !matches!(report.kind(), StallKind::Stopped | StallKind::NotAnswering);
        if may_pass {
            let passed = timeout(PERHAPS_A_MOMENT, state.wait_for(|state| !stalled(state)));
            if passed.await.is_ok() {
                continue;
            }
        }
        say(&report.to_string());
        let answers = |state: &State| state.is_connected() || matches!(state, State::Closed { .. });
        match state.wait_for(answers).await.as_deref() {
            Ok(state) if state.is_connected() => {
                let gap = began.elapsed().as_secs_f64();
                say(&format!("the broker answers again after {gap:.1} s"));
            }
            _ => return,
        }
    }
}

/// Waits for the broker to fall silent; `None` at the end of the client.
async fn stall(state: &mut watch::Receiver<State>) -> Option<Stall> {
    let told = |state: &State| matches!(state, State::Stalled { .. } | State::Closed { .. });
    match &*state.wait_for(told).await.ok()? {
        State::Stalled { report } => Some(report.clone()),
        _ => None,
    }
}

/// What this program calls itself to a broker.
const BUILD: &str = concat!("broker ", env!("CARGO_PKG_VERSION"));

/// Checks the name of a room before anything else is done. The broker's own names pass: they can be
/// read, and the broker knows which can be sent to.
pub(crate) fn room_name(name: &str) -> Result<RoomName, Failure> {
    RoomName::parse_reserved(name)
        .map_err(|error| Failure::usage(format!("'{name}' cannot be a room's name: {error}")))
}

/// Does `work` unless a signal comes first, which then is how the command ends.
pub(crate) async fn unless_stopped<T, E: Into<Failure>>(
    stop: &mut Stop,
    work: impl Future<Output = Result<T, E>>,
) -> Result<T, Failure> {
    tokio::select! {
        biased;
        exit = stop.requested() => Err(Failure::quiet(exit)),
        done = work => done.map_err(Into::into),
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Self::new(exit_of(&error), chain(&error))
    }
}

/// Which exit code an error of the library is.
fn exit_of(error: &Error) -> Exit {
    // A directory that is refused is a setting for a daemon; for a command it is no way to a broker.
    if error.source().is_some_and(|cause| cause.is::<DirError>()) {
        return Exit::Unreachable;
    }
    match error.kind() {
        ErrorKind::Absent | ErrorKind::Gap => Exit::Absent,
        ErrorKind::Usage => Exit::Usage,
        ErrorKind::Connect | ErrorKind::Disk | ErrorKind::Locked => Exit::Unreachable,
        ErrorKind::Auth | ErrorKind::TooLarge | ErrorKind::OutcomeUnknown => Exit::Refused,
        ErrorKind::Timeout => Exit::TimedOut,
        ErrorKind::Refused(code) => exit_of_code(code),
        // Messages that were promised to be kept are gone: no refusal, a failure of the broker's disk.
        ErrorKind::LostSuffix => Exit::Protocol,
        _ => Exit::Protocol,
    }
}

/// Which exit code a refusal is.
fn exit_of_code(code: ErrorCode) -> Exit {
    match code {
        ErrorCode::NO_SUCH_ROOM | ErrorCode::BAD_POSITION | ErrorCode::LOST_SUFFIX => Exit::Absent,
        ErrorCode::BAD_NAME | ErrorCode::RESERVED_NAME | ErrorCode::BAD_SETTING => Exit::Usage,
        ErrorCode::TIMED_OUT => Exit::TimedOut,
        ErrorCode::BAD_FRAME
        | ErrorCode::UNKNOWN_KIND
        | ErrorCode::UNKNOWN_EXTENSION
        | ErrorCode::UNSUPPORTED_VERSION
        | ErrorCode::UNEXPECTED_FRAME
        | ErrorCode::BAD_CHECKSUM
        | ErrorCode::INTERNAL => Exit::Protocol,
        _ => Exit::Refused,
    }
}

//! [`Line`] and [`ask`]: the other ends of the warden's socket, on tokio.

use std::io;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::process;
use std::time::Duration;

use tokio::io::Interest;
use tokio::net::UnixStream;
use tokio::time::{Instant, sleep, timeout};

use super::wire::{Descriptors, Health, Inbound, Introduction, Message};
use super::{Estate, rights};
use crate::dir::StoreDir;
use crate::net::client::connect_unix;

/// How long a leader that does not accept connections is tried.
const CONNECT_PATIENCE: Duration = Duration::from_secs(1);

/// Pause between two tries, when the leader's queue is full.
const CONNECT_PAUSE: Duration = Duration::from_millis(2);

/// What a process wants of a leader.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::net) enum Intent {
    /// To lead when the leader is gone.
    StandBy,
    /// To lead now, as a daemon.
    Claim,
}

/// What comes over a line.
#[derive(Debug)]
pub(in crate::net) enum News {
    /// The leader is gone, or wants no more of this process.
    Ended,
    /// This process leads now.
    Inherited(Estate),
    /// The leader stays, and says why.
    Refused(String),
}

/// A connection to the leader of a process that could lead next.
#[derive(Debug)]
pub(in crate::net) struct Line {
    stream: UnixStream,
    inbound: Inbound,
    feature_level: u32,
    /// Came with the message that is being received.
    descriptors: Vec<OwnedFd>,
}

impl Line {
    /// Opens a line. `build` is the name and version of this program, `feature_level` the highest one of
    /// a store that it can lead.
    ///
    /// # Errors
    /// `ConnectionRefused` or `NotFound`: nobody is there. `TimedOut`: somebody is, and does not accept
    /// connections.
    pub(in crate::net) async fn open(
        dir: &StoreDir,
        intent: Intent,
        build: &str,
        feature_level: u32,
    ) -> io::Result<Self> {
        let stream = connect(&dir.health_socket_path(), CONNECT_PATIENCE).await?;
        let who = Introduction {
            pid: process::id(),
            build: build.to_owned(),
            feature_level,
        };
        let greeting = match intent {
            Intent::StandBy => Message::StandBy(who),
            Intent::Claim => Message::Claim(who),
        };
        rights::send(&stream, &greeting.encode(), &[])?;
        Ok(Self {
            stream,
            inbound: Inbound::new(),
            feature_level,
            descriptors: Vec::new(),
        })
    }

    /// Waits for what comes next; an offer is answered with "ready" by itself. Dropping the future loses
    /// nothing.
    pub(in crate::net) async fn next(&mut self) -> News {
        loop {
            match self.receive().await {
                Ok(Message::Offer { feature_level }) => {
                    let answer = if feature_level <= self.feature_level {
                        Message::Ready
                    } else {
                        Message::Decline
                    };
                    if rights::send(&self.stream, &answer.encode(), &[]).is_err() {
                        return News::Ended;
                    }
                }
                Ok(Message::Estate(with)) => {
                    let descriptors = std::mem::take(&mut self.descriptors);
                    return estate(with, descriptors).map_or(News::Ended, News::Inherited);
                }
                Ok(Message::Refused(why)) => return News::Refused(why),
                Ok(_) | Err(_) => return News::Ended,
            }
        }
    }

    async fn receive(&mut self) -> io::Result<Message> {
        loop {
            self.stream.readable().await?;
            let (stream, inbound) = (&self.stream, &mut self.inbound);
            let received =
                stream.try_io(Interest::READABLE, || rights::recv(stream, inbound.rest()));
            match received {
                Ok((0, _)) => return Err(io::ErrorKind::UnexpectedEof.into()),
                Ok((bytes, descriptors)) => {
                    self.descriptors.extend(descriptors);
                    let message = self.inbound.came(bytes);
                    if let Some(message) = message.map_err(|_| io::ErrorKind::InvalidData)? {
                        return Ok(message);
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) => return Err(error),
            }
        }
    }
}

/// Sorts out what came; `None` when it is not what was announced.
fn estate(with: Descriptors, descriptors: Vec<OwnedFd>) -> Option<Estate> {
    if descriptors.len() != with.count() {
        return None;
    }
    let mut descriptors = descriptors.into_iter();
    let lock = descriptors.next()?;
    let mut next = |comes: bool| if comes { descriptors.next() } else { None };
    Some(Estate {
        lock,
        unix: next(with.unix),
        tcp: next(with.tcp),
    })
}

/// Asks the leader at this socket how it is. A path that is longer than the kernel takes is the
/// caller's to shorten, see [`StoreDir::health_socket_path`].
///
/// # Errors
/// `TimedOut`: it does not answer; `ConnectionRefused` or `NotFound`: nobody is there; `InvalidData`: it
/// answers something else.
pub(in crate::net) async fn ask(socket: &Path, patience: Duration) -> io::Result<Health> {
    let asked = async {
        let stream = connect(socket, patience).await?;
        rights::send(&stream, &Message::Ask.encode(), &[])?;
        let mut line = Line {
            stream,
            inbound: Inbound::new(),
            feature_level: 0,
            descriptors: Vec::new(),
        };
        match line.receive().await? {
            Message::Health(health) => Ok(health),
            _ => Err(io::ErrorKind::InvalidData.into()),
        }
    };
    let answer = timeout(patience, asked).await;
    answer.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))
}

/// Connects to a socket of this user.
async fn connect(path: &Path, patience: Duration) -> io::Result<UnixStream> {
    let until = Instant::now() + patience;
    let stream = loop {
        match connect_unix(path).await {
            // The queue of who does not accept, or of many who connect at once, is full.
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                if Instant::now() >= until {
                    return Err(io::ErrorKind::TimedOut.into());
                }
                sleep(CONNECT_PAUSE).await;
            }
            other => break other?,
        }
    };
    if stream.peer_cred()?.uid() != rustix::process::geteuid().as_raw() {
        let text = "the socket is served by another user";
        return Err(io::Error::new(io::ErrorKind::PermissionDenied, text));
    }
    Ok(stream)
}

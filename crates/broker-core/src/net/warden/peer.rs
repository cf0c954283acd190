//! [`Peer`]: one connection at the warden's socket.

use std::io::{self, Read};
use std::os::unix::net::UnixStream;
use std::time::Duration;

use super::rights;
use super::wire::{Inbound, Introduction, Message};

/// One connection.
#[derive(Debug)]
pub(super) struct Peer {
    pub(super) socket: UnixStream,
    inbound: Inbound,
    /// When it last said something, or came.
    pub(super) heard: Duration,
    /// Since it said that it stands by.
    pub(super) standing: Option<Standing>,
}

/// A process that could lead next.
#[derive(Debug)]
pub(super) struct Standing {
    pub(super) who: Introduction,
    /// It asks for the place; the others wait for it.
    pub(super) claims: bool,
}

/// What came from a peer.
#[derive(Debug)]
pub(super) enum Heard {
    /// Nothing more for now.
    Nothing,
    Message(Message),
    /// It is gone, or says what nobody understands.
    Gone,
}

impl Peer {
    pub(super) fn new(socket: UnixStream, now: Duration) -> Self {
        Self {
            socket,
            inbound: Inbound::new(),
            heard: now,
            standing: None,
        }
    }

    /// The next message that is there. Open files that a peer sends along are dropped by the kernel,
    /// because they are not asked for.
    pub(super) fn hear(&mut self) -> Heard {
        loop {
            match (&self.socket).read(self.inbound.rest()) {
                Ok(0) => return Heard::Gone,
                Ok(bytes) => match self.inbound.came(bytes) {
                    Ok(Some(message)) => return Heard::Message(message),
                    Ok(None) => {}
                    Err(_unknown) => return Heard::Gone,
                },
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Heard::Nothing,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(_lost) => return Heard::Gone,
            }
        }
    }

    /// Says something; an error means that the peer is gone, or does not take what it is sent.
    pub(super) fn say(&self, message: &Message) -> io::Result<()> {
        rights::send(&self.socket, &message.encode(), &[])
    }
}

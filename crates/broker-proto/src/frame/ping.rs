//! [`Ping`] and [`Pong`]: whether the other side is there. Either may ask, after 15 s without traffic.

use serde::{Deserialize, Serialize};

use super::head::plain_frame;

/// Either: are you there. Unanswered for 60 s, the connection is closed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ping {
    /// Comes back in the answer.
    pub nonce: u64,
}

plain_frame!(Ping);

/// Either: yes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pong {
    /// The nonce of the ping.
    pub nonce: u64,
}

plain_frame!(Pong);

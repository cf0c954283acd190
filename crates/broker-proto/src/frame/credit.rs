//! [`Credit`]: how a client admits more deliveries.

use serde::{Deserialize, Serialize};

use super::head::plain_frame;

/// Client: add to the window of a subscription.
///
/// The body of each deliver frame is taken off the window; a window above 0 admits one whole message and may go negative.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Credit {
    /// The subscription.
    pub sub: u32,
    /// Bytes to add.
    pub bytes: u32,
}

plain_frame!(Credit);

//! The alarm that a peer's past is missing: in the log for the operator, and in words for the peer.

use std::fmt::Write as _;

use broker_proto::{Epoch, SenderName, Seq};

use crate::store::{Loss, SessionId};

/// Most losses of one peer that have a line of their own in the log.
const LOGGED_MAX: usize = 8;

/// Most losses that a peer is told one by one: their names are long, and the text has 1,024 bytes.
const LISTED_MAX: usize = 3;

/// Tells the operator: acknowledged messages are gone, and nothing else would ever say so.
pub(super) fn raise_alarm(session: SessionId, sender: &SenderName, losses: &[Loss]) {
    for loss in losses.iter().take(LOGGED_MAX) {
        let have = loss.have;
        tracing::error!(
            session = session.0,
            sender = sender.as_str(),
            room = loss.room.as_str(),
            expected = %loss.expected.seq,
            expected_epoch = %loss.expected.epoch,
            have = %have.map_or(Seq::NONE, |have| have.seq),
            have_epoch = %have.map_or(Epoch::NONE, |have| have.epoch),
            "the store has lost messages that this client has seen acknowledged or delivered: {loss}"
        );
    }
    if let Some(more) = losses
        .len()
        .checked_sub(LOGGED_MAX)
        .filter(|more| *more > 0)
    {
        tracing::error!(
            session = session.0,
            sender = sender.as_str(),
            "and of {more} more rooms"
        );
    }
}

/// The losses as a text for the peer.
pub(super) fn list(losses: &[Loss]) -> String {
    let mut text = String::new();
    for (n, loss) in losses.iter().take(LISTED_MAX).enumerate() {
        let separator = if n == 0 { "" } else { "; " };
        // Writing to a string cannot fail.
        let _ = write!(text, "{separator}{loss}");
    }
    if let Some(more) = losses
        .len()
        .checked_sub(LISTED_MAX)
        .filter(|more| *more > 0)
    {
        let _ = write!(text, "; and {more} more rooms");
    }
    text
}

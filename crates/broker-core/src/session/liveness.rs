//! [`Liveness`]: when a peer is asked whether it is there, and when it is given up.
//!
//! Three rules, and no other, close a connection that has done nothing wrong (`docs/protocol.md`,
//! section 1): a ping stays unanswered, no byte of a waiting ack is taken, or the hello does not
//! come. Being slow is none of them. All times are durations since the server began, from a clock
//! that never steps.

use std::time::Duration;

/// The patience of a server, per connection.
#[derive(Debug, Clone, Copy)]
pub struct Patience {
    /// From the connection to the end of its hello, in all. Default 5 s.
    pub hello: Duration,
    /// Silence after which the peer is pinged. Default 15 s.
    pub ping_after: Duration,
    /// How long a ping may stay unanswered. Default 60 s.
    pub ping_unanswered: Duration,
    /// How long a waiting ack may stay without a byte being taken. Default 30 s.
    pub ack_untaken: Duration,
    /// How long the last bytes may take after the session has ended. Default 5 s.
    pub closing: Duration,
}

impl Default for Patience {
    fn default() -> Self {
        Self {
            hello: Duration::from_secs(broker_proto::limits::HELLO_SECS_MAX),
            ping_after: Duration::from_secs(broker_proto::limits::PING_AFTER_SECS),
            ping_unanswered: Duration::from_secs(broker_proto::limits::PING_UNANSWERED_SECS_MAX),
            ack_untaken: Duration::from_secs(30),
            closing: Duration::from_secs(5),
        }
    }
}

/// Signs of life of one peer.
#[derive(Debug)]
pub(super) struct Liveness {
    /// When something last came.
    heard: Duration,
    /// When the ping that nothing has come after was sent.
    pinged: Option<Duration>,
    /// What the pings are numbered with.
    pings: u64,
    /// Since when a waiting ack has not moved.
    ack_still: Option<Duration>,
}

/// What the clock asks for.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Due {
    /// Nothing yet.
    Nothing,
    /// Send a ping with this nonce.
    Ping(u64),
    /// Give the peer up: a ping stayed unanswered.
    Silent,
    /// Give the peer up: it takes no byte of an ack.
    AckUntaken,
}

impl Liveness {
    pub(super) fn new(now: Duration) -> Self {
        Self {
            heard: now,
            pinged: None,
            pings: 0,
            ack_still: None,
        }
    }

    /// Something came. Any frame shows that the peer lives, not only a pong.
    pub(super) fn heard(&mut self, now: Duration) {
        self.heard = now;
        self.pinged = None;
    }

    /// Nothing could be heard, because nothing was read: the silence is ours.
    pub(super) fn was_deaf(&mut self, now: Duration) {
        self.heard = now;
        self.pinged = self.pinged.map(|_| now);
    }

    /// Bytes were taken, or an ack began to wait; `ack_waits` says whether one does now.
    pub(super) fn moved(&mut self, now: Duration, ack_waits: bool) {
        self.ack_still = ack_waits.then_some(now);
    }

    /// An ack waits, perhaps behind others: the clock begins with the first.
    pub(super) fn ack_queued(&mut self, now: Duration) {
        self.ack_still.get_or_insert(now);
    }

    /// What is due now. A ping that is due counts as sent.
    pub(super) fn due(&mut self, now: Duration, patience: &Patience) -> Due {
        if self
            .ack_still
            .is_some_and(|since| now >= since + patience.ack_untaken)
        {
            return Due::AckUntaken;
        }
        match self.pinged {
            Some(at) if now >= at + patience.ping_unanswered => Due::Silent,
            None if now >= self.heard + patience.ping_after => {
                self.pinged = Some(now);
                self.pings += 1;
                Due::Ping(self.pings)
            }
            Some(_) | None => Due::Nothing,
        }
    }

    /// When [`Self::due`] is to be asked next.
    pub(super) fn deadline(&self, patience: &Patience) -> Duration {
        let peer = match self.pinged {
            Some(at) => at + patience.ping_unanswered,
            None => self.heard + patience.ping_after,
        };
        self.ack_still
            .map_or(peer, |since| peer.min(since + patience.ack_untaken))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn secs(secs: u64) -> Duration {
        Duration::from_secs(secs)
    }

    #[test]
    fn silence_is_pinged_and_then_given_up() {
        let patience = Patience::default();
        let mut liveness = Liveness::new(secs(100));
        assert_eq!(liveness.deadline(&patience), secs(115));
        assert_eq!(liveness.due(secs(114), &patience), Due::Nothing);
        assert_eq!(liveness.due(secs(115), &patience), Due::Ping(1));
        assert_eq!(liveness.deadline(&patience), secs(175));
        assert_eq!(liveness.due(secs(174), &patience), Due::Nothing);
        assert_eq!(liveness.due(secs(175), &patience), Due::Silent);
    }

    #[test]
    fn anything_heard_answers_a_ping() {
        let patience = Patience::default();
        let mut liveness = Liveness::new(secs(0));
        assert_eq!(liveness.due(secs(15), &patience), Due::Ping(1));
        liveness.heard(secs(20));
        assert_eq!(liveness.due(secs(75), &patience), Due::Ping(2));
    }

    #[test]
    fn our_own_deafness_is_not_the_peers_silence() {
        let patience = Patience::default();
        let mut liveness = Liveness::new(secs(0));
        assert_eq!(liveness.due(secs(15), &patience), Due::Ping(1));
        liveness.was_deaf(secs(70));
        assert_eq!(liveness.due(secs(75), &patience), Due::Nothing);
        assert_eq!(liveness.due(secs(130), &patience), Due::Silent);
    }

    #[test]
    fn an_ack_that_does_not_move_ends_the_patience_but_a_slow_one_does_not() {
        let patience = Patience::default();
        let mut liveness = Liveness::new(secs(0));
        liveness.ack_queued(secs(1));
        liveness.ack_queued(secs(29));
        liveness.heard(secs(29));
        assert_eq!(liveness.due(secs(30), &patience), Due::Nothing);
        liveness.moved(secs(30), true);
        liveness.heard(secs(59));
        assert_eq!(liveness.due(secs(59), &patience), Due::Nothing);
        assert_eq!(liveness.due(secs(60), &patience), Due::AckUntaken);
        liveness.moved(secs(60), false);
        assert_eq!(liveness.due(secs(61), &patience), Due::Nothing);
    }
}

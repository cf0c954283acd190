//! [`Peer`]: who is measured, in which configuration, and what its acknowledgement promises.

use std::fmt;

use serde::{Deserialize, Serialize};

/// The program behind a peer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Tool {
    Brokerd,
    Nats,
    Redis,
    Mosquitto,
    Iggy,
}

/// A broker in one configuration and one use.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Peer {
    /// `brokerd`, a future for each message.
    Ours,
    /// `brokerd`, a future for each call of many messages.
    OursBulk,
    /// JetStream, synced before the acknowledgement.
    NatsSync,
    /// The same with a stream for each room.
    NatsSyncEach,
    /// JetStream as it comes.
    Nats,
    /// Redis Streams, synced before the acknowledgement.
    RedisSync,
    /// Redis Streams, synced every second.
    Redis,
    /// NATS without JetStream.
    NatsCore,
    /// Redis Pub/Sub.
    RedisPubsub,
    /// MQTT, QoS 0.
    Mosquitto,
    /// Apache Iggy.
    Iggy,
}

/// What is left of an acknowledged message after a power cut.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Durability {
    /// It.
    Synced,
    /// Perhaps it: it was written, and is synced later.
    Later,
    /// Nothing is stored at all.
    Never,
}

impl Peer {
    /// All of them, in the order of the page.
    pub(crate) const ALL: [Self; 11] = [
        Self::Ours,
        Self::OursBulk,
        Self::NatsSync,
        Self::NatsSyncEach,
        Self::RedisSync,
        Self::Iggy,
        Self::Nats,
        Self::Redis,
        Self::NatsCore,
        Self::RedisPubsub,
        Self::Mosquitto,
    ];

    /// Its name on the command line and on the page.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Ours => "ours",
            Self::OursBulk => "ours-bulk",
            Self::NatsSync => "nats-sync",
            Self::NatsSyncEach => "nats-sync-each",
            Self::Nats => "nats",
            Self::RedisSync => "redis-sync",
            Self::Redis => "redis",
            Self::NatsCore => "nats-core",
            Self::RedisPubsub => "redis-pubsub",
            Self::Mosquitto => "mosquitto",
            Self::Iggy => "iggy",
        }
    }

    /// The peer of this name.
    pub(crate) fn parse(name: &str) -> Result<Self, String> {
        let found = Self::ALL.into_iter().find(|peer| peer.name() == name);
        found.ok_or_else(|| {
            let names = Self::ALL.map(Self::name).join(", ");
            format!("'{name}' is none of {names}")
        })
    }

    /// Whether it is this project's broker.
    pub(crate) const fn is_ours(self) -> bool {
        matches!(self, Self::Ours | Self::OursBulk)
    }

    /// The program.
    pub(crate) const fn tool(self) -> Tool {
        match self {
            Self::Ours | Self::OursBulk => Tool::Brokerd,
            Self::NatsSync | Self::NatsSyncEach | Self::Nats | Self::NatsCore => Tool::Nats,
            Self::RedisSync | Self::Redis | Self::RedisPubsub => Tool::Redis,
            Self::Mosquitto => Tool::Mosquitto,
            Self::Iggy => Tool::Iggy,
        }
    }

    /// What its acknowledgement promises.
    pub(crate) const fn durability(self) -> Durability {
        match self {
            Self::Ours
            | Self::OursBulk
            | Self::NatsSync
            | Self::NatsSyncEach
            | Self::RedisSync
            | Self::Iggy => Durability::Synced,
            Self::Nats | Self::Redis => Durability::Later,
            Self::NatsCore | Self::RedisPubsub | Self::Mosquitto => Durability::Never,
        }
    }

    /// How it is configured and used, for the page.
    pub(crate) const fn configuration(self) -> &'static str {
        match self {
            Self::Ours => {
                "defaults; through the crate's client, `Room::queue`, a future for each message"
            }
            Self::OursBulk => {
                "defaults; `Room::send_all` with half a window, two such calls in flight"
            }
            Self::NatsSync => {
                "JetStream, `sync_interval: always`, file store, R1, one stream with a subject for each room"
            }
            Self::NatsSyncEach => "the same, a stream for each room",
            Self::Nats => {
                "JetStream, default `sync_interval` (2 min), file store, R1, one stream with a subject for each room"
            }
            Self::RedisSync => {
                "Streams, `appendonly yes`, `appendfsync always`, `save \"\"`, no rewriting of the AOF"
            }
            Self::Redis => "Streams, the same with `appendfsync everysec`",
            Self::NatsCore => "without JetStream",
            Self::RedisPubsub => {
                "Pub/Sub, `save \"\"`, no AOF, no limit on the output buffers of subscribers"
            }
            Self::Mosquitto => "QoS 0, `set_tcp_nodelay true`, `max_queued_messages 10000`",
            Self::Iggy => "not measured",
        }
    }

    /// What its acknowledgement means, for the page.
    pub(crate) const fn promise(self) -> &'static str {
        match self {
            Self::Ours | Self::OursBulk => {
                "on stable storage (written and synced, one sync for all that waits), and no subscriber sees a message before"
            }
            Self::NatsSync | Self::NatsSyncEach => "written and synced, each message by itself",
            Self::Nats => "in the page cache; synced within 2 minutes",
            Self::RedisSync => {
                "written and synced, one sync for what a turn of the event loop took"
            }
            Self::Redis => "in memory and soon in the page cache; synced within a second or two",
            Self::NatsCore | Self::RedisPubsub | Self::Mosquitto => {
                "none: at most once to who listens, nothing is stored"
            }
            Self::Iggy => "",
        }
    }
}

impl fmt::Display for Peer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test may panic")]

    use super::*;

    #[test]
    fn names_go_there_and_back_and_into_files() {
        for peer in Peer::ALL {
            assert_eq!(Peer::parse(peer.name()), Ok(peer));
            let json = serde_json::to_string(&peer).unwrap();
            assert_eq!(json, format!("\"{peer}\""));
        }
        assert!(Peer::parse("redis-").unwrap_err().contains("redis-sync"));
    }
}

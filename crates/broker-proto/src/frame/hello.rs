//! The greeting: [`Hello`], answered by [`Welcome`], after any number of [`Starting`] while the broker recovers.

use bytes::BytesMut;
use serde::{Deserialize, Serialize};

use super::Kind;
use super::head::{Parts, Wire, clip, put_head, put_plain};
use super::known_head::{self, KnownHead};
use crate::decode::DecodeError;
use crate::extension::KNOWN_HEADS;
use crate::id::{ProducerId, StoreId};
use crate::limits::{BUILD_BYTES_MAX, DETAIL_BYTES_MAX};
use crate::name::{NameCache, SenderName};
use crate::seq::Term;

/// Client: who I am; the first frame, at most 4 KiB, within 5 s.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hello {
    /// Name and version of the client's program, at most 64 bytes.
    pub build: String,
    /// The identity that the broker stamps on what this connection publishes.
    pub sender: SenderName,
    /// What makes this client's publishes idempotent; 16 random bytes, kept over reconnects.
    pub producer: ProducerId,
    /// Highest feature level that the client understands.
    pub feature_level: u32,
    /// The store that the client talked to last; `NONE` when it does not care.
    pub known_store: StoreId,
    /// Random bytes, for a later authentication.
    pub nonce: [u8; 16],
    /// Newest places that the client knows to be stored, of the rooms it used last, the last first: at most 64, and of 3,584
    /// bytes together. What does not fit is not sent. A broker whose store does not reach so far says so and does not welcome.
    pub known_heads: Vec<KnownHead>,
}

#[derive(Serialize, Deserialize)]
struct HelloHeader<'a> {
    build: &'a str,
    sender: &'a str,
    producer: ProducerId,
    feature_level: u32,
    known_store: StoreId,
    nonce: [u8; 16],
}

impl Wire for Hello {
    const KIND: Kind = Kind::Hello;

    fn put(&self, out: &mut BytesMut) {
        let header = HelloHeader {
            build: clip(&self.build, BUILD_BYTES_MAX),
            sender: &self.sender,
            producer: self.producer,
            feature_level: self.feature_level,
            known_store: self.known_store,
            nonce: self.nonce,
        };
        let heads = known_head::encode(&self.known_heads);
        // Not critical: a broker that does not know it serves all the same.
        let heads = (!heads.is_empty()).then_some((KNOWN_HEADS, heads.as_slice()));
        put_head(out, Self::KIND, &header, heads, 0);
    }

    fn take(parts: Parts, _: &mut NameCache) -> Result<Self, DecodeError> {
        parts.no_body()?;
        let (header, list): (HelloHeader<'_>, _) = parts.header()?;
        let heads = parts
            .extensions(list, &[KNOWN_HEADS])?
            .find(|entry| entry.key == KNOWN_HEADS);
        let known_heads = match heads {
            Some(entry) => known_head::decode(&parts, entry.value)?,
            None => Vec::new(),
        };
        Ok(Self {
            build: parts.text(header.build, BUILD_BYTES_MAX)?,
            sender: SenderName::parse(header.sender).map_err(|cause| parts.name_error(cause))?,
            producer: header.producer,
            feature_level: header.feature_level,
            known_store: header.known_store,
            nonce: header.nonce,
            known_heads,
        })
    }
}

/// Broker: who I am, and the limits of this connection.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Welcome {
    /// The store that is served.
    pub store: StoreId,
    /// The leader's term; a client never goes back to a lower one.
    pub term: Term,
    /// Name and version of the broker's program, at most 64 bytes.
    pub build: String,
    /// Feature level of the store.
    pub feature_level: u32,
    /// Largest payload, in bytes.
    pub payload_bytes_max: u32,
    /// Most publish numbers that may be unacknowledged.
    pub unacked_max: u32,
    /// Largest window of a subscription, in bytes.
    pub window_bytes_max: u32,
    /// Seconds for which a silent producer is remembered; publishes first sent before that are not resent.
    pub producer_window_secs: u32,
    /// Process id of the broker.
    pub pid: u32,
    /// How the client must prove who it is; 0 = not at all.
    pub auth: u8,
    /// Random bytes, for a later authentication.
    pub nonce: [u8; 16],
    /// The broker's number of this connection, for logs.
    pub connection: u64,
}

#[derive(Serialize, Deserialize)]
struct WelcomeHeader<'a> {
    store: StoreId,
    term: Term,
    build: &'a str,
    feature_level: u32,
    payload_bytes_max: u32,
    unacked_max: u32,
    window_bytes_max: u32,
    producer_window_secs: u32,
    pid: u32,
    auth: u8,
    nonce: [u8; 16],
    connection: u64,
}

impl Wire for Welcome {
    const KIND: Kind = Kind::Welcome;

    fn put(&self, out: &mut BytesMut) {
        let header = WelcomeHeader {
            store: self.store,
            term: self.term,
            build: clip(&self.build, BUILD_BYTES_MAX),
            feature_level: self.feature_level,
            payload_bytes_max: self.payload_bytes_max,
            unacked_max: self.unacked_max,
            window_bytes_max: self.window_bytes_max,
            producer_window_secs: self.producer_window_secs,
            pid: self.pid,
            auth: self.auth,
            nonce: self.nonce,
            connection: self.connection,
        };
        put_plain(out, Self::KIND, &header);
    }

    fn take(parts: Parts, _: &mut NameCache) -> Result<Self, DecodeError> {
        let header: WelcomeHeader<'_> = parts.only_header()?;
        Ok(Self {
            store: header.store,
            term: header.term,
            build: parts.text(header.build, BUILD_BYTES_MAX)?,
            feature_level: header.feature_level,
            payload_bytes_max: header.payload_bytes_max,
            unacked_max: header.unacked_max,
            window_bytes_max: header.window_bytes_max,
            producer_window_secs: header.producer_window_secs,
            pid: header.pid,
            auth: header.auth,
            nonce: header.nonce,
            connection: header.connection,
        })
    }
}

/// Broker: still recovering; sent at once and then as it goes on. The client waits, it may go on waiting for long.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Starting {
    /// How much is done, in the unit of `total`.
    pub done: u64,
    /// How much there is; 0 when not known.
    pub total: u64,
    /// What is being done, for people, at most 1,024 bytes.
    pub what: String,
}

#[derive(Serialize, Deserialize)]
struct StartingHeader<'a> {
    done: u64,
    total: u64,
    what: &'a str,
}

impl Wire for Starting {
    const KIND: Kind = Kind::Starting;

    fn put(&self, out: &mut BytesMut) {
        let what = clip(&self.what, DETAIL_BYTES_MAX);
        put_plain(
            out,
            Self::KIND,
            &StartingHeader {
                done: self.done,
                total: self.total,
                what,
            },
        );
    }

    fn take(parts: Parts, _: &mut NameCache) -> Result<Self, DecodeError> {
        let header: StartingHeader<'_> = parts.only_header()?;
        let what = parts.text(header.what, DETAIL_BYTES_MAX)?;
        Ok(Self {
            done: header.done,
            total: header.total,
            what,
        })
    }
}

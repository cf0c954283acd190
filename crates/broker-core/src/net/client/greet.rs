//! The greeting: a stream is opened, hello is said, and the welcome judged.

use std::io;
use std::time::Duration;

use broker_proto::limits::{FRAME_BYTES_MAX, PROTOCOL_VERSION};
use broker_proto::{
    Decoder, ErrorCode, Frame, Hello, KnownHeads, ProducerId, StoreId, Term, Welcome,
};
use bytes::BytesMut;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::Instant;

use super::connector::{BoxStream, Connector};
use super::error::{Error, ErrorKind, Result};
use super::shared::Shared;
use super::stall::patiently;
use super::state::ServerInfo;

/// Highest feature level that this client understands.
const FEATURE_LEVEL: u32 = 1;
/// Bytes that the read buffer has room for.
const READ_BYTES: usize = 64 << 10;

/// A stream over which a broker has welcomed the client.
pub(super) struct Greeted {
    pub(super) stream: BoxStream,
    pub(super) decoder: Decoder,
    /// What came after the welcome.
    pub(super) read: BytesMut,
    pub(super) server: ServerInfo,
}

/// What is known of the broker from before.
#[derive(Debug, Clone, Copy)]
pub(super) struct Known {
    pub(super) store: StoreId,
    pub(super) term: Term,
}

/// Opens a stream and greets. Each step, and each sign of life from a broker that is still starting, may take `patience`.
pub(super) async fn greet(
    shared: &Shared,
    connector: &Connector,
    producer: ProducerId,
    known: Known,
    patience: Duration,
) -> Result<Greeted> {
    let address = &shared.address;
    let silent = || {
        let text = format!("{address} does not answer: is a broker running there?");
        let error = Error::new(ErrorKind::Connect, text).retryable();
        match shared.stall() {
            Some(stall) => error.with_source(stall),
            None => error,
        }
    };
    let mut stream = patiently(shared, patience, connector.connect())
        .await
        .ok_or_else(silent)?
        .map_err(|error| {
            note_failure(shared, &error);
            Error::new(
                ErrorKind::Connect,
                format!("cannot connect to {address}: is a broker running there?"),
            )
            .with_source(error)
            .retryable()
        })?;
    let lost = |error| {
        shared.silences.gone();
        Error::new(
            ErrorKind::Connect,
            format!("{address} ended the connection instead of answering"),
        )
        .with_source(error)
        .retryable()
    };
    let hello = hello(shared, producer, known);
    patiently(shared, patience, stream.write_all(&hello))
        .await
        .ok_or_else(silent)?
        .map_err(lost)?;
    let mut decoder = Decoder::new();
    let mut read = BytesMut::with_capacity(READ_BYTES);
    loop {
        if let Some(frame) = next_frame(shared, &mut decoder, &mut read)? {
            if let Some(welcome) = judge(shared, frame)? {
                let server = check(address, welcome, known)?;
                return Ok(Greeted {
                    stream,
                    decoder,
                    read,
                    server,
                });
            }
            continue;
        }
        let bytes = patiently(shared, patience, stream.read_buf(&mut read))
            .await
            .ok_or_else(silent)?
            .map_err(lost)?;
        if bytes == 0 {
            return Err(lost(io::ErrorKind::UnexpectedEof.into()));
        }
        shared.silences.ended();
    }
}

/// A broker that refuses connections is gone, or ends; one whose queue is full does not accept them.
fn note_failure(shared: &Shared, error: &io::Error) {
    if error.kind() == io::ErrorKind::WouldBlock {
        shared.silences.began(Instant::now());
    } else {
        shared.silences.gone();
    }
}

fn hello(shared: &Shared, producer: ProducerId, known: Known) -> BytesMut {
    let mut bytes = BytesMut::new();
    let heads = shared.core().known_heads().into();
    let known_heads = KnownHeads {
        term: known.term,
        heads,
    };
    let hello = Hello {
        build: shared.config.build_name().to_owned(),
        sender: shared.sender.clone(),
        producer,
        feature_level: FEATURE_LEVEL,
        known_store: known.store,
        nonce: shared.config.bytes_16(),
        known_heads,
    };
    hello.encode(&mut bytes);
    bytes
}

fn next_frame(
    shared: &Shared,
    decoder: &mut Decoder,
    read: &mut BytesMut,
) -> Result<Option<Frame>> {
    decoder.decode(read, FRAME_BYTES_MAX).map_err(|error| {
        let text = format!(
            "what answers at {} is no broker that this client understands",
            shared.address
        );
        Error::protocol(text).with_source(error)
    })
}

/// The welcome, when the frame is one; `None` when the broker is still starting.
fn judge(shared: &Shared, frame: Frame) -> Result<Option<Welcome>> {
    let address = &shared.address;
    match frame {
        Frame::Welcome(welcome) => Ok(Some(welcome)),
        Frame::Starting(starting) => {
            tracing::debug!(
                address,
                what = starting.what,
                done = starting.done,
                total = starting.total,
                "starting"
            );
            let now = Instant::now();
            let mut core = shared.core();
            core.sends_moved(now);
            core.requests_moved(now);
            Ok(None)
        }
        Frame::Error(error) if error.code == ErrorCode::LOST_SUFFIX => {
            Err(Error::lost_suffix(address, &error.detail))
        }
        Frame::Error(error) => {
            let what = format!("connecting to {address} with protocol {PROTOCOL_VERSION}");
            Err(Error::refused(
                what,
                error.code,
                &error.detail,
                error.retry_after_ms,
            ))
        }
        Frame::Goodbye(goodbye) => Err(Error::refused(
            format!("connecting to {address}"),
            goodbye.code,
            "",
            goodbye.retry_after_ms,
        )),
        other => Err(Error::protocol(format!(
            "{address} answers the hello with {}",
            other.kind()
        ))),
    }
}

/// Whether the broker is the right one.
fn check(address: &str, welcome: Welcome, known: Known) -> Result<ServerInfo> {
    if welcome.store.is_none() {
        return Err(Error::protocol(format!("{address} serves no store")));
    }
    if !known.store.is_none() && welcome.store != known.store {
        let text = format!(
            "{address} serves store {} now, it was store {}: what was sent may not be there, make a new client to use it all the same",
            welcome.store, known.store
        );
        return Err(Error::new(ErrorKind::OtherStore, text));
    }
    if welcome.term < known.term {
        let text = format!(
            "{address} answers as the leader of term {}, which term {} has replaced",
            welcome.term, known.term
        );
        return Err(Error::new(ErrorKind::Connect, text).retryable());
    }
    if welcome.auth != 0 {
        let text = format!(
            "{address} asks for a proof of identity ({}) that this client cannot give",
            welcome.auth
        );
        return Err(Error::new(ErrorKind::Auth, text));
    }
    Ok(welcome.into())
}

//! Preparing a peer for its load, and asking it afterwards how much it has stored. Not measured, so it may block.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use serde_json::{Value, json};

use super::{Stage, ours, room_name, runtime};
use crate::codec::{nats, resp};
use crate::peer::Peer;

/// How long one question may take.
const ANSWER_MAX: Duration = Duration::from_secs(60);

/// The stream of all rooms.
const STREAM: &str = "rooms";

/// Makes what has to be there before messages are sent.
pub(crate) fn prepare(stage: &Stage, rooms: usize) -> Result<()> {
    let streams = streams(stage.peer, rooms);
    if streams.is_empty() {
        return Ok(());
    }
    let mut control = Nats::connect(stage.address)?;
    for (stream, subject) in streams {
        let config = json!({
            "name": stream, "subjects": [subject], "storage": "file", "num_replicas": 1,
            "retention": "limits", "discard": "old",
        });
        control.ask(&format!("$JS.API.STREAM.CREATE.{stream}"), &config)?;
    }
    Ok(())
}

/// Name and subject of each stream of a peer that has streams.
fn streams(peer: Peer, rooms: usize) -> Vec<(String, String)> {
    match peer {
        Peer::NatsSyncEach => (0..rooms)
            .map(|number| (format!("{STREAM}-{number}"), room_name(number)))
            .collect(),
        Peer::NatsSync | Peer::Nats => {
            // The rooms' names have no dots, so each is a subject of one word.
            vec![(STREAM.to_owned(), "*".to_owned())]
        }
        _ => Vec::new(),
    }
}

/// How many messages all rooms have stored.
pub(crate) fn stored(stage: &Stage, rooms: usize) -> Result<u64> {
    match stage.peer {
        Peer::Ours | Peer::OursBulk => runtime(1)?.block_on(async {
            let client = ours::connect(stage.address).await?;
            let mut sum = 0;
            for number in 0..rooms {
                sum += ours::stored(&client, number).await?;
            }
            client.shutdown().await?;
            Ok(sum)
        }),
        Peer::NatsSync | Peer::NatsSyncEach | Peer::Nats => {
            let mut control = Nats::connect(stage.address)?;
            let mut sum = 0;
            for (stream, _) in streams(stage.peer, rooms) {
                let info = control.ask(&format!("$JS.API.STREAM.INFO.{stream}"), &Value::Null)?;
                let messages = info.pointer("/state/messages").and_then(Value::as_u64);
                sum += messages.context("JetStream does not say what it has stored")?;
            }
            Ok(sum)
        }
        Peer::RedisSync | Peer::Redis => {
            let mut stream = connect(stage.address)?;
            let mut sum = 0;
            for number in 0..rooms {
                sum += stream_length(&mut stream, &room_name(number))?;
            }
            Ok(sum)
        }
        other => bail!("{other} stores nothing"),
    }
}

/// How many messages all rooms of our broker have stored, as it lists them.
pub(crate) fn stored_in_all(address: SocketAddr) -> Result<u64> {
    runtime(1)?.block_on(async {
        let client = ours::connect(address).await?;
        let mut sum = 0;
        let mut after = String::new();
        loop {
            let page = client.rooms(&after, usize::MAX).await?;
            sum += page.rooms.iter().map(|room| room.head.get()).sum::<u64>();
            match page.rooms.last() {
                Some(last) if page.more => after = last.name.to_string(),
                _ => break,
            }
        }
        client.shutdown().await?;
        Ok(sum)
    })
}

/// How many connections our broker has, this question's own among them.
pub(crate) fn connections(address: SocketAddr) -> Result<u64> {
    runtime(1)?.block_on(async {
        let client = ours::connect(address).await?;
        let status: Value = serde_json::from_str(&client.status().await?)?;
        client.shutdown().await?;
        let connections = status.get("connections").and_then(Value::as_u64);
        connections.context("the status does not count connections")
    })
}

/// Makes a consumer of the stream of all rooms that wants no acknowledgements, and tells where to ask for messages.
pub(crate) fn consumer(stage: &Stage) -> Result<String> {
    let mut control = Nats::connect(stage.address)?;
    let request = json!({
        "stream_name": STREAM,
        "config": {
            "deliver_policy": "all", "ack_policy": "none", "replay_policy": "instant",
            "mem_storage": true, "num_replicas": 1, "inactive_threshold": 300_000_000_000_u64,
        },
    });
    let answer = control.ask(&format!("$JS.API.CONSUMER.CREATE.{STREAM}"), &request)?;
    let name = answer.get("name").and_then(Value::as_str);
    let name = name.context("JetStream does not name its consumer")?;
    Ok(format!("$JS.API.CONSUMER.MSG.NEXT.{STREAM}.{name}"))
}

fn connect(address: SocketAddr) -> Result<TcpStream> {
    let stream = TcpStream::connect(address)?;
    stream.set_read_timeout(Some(ANSWER_MAX))?;
    Ok(stream)
}

fn stream_length(stream: &mut TcpStream, key: &str) -> Result<u64> {
    stream.write_all(&resp::command(&[b"XLEN", key.as_bytes()]))?;
    let mut input = Vec::new();
    loop {
        match resp::token(&input)? {
            Some((resp::Token::Number(digits), _)) => {
                return Ok(std::str::from_utf8(digits)?.parse()?);
            }
            Some((other, _)) => bail!("{other:?} is no length"),
            None => read_more(stream, &mut input)?,
        }
    }
}

fn read_more(stream: &mut TcpStream, input: &mut Vec<u8>) -> Result<()> {
    let mut bytes = [0; 4096];
    let read = stream.read(&mut bytes)?;
    if read == 0 {
        bail!("the server closed the connection");
    }
    input.extend_from_slice(bytes.get(..read).unwrap_or_default());
    Ok(())
}

/// A connection for JetStream's questions.
struct Nats {
    stream: TcpStream,
    input: Vec<u8>,
}

impl Nats {
    fn connect(address: SocketAddr) -> Result<Self> {
        let mut stream = connect(address)?;
        stream.write_all(nats::CONNECT.as_bytes())?;
        stream.write_all(b"SUB _INBOX.control 1\r\n")?;
        Ok(Self {
            stream,
            input: Vec::new(),
        })
    }

    fn ask(&mut self, subject: &str, body: &Value) -> Result<Value> {
        let body = if body.is_null() {
            String::new()
        } else {
            body.to_string()
        };
        let request = format!("PUB {subject} _INBOX.control {}\r\n{body}\r\n", body.len());
        self.stream.write_all(request.as_bytes())?;
        let answer = self.answer()?;
        if let Some(error) = answer.get("error") {
            bail!("{subject}: {error}");
        }
        Ok(answer)
    }

    fn answer(&mut self) -> Result<Value> {
        loop {
            let (answer, len) = match nats::op(&self.input)? {
                None => {
                    read_more(&mut self.stream, &mut self.input)?;
                    continue;
                }
                Some((nats::Op::Message(message), _)) if !message.headers.is_empty() => {
                    bail!("JetStream is not there")
                }
                Some((nats::Op::Message(message), len)) => {
                    (Some(serde_json::from_slice(message.payload)?), len)
                }
                Some((nats::Op::Ping, len)) => {
                    self.stream.write_all(b"PONG\r\n")?;
                    (None, len)
                }
                Some((_, len)) => (None, len),
            };
            self.input.drain(..len);
            if let Some(answer) = answer {
                return Ok(answer);
            }
        }
    }
}

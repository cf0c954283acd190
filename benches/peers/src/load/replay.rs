//! Reading a room of many messages from its start. It is filled first, and read once before it is measured: warm.

use anyhow::{Result, bail};
use broker_core::StartAt;

use super::connection::Connection;
use super::publish::Plan;
use super::{Outcome, Phase, Stage, control, ours, room_name, runtime};
use crate::codec::{Event, nats, resp};
use crate::peer::Peer;

/// Entries of one page of Redis, and messages of one request to JetStream, of which two are under way.
const PAGE: &str = "1000";
const REQUEST: u64 = 2000;

/// How the room is filled: fast with every peer.
const FILL: (usize, usize) = (16, 64);

/// Measures a peer.
pub(crate) fn run(stage: &Stage, count: u64, size: usize) -> Result<Outcome> {
    control::prepare(stage, 1)?;
    let fill = Plan {
        publishers: FILL.0,
        rooms: 1,
        window: FILL.1,
        size,
        count,
    };
    runtime(stage.threads)?.block_on(fill.run(stage, &Phase::default(), None))?;
    let stored = control::stored(stage, 1)?;
    if stored != count {
        bail!("{count} messages were acknowledged and {stored} are stored");
    }
    let mut spent = None;
    for _ in 0..2 {
        let before = stage.gauge.read()?;
        runtime(1)?.block_on(replay(stage, count, size))?;
        spent = Some(before.until(&stage.gauge.read()?));
    }
    let Some(spent) = spent else {
        bail!("nothing was read");
    };
    Ok(Outcome {
        count,
        spent,
        latencies: None,
        verified: format!("{count} read = {stored} stored"),
    })
}

async fn replay(stage: &Stage, count: u64, size: usize) -> Result<()> {
    match stage.peer {
        Peer::Ours => {
            let messages = ours::subscribe(stage.address, 0, StartAt::START).await?;
            ours::replay(messages, count, size).await
        }
        Peer::NatsSync | Peer::Nats => pull(stage, count, size).await,
        Peer::RedisSync | Peer::Redis => pages(stage, count, size).await,
        other => bail!("{other} stores nothing"),
    }
}

/// Counts messages of the right size.
fn take(read: &mut u64, payload: &[u8], size: usize) -> Result<()> {
    if payload.len() != size {
        bail!("a message of {} bytes came", payload.len());
    }
    *read += 1;
    Ok(())
}

/// JetStream: a pull consumer, with the next request on its way before the last one is used up.
async fn pull(stage: &Stage, count: u64, size: usize) -> Result<()> {
    let next = control::consumer(stage)?;
    let greeting = format!("{}SUB _INBOX.pull 1\r\n", nats::CONNECT);
    let decoder = Box::new(nats::Pulled);
    let mut connection = Connection::open(stage.address, decoder, greeting.as_bytes(), 0).await?;
    let body = format!("{{\"batch\":{REQUEST}}}");
    let request = format!("PUB {next} _INBOX.pull {}\r\n{body}\r\n", body.len());
    let (mut read, mut asked) = (0, 0);
    while read < count {
        while asked < count && asked < read + 2 * REQUEST {
            connection.out.extend_from_slice(request.as_bytes());
            asked += REQUEST;
        }
        connection.exchange().await?;
        connection.events(|event| match event {
            Event::Message(payload) => take(&mut read, payload, size),
            _ => Ok(()),
        })?;
    }
    Ok(())
}

/// Redis: page after page, since each begins after the last id of the one before.
async fn pages(stage: &Stage, count: u64, size: usize) -> Result<()> {
    let room = room_name(0);
    let decoder = Box::new(resp::Entries::default());
    let last_id = decoder.last_id();
    let mut connection = Connection::open(stage.address, decoder, &[], 0).await?;
    let (mut read, mut asks) = (0, true);
    while read < count {
        if asks {
            let start = last_id.next_start();
            let words: [&[u8]; 6] = [
                b"XRANGE",
                room.as_bytes(),
                &start,
                b"+",
                b"COUNT",
                PAGE.as_bytes(),
            ];
            connection.out.extend_from_slice(&resp::command(&words));
            asks = false;
        }
        connection.exchange().await?;
        connection.events(|event| {
            match event {
                Event::Message(payload) => take(&mut read, payload, size)?,
                Event::Ack(_) => asks = true,
                _ => {}
            }
            Ok(())
        })?;
    }
    Ok(())
}

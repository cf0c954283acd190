//! `broker cursor`: the named positions of a room's readers.

use broker_core::{Client, CursorState, Room, RoomState, StartAt};
use broker_proto::limits::CURSOR_LIST_MAX;
use broker_proto::{CursorName, Position, RoomName, Seq};

use super::room::place;
use crate::args::{CursorCommand, CursorGetArgs, CursorListArgs, CursorRmArgs, CursorSetArgs};
use crate::config::Config;
use crate::connect::{once, room_name};
use crate::exit::{Exit, Failure};
use crate::output::{self, Stdout, Text, put};
use crate::signals::Stop;
use crate::{escape, start, time, units};

/// Runs the command.
pub(crate) async fn run(
    config: &Config,
    command: CursorCommand,
    stop: Stop,
) -> Result<(), Failure> {
    match command {
        CursorCommand::List(args) => list(config, args, stop).await,
        CursorCommand::Get(args) => get(config, args, stop).await,
        CursorCommand::Set(args) => set(config, args, stop).await,
        CursorCommand::Rm(args) => remove(config, args, stop).await,
    }
}

fn cursor_name(name: &str) -> Result<CursorName, Failure> {
    CursorName::parse(name)
        .map_err(|error| Failure::usage(format!("'{name}' cannot be a cursor's name: {error}")))
}

/// Where `--if-at` says that the cursor stands; the inner `None`: nowhere.
fn if_at(text: Option<&str>) -> Result<Option<Option<Seq>>, Failure> {
    match text {
        None => Ok(None),
        Some("none") => Ok(Some(None)),
        Some(text) => match units::number(text) {
            Some(seq) if seq > 0 => Ok(Some(Some(Seq::new(seq)))),
            _ => Err(Failure::usage(format!(
                "--if-at takes a seq from 1, or none, not '{text}'"
            ))),
        },
    }
}

/// Page after page, so that any number of cursors needs little memory.
async fn list(config: &Config, args: CursorListArgs, mut stop: Stop) -> Result<(), Failure> {
    let room = room_name(&args.room)?;
    let mut out = output::stdout();
    let listed = once(config, &mut stop, async |client| {
        pages(&client.room_named(room), args.json, &mut out).await
    })
    .await;
    let flushed = out.flush().map_err(Failure::from);
    listed.and(flushed)
}

async fn pages(room: &Room, json: bool, out: &mut Stdout) -> Result<(), Failure> {
    let state = room.info().await?;
    let mut after = String::new();
    loop {
        let page = room.cursors(&after, CURSOR_LIST_MAX).await?;
        for cursor in &page.cursors {
            write(cursor, &state, json, out.buffer());
            out.settle()?;
        }
        match page.cursors.last() {
            Some(last) if page.more => after.clone_from(&last.name),
            _ => return Ok(()),
        }
    }
}

/// How many of the messages that are kept the cursor has before it.
fn behind(cursor: &CursorState, room: &RoomState) -> Option<u64> {
    let next = cursor.position.seq.max(room.info.first).get();
    let is_here = cursor.position.epoch == room.info.epoch;
    is_here.then(|| (room.info.head.get() + 1).saturating_sub(next))
}

/// Scripts rely on both forms: add, never change.
fn write(cursor: &CursorState, room: &RoomState, json: bool, out: &mut Vec<u8>) {
    let Position { epoch, seq } = cursor.position;
    let behind = behind(cursor, room);
    let moved = cursor.moved.get();
    if json {
        object(&room.info.name, &cursor.name, cursor.position, out);
        match behind {
            Some(behind) => put(out, format_args!(",\"behind\":{behind},\"moved\":\"")),
            None => out.extend_from_slice(b",\"behind\":null,\"moved\":\""),
        }
        // Writing to memory cannot fail.
        let _ = time::write_exact(moved, &mut Text(out));
        out.extend_from_slice(b"\"}\n");
    } else {
        escape::for_field(cursor.name.as_bytes(), out);
        match behind {
            Some(behind) => put(out, format_args!("\t{seq}\t{behind}\t{epoch}\t")),
            None => put(out, format_args!("\t{seq}\t-\t{epoch}\t")),
        }
        // Writing to memory cannot fail.
        let _ = time::write_exact(moved, &mut Text(out));
        out.push(b'\n');
    }
}

/// The object of a cursor, without its end.
fn object(room: &RoomName, name: &str, at: Position, out: &mut Vec<u8>) {
    out.extend_from_slice(b"{\"room\":");
    escape::for_json(room, out);
    out.extend_from_slice(b",\"cursor\":");
    escape::for_json(name, out);
    put(
        out,
        format_args!(",\"epoch\":{},\"seq\":{}", at.epoch, at.seq),
    );
}

fn print(room: &RoomName, name: &CursorName, at: Position, json: bool) -> Result<(), Failure> {
    let mut out = output::stdout();
    if json {
        object(room, name, at, out.buffer());
        out.buffer().extend_from_slice(b"}\n");
    } else {
        put(out.buffer(), format_args!("{}\n", at.seq));
    }
    Ok(out.flush()?)
}

async fn get(config: &Config, args: CursorGetArgs, mut stop: Stop) -> Result<(), Failure> {
    let (room, name) = (room_name(&args.room)?, cursor_name(&args.name)?);
    once(config, &mut stop, async |client| {
        let at = find(client, &room, &name).await?;
        print(&room, &name, at, args.json)
    })
    .await
}

/// Where a cursor stands, which must be there.
async fn find(client: &Client, room: &RoomName, name: &CursorName) -> Result<Position, Failure> {
    let cursor = client.room_named(room.clone()).cursor(name)?;
    cursor.get().await?.ok_or_else(|| {
        Failure::new(
            Exit::Absent,
            format!(
                "room {room} has no cursor {name} (broker cursor list {room} shows those that it has)"
            ),
        )
    })
}

async fn set(config: &Config, args: CursorSetArgs, mut stop: Stop) -> Result<(), Failure> {
    let (room, name) = (room_name(&args.room)?, cursor_name(&args.name)?);
    let start = start::parse("WHERE", &args.to, time::now())?;
    let if_at = if_at(args.if_at.as_deref())?;
    once(config, &mut stop, async |client| {
        let handle = client.room_named(room.clone());
        let cursor = handle.cursor(&name)?;
        let to = place(&handle, start).await?;
        match if_at {
            None if args.relaxed => cursor.set_relaxed(to).await?,
            None => cursor.set(to).await?,
            Some(expected) => {
                let expected = expected.map(|seq| Position::new(to.epoch, seq));
                cursor.compare_and_set(expected, to).await?;
            }
        }
        if args.json {
            print(&room, &name, to, true)
        } else {
            Ok(())
        }
    })
    .await
}

async fn remove(config: &Config, args: CursorRmArgs, mut stop: Stop) -> Result<(), Failure> {
    let (room, name) = (room_name(&args.room)?, cursor_name(&args.name)?);
    let if_at = if_at(args.if_at.as_deref())?;
    once(config, &mut stop, async |client| {
        let handle = client.room_named(room.clone());
        let cursor = handle.cursor(&name)?;
        match if_at {
            None => {
                find(client, &room, &name).await?;
                Ok(cursor.delete().await?)
            }
            Some(expected) => {
                let epoch = place(&handle, StartAt::START).await?.epoch;
                let expected = expected.map(|seq| Position::new(epoch, seq));
                Ok(cursor.compare_and_delete(expected).await?)
            }
        }
    })
    .await
}

//! `broker room`: one room, what is known and set of it, its oldest messages, its end.

use std::io::{self, IsTerminal};

use broker_core::{Room, RoomState, StartAt};
use broker_proto::{Position, RoomName, Seq};

use crate::args::{RoomCommand, RoomRmArgs, RoomSetArgs, RoomTrimArgs};
use crate::config::Config;
use crate::connect::{once, room_name};
use crate::exit::{Exit, Failure};
use crate::facts::{put_json, put_lines};
use crate::output::{self, Text, say};
use crate::settings::{room_change, room_facts};
use crate::signals::Stop;
use crate::{start, time, units};

/// Runs the command.
pub(crate) async fn run(
    config: &Config,
    command: RoomCommand,
    mut stop: Stop,
) -> Result<(), Failure> {
    match command {
        RoomCommand::Info(args) => {
            let room = room_name(&args.room)?;
            once(config, &mut stop, async |client| {
                print(&client.room_named(room).info().await?, args.json)
            })
            .await
        }
        RoomCommand::Set(args) => set(config, *args, stop).await,
        RoomCommand::Trim(args) => trim(config, args, stop).await,
        RoomCommand::Rm(args) => remove(config, args, stop).await,
    }
}

fn print(room: &RoomState, json: bool) -> Result<(), Failure> {
    let mut out = output::stdout();
    let facts = room_facts(room);
    if json {
        put_json(&facts, out.buffer());
    } else {
        put_lines(&facts, out.buffer());
    }
    Ok(out.flush()?)
}

/// Prints how the room is, after it was changed, to who wants to know.
fn report(room: &RoomState, json: bool) -> Result<(), Failure> {
    if json { print(room, true) } else { Ok(()) }
}

async fn set(config: &Config, args: RoomSetArgs, mut stop: Stop) -> Result<(), Failure> {
    let room = room_name(&args.room)?;
    let change = room_change(&args)?;
    once(config, &mut stop, async |client| {
        let room = client.room_named(room);
        let state = room.change(&change, args.keep.if_version).await?;
        report(&state, args.json)
    })
    .await
}

async fn trim(config: &Config, args: RoomTrimArgs, mut stop: Stop) -> Result<(), Failure> {
    let room = room_name(&args.room)?;
    let seq = units::number(&args.before).filter(|seq| *seq > 0);
    let start = start::parse("--before", &args.before, time::now())?;
    once(config, &mut stop, async |client| {
        let room = client.room_named(room);
        let state = match seq {
            Some(seq) => room.trim(Seq::new(seq)).await?,
            None => {
                let place = place(&room, start).await?;
                room.trim_if(place.epoch, place.seq).await?
            }
        };
        if config.verbose > 0 {
            let (count, name) = (state.messages(), &state.info.name);
            say(&format!("{name} has {count} messages now"));
        }
        report(&state, args.json)
    })
    .await
}

/// Where in the room something begins, by its figures.
pub(super) async fn place(room: &Room, start: StartAt) -> Result<Position, Failure> {
    Ok(room.read(start, 0, 0).await?.next_position())
}

async fn remove(config: &Config, args: RoomRmArgs, mut stop: Stop) -> Result<(), Failure> {
    let room = room_name(&args.room)?;
    if !args.yes && !io::stdin().is_terminal() {
        return Err(Failure::usage(format!(
            "standard input is no terminal, so nobody can be asked whether room {room} shall go with all its messages: give --yes"
        )));
    }
    once(config, &mut stop, async |client| {
        let room = client.room_named(room);
        let state = if args.yes {
            room.remove().await?
        } else {
            let state = room.info().await?;
            ask(&state).await?;
            // Not one that was made anew meanwhile.
            room.remove_if(state.info.epoch).await?
        };
        report(&state, args.json)
    })
    .await
}

/// Has the room's name typed, on another thread, so that a signal is heard meanwhile.
async fn ask(room: &RoomState) -> Result<(), Failure> {
    let name = &room.info.name;
    let mut bytes = Vec::new();
    units::write_bytes(room.bytes, &mut bytes);
    let bytes = String::from_utf8_lossy(&bytes);
    let mut last = Vec::new();
    // Writing to memory cannot fail.
    let _ = time::write_short(room.info.last_time.get(), &mut Text(&mut last));
    say(&format!(
        "room {name} has {} messages ({bytes} bytes), the last of {}; they will be gone for good",
        room.messages(),
        String::from_utf8_lossy(&last)
    ));
    say("type the room's name to remove it:");
    let typed = tokio::task::spawn_blocking(|| {
        let mut line = String::new();
        io::stdin().read_line(&mut line).map(|_| line)
    });
    let typed = typed.await.map_err(io::Error::other).flatten();
    let typed = typed.map_err(|error| {
        let words = format!("cannot read standard input: {error}; nothing was removed");
        Failure::new(Exit::Protocol, words)
    })?;
    confirmed(name, &typed)
}

fn confirmed(name: &RoomName, typed: &str) -> Result<(), Failure> {
    if typed.trim_end_matches(['\r', '\n']) == name.as_str() {
        return Ok(());
    }
    Err(Failure::new(
        Exit::Refused,
        format!("what was typed is not {name}: nothing was removed"),
    ))
}

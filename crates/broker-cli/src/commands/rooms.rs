//! `broker rooms`: the rooms, in the order of their names.

use broker_core::{Client, FindRooms, RoomInfo, RoomState};
use broker_proto::limits::ROOM_LIST_MAX;

use crate::args::RoomsArgs;
use crate::config::Config;
use crate::connect::once;
use crate::exit::Failure;
use crate::facts::put_json;
use crate::output::{self, Stdout, Text, put};
use crate::settings::room_facts;
use crate::signals::Stop;
use crate::{escape, time};

/// Runs the command.
pub(crate) async fn run(config: &Config, args: &RoomsArgs, mut stop: Stop) -> Result<(), Failure> {
    let wanted = wanted(args)?;
    let mut out = output::stdout();
    let listed = once(config, &mut stop, async |client| match wanted {
        None => list(client, args.json, &mut out).await,
        Some(wanted) => find(client, wanted, args, &mut out).await,
    })
    .await;
    let flushed = out.flush().map_err(Failure::from);
    listed.and(flushed)
}

/// What is to be found; nothing when all rooms are, in short, which brokers of every version tell.
fn wanted(args: &RoomsArgs) -> Result<Option<FindRooms>, Failure> {
    if args.prefix.is_none() && args.labels.is_empty() && !args.long {
        return Ok(None);
    }
    let mut labels = Vec::new();
    for label in &args.labels {
        let (name, value) = match label.split_once('=') {
            Some((name, value)) => (name, Some(value.to_owned())),
            None => (label.as_str(), None),
        };
        if name.is_empty() {
            return Err(Failure::usage(format!(
                "--label takes NAME or NAME=VALUE, not '{label}'"
            )));
        }
        labels.push((name.to_owned(), value));
    }
    Ok(Some(FindRooms {
        prefix: args.prefix.clone().unwrap_or_default(),
        labels,
        ..FindRooms::default()
    }))
}

/// Page after page, so that any number of rooms needs little memory.
async fn list(client: &Client, json: bool, out: &mut Stdout) -> Result<(), Failure> {
    let mut after = String::new();
    loop {
        let page = client.rooms(&after, ROOM_LIST_MAX).await?;
        if let Some(last) = page.rooms.last() {
            after = last.name.to_string();
        }
        let is_last = page.rooms.is_empty() || !page.more;
        for room in page.rooms {
            let info = RoomInfo {
                name: room.name,
                epoch: room.epoch,
                first: room.first,
                head: room.head,
                last_time: room.last_time,
            };
            short(&info, json, out.buffer());
            out.settle()?;
        }
        if is_last {
            return Ok(());
        }
    }
}

/// As [`list`], of the rooms that are wanted. A page may be empty before the end.
async fn find(
    client: &Client,
    mut wanted: FindRooms,
    args: &RoomsArgs,
    out: &mut Stdout,
) -> Result<(), Failure> {
    loop {
        let page = client.find_rooms(&wanted).await?;
        for room in &page.rooms {
            match (args.long, args.json) {
                (true, true) => put_json(&room_facts(room), out.buffer()),
                (true, false) => long(room, out.buffer()),
                (false, json) => short(&room.info, json, out.buffer()),
            }
            out.settle()?;
        }
        match page.next {
            Some(next) => wanted.after = next,
            None => return Ok(()),
        }
    }
}

/// Scripts rely on both forms: add, never change.
fn short(room: &RoomInfo, json: bool, out: &mut Vec<u8>) {
    let (first, head) = (room.first.get(), room.head.get());
    if json {
        out.extend_from_slice(b"{\"room\":");
        escape::for_json(&room.name, out);
        put(
            out,
            format_args!(
                ",\"epoch\":{},\"first\":{first},\"head\":{head},\"time\":\"",
                room.epoch
            ),
        );
        // Writing to memory cannot fail.
        let _ = time::write_exact(room.last_time.get(), &mut Text(out));
        out.extend_from_slice(b"\"}\n");
    } else {
        fields(room, out);
        out.push(b'\n');
    }
}

fn fields(room: &RoomInfo, out: &mut Vec<u8>) {
    escape::for_field(room.name.as_bytes(), out);
    put(out, format_args!("\t{}\t{}\t", room.first, room.head));
    // Writing to memory cannot fail.
    let _ = time::write_exact(room.last_time.get(), &mut Text(out));
}

fn long(room: &RoomState, out: &mut Vec<u8>) {
    fields(&room.info, out);
    put(out, format_args!("\t{}\t{}\t", room.messages(), room.bytes));
    escape::for_field(room.settings.topic.as_bytes(), out);
    out.push(b'\n');
}

//! `broker rooms`: every room, in the order of their names.

use broker_proto::RoomEntry;
use broker_proto::limits::ROOM_LIST_MAX;

use crate::args::ListArgs;
use crate::config::Config;
use crate::connect::{Link, Stay, unless_stopped};
use crate::exit::Failure;
use crate::output::{self, Stdout, Text, put};
use crate::signals::Stop;
use crate::{escape, time};

/// Runs the command.
pub(crate) async fn run(config: &Config, args: &ListArgs, mut stop: Stop) -> Result<(), Failure> {
    let link = unless_stopped(&mut stop, Link::open(config, Stay::OneShot)).await?;
    let mut out = output::stdout();
    let listed = unless_stopped(&mut stop, list(&link, args.json, &mut out)).await;
    let flushed = out.flush().map_err(Failure::from);
    let closed = link.close().await;
    listed.and(flushed).and(closed)
}

/// Page after page, so that any number of rooms needs little memory.
async fn list(link: &Link, json: bool, out: &mut Stdout) -> Result<(), Failure> {
    let mut after = String::new();
    loop {
        let page = link.client().rooms(&after, ROOM_LIST_MAX).await?;
        for room in &page.rooms {
            write(room, json, out.buffer());
            out.settle()?;
        }
        match page.rooms.last() {
            Some(last) if page.more => after = last.name.to_string(),
            _ => return Ok(()),
        }
    }
}

/// Scripts rely on both forms: add, never change.
fn write(room: &RoomEntry, json: bool, out: &mut Vec<u8>) {
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
        escape::for_field(room.name.as_bytes(), out);
        put(out, format_args!("\t{first}\t{head}\t"));
        let _ = time::write_exact(room.last_time.get(), &mut Text(out));
        out.push(b'\n');
    }
}

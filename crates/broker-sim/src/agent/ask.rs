//! Requests in the middle of everything: pages of history, the list of rooms, the status.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use broker_core::{ErrorKind, Page, StartAt};
use broker_proto::Seq;
use tokio::time::{MissedTickBehavior, interval};

use super::{Phase, Stage};
use crate::history::{Event, Id, Place};
use crate::rng::Rng;

/// Messages of a page.
const PAGE_MESSAGES: u32 = 20;

/// Asks until it is to rest.
pub(super) async fn ask(stage: Arc<Stage>) -> io::Result<()> {
    let mut ticks = interval(Duration::from_millis(stage.args.work.ask_every));
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut rng = Rng::new(u64::from(stage.args.agent) << 32 | u64::from(stage.args.life));
    loop {
        tokio::select! {
            biased;
            () = stage.reached(Phase::Resting) => return Ok(()),
            _ = ticks.tick() => {}
        }
        match rng.below(4) {
            0 => {
                if let Err(error) = stage.client.rooms("", 10).await {
                    stage.unanswered("rooms", &error)?;
                }
            }
            1 => {
                if let Err(error) = stage.client.status().await {
                    stage.unanswered("status", &error)?;
                }
            }
            _ => read_page(&stage, &mut rng).await?,
        }
    }
}

/// Reads a page from somewhere in a room, and writes it down as a short subscription.
async fn read_page(stage: &Stage, rng: &mut Rng) -> io::Result<()> {
    let index = rng.index(stage.args.work.rooms.len());
    let (Some(name), Some(progress)) =
        (stage.args.work.rooms.get(index), stage.progress.get(index))
    else {
        return Ok(());
    };
    let next = 1 + rng.below(*progress.borrow());
    let room = stage.client.room(name).map_err(io::Error::other)?;
    let start = StartAt::seq(Seq::new(next));
    match room.read(start, PAGE_MESSAGES, 1 << 20).await {
        Ok(page) => note_page(stage, name, next, &page),
        Err(error) if error.kind() == ErrorKind::Absent => Ok(()),
        Err(error) => stage.unanswered("read", &error),
    }
}

fn note_page(stage: &Stage, room: &str, next: u64, page: &Page) -> io::Result<()> {
    let subscription = stage.page_number();
    stage.record(&Event::Opened {
        subscription,
        room,
        next,
    })?;
    if let Some(skip) = page.skip {
        stage.record(&Event::Skipped {
            subscription,
            room,
            from: skip.from.get(),
            to: skip.to.get(),
            reason: skip.reason.as_str(),
        })?;
    }
    for message in &page.messages {
        stage.record(&Event::Delivered {
            subscription,
            room,
            place: Place::from(message.position()),
            id: Id::of_payload(&message.payload),
        })?;
    }
    stage.record(&Event::Ended { subscription, room })
}

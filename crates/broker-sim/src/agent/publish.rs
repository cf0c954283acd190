//! Sending.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use broker_core::{Error, ErrorKind, Room, Ticket};
use broker_proto::ErrorCode;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tokio::time::{Interval, MissedTickBehavior, interval};

use super::{Phase, Stage, describe, say};
use crate::history::{Event, Id};

/// A send that is not answered yet.
struct Sent {
    id: Id,
    room: usize,
    ticket: Ticket,
    /// Its place among those that may be unanswered.
    _permit: OwnedSemaphorePermit,
}

/// Sends to the rooms in turn until it is to rest, and waits for all answers.
pub(super) async fn publish(stage: Arc<Stage>) -> io::Result<()> {
    let work = &stage.args.work;
    let rooms: Result<Vec<Room>, Error> = work
        .rooms
        .iter()
        .map(|name| stage.client.room(name))
        .collect();
    let rooms = rooms.map_err(io::Error::other)?;
    let (sent, answers) = mpsc::unbounded_channel();
    let answering = tokio::spawn(answer(Arc::clone(&stage), answers));
    let mut pace = Pace::new(work.rate, work.pipeline);
    let last = if work.messages == 0 {
        u64::MAX
    } else {
        work.messages
    };
    for (counter, (index, room)) in (1..=last).zip(rooms.iter().enumerate().cycle()) {
        let permit = tokio::select! {
            biased;
            () = stage.reached(Phase::Resting) => break,
            permit = pace.next() => permit,
        };
        let id = Id {
            agent: stage.args.agent,
            life: stage.args.life,
            counter,
        };
        stage.record(&Event::Begun {
            id,
            room: room.name(),
        })?;
        match room.queue(id.payload(work.bytes)).await {
            Ok(ticket) => {
                let (room, _permit) = (index, permit);
                let _ = sent.send(Sent {
                    id,
                    room,
                    ticket,
                    _permit,
                });
            }
            Err(error) => {
                // What could not be queued was not sent.
                failed(&stage, id, index, true, &error)?;
                if error.kind() == ErrorKind::Closed {
                    break;
                }
            }
        }
    }
    drop(sent);
    let answered = answering.await?;
    if work.messages > 0 {
        say(&format!("sent {}", work.messages));
    }
    answered
}

/// Writes the answers down as they come, which is in the order of sending.
async fn answer(stage: Arc<Stage>, mut sent: mpsc::UnboundedReceiver<Sent>) -> io::Result<()> {
    while let Some(Sent {
        id, room, ticket, ..
    }) = sent.recv().await
    {
        match ticket.await {
            Ok(ack) => {
                stage.roles.note_ack()?;
                stage.record(&Event::Acked {
                    id,
                    room: &ack.room,
                    place: ack.position().into(),
                })?;
            }
            Err(error) => failed(&stage, id, room, is_certain(&error), &error)?,
        }
    }
    Ok(())
}

fn failed(stage: &Stage, id: Id, room: usize, certain: bool, error: &Error) -> io::Result<()> {
    let room = stage.args.work.rooms.get(room).map_or("", String::as_str);
    let text = &describe(error);
    stage.record(&Event::Failed {
        id,
        room,
        certain,
        text,
    })
}

/// Whether the error says that the message is not stored, for certain.
fn is_certain(error: &Error) -> bool {
    match error.kind() {
        ErrorKind::Refused(code) => code != ErrorCode::DUPLICATE,
        ErrorKind::TooLarge | ErrorKind::Auth | ErrorKind::Usage => true,
        _ => error.is_retryable(),
    }
}

/// When the next send may begin.
struct Pace {
    places: Arc<Semaphore>,
    ticks: Option<Interval>,
}

impl Pace {
    fn new(rate: u32, pipeline: usize) -> Self {
        let ticks = (rate > 0).then(|| {
            let mut ticks = interval(Duration::from_secs(1) / rate);
            // After a pause it catches up, as an application that was asked for more would.
            ticks.set_missed_tick_behavior(MissedTickBehavior::Burst);
            ticks
        });
        let places = Arc::new(Semaphore::new(pipeline.max(1)));
        Self { places, ticks }
    }

    async fn next(&mut self) -> OwnedSemaphorePermit {
        if let Some(ticks) = &mut self.ticks {
            ticks.tick().await;
        }
        let places = Arc::clone(&self.places);
        places.acquire_owned().await.expect("it is never closed")
    }
}

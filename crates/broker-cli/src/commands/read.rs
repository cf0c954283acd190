//! `broker read`: history by pages, or history and what follows by a subscription.

use broker_core::{Error, Item, Message, Page, Room, StartAt};
use broker_proto::{Epoch, Seq, SkipRange};
use futures_util::FutureExt;

use crate::args::ReadArgs;
use crate::config::Config;
use crate::connect::{Link, Stay, room_name, unless_stopped};
use crate::exit::{Exit, Failure, chain};
use crate::format::{Entry, Gap, Style};
use crate::output::{self, Stdout, say};
use crate::signals::Stop;
use crate::{start, time};

/// How much of the history one request asks for.
const PAGE_BYTES: u32 = 1 << 20;
/// How many messages it asks for; small ones are many in a page.
const PAGE_MESSAGES: u32 = 16_384;
/// How much `-f` shows before what is new.
const FOLLOW_LAST: u64 = 10;

/// Runs the command.
pub(crate) async fn run(config: &Config, args: ReadArgs, mut stop: Stop) -> Result<(), Failure> {
    let room = room_name(&args.room)?;
    let start = match &args.from {
        Some(text) => start::parse("--from", text, time::now())?,
        None if args.follow => StartAt::last(FOLLOW_LAST),
        None => StartAt::START,
    };
    if args.count == Some(0) {
        return Ok(());
    }
    let stay = if args.follow {
        Stay::Lasting
    } else {
        Stay::OneShot
    };
    let link = unless_stopped(&mut stop, Link::open(config, stay)).await?;
    let mut printer = Printer::new(&args);
    let room = link.client().room_named(room);
    let result = if args.follow {
        unless_stopped(&mut stop, follow(&room, start, &mut printer)).await
    } else {
        unless_stopped(&mut stop, history(&room, start, &mut printer)).await
    };
    // What was printed before an error or a signal belongs to whoever reads it.
    let flushed = printer.out.flush().map_err(Failure::from);
    let closed = link.close().await;
    result.and(flushed).and(closed)
}

/// Prints what the room holds now. What comes while it prints is left for the next time.
async fn history(room: &Room, start: StartAt, printer: &mut Printer) -> Result<(), Failure> {
    let mut page = read(room, start).await?;
    let head = page.head;
    loop {
        let next = page.next_position();
        let more = next.seq <= head;
        // The next page is asked for before this one is printed.
        let mut ahead = Box::pin(read(room, StartAt::position(next)));
        let early = if more {
            ahead.as_mut().now_or_never()
        } else {
            None
        };
        printer.page(room, page, head)?;
        if !more || printer.is_done() {
            return Ok(());
        }
        page = match early {
            Some(page) => page?,
            None => ahead.await?,
        };
    }
}

async fn read(room: &Room, start: StartAt) -> Result<Page, Error> {
    room.read(start, PAGE_MESSAGES, PAGE_BYTES).await
}

/// Prints what the room holds, then what comes, until it is enough.
async fn follow(room: &Room, start: StartAt, printer: &mut Printer) -> Result<(), Failure> {
    let mut items = room.subscribe(start).wait(true).await?;
    while !printer.is_done() {
        let next = items.next();
        let item = match next.now_or_never() {
            Some(item) => item,
            None => {
                printer.out.flush()?;
                items.next().await
            }
        };
        match item {
            Some(Ok(item)) => printer.item(room, item)?,
            // Such as a message that arrived damaged and is fetched again.
            Some(Err(error)) if !items.has_ended() => say(&chain(&error)),
            Some(Err(error)) => return Err(error.into()),
            None => {
                return Err(Failure::new(
                    Exit::Protocol,
                    format!("the subscription to {} ended", room.name()),
                ));
            }
        }
    }
    Ok(())
}

/// Prints messages, and counts them.
struct Printer {
    out: Stdout,
    style: Style,
    /// How many more are wanted; none: all.
    left: Option<u64>,
    /// Of the history that is being read.
    epoch: Epoch,
}

impl Printer {
    fn new(args: &ReadArgs) -> Self {
        let style = match (args.raw, args.json) {
            (true, _) => Style::Raw,
            (_, true) => Style::Json,
            _ if output::is_terminal() => Style::Terminal {
                colour: output::is_colourful(),
            },
            _ => Style::Fields,
        };
        Self {
            out: output::stdout(),
            style,
            left: args.count,
            epoch: Epoch::NONE,
        }
    }

    fn is_done(&self) -> bool {
        self.left == Some(0)
    }

    /// Prints a page, but nothing after `head`.
    fn page(&mut self, room: &Room, page: Page, head: Seq) -> Result<(), Failure> {
        self.epoch = page.epoch;
        if let Some(skip) = page.skip {
            self.skip(room, skip)?;
        }
        for message in page.messages.iter().filter(|message| message.seq <= head) {
            self.message(message)?;
        }
        Ok(())
    }

    fn item(&mut self, room: &Room, item: Item) -> Result<(), Failure> {
        match item {
            Item::Message(message) => self.message(&message),
            Item::Skip(skip) => self.skip(room, skip),
            Item::Reset {
                previous,
                epoch,
                next,
            } => self.reset(room, previous, epoch, next),
            // Items of a later version that are no messages.
            _ => Ok(()),
        }
    }

    fn message(&mut self, message: &Message) -> Result<(), Failure> {
        match &mut self.left {
            Some(0) => return Ok(()),
            Some(left) => *left -= 1,
            None => {}
        }
        self.epoch = message.epoch;
        let entry = Entry {
            room: &message.room,
            epoch: message.epoch.get(),
            seq: message.seq.get(),
            time: message.time.get(),
            sender: &message.sender,
            payload: &message.payload,
        };
        self.style.message(&entry, self.out.buffer());
        Ok(self.out.settle()?)
    }

    /// Tells that messages will never come, in the data's own place and in words.
    fn skip(&mut self, room: &Room, skip: SkipRange) -> Result<(), Failure> {
        let reason = skip.reason.as_str();
        let (name, from, to) = (room.name(), skip.from.get(), skip.to.get());
        say(&format!(
            "{name}: messages {from} to {to} are gone ({reason})"
        ));
        let gap = Gap {
            room: name,
            epoch: self.epoch.get(),
            from,
            to,
            reason,
        };
        self.style.gap(&gap, self.out.buffer());
        Ok(self.out.settle()?)
    }

    /// Tells that the room's history is another one from here on.
    fn reset(
        &mut self,
        room: &Room,
        previous: Epoch,
        epoch: Epoch,
        next: Seq,
    ) -> Result<(), Failure> {
        self.epoch = epoch;
        say(&format!(
            "{}: the history begins anew (epoch {previous} ended, epoch {epoch} goes on with seq {next})",
            room.name()
        ));
        self.style.reset(
            room.name(),
            previous.get(),
            epoch.get(),
            next.get(),
            self.out.buffer(),
        );
        Ok(self.out.settle()?)
    }
}

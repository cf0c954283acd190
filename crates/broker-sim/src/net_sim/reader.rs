//! The readers: subscriptions that come and go, fast and slow, and the judge, who reads everything when all is over.

use std::collections::BTreeSet;
use std::rc::Rc;
use std::time::Duration;

use broker_core::net::client::{Client, Item, StartAt, Subscription};
use broker_proto::{Position, Seq};
use tokio::time::sleep;

use super::client::{Life, open, rooms_of};
use super::history::Verdict;
use super::world::World;
use crate::rng::Rng;

/// Subscribes to a room, and again in another way when it had enough, for as long as the client lives.
pub(super) async fn read(life: Life, room: usize, mut rng: Rng) {
    let place = {
        let mut readers = life.world.readers.borrow_mut();
        let Some(own) = readers.get_mut(life.me) else {
            return;
        };
        own.push((room, 1));
        own.len() - 1
    };
    loop {
        let Some(handle) = life.room(room) else {
            return;
        };
        let saved = life
            .world
            .history
            .borrow()
            .read
            .get(&(life.me, room))
            .copied();
        let (start, wanted) = match saved {
            Some(saved) if rng.chance(2, 3) => (StartAt::position(saved), Some(saved.seq.get())),
            _ if rng.chance(1, 4) => (StartAt::last(rng.below(5)), None),
            _ => (StartAt::START, Some(1)),
        };
        let window = *rng.pick(&[1, 500, 20_000, 1 << 20]).unwrap_or(&1000);
        let subscribing = handle.subscribe(start).window_bytes(window).wait(true);
        match subscribing.await {
            Ok(subscription) => {
                let resumes = matches!(wanted, Some(seq) if seq > 1);
                let next = subscription.position().seq.get();
                life.note(format_args!(
                    "reads room {room} from {next}, wanted {wanted:?}"
                ));
                {
                    let counts = &mut life.world.history.borrow_mut().counts;
                    counts.subscriptions += 1;
                    counts.resumed += u64::from(resumes);
                }
                let mut reader = Reader {
                    room,
                    place,
                    wanted,
                };
                let verdict = reader.follow(&life, subscription, &mut rng).await;
                life.hold(verdict);
            }
            Err(error) if error.is_retryable() => {
                life.note(format_args!("subscribing to room {room}: {error}"));
            }
            Err(error) => {
                life.hold(Err(format!("subscribing to room {room}: {error:?}").into()));
                return;
            }
        }
        sleep(Duration::from_millis(1 + rng.below(30))).await;
    }
}

struct Reader {
    room: usize,
    /// Where this reader's progress is written down.
    place: usize,
    /// The seq that has to come next; not known before the first message of "the last so many".
    wanted: Option<u64>,
}

impl Reader {
    /// Reads until it has had enough.
    async fn follow(
        &mut self,
        life: &Life,
        mut subscription: Subscription,
        rng: &mut Rng,
    ) -> Verdict {
        let enough = rng.chance(1, 3).then(|| 1 + rng.below(60));
        let slow = rng.chance(1, 4).then(|| 1 + rng.below(80));
        let mut taken = 0;
        let next = subscription.position().seq.get().max(1);
        if let Some(wanted) = self.wanted
            && next != wanted
        {
            return Err(format!(
                "a subscription to room {} begins at {next} in place of {wanted}",
                self.room
            )
            .into());
        }
        self.progress(life, next);
        loop {
            let quiet = life.world.quiet.get();
            if !quiet && enough.is_some_and(|enough| taken >= enough) {
                return Ok(());
            }
            let item = match subscription.next().await {
                Some(Ok(item)) => item,
                Some(Err(error)) => {
                    return Err(
                        format!("the subscription to room {} fails: {error:?}", self.room).into(),
                    );
                }
                None => return Err(format!("the subscription to room {} ends", self.room).into()),
            };
            self.take(life, item, subscription.position())?;
            taken += 1;
            if let Some(slow) = slow.filter(|_| !quiet) {
                sleep(Duration::from_millis(rng.below(slow))).await;
            }
        }
    }

    fn take(&mut self, life: &Life, item: Item, position: Position) -> Verdict {
        let room = self.room;
        let Item::Message(message) = item else {
            // Nothing is removed and nothing is damaged here.
            return Err(format!("room {room} tells {item:?}").into());
        };
        let seq = message.seq.get();
        if let Some(wanted) = self.wanted
            && seq != wanted
        {
            return Err(format!("room {room} goes on with seq {seq} in place of {wanted}").into());
        }
        if position != Position::new(message.epoch, Seq::new(seq + 1)) {
            return Err(format!(
                "a reader of room {room} took seq {seq} and stands at {position:?}"
            )
            .into());
        }
        self.wanted = Some(seq + 1);
        self.progress(life, seq + 1);
        life.note(format_args!("took seq {seq} of room {room}"));
        let mut history = life.world.history.borrow_mut();
        history.counts.delivered += 1;
        history.read.insert((life.me, room), position);
        history.shown(room, &message)
    }

    fn progress(&self, life: &Life, next: u64) {
        let mut readers = life.world.readers.borrow_mut();
        let place = readers
            .get_mut(life.me)
            .and_then(|own| own.get_mut(self.place));
        if let Some(place) = place {
            *place = (self.room, next);
        }
    }
}

/// Reads everything that is stored, when all is over.
pub(super) async fn judge(world: Rc<World>) -> turmoil::Result {
    while !world.drained.get() {
        sleep(Duration::from_millis(5)).await;
    }
    let mut rng = world.fork();
    let me = world.shape.clients;
    // Its pages are larger than what a slow link brings in the time that clients have.
    let client = open(&world, me, Duration::from_secs(30), &mut rng)?;
    let life = Life {
        me,
        life: 0,
        rooms: rooms_of(&world, &client)?,
        world,
    };
    let verdict = life.read_everything(&client).await;
    life.hold(verdict);
    let verdict = life.world.history.borrow().conclude();
    life.hold(verdict);
    life.world.judged.set(true);
    std::future::pending().await
}

impl Life {
    async fn read_everything(&self, client: &Client) -> Verdict {
        let page = client.rooms("", 1000).await;
        let page = page.map_err(|error| format!("the rooms cannot be listed: {error:?}"))?;
        let names = page.rooms.iter().map(|room| room.name.as_str().to_owned());
        let (names, used) = (
            names.collect::<BTreeSet<_>>(),
            self.world.history.borrow().used_rooms(),
        );
        if !used.is_subset(&names) {
            return Err(format!("there are rooms {names:?}, and {used:?} are in use").into());
        }
        for (room, handle) in self.rooms.iter().enumerate() {
            if !names.contains(handle.name().as_str()) {
                continue;
            }
            let mut next = 1;
            loop {
                let start = StartAt::seq(Seq::new(next));
                let page = handle.read(start, 1000, 32 << 10).await;
                let page =
                    page.map_err(|error| format!("room {room} cannot be read: {error:?}"))?;
                let seen = self.world.history.borrow().seen_upto(room);
                self.judge_page(room, next, seen, &page)?;
                next = page.next.get();
                if page.is_last() {
                    break;
                }
            }
        }
        Ok(())
    }
}

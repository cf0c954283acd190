//! A room that got its messages before all others, and none since: how long reading its newest ones takes.

use std::time::Instant;

use anyhow::{Result, bail};
use broker_core::{Page, Room, StartAt};
use broker_proto::Seq;

use super::results::ColdRoom;
use super::store::ROOM_MESSAGE_BYTES;
use crate::curves::Site;
use crate::load::publish::payload;
use crate::load::{ours, room_name, runtime};

/// The room; all else goes to the one before it.
const ROOM: usize = 1;
/// Its messages.
const MESSAGES: u64 = 50;
/// Those that are read.
const READ: u32 = 10;
/// How often they are read again.
const TIMES: usize = 20;
/// Places that are read in between: in 10 GiB every segment has several. Their indexes are more than the server keeps in memory.
const PLACES: u64 = 512;

/// How long it took so far, right after starts.
#[derive(Debug)]
pub(super) struct Readings(Vec<f64>);

impl Readings {
    /// Fills the room; nothing was read yet.
    pub(super) fn fill(site: &mut Site<'_>) -> Result<Self> {
        let address = site.address();
        let filled = async {
            let room = ours::room(address, ROOM).await?;
            let messages = (0..MESSAGES).map(|_| payload(ROOM_MESSAGE_BYTES));
            room.send_all(messages).await?.await?;
            anyhow::Ok(room.client().shutdown().await?)
        };
        runtime(1)?.block_on(filled)?;
        site.note_stored(MESSAGES);
        Ok(Self(Vec::new()))
    }

    /// Right after a start.
    pub(super) fn first(&mut self, site: &Site<'_>) -> Result<()> {
        let address = site.address();
        let took = runtime(1)?.block_on(async {
            let room = ours::room(address, ROOM).await?;
            let took = newest(&room).await?;
            room.client().shutdown().await?;
            anyhow::Ok(took)
        });
        self.0.push(took?);
        Ok(())
    }

    /// Then on: again, and again after reading here and there among the `stored` messages of the other room.
    pub(super) fn others(self, site: &Site<'_>, stored: u64) -> Result<ColdRoom> {
        let address = site.address();
        runtime(1)?.block_on(async {
            let client = ours::connect(address).await?;
            let room = client.room(&room_name(ROOM))?;
            let other = client.room(&room_name(ROOM - 1))?;
            let (mut again_ms, mut after_others_ms) = (Vec::new(), Vec::new());
            for _ in 0..TIMES {
                again_ms.push(newest(&room).await?);
            }
            for _ in 0..TIMES {
                for seq in places(stored) {
                    let page = other.read(StartAt::seq(Seq::new(seq)), 1, 1 << 20).await?;
                    check(&page, seq, 1)?;
                }
                after_others_ms.push(newest(&room).await?);
            }
            client.shutdown().await?;
            Ok(ColdRoom {
                first_ms: self.0,
                again_ms,
                after_others_ms,
            })
        })
    }
}

/// The time from the call to the last of the newest messages.
async fn newest(room: &Room) -> Result<f64> {
    let began = Instant::now();
    let page = room.read(StartAt::last(READ.into()), READ, 1 << 20).await?;
    let took = began.elapsed().as_secs_f64() * 1e3;
    check(&page, MESSAGES + 1 - u64::from(READ), READ)?;
    Ok(took)
}

/// Evenly spread places among so many.
fn places(stored: u64) -> impl Iterator<Item = u64> {
    let count = PLACES.min(stored);
    (0..count).map(move |number| 1 + number * (stored / count))
}

fn check(page: &Page, first: u64, count: u32) -> Result<()> {
    let seqs = page.messages.iter().map(|message| message.seq.get());
    if !seqs.eq(first..first + u64::from(count)) {
        bail!(
            "{} messages came instead of {count} from {first} on",
            page.messages.len()
        );
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_are_spread_and_exist() {
        assert_eq!(places(0).count(), 0);
        assert!(places(3).eq([1, 2, 3]));
        let all: Vec<u64> = places(10_000_000).collect();
        assert_eq!(all.len() as u64, PLACES);
        assert!(all.is_sorted() && all.iter().all(|seq| (1..=10_000_000).contains(seq)));
        assert!(all.last().is_some_and(|last| *last > 9_900_000));
    }
}

//! Where a benchmark runs: a broker that was named, or one of its own that leaves no trace.

use std::path::Path;
use std::time::Instant;

use broker_core::{Client, Room};
use futures_util::stream::{self, StreamExt, TryStreamExt};

use super::load::Load;
use super::stamp::Checker;
use crate::config::{Chosen, Config, Listen, Target};
use crate::connect::{Link, Stay};
use crate::exit::{Exit, Failure};
use crate::scratch::Scratch;
use crate::{config, time};

/// How many rooms are read back at once.
const READERS: usize = 32;
/// How much one request reads back.
const PAGE_BYTES: u32 = 1 << 20;
/// And how many messages.
const PAGE_MESSAGES: u32 = 16_384;

/// A broker to measure.
#[derive(Debug)]
pub(crate) struct Stage {
    config: Config,
    link: Link,
    /// Removed after the broker in it has left.
    scratch: Option<Scratch>,
    /// Which benchmark: in the names of its rooms and in its messages.
    pub(crate) run: u64,
    /// What all times are measured from.
    pub(crate) began: Instant,
}

impl Stage {
    /// Connects to the broker that the command line names, or starts one.
    pub(crate) async fn open(config: &Config) -> Result<Self, Failure> {
        let mut config = config.clone();
        let scratch = own_store(&mut config)?;
        let link = Link::open(&config, Stay::OneShot).await?;
        Ok(Self { config, link, scratch, run: time::now().unsigned_abs(), began: Instant::now() })
    }

    /// Whom it measures.
    pub(crate) fn place(&self) -> String {
        match &self.config.target {
            Target::Server(address) => address.clone(),
            Target::Store(_) if self.scratch.is_some() => "a broker of its own".to_owned(),
            Target::Store(dir) => format!("the store in {}", dir.display()),
        }
    }

    /// A client with a connection of its own.
    pub(crate) async fn connect(&self) -> Result<Client, Failure> {
        self.link.another(&self.config).await
    }

    /// A room of this benchmark.
    pub(crate) fn room(&self, client: &Client, number: u32) -> Result<Room, Failure> {
        Ok(client.room(&format!("bench-{}-{number}", self.run))?)
    }

    /// Nanoseconds since it began.
    pub(crate) fn now_ns(&self) -> u64 {
        u64::try_from(self.began.elapsed().as_nanos()).unwrap_or(u64::MAX)
    }

    /// Reads every room back and checks every message; `acked[publisher]` says how many of each room
    /// were acknowledged. Returns how many messages were read.
    pub(crate) async fn verify(&self, load: &Load, acked: &[Vec<(u32, u64)>]) -> Result<u64, Failure> {
        let client = self.connect().await?;
        let rooms = stream::iter(0..load.rooms).map(|number| self.verify_room(&client, number, acked));
        let read = rooms.buffer_unordered(READERS).try_fold(0, |sum, read| async move { Ok(sum + read) }).await?;
        client.shutdown().await?;
        Ok(read)
    }
}

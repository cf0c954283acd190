//! Where a benchmark runs: a broker that was named, or one of its own that leaves no trace.

use std::collections::HashMap;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::time::Instant;

use broker_core::{Address, Client, Room, StartAt};
use futures_util::stream::{self, StreamExt, TryStreamExt};

use super::check::Checker;
use super::cpu::ServerProcess;
use super::progress::Done;
use super::publish::Published;
use crate::config::{Chosen, Config, Listen, Target, default_data};
use crate::connect::{Link, Stay, connect};
use crate::exit::{Exit, Failure};
use crate::scratch::Scratch;
use crate::time;

/// How many rooms are read back at once.
const READERS: usize = 32;
/// How much one request reads back.
const PAGE_BYTES: u32 = 1 << 20;
/// And how many messages.
const PAGE_MESSAGES: u32 = 16_384;

/// A broker to measure, kept running as long as this is.
#[derive(Debug)]
pub(crate) struct Host {
    link: Link,
    /// Removed after the broker in it has left.
    scratch: Option<Scratch>,
}

/// The way to it, and what all its messages have in common.
#[derive(Debug)]
pub(crate) struct Stage {
    config: Config,
    address: String,
    /// For people.
    pub(crate) place: String,
    /// Name and version of the broker's program.
    pub(crate) server_build: Option<String>,
    /// The broker's process.
    pub(crate) server: ServerProcess,
    /// The store's directory, when it is on this machine and known.
    pub(crate) dir: Option<PathBuf>,
    /// Which benchmark: in the names of its rooms and in its messages.
    pub(crate) run: u64,
    began: Instant,
}

impl Host {
    /// Connects to the broker that the command line names, or starts one.
    pub(crate) async fn open(config: &Config) -> Result<(Self, Stage), Failure> {
        let mut config = config.clone();
        let scratch = own_store(&mut config)?;
        let link = Link::open(&config, Stay::OneShot).await?;
        let (address, place, dir) = match &config.target {
            Target::Server(address) => (address.clone(), address.clone(), dir_of(address)),
            Target::Store(dir) => {
                let place = if scratch.is_some() {
                    "a broker of its own in this process, by its Unix socket".to_owned()
                } else {
                    format!("the store in {}", dir.display())
                };
                (socket(dir), place, Some(dir.clone()))
            }
        };
        let server = link.client().state().borrow().server().cloned();
        let stage = Stage {
            address,
            place,
            server: match &server {
                Some(server) if is_local(&config.target) => ServerProcess::find(server.pid),
                _ => ServerProcess::Unknown,
            },
            server_build: server.map(|server| server.build.clone()),
            dir,
            config,
            run: time::now().unsigned_abs(),
            began: Instant::now(),
        };
        Ok((Self { link, scratch }, stage))
    }

    /// Leaves in order and cleans up.
    pub(crate) async fn close(self) -> Result<(), Failure> {
        let closed = self.link.close().await;
        drop(self.scratch);
        closed
    }
}

/// Turns the target to a store of its own, unless this command line names one: what the environment
/// names is somebody's, and would be filled. It lies beside, so that the same disk is measured.
fn own_store(config: &mut Config) -> Result<Option<Scratch>, Failure> {
    let beside: PathBuf = match (&config.target, config.chosen) {
        (Target::Server(_), _) | (Target::Store(_), Chosen::Flag) => return Ok(None),
        (Target::Store(dir), Chosen::Environment) => dir.clone(),
        (Target::Store(_), Chosen::Default) => default_data()?,
    };
    let parent = beside
        .parent()
        .filter(|parent| !parent.as_os_str().is_empty())
        .unwrap_or(Path::new("."));
    let scratch = Scratch::new(parent, "broker-bench").map_err(|error| {
        Failure::new(
            Exit::Unreachable,
            format!(
                "cannot make a directory in {}; name a store to measure with --data DIR: {error}",
                parent.display()
            ),
        )
    })?;
    config.target = Target::Store(scratch.path().to_owned());
    config.listen = Listen::None;
    Ok(Some(scratch))
}

fn socket(dir: &Path) -> String {
    format!("unix:{}/sock", dir.display())
}

/// The store's directory behind an address: that of its own Unix socket.
fn dir_of(address: &str) -> Option<PathBuf> {
    let Ok(Address::Unix(path)) = address.parse() else {
        return None;
    };
    let dir = path.parent().filter(|_| path.ends_with("sock"))?;
    dir.join("lock").exists().then(|| dir.to_owned())
}

/// Whether the broker's process is one of this machine.
fn is_local(target: &Target) -> bool {
    let Target::Server(address) = target else {
        return true;
    };
    match address.parse() {
        Ok(Address::Tcp { host, .. }) => {
            let ip = host.parse::<IpAddr>();
            host == "localhost" || ip.is_ok_and(|ip| ip.is_loopback())
        }
        Ok(Address::Unix(_)) => true,
        _ => false,
    }
}

impl Stage {
    /// A client with a connection of its own.
    pub(crate) async fn connect(&self) -> Result<Client, Failure> {
        connect(&self.config, &self.address).await
    }

    /// A room of this benchmark.
    pub(crate) fn room(&self, client: &Client, number: u32) -> Result<Room, Failure> {
        Ok(client.room(&format!("{}{number}", self.prefix()))?)
    }

    /// Whether a room is one of this benchmark.
    pub(crate) fn is_ours(&self, name: &str) -> bool {
        name.starts_with(&self.prefix())
    }

    fn prefix(&self) -> String {
        format!("bench-{}-", self.run)
    }

    /// A moment, in nanoseconds since it began.
    pub(crate) fn nanos(&self, at: Instant) -> u64 {
        let since = at.saturating_duration_since(self.began);
        u64::try_from(since.as_nanos()).unwrap_or(u64::MAX)
    }

    /// Reads every room back, checks every message, and misses none that was acknowledged. Returns
    /// how many messages were read.
    pub(crate) async fn verify(
        &self,
        published: &[Published],
        done: &Done,
    ) -> Result<u64, Failure> {
        let mut rooms: HashMap<u32, Vec<(u32, u64)>> = HashMap::new();
        for published in published {
            for &(room, acked) in published.acked.iter().filter(|(_, acked)| *acked > 0) {
                rooms
                    .entry(room)
                    .or_default()
                    .push((published.publisher, acked));
            }
        }
        let client = self.connect().await?;
        let read = stream::iter(rooms)
            .map(|(room, acked)| self.verify_room(&client, room, acked, done))
            .buffer_unordered(READERS)
            .try_fold(0, |sum, read| async move { Ok(sum + read) })
            .await?;
        client.shutdown().await?;
        Ok(read)
    }

    async fn verify_room(
        &self,
        client: &Client,
        number: u32,
        acked: Vec<(u32, u64)>,
        done: &Done,
    ) -> Result<u64, Failure> {
        let room = self.room(client, number)?;
        let mut checker = Checker::new(self.run, number);
        let mut read = 0;
        let mut start = StartAt::START;
        loop {
            let page = room.read(start, PAGE_MESSAGES, PAGE_BYTES).await?;
            for message in &page.messages {
                checker.check(message.seq.get(), &message.payload)?;
            }
            read += page.messages.len() as u64;
            done.add(page.messages.len() as u64);
            if page.is_last() {
                break;
            }
            start = StartAt::position(page.next_position());
        }
        for (publisher, acked) in acked {
            checker.finish(publisher, acked)?;
        }
        Ok(read)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_store_is_found_behind_its_own_socket_only() {
        let dir = tempfile::tempdir().expect("a directory");
        let address = socket(dir.path());
        assert_eq!(dir_of(&address), None, "no store is there");
        std::fs::write(dir.path().join("lock"), "").expect("writable");
        assert_eq!(dir_of(&address).as_deref(), Some(dir.path()));
        assert_eq!(dir_of(&format!("{address}-2")), None);
        assert_eq!(dir_of("tcp://127.0.0.1:9876"), None);
    }

    #[test]
    fn processes_are_looked_for_on_this_machine_only() {
        let server = |address: &str| is_local(&Target::Server(address.to_owned()));
        assert!(server("tcp://127.0.0.1:9876") && server("tcp://[::1]:1") && server("unix:/s"));
        assert!(server("tcp://localhost") && !server("tcp://10.0.0.1:9876"));
        assert!(!server("tcp://example.org"));
    }
}

//! What a store holds, as somebody sees it who had no part in the run.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use broker_core::{Client, Config, ErrorKind, Node, Role, Room, StartAt};

use crate::history::check::{Final, FinalRoom};
use crate::history::{Id, Place};

/// Name of the Unix socket of a store.
const SOCKET: &str = "sock";

/// Rooms and messages of a page.
const PAGE: u32 = 1_000;
/// Bytes of a page.
const PAGE_BYTES: u32 = 1 << 20;

/// How long nothing may move.
const TIMEOUT: Duration = Duration::from_secs(30);

/// The newest seq of each room, by who leads now.
///
/// # Errors
/// Nobody answers.
pub fn heads(dir: &Path) -> anyhow::Result<BTreeMap<String, u64>> {
    run(async {
        let socket = dir.join(SOCKET);
        let config = Client::builder().sender("observer").timeout(TIMEOUT);
        let client = config
            .connect(&format!("unix:{}", socket.display()))
            .await?;
        let mut heads = BTreeMap::new();
        for name in rooms(&client).await? {
            let page = client.room(&name)?.read(StartAt::START, 0, 0).await?;
            heads.insert(name, page.head.get());
        }
        client.shutdown().await?;
        Ok(heads)
    })
}

/// Everything in the store and where these cursors (room and name) are, read by a process that leads it by itself: what was recovered from the disk.
///
/// # Errors
/// Somebody else leads, or it cannot be read.
pub fn read_final(dir: &Path, cursors: &[(String, String)]) -> anyhow::Result<Final> {
    run(async {
        let config = Config::new(dir).role(Role::OneShot).listen(None);
        let node = Node::join(config.sender("observer").timeout(TIMEOUT)).await?;
        anyhow::ensure!(node.is_leader(), "somebody else still leads the store");
        let client = node.client();
        let mut end = Final::default();
        for name in rooms(&client).await? {
            let room = client.room(&name)?;
            end.rooms.insert(name, read_room(&room).await?);
        }
        for (room, name) in cursors {
            let at = match client.room(room)?.cursor(name)?.get().await {
                Ok(at) => at,
                Err(error) if error.kind() == ErrorKind::Absent => None,
                Err(error) => return Err(error.into()),
            };
            let key = (room.clone(), name.clone());
            end.cursors.insert(key, at.map(Place::from));
        }
        node.shutdown().await?;
        Ok(end)
    })
}

fn run<T>(work: impl Future<Output = anyhow::Result<T>>) -> anyhow::Result<T> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    runtime.block_on(work)
}

async fn rooms(client: &Client) -> anyhow::Result<Vec<String>> {
    let mut names: Vec<String> = Vec::new();
    loop {
        let after = names.last().cloned().unwrap_or_default();
        let page = client.rooms(&after, usize::try_from(PAGE)?).await?;
        names.extend(page.rooms.iter().map(|room| room.name.to_string()));
        if !page.more {
            return Ok(names);
        }
    }
}

async fn read_room(room: &Room) -> anyhow::Result<FinalRoom> {
    let mut whole = FinalRoom::default();
    let mut start = StartAt::START;
    loop {
        let page = room.read(start, PAGE, PAGE_BYTES).await?;
        (whole.epoch, whole.head) = (page.epoch.get(), page.head.get());
        let skip = page.skip.map(|skip| (skip.from.get(), skip.to.get()));
        whole.skips.extend(skip);
        whole.messages.extend(
            page.messages
                .iter()
                .map(|message| (message.seq.get(), Id::of_payload(&message.payload))),
        );
        if page.is_last() {
            return Ok(whole);
        }
        start = StartAt::position(page.next_position());
    }
}

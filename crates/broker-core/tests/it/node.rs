//! Nodes and brokers: who leads, who connects, who is told why not.

use std::path::Path;
use std::time::Duration;

use broker_core::dir::{ExitClass, Lock, LockError, StoreDir, SystemProbe};
use broker_core::net::ServerConfig;
use broker_core::{Broker, Client, Config, Error, ErrorKind, Item, Node, Role, StartAt, State};

use crate::peer::serving;

/// A node that opens no TCP port.
fn config(dir: &Path) -> Config {
    Config::new(dir)
        .listen(None)
        .sender("ann")
        .timeout(Duration::from_secs(20))
}

/// Waits until nobody holds the lock.
async fn until_free(path: &Path) {
    let dir = StoreDir::open(path, &SystemProbe).unwrap();
    let free = async {
        while Lock::try_acquire(&dir).is_err() {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(20), free)
        .await
        .expect("the lock is never released");
}

async fn texts(client: &Client, room: &str) -> Vec<String> {
    let mut subscription = client
        .room(room)
        .unwrap()
        .subscribe(StartAt::START)
        .await
        .unwrap();
    let head = client
        .room(room)
        .unwrap()
        .read(StartAt::START, 0, 0)
        .await
        .unwrap()
        .head;
    let mut texts = Vec::new();
    while (texts.len() as u64) < head.get() {
        match subscription.next().await.unwrap().unwrap() {
            Item::Message(message) => {
                texts.push(String::from_utf8(message.payload.to_vec()).unwrap())
            }
            other => panic!("{other:?}"),
        }
    }
    texts
}

/// The directory error at the bottom of an error.
fn exit_class(error: &Error) -> ExitClass {
    let source = std::error::Error::source(error).unwrap();
    source
        .downcast_ref::<broker_core::dir::DirError>()
        .unwrap()
        .exit_class()
}

#[tokio::test]
async fn the_first_node_leads_the_second_connects_and_both_see_one_history() {
    let parent = tempfile::tempdir().unwrap();
    let dir = parent.path().join("store");
    let first = Node::join(config(&dir)).await.unwrap();
    let second = Node::join(config(&dir).sender("bob")).await.unwrap();
    assert!(first.is_leader() && !second.is_leader());
    assert_eq!(first.address(), None);
    first
        .client()
        .room("ops")
        .unwrap()
        .send("from the leader")
        .await
        .unwrap();
    let ack = second
        .client()
        .room("ops")
        .unwrap()
        .send("from the other")
        .await
        .unwrap();
    assert_eq!(ack.seq.get(), 2);
    for node in [&first, &second] {
        assert_eq!(
            texts(&node.client(), "ops").await,
            ["from the leader", "from the other"]
        );
    }
    let status = second.client().status().await.unwrap();
    assert!(status.as_str().contains("\"rooms\":1"), "{status}");
    second.shutdown().await.unwrap();
    first.shutdown().await.unwrap();
}

#[tokio::test]
async fn what_was_acknowledged_is_there_for_the_next_leader() {
    let parent = tempfile::tempdir().unwrap();
    let dir = parent.path().join("store");
    let mut expected = Vec::new();
    for round in 0..4 {
        let node = Node::join(config(&dir)).await.unwrap();
        assert!(node.is_leader());
        let text = format!("round {round}");
        node.client()
            .room("ops")
            .unwrap()
            .send(text.clone())
            .await
            .unwrap();
        expected.push(text);
        assert_eq!(texts(&node.client(), "ops").await, expected);
        node.shutdown().await.unwrap();
    }
}

#[tokio::test]
async fn a_node_that_is_dropped_lets_the_next_one_lead() {
    let parent = tempfile::tempdir().unwrap();
    let dir = parent.path().join("store");
    let first = Node::join(config(&dir)).await.unwrap();
    first
        .client()
        .room("ops")
        .unwrap()
        .send("kept")
        .await
        .unwrap();
    drop(first);
    until_free(&dir).await;
    let second = Node::join(config(&dir)).await.unwrap();
    assert!(second.is_leader());
    assert_eq!(texts(&second.client(), "ops").await, ["kept"]);
    second.shutdown().await.unwrap();
}

#[tokio::test]
async fn a_node_that_meets_a_leader_just_going_leads_or_connects_but_never_hangs() {
    let parent = tempfile::tempdir().unwrap();
    let dir = parent.path().join("store");
    for _ in 0..20 {
        let first = Node::join(config(&dir)).await.unwrap();
        drop(first);
        let joining = tokio::time::timeout(Duration::from_secs(5), Node::join(config(&dir)));
        let second = joining.await.expect("joining hangs").unwrap();
        drop(second);
        until_free(&dir).await;
    }
}

#[tokio::test]
async fn the_lock_is_free_when_the_goodbye_comes() {
    let parent = tempfile::tempdir().unwrap();
    let path = parent.path().join("store");
    let first = Node::join(config(&path)).await.unwrap();
    // One that stood by would take the lock at once.
    let second = Node::join(config(&path).role(Role::ClientOnly))
        .await
        .unwrap();
    let mut state = second.client().state();
    let dir = StoreDir::open(&path, &SystemProbe).unwrap();
    let leaving = tokio::spawn(first.shutdown());
    state
        .wait_for(|state| matches!(state, State::Disconnected { .. }))
        .await
        .unwrap();
    drop(Lock::try_acquire(&dir).unwrap());
    leaving.await.unwrap().unwrap();
}

#[tokio::test]
async fn a_daemon_that_meets_a_leader_fails_and_names_it() {
    let parent = tempfile::tempdir().unwrap();
    let dir = parent.path().join("store");
    let first = Node::join(config(&dir).role(Role::ServeAlways).build("first 1"))
        .await
        .unwrap();
    let error = Node::join(config(&dir).role(Role::ServeAlways))
        .await
        .unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Locked);
    assert_eq!(exit_class(&error).code(), 75);
    let source = std::error::Error::source(&error).unwrap().to_string();
    assert!(
        source.contains(&format!("pid {} (first 1)", std::process::id())),
        "{source}"
    );
    first.shutdown().await.unwrap();
}

#[tokio::test]
async fn a_lock_that_is_held_by_somebody_who_does_not_answer_is_an_error_that_names_it() {
    let parent = tempfile::tempdir().unwrap();
    let path = parent.path().join("store");
    // A broker without doors is just that for everybody else.
    let broker = Broker::open_with(config(&path).build("alone 3"))
        .await
        .unwrap();
    let error = Node::join(config(&path).timeout(Duration::from_millis(300)))
        .await
        .unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Locked);
    let source = std::error::Error::source(&error).unwrap().to_string();
    assert!(source.contains("alone 3"), "{source}");
    let error = Broker::open(&path).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Locked);
    broker.shutdown().await.unwrap();
}

#[tokio::test]
async fn a_client_never_leads_and_makes_nothing() {
    let parent = tempfile::tempdir().unwrap();
    let dir = parent.path().join("store");
    let client = || {
        config(&dir)
            .role(Role::ClientOnly)
            .timeout(Duration::from_millis(200))
    };
    let error = Node::join(client()).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Connect);
    assert!(!dir.exists());
    let node = Node::join(config(&dir)).await.unwrap();
    let connected = Node::join(client()).await.unwrap();
    assert!(!connected.is_leader());
    connected.shutdown().await.unwrap();
    node.shutdown().await.unwrap();
    let error = Node::join(client()).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Connect);
    assert!(Lock::try_acquire(&StoreDir::open(&dir, &SystemProbe).unwrap()).is_ok());
}

#[tokio::test]
async fn a_node_waits_for_a_leader_that_is_just_going() {
    let parent = tempfile::tempdir().unwrap();
    let path = parent.path().join("store");
    let dir = StoreDir::open(&path, &SystemProbe).unwrap();
    let lock = Lock::try_acquire(&dir).unwrap();
    let joining = tokio::spawn(Node::join(config(&path)));
    // The other process holds the lock and says nothing, then it goes.
    tokio::task::yield_now().await;
    assert!(matches!(
        Lock::try_acquire(&dir),
        Err(LockError::Held { .. })
    ));
    drop(lock);
    let node = joining.await.unwrap().unwrap();
    assert!(node.is_leader());
    node.shutdown().await.unwrap();
}

#[tokio::test]
async fn a_broker_keeps_its_history_without_any_socket() {
    let parent = tempfile::tempdir().unwrap();
    let dir = parent.path().join("store");
    for round in 1..=3 {
        let broker = Broker::open(&dir).await.unwrap();
        let ack = broker
            .client()
            .room("notes")
            .unwrap()
            .send(format!("{round}"))
            .await
            .unwrap();
        assert_eq!(ack.seq.get(), round);
        broker.shutdown().await.unwrap();
    }
    assert!(!dir.join("sock").exists());
}

#[tokio::test]
async fn a_lasting_leader_opens_a_port_and_a_daemon_fails_without_it() {
    let (_other, taken) = serving(ServerConfig::default());
    let parent = tempfile::tempdir().unwrap();
    let at = |name: &str| parent.path().join(name);

    let free = "127.0.0.1:0".parse().unwrap();
    let node = Node::join(config(&at("a")).listen(Some(free)))
        .await
        .unwrap();
    let address = node.address().unwrap();
    let client = Client::builder()
        .sender("tcp")
        .connect(&format!("tcp://{address}"))
        .await
        .unwrap();
    client.room("ops").unwrap().send("over tcp").await.unwrap();
    client.shutdown().await.unwrap();
    node.shutdown().await.unwrap();

    let node = Node::join(config(&at("b")).listen(Some(taken)))
        .await
        .unwrap();
    assert_eq!(node.address(), None);
    assert!(
        node.warnings()[0].contains(&taken.to_string()),
        "{:?}",
        node.warnings()
    );
    assert!(
        node.client()
            .status()
            .await
            .unwrap()
            .as_str()
            .contains("only the store's Unix socket is served")
    );
    node.shutdown().await.unwrap();

    let daemon = config(&at("c")).listen(Some(taken)).role(Role::ServeAlways);
    let error = Node::join(daemon).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Locked, "{error}");
    // The lock was given back.
    Node::join(config(&at("c")))
        .await
        .unwrap()
        .shutdown()
        .await
        .unwrap();

    let one_shot = config(&at("d")).listen(Some(taken)).role(Role::OneShot);
    let node = Node::join(one_shot).await.unwrap();
    assert!(node.is_leader() && node.warnings().is_empty() && node.address().is_none());
    node.shutdown().await.unwrap();
}

#[tokio::test]
async fn the_stores_address_outlives_leaders_that_do_not_listen_there() {
    let parent = tempfile::tempdir().unwrap();
    let path = parent.path().join("store");
    let port = std::net::TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap();
    let tcp = || {
        Lock::holder(&StoreDir::open(&path, &SystemProbe).unwrap())
            .unwrap()
            .unwrap()
            .tcp
    };
    let daemon = config(&path).listen(Some(port)).role(Role::ServeAlways);
    Node::join(daemon).await.unwrap().shutdown().await.unwrap();
    assert_eq!(tcp(), port.to_string());
    Node::join(config(&path).role(Role::OneShot))
        .await
        .unwrap()
        .shutdown()
        .await
        .unwrap();
    assert_eq!(tcp(), port.to_string());
    Node::join(config(&path))
        .await
        .unwrap()
        .shutdown()
        .await
        .unwrap();
    assert_eq!(tcp(), port.to_string());
    let found = Config::new(&path).sender("ann");
    let node = Node::join(found).await.unwrap();
    assert_eq!(node.address(), Some(port));
    node.shutdown().await.unwrap();
}

#[tokio::test]
async fn an_open_address_is_refused_before_anything_is_touched() {
    let parent = tempfile::tempdir().unwrap();
    let dir = parent.path().join("store");
    let open = config(&dir).listen(Some("0.0.0.0:0".parse().unwrap()));
    assert_eq!(
        Node::join(open.clone()).await.unwrap_err().kind(),
        ErrorKind::Usage
    );
    assert!(!dir.exists());
    let node = Node::join(open.insecure_no_auth(true)).await.unwrap();
    assert!(node.address().is_some());
    node.shutdown().await.unwrap();
}

#[tokio::test]
async fn a_newer_store_is_neither_led_nor_touched() {
    let parent = tempfile::tempdir().unwrap();
    let dir = parent.path().join("store");
    Node::join(config(&dir))
        .await
        .unwrap()
        .shutdown()
        .await
        .unwrap();
    let file = dir.join("store");
    let mut bytes = std::fs::read(&file).unwrap();
    bytes[12] = 200;
    let crc = crc32c::crc32c(&bytes[..508]);
    bytes[508..].copy_from_slice(&crc.to_le_bytes());
    std::fs::write(&file, &bytes).unwrap();
    for role in [Role::ServeAlways, Role::Eligible] {
        let joining = config(&dir).role(role).timeout(Duration::from_millis(100));
        let error = Node::join(joining).await.unwrap_err();
        assert_eq!(exit_class(&error).code(), 65, "{error:?}");
    }
    assert_eq!(std::fs::read(&file).unwrap(), bytes);
}

#[tokio::test]
async fn sends_under_way_survive_a_clean_change_of_leader() {
    let parent = tempfile::tempdir().unwrap();
    let dir = parent.path().join("store");
    let first = Node::join(config(&dir)).await.unwrap();
    let second = Node::join(config(&dir).sender("bob")).await.unwrap();
    let room = second.client().room("ops").unwrap();
    let mut tickets = Vec::new();
    for n in 0..500 {
        tickets.push(room.queue(format!("{n}")).await.unwrap());
    }
    first.shutdown().await.unwrap();
    let third = Node::join(config(&dir)).await.unwrap();
    assert!(second.is_leader() && !third.is_leader());
    for (n, ticket) in (1..).zip(tickets) {
        assert_eq!(ticket.await.unwrap().seq.get(), n);
    }
    let expected: Vec<String> = (0..500).map(|n| n.to_string()).collect();
    assert_eq!(texts(&third.client(), "ops").await, expected);
    second.shutdown().await.unwrap();
    third.shutdown().await.unwrap();
}

#[tokio::test]
async fn a_copied_directory_is_another_store_with_the_same_history() {
    let parent = tempfile::tempdir().unwrap();
    let (original, copy) = (parent.path().join("original"), parent.path().join("copy"));
    let node = Node::join(config(&original)).await.unwrap();
    let before = node
        .client()
        .room("ops")
        .unwrap()
        .send("before")
        .await
        .unwrap();
    node.shutdown().await.unwrap();
    drop(StoreDir::open(&copy, &SystemProbe).unwrap());
    for entry in std::fs::read_dir(&original).unwrap().map(Result::unwrap) {
        if entry.file_type().unwrap().is_file() {
            std::fs::copy(entry.path(), copy.join(entry.file_name())).unwrap();
        }
    }
    let store = |path: &Path| {
        StoreDir::open(path, &SystemProbe)
            .unwrap()
            .read_store()
            .unwrap()
            .unwrap()
    };
    for round in 0..2 {
        let node = Node::join(config(&copy)).await.unwrap();
        assert_ne!(store(&copy).id, store(&original).id);
        assert_eq!(store(&copy).identity, broker_core::dir::Identity::Same);
        let after = node
            .client()
            .room("ops")
            .unwrap()
            .send("after")
            .await
            .unwrap();
        assert_ne!(after.epoch, before.epoch);
        assert_eq!(after.seq.get(), 2 + round);
        node.shutdown().await.unwrap();
    }
    let node = Node::join(config(&original)).await.unwrap();
    let after = node
        .client()
        .room("ops")
        .unwrap()
        .send("elsewhere")
        .await
        .unwrap();
    assert_eq!((after.epoch, after.seq.get()), (before.epoch, 2));
    node.shutdown().await.unwrap();
}

#[tokio::test]
async fn a_room_can_be_waited_for_through_a_node() {
    let parent = tempfile::tempdir().unwrap();
    let node = Node::join(config(&parent.path().join("store")))
        .await
        .unwrap();
    let mut waiting = node
        .client()
        .room("ops")
        .unwrap()
        .subscribe(StartAt::END)
        .wait(true)
        .await
        .unwrap();
    let ack = node
        .client()
        .room("ops")
        .unwrap()
        .send("first")
        .await
        .unwrap();
    let message = waiting.next_message().await.unwrap().unwrap();
    assert_eq!(
        (message.seq.get(), &message.payload[..]),
        (1, &b"first"[..])
    );
    assert_eq!(ack.epoch, message.epoch);
    drop(waiting);
    node.shutdown().await.unwrap();
}

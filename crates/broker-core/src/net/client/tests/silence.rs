//! Brokers that take requests and do not answer them.

use std::io;
use std::path::PathBuf;
use std::time::Duration;

use broker_proto::{Frame, Micros, Pong, Term};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::watch;
use tokio::time::{Instant, timeout};

use super::peer::{Peer, config, connected, pipe};
use crate::clock::ManualClock;
use crate::dir::{Holder, Lock, ProcessId, SOCKET_NAME, StoreDir, SystemProbe, role};
use crate::log::storage::MemoryStorage;
use crate::net::client::{Client, ErrorKind, StallKind, State};
use crate::net::warden::{Stage, Vitals, Warden};
use crate::store::{EmbeddedConfig, EmbeddedStore};
use crate::sync::Arc;

async fn stalled(state: &mut watch::Receiver<State>) -> crate::net::client::Stall {
    let found = timeout(
        Duration::from_secs(30),
        state.wait_for(|state| matches!(state, State::Stalled { .. })),
    );
    match &*found.await.unwrap().unwrap() {
        State::Stalled { report } => report.clone(),
        other => panic!("{other:?}"),
    }
}

async fn resumed(state: &mut watch::Receiver<State>) -> Duration {
    let found = timeout(
        Duration::from_secs(30),
        state.wait_for(|state| matches!(state, State::Resumed { .. })),
    );
    match &*found.await.unwrap().unwrap() {
        State::Resumed { gap, .. } => *gap,
        other => panic!("{other:?}"),
    }
}

#[tokio::test(start_paused = true)]
async fn a_silent_broker_is_told_of_until_it_answers() {
    let (client, mut peer, _listener) = connected().await;
    peer.pongs = false;
    let mut state = client.state();
    let room = client.room("ops").unwrap();
    let ticket = room.queue("x").await.unwrap();
    let publish = peer.publish().await;
    let begun = Instant::now();
    let report = stalled(&mut state).await;
    assert_eq!(begun.elapsed().as_millis(), 600);
    assert_eq!(report.kind(), StallKind::Unknown);
    assert_eq!(report.to_string(), "pipe:test has not answered for 600 ms");
    assert!(!state.borrow().is_connected());
    tokio::time::sleep(Duration::from_secs(1)).await;
    peer.ack_all(&publish, 1).await;
    assert_eq!(resumed(&mut state).await.as_millis(), 1600);
    ticket.await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_broker_that_answers_pings_has_longer() {
    let (client, mut peer, _listener) = connected().await;
    let mut state = client.state();
    let room = client.room("ops").unwrap();
    let ticket = room.queue("x").await.unwrap();
    let publish = peer.publish().await;
    let begun = Instant::now();
    let pinged = tokio::spawn(async move {
        // It answers each ping on the way to what never comes.
        let frame = peer.try_recv().await;
        (peer, frame)
    });
    stalled(&mut state).await;
    assert_eq!(begun.elapsed().as_millis(), 1300);
    drop(ticket);
    pinged.abort();
    drop(publish);
}

#[tokio::test(start_paused = true)]
async fn an_idle_client_tells_of_a_ping_that_is_not_answered() {
    let (client, mut peer, _listener) = connected().await;
    peer.pongs = false;
    let mut state = client.state();
    let Frame::Ping(ping) = peer.recv().await else {
        panic!("not a ping");
    };
    let pinged = Instant::now();
    stalled(&mut state).await;
    assert_eq!(pinged.elapsed().as_millis(), 600);
    peer.send(Pong { nonce: ping.nonce }).await;
    resumed(&mut state).await;
}

#[tokio::test(start_paused = true)]
async fn silence_outlasts_the_connections() {
    let (client, mut peer, mut listener) = connected().await;
    peer.pongs = false;
    let mut state = client.state();
    let room = client.room("ops").unwrap();
    let ticket = room.queue("x").await.unwrap();
    peer.publishes(1).await;
    stalled(&mut state).await;
    state.mark_unchanged();
    // The connection is given up, the next one not even greeted.
    let mut next = listener.accept().await;
    tokio::time::sleep(Duration::from_secs(2)).await;
    assert!(matches!(&*state.borrow(), State::Stalled { .. }));
    next.greet(super::peer::welcome()).await;
    let publish = next.publish().await;
    next.ack_all(&publish, 1).await;
    ticket.await.unwrap();
    assert!(matches!(&*state.borrow(), State::Resumed { .. }));
}

#[tokio::test(start_paused = true)]
async fn who_hangs_up_is_not_silent() {
    let (client, mut peer, listener) = connected().await;
    peer.pongs = false;
    let mut state = client.state();
    let room = client.room("ops").unwrap();
    let _ticket = room.queue("x").await.unwrap();
    stalled(&mut state).await;
    state.mark_unchanged();
    drop((peer, listener));
    // At once, and not as if it had answered.
    state.changed().await.unwrap();
    let now = state.borrow_and_update().clone();
    assert!(matches!(now, State::Disconnected { .. }), "{now:?}");
    tokio::time::sleep(Duration::from_secs(1)).await;
    let now = state.borrow().clone();
    assert!(matches!(now, State::Disconnected { .. }), "{now:?}");
}

#[tokio::test(start_paused = true)]
async fn an_error_says_what_stalled() {
    let (connector, mut listener) = pipe(1 << 20);
    let connecting = tokio::spawn(config().connect_with(connector));
    // Taken, and never greeted.
    let mut taken: Vec<Peer> = Vec::new();
    while let Some(peer) = listener.try_accept().await {
        taken.push(peer);
    }
    let error = connecting.await.unwrap().unwrap_err();
    let cause = std::error::Error::source(&error).unwrap().to_string();
    assert!(cause.contains("has not answered for"), "{error}: {cause}");

    let (client, mut peer, _listener) = connected().await;
    peer.pongs = false;
    let error = client.rooms("", 1).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Timeout);
    let cause = std::error::Error::source(&error).unwrap().to_string();
    assert!(cause.contains("has not answered for"), "{error}: {cause}");
}

/// A store's directory with a leader in this process that nobody hears from at `sock`.
struct Silent {
    dir: StoreDir,
    listener: UnixListener,
    vitals: Arc<Vitals>,
    _lock: Lock,
    _parent: tempfile::TempDir,
}

fn silent() -> Silent {
    let parent = tempfile::tempdir().unwrap();
    let dir = StoreDir::open(parent.path().join("data"), &SystemProbe).unwrap();
    let lock = Lock::try_acquire(&dir).unwrap();
    let holder = Holder {
        process: ProcessId::current(),
        term: Term::new(1),
        role: role::ELIGIBLE,
        fencing_allowed: false,
        since: Micros::new(0),
        store: super::peer::STORE,
        build: "leader 1".to_owned(),
        tcp: String::new(),
        socket: String::new(),
        successor: String::new(),
    };
    lock.publish(&holder).unwrap();
    Silent {
        listener: UnixListener::bind(dir.socket_path()).unwrap(),
        vitals: Vitals::new(role::ELIGIBLE, "leader 1"),
        dir,
        _lock: lock,
        _parent: parent,
    }
}

impl Silent {
    /// A client that waits for an answer, and the stream that it waits at.
    async fn client(&self) -> io::Result<(Client, UnixStream)> {
        let path: PathBuf = self.dir.path().join(SOCKET_NAME);
        let address = crate::net::client::Address::unix(path);
        let client = config().open(address.into()).unwrap();
        let (stream, _) = self.listener.accept().await?;
        Ok((client, stream))
    }
}

#[tokio::test]
async fn a_leader_that_is_well_is_busy() {
    let silent = silent();
    silent.vitals.set_stage(Stage::Serving);
    let _warden = Warden::start(&silent.dir, Arc::clone(&silent.vitals)).unwrap();
    let begun = Instant::now();
    let (client, _stream) = silent.client().await.unwrap();
    let report = stalled(&mut client.state()).await;
    assert_eq!(report.kind(), StallKind::Busy);
    assert_eq!(report.pid(), Some(std::process::id()));
    assert_eq!(report.build(), Some("leader 1"));
    assert!(begun.elapsed() >= Duration::from_millis(1300));
}

#[tokio::test]
async fn a_leader_whose_writer_hangs_waits_for_the_disk() {
    let silent = silent();
    let clock = ManualClock::default();
    let config = EmbeddedConfig {
        clock: Arc::new(clock.clone()),
        ..EmbeddedConfig::new(super::peer::STORE)
    };
    let storage = Arc::new(MemoryStorage::default());
    let (store, _engine) = EmbeddedStore::open_manual(storage, config, &mut |_, _| {}).unwrap();
    store.pulse().enter();
    clock.advance(Duration::from_secs(2));
    silent.vitals.set_pulse(store.pulse());
    let _warden = Warden::start(&silent.dir, Arc::clone(&silent.vitals)).unwrap();
    let begun = Instant::now();
    let (client, _stream) = silent.client().await.unwrap();
    let report = stalled(&mut client.state()).await;
    let lasting = Duration::from_secs(2);
    assert_eq!(report.kind(), StallKind::DiskStalled { lasting });
    assert!(begun.elapsed() >= Duration::from_millis(300));
    assert!(
        report.silent_for() < Duration::from_millis(1300),
        "{report:?}"
    );
}

#[tokio::test]
async fn a_leader_without_a_word_is_named_by_the_lock() {
    let silent = silent();
    // Connections to it are taken by the kernel, and that is all.
    let _health = UnixListener::bind(silent.dir.health_socket_path()).unwrap();
    let (client, _stream) = silent.client().await.unwrap();
    let report = stalled(&mut client.state()).await;
    assert_eq!(report.kind(), StallKind::NotAnswering);
    assert_eq!(report.pid(), Some(std::process::id()));
    assert_eq!(report.build(), Some("leader 1"));
}

//! The lead changes hands: who stands by, who hands over to whom, and what clients notice of it.

use std::io::{Read, Write};
use std::net::SocketAddr;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread;
use std::time::Duration;

use broker_core::{Client, Config, ErrorKind, Item, Node, Role, StartAt, State};
use broker_proto::limits::FRAME_BYTES_MAX;
use broker_proto::{Decoder, Frame, Hello, KnownHeads, ProducerId, SenderName, StoreId};
use bytes::BytesMut;
use tokio::time::timeout;

/// Nothing here takes so long unless it hangs.
const LONG: Duration = Duration::from_secs(20);

/// A node that opens no TCP port.
fn config(dir: &Path, sender: &str) -> Config {
    Config::new(dir).listen(None).sender(sender).timeout(LONG)
}

async fn until_leading(node: &Node) {
    let mut state = node.client().state();
    let leading = state.wait_for(State::is_leading);
    timeout(LONG, leading)
        .await
        .expect("it never leads")
        .unwrap();
    assert!(node.is_leader());
}

async fn texts(client: &Client, room: &str, count: usize) -> Vec<String> {
    let mut items = client
        .room(room)
        .unwrap()
        .subscribe(StartAt::START)
        .wait(true)
        .await
        .unwrap();
    let mut texts = Vec::new();
    while texts.len() < count {
        let next = timeout(LONG, items.next())
            .await
            .expect("messages are missing");
        match next.unwrap().unwrap() {
            Item::Message(message) => {
                texts.push(String::from_utf8(message.payload.to_vec()).unwrap());
            }
            other => panic!("{other:?}"),
        }
    }
    texts
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_that_stands_by_leads_when_the_leader_ends_without_a_word() {
    let parent = tempfile::tempdir().unwrap();
    let dir = parent.path().join("store");
    let first = Node::join(config(&dir, "ann")).await.unwrap();
    let second = Node::join(config(&dir, "bob")).await.unwrap();
    assert!(first.is_leader() && !second.is_leader());
    let term = first.client().state().borrow().server().unwrap().term;
    let room = second.client().room("ops").unwrap();
    room.send("before").await.unwrap();
    drop(first);
    assert_eq!(room.send("after").await.unwrap().seq.get(), 2);
    until_leading(&second).await;
    let state = second.client().state();
    let next = state.borrow().server().unwrap().term;
    assert!(next > term, "{next} after {term}");
    assert!(matches!(
        &*state.borrow(),
        State::Leading { gap: Some(_), .. }
    ));
    assert_eq!(texts(&second.client(), "ops", 2).await, ["before", "after"]);
    second.shutdown().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn only_one_of_many_leads_next_and_the_others_follow_it() {
    let parent = tempfile::tempdir().unwrap();
    let dir = parent.path().join("store");
    let mut nodes = Vec::new();
    for n in 0..8 {
        nodes.push(Node::join(config(&dir, &format!("n{n}"))).await.unwrap());
    }
    for round in 1..=7_u64 {
        let leads = nodes
            .iter()
            .position(Node::is_leader)
            .expect("nobody leads");
        drop(nodes.remove(leads));
        for node in &nodes {
            let room = node.client().room("ops").unwrap();
            let sent = room.send(format!("{round}"));
            timeout(LONG, sent)
                .await
                .expect("nobody took over")
                .unwrap();
        }
        let leading = || nodes.iter().filter(|node| node.is_leader()).count();
        // It serves a moment before it says so.
        let says_so = async {
            while leading() == 0 {
                tokio::task::yield_now().await;
            }
        };
        timeout(LONG, says_so).await.expect("nobody says so");
        assert_eq!(leading(), 1, "after {round} changes");
        assert_eq!(nodes.len() as u64, 8 - round);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sends_and_reads_go_through_many_hand_overs_once_and_in_order() {
    const COUNT: usize = 4_000;
    let parent = tempfile::tempdir().unwrap();
    let dir = parent.path().join("store");
    let mut leader = Node::join(config(&dir, "leader")).await.unwrap();
    let writer = Node::join(config(&dir, "writer").role(Role::ClientOnly))
        .await
        .unwrap();
    let reader = Node::join(config(&dir, "reader").role(Role::ClientOnly))
        .await
        .unwrap();
    let client = reader.client();
    let reading = tokio::spawn(async move { texts(&client, "ops", COUNT).await });
    let room = writer.client().room("ops").unwrap();
    let writing = tokio::spawn(async move {
        let mut tickets = Vec::new();
        for n in 0..COUNT {
            tickets.push(room.queue(format!("{n}")).await.unwrap());
        }
        let mut seqs = Vec::new();
        for ticket in tickets {
            seqs.push(ticket.await.unwrap().seq.get());
        }
        seqs
    });
    let mut changes = 0;
    while !writing.is_finished() || changes < 5 {
        let heir = Node::join(config(&dir, "heir")).await.unwrap();
        leader.shutdown().await.unwrap();
        until_leading(&heir).await;
        leader = heir;
        changes += 1;
    }
    let seqs = writing.await.unwrap();
    assert!(seqs.iter().copied().eq(1..=COUNT as u64));
    let expected: Vec<String> = (0..COUNT).map(|n| n.to_string()).collect();
    assert_eq!(timeout(LONG, reading).await.unwrap().unwrap(), expected);
    println!("{changes} changes of the leader");
    leader.shutdown().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whoever_connects_while_the_lead_changes_hands_is_never_turned_away() {
    let parent = tempfile::tempdir().unwrap();
    let dir = parent.path().join("store");
    let any: SocketAddr = "127.0.0.1:0".parse().unwrap();
    let first = Node::join(config(&dir, "ann").listen(any)).await.unwrap();
    let port = first.address().unwrap();
    let second = Node::join(config(&dir, "bob").listen(port)).await.unwrap();
    let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
    let knocking = tokio::spawn(async move {
        let mut stopped = stopped;
        let mut refused = 0;
        loop {
            if stopped.try_recv().is_ok() {
                return refused;
            }
            refused += u32::from(tokio::net::TcpStream::connect(port).await.is_err());
            tokio::task::yield_now().await;
        }
    });
    let far = Client::connect(&format!("tcp://{port}")).await.unwrap();
    let room = far.room("ops").unwrap();
    room.send("one").await.unwrap();
    first.shutdown().await.unwrap();
    assert_eq!(room.send("two").await.unwrap().seq.get(), 2);
    until_leading(&second).await;
    assert_eq!(second.address(), Some(port));
    stop.send(()).unwrap();
    assert_eq!(knocking.await.unwrap(), 0, "connections were refused");
    far.shutdown().await.unwrap();
    second.shutdown().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_daemon_that_starts_gets_the_lead_of_an_application() {
    let parent = tempfile::tempdir().unwrap();
    let dir = parent.path().join("store");
    let application = Node::join(config(&dir, "ann")).await.unwrap();
    let room = application.client().room("ops").unwrap();
    room.send("one").await.unwrap();
    let daemon = config(&dir, "brokerd").role(Role::ServeAlways);
    let daemon = timeout(LONG, Node::join(daemon)).await.unwrap().unwrap();
    assert!(daemon.is_leader());
    assert_eq!(room.send("two").await.unwrap().seq.get(), 2);
    assert!(!application.is_leader());
    let second = config(&dir, "second").role(Role::ServeAlways);
    let error = Node::join(second).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Locked, "{error:?}");
    // When the daemon goes, the application is there again.
    daemon.shutdown().await.unwrap();
    until_leading(&application).await;
    assert_eq!(room.send("three").await.unwrap().seq.get(), 3);
    application.shutdown().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_pauses_hands_over_and_leads_again_when_it_is_needed() {
    let parent = tempfile::tempdir().unwrap();
    let dir = parent.path().join("store");
    let first = Node::join(config(&dir, "ann")).await.unwrap();
    let second = Node::join(config(&dir, "bob")).await.unwrap();
    let control = first.control();
    control.pause().await.unwrap();
    assert!(!first.is_leader());
    until_leading(&second).await;
    // Nobody is left who could lead: the lock is released all the same.
    second.control().pause().await.unwrap();
    assert!(!first.is_leader() && !second.is_leader());
    let other = Node::join(config(&dir, "cyd").role(Role::OneShot))
        .await
        .unwrap();
    assert!(other.is_leader());
    control.resume().await.unwrap();
    other.shutdown().await.unwrap();
    until_leading(&first).await;
    drop(second);
    first.shutdown().await.unwrap();
    assert_eq!(control.pause().await.unwrap_err().kind(), ErrorKind::Closed);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_short_command_with_work_left_leads_when_nobody_else_does() {
    let parent = tempfile::tempdir().unwrap();
    let dir = parent.path().join("store");
    let first = Node::join(config(&dir, "ann")).await.unwrap();
    let command = Node::join(config(&dir, "bob").role(Role::OneShot))
        .await
        .unwrap();
    let only_client = Node::join(config(&dir, "cyd").role(Role::ClientOnly))
        .await
        .unwrap();
    drop(first);
    let room = command.client().room("ops").unwrap();
    assert_eq!(room.send("work").await.unwrap().seq.get(), 1);
    assert!(command.is_leader() && !only_client.is_leader());
    // It leaves as soon as its work is done, and nobody who may lead is there.
    command.shutdown().await.unwrap();
    let mut state = only_client.client().state();
    let lost = state.wait_for(|state| !state.is_connected());
    timeout(LONG, lost).await.expect("still connected").unwrap();
    assert!(!only_client.is_leader());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_store_that_cannot_be_opened_leaves_the_node_a_client_that_says_why() {
    let parent = tempfile::tempdir().unwrap();
    let dir = parent.path().join("store");
    let first = Node::join(config(&dir, "ann")).await.unwrap();
    let second = Node::join(config(&dir, "bob").timeout(Duration::from_millis(500)))
        .await
        .unwrap();
    // What names the store is damaged while it is led: whoever leads next cannot know which it is.
    let file = dir.join("store");
    let good = std::fs::read(&file).unwrap();
    std::fs::write(&file, vec![7; good.len()]).unwrap();
    drop(first);
    let room = second.client().room("ops").unwrap();
    let error = room.send("lost?").await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Timeout, "{error:?}");
    assert!(!second.is_leader());
    assert!(!second.warnings().is_empty());
    std::fs::write(&file, good).unwrap();
    // It rests for a second or more, and then tries again.
    until_leading(&second).await;
    // The first leader may have stored the one before, if it was told that nobody knows.
    let seq = room.send("again").await.unwrap().seq.get();
    assert!(
        seq == 1 || seq == 2 && !error.is_retryable(),
        "{seq}, {error:?}"
    );
    second.shutdown().await.unwrap();
}

/// The next frame of a broker.
fn frame(stream: &mut UnixStream, decoder: &mut Decoder, read: &mut BytesMut) -> Frame {
    loop {
        if let Some(frame) = decoder.decode(read, FRAME_BYTES_MAX).unwrap() {
            return frame;
        }
        let mut bytes = [0; 4096];
        let count = stream.read(&mut bytes).unwrap();
        assert!(count > 0, "the end");
        read.extend_from_slice(bytes.get(..count).unwrap());
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_goodbye_names_no_successor_that_is_no_address() {
    let parent = tempfile::tempdir().unwrap();
    let dir = parent.path().join("store");
    let first = Node::join(config(&dir, "ann")).await.unwrap();
    let second = Node::join(config(&dir, "bob")).await.unwrap();
    let mut stream = UnixStream::connect(dir.join("sock")).unwrap();
    let mut bytes = BytesMut::new();
    let hello = Hello {
        build: "test 1".to_owned(),
        sender: SenderName::parse("cyd").unwrap(),
        producer: ProducerId::new([1; 16]),
        feature_level: 1,
        known_store: StoreId::NONE,
        nonce: [0; 16],
        known_heads: KnownHeads::default(),
    };
    hello.encode(&mut bytes);
    stream.write_all(&bytes).unwrap();
    let (welcomed, welcome) = tokio::sync::oneshot::channel();
    let listening = thread::spawn(move || {
        let (mut decoder, mut read) = (Decoder::new(), BytesMut::new());
        let mut next = || frame(&mut stream, &mut decoder, &mut read);
        while !matches!(next(), Frame::Welcome(_)) {}
        welcomed.send(()).unwrap();
        loop {
            if let Frame::Goodbye(goodbye) = next() {
                return goodbye;
            }
        }
    });
    welcome.await.unwrap();
    first.shutdown().await.unwrap();
    until_leading(&second).await;
    // It would be a URL, says the protocol. The next leader is found where this one was.
    assert_eq!(listening.join().unwrap().successor, "");
    second.shutdown().await.unwrap();
}

/// A message of the warden's socket, as its table says; these have no more than that.
fn said(kind: u8, fields: &[u8]) -> [u8; 128] {
    let mut message = [0; 128];
    let mut place = message.as_mut_slice();
    for part in [b"BRKW\x01\0".as_slice(), &[kind, 0], fields] {
        place.write_all(part).unwrap();
    }
    message
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_heir_that_stops_before_it_gets_the_lock_is_followed_by_another() {
    let parent = tempfile::tempdir().unwrap();
    let dir = parent.path().join("store");
    let first = Node::join(config(&dir, "ann")).await.unwrap();
    // It stands by the longest, says that it is ready, and then nothing any more: what it is sent
    // stays in its socket.
    let mut stopped = UnixStream::connect(dir.join("health.sock")).unwrap();
    let who = [&7_u32.to_le_bytes()[..], &u32::MAX.to_le_bytes(), b"\x01x"].concat();
    stopped.write_all(&said(2, &who)).unwrap();
    let (told, standing) = tokio::sync::oneshot::channel();
    let stopping = thread::spawn(move || {
        // The leader answers in order: it stands by when this is answered.
        stopped.write_all(&said(1, &[])).unwrap();
        let mut message = [0; 128];
        stopped.read_exact(&mut message).unwrap();
        told.send(()).unwrap();
        stopped.read_exact(&mut message).unwrap();
        assert_eq!(message[6], 18, "an offer");
        stopped.write_all(&said(4, &[])).unwrap();
        stopped
    });
    standing.await.unwrap();
    let second = Node::join(config(&dir, "bob")).await.unwrap();
    let room = second.client().room("ops").unwrap();
    room.send("one").await.unwrap();
    first.shutdown().await.unwrap();
    let sent = timeout(LONG, room.send("two")).await;
    assert_eq!(sent.expect("nobody leads").unwrap().seq.get(), 2);
    until_leading(&second).await;
    drop(stopping.join().unwrap());
    second.shutdown().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_leader_that_ends_every_line_at_once_is_not_asked_without_a_pause() {
    let parent = tempfile::tempdir().unwrap();
    let dir = parent.path().join("store");
    let first = Node::join(config(&dir, "ann")).await.unwrap();
    // As a leader of another version would that does not understand who stands by.
    let other = UnixListener::bind(dir.join("other")).unwrap();
    std::fs::rename(dir.join("other"), dir.join("health.sock")).unwrap();
    let lines = Arc::new(AtomicU32::new(0));
    let counted = Arc::clone(&lines);
    thread::spawn(move || {
        while let Ok((mut line, _)) = other.accept() {
            counted.fetch_add(1, Ordering::Relaxed);
            let _what_it_says = line.read(&mut [0; 128]);
        }
    });
    let second = Node::join(config(&dir, "bob")).await.unwrap();
    tokio::time::sleep(Duration::from_secs(1)).await;
    let lines = lines.load(Ordering::Relaxed);
    // At the pace of tries at the lock, at least 1.25 ms apart.
    assert!(lines > 0 && lines <= 800, "{lines} in a second");
    drop(first);
    until_leading(&second).await;
    second.shutdown().await.unwrap();
}

//! Many publishers, readers that come when they like: all of them see one order.

use std::collections::HashMap;
use std::time::Duration;

use broker_core::{Client, ClientConfig, Config, Item, Message, Node, Role, StartAt};

const PUBLISHERS: usize = 64;
const EACH: usize = 100;
const PATIENCE: Duration = Duration::from_secs(60);

async fn leader(dir: &std::path::Path) -> Node {
    let listen: std::net::SocketAddr = "127.0.0.1:0".parse().unwrap();
    let config = Config::new(dir).role(Role::ServeAlways).listen(listen);
    Node::join(config).await.unwrap()
}

async fn connect(node: &Node, name: &str) -> Client {
    let address = format!("tcp://{}", node.address().unwrap());
    ClientConfig::new()
        .sender(name)
        .connect(&address)
        .await
        .unwrap()
}

/// Reads a room from the start until `count` messages have come.
async fn collect(client: Client, room: &'static str, count: usize) -> Vec<Message> {
    let room = client.room(room).unwrap();
    let mut messages = room.subscribe(StartAt::START).wait(true).await.unwrap();
    let mut all = Vec::new();
    while all.len() < count {
        match messages.next().await.unwrap().unwrap() {
            Item::Message(message) => all.push(message),
            other => panic!("{other:?}"),
        }
    }
    all
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn everybody_sees_the_same_order() {
    let dir = tempfile::tempdir().unwrap();
    let node = leader(&dir.path().join("data")).await;
    let rooms = ["left", "right"];
    let mut readers = Vec::new();
    // Half of the readers wait for the rooms to be made; the other half come in the middle.
    for n in 0..4 {
        let client = connect(&node, &format!("early-{n}")).await;
        readers.push(tokio::spawn(collect(
            client,
            rooms[n % 2],
            PUBLISHERS * EACH / 2,
        )));
    }
    let mut publishers = Vec::new();
    for n in 0..PUBLISHERS {
        let client = connect(&node, &format!("pub-{n}")).await;
        let room = client.room(rooms[n % 2]).unwrap();
        publishers.push(tokio::spawn(async move {
            let mut seqs = Vec::new();
            for counter in 0..EACH {
                seqs.push(room.send(format!("{n}:{counter}")).await.unwrap().seq);
            }
            seqs
        }));
    }
    for n in 4..8 {
        let client = connect(&node, &format!("late-{n}")).await;
        readers.push(tokio::spawn(collect(
            client,
            rooms[n % 2],
            PUBLISHERS * EACH / 2,
        )));
    }
    let everything = async {
        let mut acked = Vec::new();
        for publisher in publishers {
            acked.push(publisher.await.unwrap());
        }
        let mut seen: HashMap<usize, Vec<Message>> = HashMap::new();
        for (n, reader) in readers.into_iter().enumerate() {
            let messages = reader.await.unwrap();
            match seen.get(&(n % 2)) {
                Some(before) => assert_eq!(before, &messages, "reader {n} saw another order"),
                None => {
                    seen.insert(n % 2, messages);
                }
            }
        }
        (acked, seen)
    };
    let (acked, seen) = tokio::time::timeout(PATIENCE, everything).await.unwrap();
    for (n, seqs) in acked.iter().enumerate() {
        assert!(
            seqs.is_sorted_by(|a, b| a < b),
            "publisher {n} was reordered"
        );
        for (counter, seq) in seqs.iter().enumerate() {
            let at = usize::try_from(seq.get() - 1).unwrap();
            let message = &seen[&(n % 2)][at];
            assert_eq!(message.seq, *seq);
            assert_eq!(&message.payload[..], format!("{n}:{counter}").as_bytes());
            assert_eq!(&message.sender[..], format!("pub-{n}"));
        }
    }
    node.shutdown().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_subscriber_that_sends_in_its_loop_never_stalls() {
    let dir = tempfile::tempdir().unwrap();
    let node = leader(&dir.path().join("data")).await;
    let client = connect(&node, "echo").await;
    let (question, answer) = (
        client.room("question").unwrap(),
        client.room("answer").unwrap(),
    );
    // More than any window holds, so that both directions are full at once.
    let payload = vec![b'x'; 64 << 10];
    let feeder = connect(&node, "feeder").await.room("question").unwrap();
    let feed = tokio::spawn(async move {
        for _ in 0..200 {
            feeder.send(payload.clone()).await.unwrap();
        }
    });
    let echo = async {
        let mut messages = question
            .subscribe(StartAt::START)
            .wait(true)
            .window_bytes(4096)
            .await
            .unwrap();
        for _ in 0..200 {
            match messages.next().await.unwrap().unwrap() {
                Item::Message(message) => answer.send(message.payload).await.unwrap(),
                other => panic!("{other:?}"),
            };
        }
    };
    tokio::time::timeout(PATIENCE, echo)
        .await
        .expect("it stalled");
    feed.await.unwrap();
    node.shutdown().await.unwrap();
}

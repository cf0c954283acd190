//! Slow readers, credit, and two sides that both write.

use std::time::Duration;
#[cfg(target_os = "linux")]
use std::{fs, net::SocketAddr};

use broker_core::net::ServerConfig;
use broker_proto::{Frame, Ping, StartAt, decode};
use bytes::BytesMut;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::timeout;

use crate::peer::{Peer, encoded, serving};

const ALL: u32 = 64 << 20;

#[tokio::test]
async fn a_reader_that_takes_nothing_costs_the_others_nothing_and_misses_nothing() {
    let (_server, address) = serving(ServerConfig::default());
    let mut slow = Peer::welcomed(address, "slow").await;
    slow.subscribe(1, "ops", StartAt::START, ALL).await;
    let mut fast = Peer::welcomed(address, "fast").await;
    fast.subscribe(1, "ops", StartAt::START, ALL).await;
    let mut bob = Peer::welcomed(address, "bob").await;
    let payload = vec![b'x'; 32 << 10];
    // More than any socket buffer holds, so that the slow one's connection is blocked for long.
    for n in 0..40 {
        bob.publish("ops", &[&payload; 16]).await;
        fast.hear_messages(n * 16 + 1, 16).await;
    }
    slow.hear_messages(1, 40 * 16).await;
}

/// Bytes that the kernel holds for the peer at `to` in the socket at `from`.
#[cfg(target_os = "linux")]
#[expect(
    clippy::host_endian_bytes,
    reason = "the kernel shows an address as the number that its bytes are"
)]
fn held_by_the_kernel(from: SocketAddr, to: SocketAddr) -> usize {
    let hex = |address: SocketAddr| match address {
        SocketAddr::V4(address) => {
            let ip = u32::from_ne_bytes(address.ip().octets());
            format!("{ip:08X}:{:04X}", address.port())
        }
        SocketAddr::V6(_) => panic!("the test uses IPv4"),
    };
    let sockets = fs::read_to_string("/proc/net/tcp").unwrap();
    let wanted = format!("{} {} ", hex(from), hex(to));
    let socket = sockets.lines().find(|line| line.contains(&wanted)).unwrap();
    let queues = socket.split_whitespace().nth(4).unwrap();
    usize::from_str_radix(queues.split(':').next().unwrap(), 16).unwrap()
}

#[cfg(target_os = "linux")]
#[tokio::test]
async fn a_reader_that_takes_nothing_holds_little_of_the_kernels_memory() {
    let (_server, address) = serving(ServerConfig::default());
    let mut slow = Peer::welcomed(address, "slow").await;
    slow.subscribe(1, "ops", StartAt::START, ALL).await;
    let at = slow.io.local_addr().unwrap();
    let mut bob = Peer::welcomed(address, "bob").await;
    let payload = vec![b'x'; 32 << 10];
    let mut held = 0;
    for _ in 0..40 {
        bob.publish("ops", &[&payload; 16]).await;
        held = held_by_the_kernel(address, at);
        assert!(held <= 512 << 10, "{held} bytes");
    }
    assert!(held >= 64 << 10, "nothing is held back: {held} bytes");
    slow.hear_messages(1, 40 * 16).await;
}

#[tokio::test]
async fn without_credit_only_what_was_admitted_comes_and_all_else_goes_on() {
    let (_server, address) = serving(ServerConfig::default());
    let mut ann = Peer::welcomed(address, "ann").await;
    ann.subscribe(1, "ops", StartAt::START, 1).await;
    ann.subscribe(2, "ops", StartAt::START, 0).await;
    ann.subscribe(3, "ops", StartAt::START, ALL).await;
    let mut bob = Peer::welcomed(address, "bob").await;
    let mut came = [0; 4];
    for round in 1..=20 {
        bob.publish("ops", &["x"]).await;
        while came[3] < round {
            let deliver = ann.hear_deliver().await;
            came[deliver.sub as usize] += deliver.count;
        }
        ann.say(Ping {
            nonce: round.into(),
        })
        .await;
        loop {
            match ann.hear().await {
                Frame::Pong(_) => break,
                Frame::Deliver(deliver) => came[deliver.sub as usize] += deliver.count,
                // The room came into being with the first message; its subscriptions hear of it one by one.
                Frame::Subscribed(_) => {}
                other => panic!("{other:?}"),
            }
        }
    }
    assert_eq!(came, [0, 1, 0, 20]);
    ann.credit(2, ALL).await;
    let deliver = ann.hear_deliver().await;
    assert_eq!((deliver.sub, deliver.count), (2, 20));
}

#[tokio::test]
async fn a_subscriber_that_publishes_in_its_receive_loop_does_not_stop_itself() {
    let (_server, address) = serving(ServerConfig::default());
    let mut ann = Peer::welcomed(address, "ann").await;
    let mut bob = Peer::welcomed(address, "bob").await;
    let payload = vec![b'x'; 64 << 10];
    let rounds = 200;
    for _ in 0..20 {
        bob.publish("in", &[&payload; 10]).await;
    }
    // Both ways carry far more than the sockets hold, and no byte is read while one is written.
    ann.subscribe(1, "in", StartAt::START, ALL).await;
    let mut next = 1;
    while next <= rounds {
        let deliver = ann.hear_deliver().await;
        for message in deliver.messages() {
            assert_eq!(message.unwrap().seq.get(), next);
            next += 1;
            ann.send("out", &[&payload]).await;
        }
    }
    bob.subscribe(1, "out", StartAt::START, ALL).await;
    bob.hear_messages(1, rounds).await;
}

#[tokio::test]
async fn a_peer_that_writes_without_ever_reading_is_held_up_and_then_goes_on() {
    let (_server, address) = serving(ServerConfig::default());
    let ann = Peer::welcomed(address, "ann").await;
    let (mut reader, mut writer) = tokio::io::split(ann.io);
    let ping = encoded(Ping { nonce: u64::MAX });
    let many = ping.repeat(1000);
    let mut said = 0;
    // Far more than sockets hold, and a server that buffered the answers would take all of it.
    while let Ok(written) = timeout(Duration::from_millis(300), writer.write(&many)).await {
        // Whole frames or not: the pipe is cut anywhere, only its bytes count.
        said += written.unwrap();
        let rest = said % ping.len();
        if rest > 0 {
            let Ok(written) =
                timeout(Duration::from_millis(300), writer.write_all(&ping[rest..])).await
            else {
                break;
            };
            written.unwrap();
            said += ping.len() - rest;
        }
        assert!(said < 200 << 20, "the server buffers without a limit");
    }
    let mut pongs = 0;
    let mut buf = BytesMut::new();
    while pongs < said / ping.len() {
        timeout(Duration::from_secs(30), reader.read_buf(&mut buf))
            .await
            .expect("no answer")
            .unwrap();
        while let Some(frame) = decode(&mut buf, 1 << 20).unwrap() {
            assert!(matches!(frame, Frame::Pong(_)));
            pongs += 1;
        }
    }
}

#[tokio::test]
async fn a_hundred_subscriptions_share_one_connection() {
    let (_server, address) = serving(ServerConfig::default());
    let mut ann = Peer::welcomed(address, "ann").await;
    let rooms: Vec<String> = (0..100).map(|n| format!("room{n}")).collect();
    for (sub, room) in (0..).zip(&rooms) {
        ann.subscribe(sub, room, StartAt::START, ALL).await;
    }
    let mut bob = Peer::welcomed(address, "bob").await;
    for _ in 0..3 {
        for room in &rooms {
            bob.send(room, &["x", "y"]).await;
        }
    }
    let mut came = vec![0; rooms.len()];
    while came.iter().sum::<u32>() < 600 {
        let deliver = ann.hear_deliver().await;
        came[deliver.sub as usize] += deliver.count;
    }
    assert!(came.iter().all(|count| *count == 6), "{came:?}");
}

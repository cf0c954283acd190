//! First bytes of other protocols, and who may come in.

use std::time::Duration;

use broker_core::net::ServerConfig;
use broker_proto::ErrorCode;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::peer::{Peer, hello, serving};

async fn answer_to(address: std::net::SocketAddr, bytes: &[u8]) -> Vec<u8> {
    let mut io = TcpStream::connect(address).await.unwrap();
    io.write_all(bytes).await.unwrap();
    let mut answer = Vec::new();
    timeout(Duration::from_secs(30), io.read_to_end(&mut answer))
        .await
        .expect("not closed")
        .unwrap();
    answer
}

#[tokio::test]
async fn a_door_that_is_not_served_answers_in_its_own_language_and_closes() {
    let (_server, address) = serving(ServerConfig::default());
    for json in [&b"{\"action\":\"register\"}\n"[..], b" {}", b"\n"] {
        let answer = answer_to(address, json).await;
        assert!(answer.starts_with(b"{\"status\":\"error\"") && answer.ends_with(b"}\n"));
        assert_eq!(
            answer.iter().filter(|byte| **byte == b'\n').count(),
            1,
            "one line"
        );
    }
    for http in [
        &b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"[..],
        b"POST /rooms HTTP/1.1\r\n",
    ] {
        let answer = String::from_utf8(answer_to(address, http).await).unwrap();
        assert!(
            answer.starts_with("HTTP/1.1 501 Not Implemented\r\n"),
            "{answer}"
        );
        assert!(answer.ends_with("native protocol\n"), "{answer}");
    }
    assert_eq!(
        answer_to(address, &[0x16, 3, 1, 0, 5]).await,
        [21, 3, 3, 0, 2, 2, 40]
    );
    for other in [&[0xff][..], b"\x01", b"\"quoted\""] {
        let answer = answer_to(address, other).await;
        assert!(answer.starts_with(b"this is a room broker"), "{answer:?}");
    }
    Peer::welcomed(address, "ann").await;
}

#[tokio::test]
async fn the_answer_of_a_door_survives_a_peer_that_sends_much_more() {
    let (_server, address) = serving(ServerConfig::default());
    let mut request = b"POST / HTTP/1.1\r\n\r\n".to_vec();
    request.resize(100_000, b'x');
    let answer = answer_to(address, &request).await;
    assert!(answer.starts_with(b"HTTP/1.1 501"));
}

#[tokio::test]
async fn more_connections_than_allowed_are_told_the_limit() {
    let (_server, address) = serving(ServerConfig {
        connections_max: 2,
        ..ServerConfig::default()
    });
    let ann = Peer::welcomed(address, "ann").await;
    let mut bob = Peer::welcomed(address, "bob").await;
    let mut carl = Peer::connect(address).await;
    carl.say(hello("carl")).await;
    let error = carl.hear_the_end(ErrorCode::LIMIT).await;
    assert!(error.detail.contains("2 connections"), "{}", error.detail);
    bob.publish("ops", &["still served"]).await;
    drop(ann);
    // The place is free as soon as the server has noticed; nothing else says when.
    for _ in 0..1000 {
        let mut dora = Peer::connect(address).await;
        dora.say(hello("dora")).await;
        match dora.hear().await {
            broker_proto::Frame::Welcome(_) => return,
            _ => tokio::task::yield_now().await,
        }
    }
    panic!("a place that was given back is not free");
}

#[tokio::test]
async fn strangers_wait_at_the_door_when_there_are_too_many_and_then_come_in() {
    let (_server, address) = serving(ServerConfig::default());
    let mut strangers = Vec::new();
    for _ in 0..64 {
        strangers.push(TcpStream::connect(address).await.unwrap());
    }
    let mut ann = Peer::connect(address).await;
    ann.say(hello("ann")).await;
    let waits = timeout(Duration::from_millis(300), ann.hear()).await;
    assert!(waits.is_err(), "the 65th stranger was let in: {waits:?}");
    strangers.pop();
    ann.hear_welcome().await;
    // Who is known takes none of the places.
    for name in ["bob", "carl", "dora"] {
        Peer::welcomed(address, name).await;
    }
}

#[tokio::test]
async fn a_silent_stranger_is_closed_at_its_deadline() {
    let mut config = ServerConfig::default();
    config.patience.hello = Duration::from_millis(200);
    let (_server, address) = serving(config);
    assert_eq!(answer_to(address, b"").await, b"");
    // Also one that trickles: the deadline is for the whole hello.
    let mut slow = Peer::connect(address).await;
    slow.say_bytes(&[0, 0, 0]).await;
    slow.hear_the_end(ErrorCode::TIMED_OUT).await;
}

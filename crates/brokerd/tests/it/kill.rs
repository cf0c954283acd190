//! SIGKILL, again and again: what was acknowledged stays, once and in order.

use std::io::{BufRead, BufReader, Write};
use std::net::TcpListener;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::Duration;

use broker_core::{ClientConfig, Room, StartAt};

use crate::support::{Daemon, Place, block_on, skipped};

/// An address that is free now.
fn free_address() -> String {
    TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap()
        .to_string()
}

fn kill_and_restart(place: &Place, daemon: Daemon, address: &str) -> Daemon {
    let mut daemon = daemon;
    daemon.child.kill().unwrap();
    daemon.child.wait().unwrap();
    Daemon::new(place.command(&["--listen", address]))
}

/// Everything in a room.
async fn payloads(room: &Room) -> Vec<String> {
    let mut all = Vec::new();
    let mut start = StartAt::START;
    loop {
        let page = room.read(start, 10_000, 1 << 20).await.unwrap();
        all.extend(
            page.messages
                .iter()
                .map(|message| String::from_utf8(message.payload.to_vec()).unwrap()),
        );
        if page.is_last() {
            return all;
        }
        start = StartAt::position(page.next_position());
    }
}

#[test]
fn a_client_rides_over_kills_and_every_message_is_there_once() {
    let place = Place::new();
    let address = free_address();
    let mut daemon = Daemon::new(place.command(&["--listen", &address]));
    let url = format!("tcp://{address}");
    block_on(async {
        let client = ClientConfig::new()
            .sender("ann")
            .timeout(Duration::from_secs(60))
            .connect(&url)
            .await
            .unwrap();
        let room = client.room("log").unwrap();
        let mut sent = Vec::new();
        for round in 0..8 {
            let mut tickets = Vec::new();
            for number in 0..200 {
                let text = format!("round {round} message {number}");
                sent.push(text.clone());
                tickets.push(room.queue(text).await.unwrap());
            }
            // The kill falls between acknowledged and unacknowledged messages.
            tickets.remove(0).await.unwrap();
            daemon = kill_and_restart(&place, daemon, &address);
            let mut last = 0;
            for ticket in tickets {
                let seq = ticket.await.unwrap().seq.get();
                assert!(seq > last, "round {round}");
                last = seq;
            }
        }
        assert_eq!(payloads(&room).await, sent);
    });
}

/// The command line beside this daemon, when it was built with it.
fn command_line() -> Option<PathBuf> {
    let path = PathBuf::from(env!("CARGO_BIN_EXE_brokerd")).with_file_name("broker");
    path.exists().then_some(path)
}

#[test]
fn a_command_line_sender_rides_over_kills() {
    let Some(broker) = command_line() else {
        return skipped("the binary `broker` is not built: cargo build -p broker-cli");
    };
    let place = Place::new();
    let address = free_address();
    let url = format!("tcp://{address}");
    let mut daemon = Daemon::new(place.command(&["--listen", &address]));
    let command = |arguments: &[&str]| {
        let mut command = Command::new(&broker);
        command
            .env_clear()
            .env("HOME", place.path())
            .env("BROKER_NAME", "ann")
            .env("BROKER_URL", &url)
            .args(arguments);
        command
    };
    let mut sender = command(&["send", "log", "--lines", "--json", "--timeout", "60s"]);
    let mut sender = sender
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut stdin = sender.stdin.take().unwrap();
    let mut acks = BufReader::new(sender.stdout.take().unwrap()).lines();
    let mut expected = Vec::new();
    for round in 0..5 {
        for number in 0..400 {
            let line = format!("round {round} line {number}\n");
            stdin.write_all(line.as_bytes()).unwrap();
            expected.extend(line.into_bytes());
        }
        acks.next().unwrap().unwrap();
        daemon = kill_and_restart(&place, daemon, &address);
    }
    drop(stdin);
    assert_eq!(acks.count() + 5, 2000);
    assert!(sender.wait().unwrap().success());
    let read = command(&["read", "log", "--raw"]).output().unwrap();
    assert!(
        read.status.success() && read.stdout == expected,
        "the room holds something else"
    );
    drop(daemon);
}

//! Commands that talk to a broker elsewhere, and brokers that die meanwhile.

use std::io::Write;
use std::net::TcpListener;
use std::process::Stdio;

use crate::support::{Done, Place, Running, json_lines};

/// An address that is free now.
fn free_address() -> String {
    TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap()
        .to_string()
}

/// A command elsewhere: it knows the address and nothing of the store.
fn elsewhere(place: &Place, address: &str, arguments: &[&str]) -> std::process::Command {
    let mut command = place.command(arguments);
    command
        .env_remove("BROKER_DATA")
        .env("BROKER_URL", format!("tcp://{address}"));
    command
}

#[test]
fn every_command_works_over_an_address() {
    let place = Place::new();
    let address = free_address();
    let _leader = place.serve(&address);
    let run = |arguments: &[&str]| {
        Done::new(elsewhere(&place, &address, arguments).output().unwrap()).ok()
    };
    run(&["send", "lobby", "over tcp"]);
    assert_eq!(run(&["read", "lobby", "--raw"]).stdout, b"over tcp\n");
    assert_eq!(run(&["rooms", "--json"]).json().len(), 2);
    run(&["status"]);
    assert_eq!(place.raw("lobby"), b"over tcp\n");
}

#[test]
fn a_command_waits_for_a_broker_that_is_not_there_yet() {
    let place = Place::new();
    let address = free_address();
    let sender = Running::new(elsewhere(
        &place,
        &address,
        &["send", "lobby", "early", "--timeout", "30s"],
    ));
    let _leader = place.serve(&address);
    assert_eq!(sender.end().code, Some(0));
    assert_eq!(place.raw("lobby"), b"early\n");
}

#[test]
fn a_broker_killed_again_and_again_loses_and_doubles_nothing() {
    let place = Place::new();
    let address = free_address();
    let mut leader = place.serve(&address);
    let mut command = elsewhere(
        &place,
        &address,
        &["send", "log", "--lines", "--json", "--timeout", "60s"],
    );
    command.stdin(Stdio::piped());
    let mut sender = Running::new(command);
    let mut reader = Running::new(elsewhere(
        &place,
        &address,
        &[
            "read",
            "log",
            "-f",
            "--raw",
            "--from",
            "start",
            "--timeout",
            "60s",
        ],
    ));
    let mut stdin = sender.child.stdin.take().unwrap();
    let mut expected = Vec::new();
    for round in 0..6 {
        for number in 0..500 {
            let line = format!("round {round} line {number}\n");
            stdin.write_all(line.as_bytes()).unwrap();
            expected.extend(line.into_bytes());
        }
        // At least one ack of the round, so that the kill falls among acked and unacked lines.
        json_lines(sender.line().as_bytes());
        leader.child.kill().unwrap();
        leader.child.wait().unwrap();
        leader = place.serve(&address);
    }
    drop(stdin);
    let mut followed = Vec::new();
    while followed.len() < expected.len() {
        followed.extend(reader.line().into_bytes());
    }
    assert!(followed == expected, "the follower saw something else");
    let done = sender.end();
    assert_eq!(done.code, Some(0), "{}", done.stderr);
    let last = done.json().last().unwrap()["seq"].as_u64().unwrap();
    assert_eq!(last, 3000);
    assert!(
        place.raw("log") == expected,
        "the room holds something else"
    );
}

#[test]
fn a_broker_that_stops_answering_is_5_or_3() {
    let place = Place::new();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    // It accepts, by the kernel, and never says a word.
    let done = Done::new(
        elsewhere(&place, &address, &["rooms", "--timeout", "300ms"])
            .output()
            .unwrap(),
    );
    assert!(matches!(done.code, Some(3 | 5)), "{done:?}");
    assert!(done.stderr.contains(&address), "{}", done.stderr);
    drop(listener);
}

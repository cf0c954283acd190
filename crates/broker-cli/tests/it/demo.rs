//! The demonstration.

use std::fs;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::Command;

use rustix::process::Signal;

use crate::support::{Done, Place, Running, json_lines};

#[test]
fn the_demo_shows_both_sides_and_cleans_up() {
    let place = Place::new();
    let text = String::from_utf8(
        place
            .command(&["demo"])
            .env("TMPDIR", place.path())
            .output()
            .unwrap()
            .stdout,
    )
    .unwrap();
    for word in [
        "follower",
        "hello",
        "seq 1",
        "broker send",
        "broker read",
        "brokerd",
    ] {
        assert!(text.contains(word), "no {word:?} in {text}");
    }
    assert_eq!(fs::read_dir(place.path()).unwrap().count(), 0, "{text}");
}

#[test]
fn the_demo_needs_no_home() {
    let place = Place::new();
    let temporary = place.directory("tmp");
    let mut command = place.command(&["demo"]);
    command.env_clear().env("TMPDIR", &temporary);
    let output = command.output().unwrap();
    assert!(output.status.success(), "{output:?}");
    assert_eq!(fs::read_dir(temporary).unwrap().count(), 0);
}

/// The demo of take-overs, with its stores in a directory of its own.
fn takeovers(place: &Place, arguments: &[&str]) -> (Command, PathBuf) {
    let temporary = place.directory("tmp");
    let mut command = place.command(&["demo", "--takeover", "--every", "100ms"]);
    command.args(arguments).env("TMPDIR", &temporary);
    (command, temporary)
}

/// Processes that were given this directory.
fn processes(dir: &Path) -> Vec<String> {
    let dir = dir.to_str().unwrap();
    let entries = fs::read_dir("/proc").unwrap().filter_map(Result::ok);
    let lines = entries.filter_map(|entry| fs::read(entry.path().join("cmdline")).ok());
    let lines = lines.map(|line| String::from_utf8_lossy(&line).replace('\0', " "));
    lines.filter(|line| line.contains(dir)).collect()
}

#[track_caller]
fn nothing_is_left(temporary: &Path) {
    assert_eq!(processes(temporary), [""; 0]);
    assert_eq!(fs::read_dir(temporary).unwrap().count(), 0);
}

#[test]
fn killed_leaders_lose_nothing() {
    let place = Place::new();
    let (mut command, temporary) = takeovers(&place, &["--kills", "3", "--json"]);
    let lines = Done::new(command.output().unwrap()).ok().json();
    let [takeovers @ .., summary] = &lines[..] else {
        panic!("it prints nothing");
    };
    let mut before = 0;
    for (takeover, number) in takeovers.iter().zip(1..) {
        assert_eq!(takeover["takeover"], number);
        assert_ne!(takeover["killed"]["pid"], takeover["leader"]["pid"]);
        assert_ne!(takeover["killed"]["name"], takeover["leader"]["name"]);
        let term = takeover["leader"]["term"].as_u64().unwrap();
        assert!(term > takeover["killed"]["term"].as_u64().unwrap());
        let first = takeover["first_ack_ms"].as_f64().unwrap();
        let all = takeover["all_acked_ms"].as_f64().unwrap();
        assert!(0.0 < first && first <= all, "{takeover}");
        let acked = takeover["acked"].as_u64().unwrap();
        assert!(acked > before, "{takeover}");
        before = acked;
        assert_eq!(
            (&takeover["lost"], &takeover["doubled"]),
            (&0.into(), &0.into())
        );
    }
    assert_eq!((takeovers.len(), &summary["kills"]), (3, &3.into()));
    for found in ["lost", "doubled", "reordered", "strange", "misread"] {
        assert_eq!(summary[found], 0, "{summary}");
    }
    assert_eq!(summary["started"], 8, "{summary}");
    let acked = summary["acked"].as_u64().unwrap();
    assert!(acked >= before && summary["stored"].as_u64().unwrap() >= acked);
    assert!(!place.store().exists());
    nothing_is_left(&temporary);
}

#[test]
fn killed_leaders_are_shown_to_people() {
    let place = Place::new();
    let (mut command, temporary) = takeovers(&place, &["--kills", "1", "--rate", "1000"]);
    let done = Done::new(command.output().unwrap()).ok();
    let text = String::from_utf8(done.stdout).unwrap();
    for word in [
        "SIGKILL, once",
        "first ack",
        "lost 0, doubled 0",
        "p50",
        "all 6 agents",
    ] {
        assert!(text.contains(word), "no {word:?} in {text}");
    }
    assert!(!text.contains('\x1b'), "a pipe is no terminal: {text:?}");
    nothing_is_left(&temporary);
}

#[test]
fn a_demo_that_is_interrupted_ends_its_agents() {
    let place = Place::new();
    let (command, temporary) = takeovers(&place, &["--kills", "1000", "--json"]);
    let mut demo = Running::new(command);
    assert_eq!(json_lines(demo.line().as_bytes())[0]["takeover"], 1);
    assert!(processes(&temporary).len() >= 4, "the agents run");
    demo.signal(Signal::INT);
    let done = demo.end();
    assert_eq!((done.code, done.stderr.as_str()), (Some(130), ""));
    nothing_is_left(&temporary);
}

#[test]
fn agents_do_not_outlive_a_demo_that_is_killed() {
    let place = Place::new();
    // With -v the agents have the standard error of the demo: it ends with the last of them.
    let (command, temporary) = takeovers(&place, &["--kills", "1000", "--json", "-v"]);
    let mut demo = Running::new(command);
    demo.line();
    assert!(processes(&temporary).len() >= 4, "the agents run");
    let mut words = demo.child.stderr.take().unwrap();
    demo.signal(Signal::KILL);
    words.read_to_end(&mut Vec::new()).unwrap();
    assert_eq!(processes(&temporary), [""; 0]);
}

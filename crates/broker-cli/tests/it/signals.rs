//! SIGINT and SIGTERM, and SIGTSTP, which is Ctrl-Z.

use std::io::Write;
use std::process::Stdio;
use std::thread::sleep;
use std::time::Duration;

use rustix::process::{Pid, Signal, WaitOptions, waitpid};

use crate::support::{Place, Running, json_lines};

#[test]
fn a_follower_ends_with_the_signal_and_leaves_a_clean_store() {
    for (signal, code) in [(Signal::INT, 130), (Signal::TERM, 143)] {
        let place = Place::new();
        place.send("lobby", &["hi"]);
        let mut reader = place.start(&["read", "lobby", "-f", "--raw"]);
        reader.line();
        reader.signal(signal);
        let done = reader.end();
        assert_eq!((done.code, done.stderr.as_str()), (Some(code), ""));
        assert_eq!(place.raw("lobby"), b"hi\n");
    }
}

#[test]
fn a_sender_finishes_what_it_read() {
    let place = Place::new();
    let mut command = place.command(&["send", "log", "--lines", "--json"]);
    command.stdin(Stdio::piped());
    let mut sender = Running::new(command);
    let mut stdin = sender.child.stdin.take().unwrap();
    stdin.write_all(b"one\ntwo\nunfinished").unwrap();
    assert_eq!(json_lines(sender.line().as_bytes())[0]["seq"], 1);
    assert_eq!(json_lines(sender.line().as_bytes())[0]["seq"], 2);
    sender.signal(Signal::TERM);
    let done = sender.end();
    assert_eq!(done.code, Some(143), "{}", done.stderr);
    assert_eq!(place.raw("log"), b"one\ntwo\n", "half a line is not sent");
}

#[test]
fn a_message_that_is_being_typed_can_be_abandoned() {
    let place = Place::new();
    let mut command = place.command(&["send", "lobby"]);
    command.stdin(Stdio::piped());
    let mut sender = Running::new(command);
    let mut stdin = sender.child.stdin.take().unwrap();
    // The reading thread takes it once the signal handlers are in place.
    stdin.write_all(&vec![b'x'; 1 << 20]).unwrap();
    sender.signal(Signal::INT);
    let done = sender.end();
    assert_eq!((done.code, done.stderr.as_str()), (Some(130), ""));
    assert!(!place.store().exists(), "nothing was sent");
    drop(stdin);
}

#[test]
fn a_command_that_waits_for_a_broker_can_be_interrupted() {
    let place = Place::new();
    let missing = format!("unix:{}", place.path().join("nobody").display());
    // It says with -vv that it tries, which shows that its signal handlers are in place.
    let mut command = place.command(&["rooms", "--server", &missing, "--timeout", "1h", "-vv"]);
    command.env("BROKER_LOG", "debug");
    let mut waiting = Running::new(command);
    let mut first = [0; 1];
    std::io::Read::read_exact(waiting.child.stderr.as_mut().unwrap(), &mut first).unwrap();
    waiting.signal(Signal::INT);
    assert_eq!(waiting.end().code, Some(130));
}

#[test]
fn a_second_signal_ends_a_command_that_is_stuck() {
    let place = Place::new();
    let input: Vec<u8> = (0..100_000)
        .flat_map(|number| format!("{number}\n").into_bytes())
        .collect();
    place.run_with(&["send", "log", "--lines"], &input).ok();
    // Nobody reads its output after the first line, so it hangs in a write.
    let mut reader = place.start(&["read", "log", "-f", "--raw", "--from", "start"]);
    reader.line();
    let pid = Pid::from_child(&reader.child);
    // Signals of one kind that wait are one signal, so two kinds.
    reader.signal(Signal::INT);
    while rustix::process::test_kill_process(pid).is_ok()
        && reader.child.try_wait().unwrap().is_none()
    {
        reader.signal(Signal::TERM);
        std::thread::yield_now();
    }
    let code = reader.child.wait().unwrap().code();
    assert!(matches!(code, Some(130 | 143)), "{code:?}");
}

/// A leader whose heir is stopped, so that handing over takes a tenth of a second at least, and the
/// heir.
fn slow_to_leave(place: &Place) -> (Running, Running) {
    place.send("lobby", &["hi"]);
    let mut leader = place.start(&["read", "lobby", "-f", "--raw"]);
    leader.line();
    let mut heir = place.start(&["read", "lobby", "-f", "--raw"]);
    heir.line();
    // Its line to the leader is opened right after that.
    sleep(Duration::from_millis(200));
    heir.signal(Signal::STOP);
    let (_, status) = waitpid(Some(Pid::from_child(&heir.child)), WaitOptions::UNTRACED)
        .unwrap()
        .unwrap();
    assert!(status.stopped());
    (leader, heir)
}

/// Whether a process is stopped, or is within a while.
fn stops(running: &Running) -> bool {
    let pid = Pid::from_child(&running.child);
    (0..50).any(|_| {
        sleep(Duration::from_millis(20));
        let flags = WaitOptions::UNTRACED | WaitOptions::NOHANG;
        waitpid(Some(pid), flags)
            .unwrap()
            .is_some_and(|(_, status)| status.stopped())
    })
}

#[test]
fn a_leader_that_is_asked_twice_to_stop_stops_once() {
    let place = Place::new();
    let (leader, heir) = slow_to_leave(&place);
    leader.signal(Signal::TSTP);
    sleep(Duration::from_millis(30));
    leader.signal(Signal::TSTP);
    assert!(stops(&leader), "it never stops");
    leader.signal(Signal::CONT);
    assert!(!stops(&leader), "it stops again");
    leader.signal(Signal::TERM);
    assert_eq!(leader.end().code, Some(143));
    heir.signal(Signal::CONT);
    heir.signal(Signal::TERM);
    assert_eq!(heir.end().code, Some(143));
}

#[test]
fn a_leader_that_is_continued_before_it_has_stopped_goes_on() {
    let place = Place::new();
    let (leader, heir) = slow_to_leave(&place);
    leader.signal(Signal::TSTP);
    sleep(Duration::from_millis(30));
    leader.signal(Signal::CONT);
    assert!(!stops(&leader), "it stops, and nobody continues it");
    leader.signal(Signal::TERM);
    assert_eq!(leader.end().code, Some(143));
    heir.signal(Signal::CONT);
    heir.signal(Signal::TERM);
    assert_eq!(heir.end().code, Some(143));
}

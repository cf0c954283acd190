//! A process that leads and is stopped: a command says so in time, and goes on when it does.

use std::io::{BufRead, BufReader, Read};
use std::time::Instant;

use rustix::process::{Pid, Signal, WaitOptions, waitpid};

use crate::support::{Place, Running};

/// Stops it, and waits until all of its threads have.
fn stop(leader: &Running) {
    leader.signal(Signal::STOP);
    let pid = Pid::from_child(&leader.child);
    let (_, status) = waitpid(Some(pid), WaitOptions::UNTRACED).unwrap().unwrap();
    assert!(status.stopped());
}

#[test]
fn a_command_says_that_the_leader_is_stopped_and_when_it_answers_again() {
    let place = Place::new();
    let leader = place.serve("none");
    stop(&leader);
    let mut sender = place.start(&["send", "lobby", "late", "--timeout", "60s"]);
    let mut words = BufReader::new(sender.child.stderr.take().unwrap());
    let mut line = String::new();
    words.read_line(&mut line).unwrap();
    let pid = leader.child.id();
    let expected = format!(
        "broker: process {pid} (broker {}) is stopped: continue it with kill -CONT {pid}, or end it with kill -KILL {pid} and another process takes over\n",
        env!("CARGO_PKG_VERSION")
    );
    assert_eq!(line, expected);

    leader.signal(Signal::CONT);
    let mut rest = String::new();
    words.read_to_string(&mut rest).unwrap();
    assert!(
        rest.starts_with("broker: the broker answers again after ") && rest.ends_with(" s\n"),
        "{rest}"
    );
    assert_eq!(rest.lines().count(), 1, "{rest}");
    assert!(sender.child.wait().unwrap().success());
    assert_eq!(place.raw("lobby"), b"late\n");
}

#[test]
fn a_command_that_gives_up_has_said_why() {
    let place = Place::new();
    let leader = place.serve("none");
    stop(&leader);
    let begun = Instant::now();
    let done = place.run(&["send", "lobby", "late", "--timeout", "2s"]);
    assert!(begun.elapsed().as_secs() >= 2);
    let pid = leader.child.id().to_string();
    done.fails(3, &[&format!("kill -CONT {pid}"), "did not answer for 2 s"]);
    leader.signal(Signal::CONT);
}

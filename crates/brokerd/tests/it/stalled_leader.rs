//! Leaders that are there and do not answer: told of in time, killed only when that helps.

use std::error::Error as _;
use std::io::{BufRead, BufReader};
use std::os::unix::process::ExitStatusExt;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use broker_core::{Address, Client, ClientConfig, Config, ErrorKind, Node, StallKind, StartAt};
use broker_core::{Stall, State};
use rustix::process::{Pid, Signal, WaitOptions, waitpid};
use tokio::sync::watch;
use tokio::time::{sleep, timeout};

use crate::support::{Daemon, Place, block_on, skipped};

/// Silence after which a leader is looked into.
const ASK_AFTER: Duration = Duration::from_millis(300);

/// What a busy machine may add to it.
const MARGIN: Duration = Duration::from_millis(1500);

/// Nothing waits so long unless a test fails.
const PATIENCE: Duration = Duration::from_secs(60);

/// A leader that hangs is killed after 2 s, and a last question; this is longer.
const LONGER_THAN_FENCING: Duration = Duration::from_secs(4);

fn unix(place: &Place) -> Address {
    Address::unix(place.store().join("sock"))
}

/// Stops it, and waits until all of its threads have.
fn stop(daemon: &Daemon) {
    daemon.signal(Signal::STOP);
    let pid = Pid::from_child(&daemon.child);
    let (_, status) = waitpid(Some(pid), WaitOptions::UNTRACED).unwrap().unwrap();
    assert!(status.stopped());
}

async fn client(place: &Place, patience: Duration) -> Client {
    let config = ClientConfig::new().sender("ann").timeout(patience);
    config.connect_with(unix(place).into()).await.unwrap()
}

/// A process that stands by.
async fn standby(place: &Place) -> Node {
    let config = Config::new(place.store())
        .sender("bob")
        .listen(None)
        .timeout(PATIENCE);
    let node = Node::join(config).await.unwrap();
    assert!(!node.is_leader());
    node
}

async fn stalled(state: &mut watch::Receiver<State>) -> Stall {
    let found = state.wait_for(|state| matches!(state, State::Stalled { .. }));
    match &*timeout(PATIENCE, found).await.unwrap().unwrap() {
        State::Stalled { report } => report.clone(),
        other => panic!("{other:?}"),
    }
}

async fn resumed(state: &mut watch::Receiver<State>) -> Duration {
    let found = state.wait_for(|state| matches!(state, State::Resumed { .. }));
    match &*timeout(PATIENCE, found).await.unwrap().unwrap() {
        State::Resumed { gap, .. } => *gap,
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_stopped_leader_is_told_of_until_it_is_continued() {
    let place = Place::new();
    let daemon = place.start();
    block_on(async {
        let client = client(&place, PATIENCE).await;
        let mut state = client.state();
        let room = client.room("log").unwrap();
        room.send("before").await.unwrap();
        stop(&daemon);
        let asked = Instant::now();
        let ticket = room.queue("meanwhile").await.unwrap();
        let report = stalled(&mut state).await;
        let took = asked.elapsed();
        assert!(ASK_AFTER <= took && took < ASK_AFTER + MARGIN, "{took:?}");
        let pid = daemon.child.id();
        assert_eq!(
            (report.kind(), report.pid()),
            (StallKind::Stopped, Some(pid))
        );
        let words = report.to_string();
        let version = env!("CARGO_PKG_VERSION");
        let expected = format!(
            "process {pid} (brokerd {version}) is stopped: continue it with kill -CONT {pid}"
        );
        assert!(words.starts_with(&expected), "{words}");

        daemon.signal(Signal::CONT);
        assert!(resumed(&mut state).await >= ASK_AFTER);
        assert_eq!(ticket.await.unwrap().seq.get(), 2);
    });
}

#[test]
fn a_leader_that_does_not_even_greet_is_told_of() {
    let place = Place::new();
    let daemon = place.start();
    stop(&daemon);
    block_on(async {
        let asked = Instant::now();
        let config = ClientConfig::new().sender("ann").timeout(PATIENCE);
        let client = config.open(unix(&place).into()).unwrap();
        let mut state = client.state();
        let report = stalled(&mut state).await;
        assert!(asked.elapsed() < ASK_AFTER + MARGIN);
        assert_eq!(report.pid(), Some(daemon.child.id()));
        assert_eq!(report.kind(), StallKind::Stopped);
        daemon.signal(Signal::CONT);
        let found = timeout(PATIENCE, state.wait_for(State::is_connected)).await;
        assert!(found.unwrap().is_ok());
    });
}

#[test]
fn a_timeout_says_what_hangs() {
    let place = Place::new();
    let daemon = place.start();
    block_on(async {
        let client = client(&place, Duration::from_secs(1)).await;
        stop(&daemon);
        let error = client.rooms("", 1).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Timeout);
        let cause = error.source().unwrap().to_string();
        let expected = format!("kill -CONT {}", daemon.child.id());
        assert!(cause.contains(&expected), "{error}: {cause}");
    });
    daemon.signal(Signal::CONT);
}

#[test]
fn a_hanging_leader_that_allows_it_is_killed_and_another_leads() {
    let place = Place::new();
    let daemon = place.start();
    block_on(async {
        let node = standby(&place).await;
        let room = node.client().room("log").unwrap();
        room.send("before").await.unwrap();
        stop(&daemon);
        let ticket = room.queue("meanwhile").await.unwrap();
        let ack = timeout(PATIENCE, ticket).await.unwrap().unwrap();
        assert_eq!(ack.seq.get(), 2);
        let leads = async {
            while !node.is_leader() {
                sleep(Duration::from_millis(1)).await;
            }
        };
        timeout(PATIENCE, leads).await.unwrap();
        assert!(place.store().join("fenced").exists());
        let page = room.read(StartAt::START, 10, 1 << 20).await.unwrap();
        let texts: Vec<_> = page.messages.iter().map(|m| m.payload.to_vec()).collect();
        assert_eq!(texts, [b"before".to_vec(), b"meanwhile".to_vec()]);
        node.shutdown().await.unwrap();
    });
    let (status, _) = daemon.end();
    assert_eq!(status.signal(), Some(Signal::KILL.as_raw()));
}

#[test]
fn a_hanging_leader_that_does_not_allow_it_is_left_alone() {
    let place = Place::new();
    let daemon = Daemon::new(place.command(&["--listen", "127.0.0.1:0", "--no-fencing"]));
    block_on(async {
        let node = standby(&place).await;
        let client = node.client();
        let mut state = client.state();
        let room = client.room("log").unwrap();
        stop(&daemon);
        let ticket = room.queue("meanwhile").await.unwrap();
        assert_eq!(stalled(&mut state).await.kind(), StallKind::Stopped);
        sleep(LONGER_THAN_FENCING).await;
        assert!(!node.is_leader());
        assert!(matches!(&*state.borrow(), State::Stalled { .. }));
        daemon.signal(Signal::CONT);
        assert_eq!(
            timeout(PATIENCE, ticket).await.unwrap().unwrap().seq.get(),
            1
        );
        node.shutdown().await.unwrap();
    });
    assert!(!place.store().join("fenced").exists());
}

/// strace that makes every sync of a process take so long; ended with the value.
struct SlowDisk(Child);

impl SlowDisk {
    /// `None` where strace is missing or may not look at other processes.
    fn attach(daemon: &Daemon, each: Duration) -> Option<Self> {
        let inject = format!("inject=fdatasync,fsync:delay_exit={}", each.as_micros());
        let mut strace = Command::new("strace")
            .args(["-f", "-o", "/dev/null", "-e", "trace=fdatasync,fsync", "-e"])
            .arg(inject)
            .args(["-p", &daemon.child.id().to_string()])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .ok()?;
        let words = BufReader::new(strace.stderr.take()?);
        let attached = words
            .lines()
            .map_while(Result::ok)
            .any(|line| line.contains("attached"));
        let slow = Self(strace);
        attached.then_some(slow)
    }
}

impl Drop for SlowDisk {
    fn drop(&mut self) {
        // The kernel lets go of what it traced; asked to end, it may wait for what it delays.
        let _ended_already = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn a_leader_that_waits_for_the_disk_says_so_and_is_never_killed() {
    let place = Place::new();
    let mut daemon = place.start();
    block_on(async {
        let node = standby(&place).await;
        let client = node.client();
        let mut state = client.state();
        let room = client.room("log").unwrap();
        room.send("before").await.unwrap();
        let Some(slow) = SlowDisk::attach(&daemon, LONGER_THAN_FENCING) else {
            return skipped("strace");
        };
        let ticket = room.queue("meanwhile").await.unwrap();
        let asked = Instant::now();
        let report = stalled(&mut state).await;
        let took = asked.elapsed();
        assert!(took < ASK_AFTER + MARGIN, "{took:?}");
        assert!(
            matches!(report.kind(), StallKind::DiskStalled { .. }),
            "{report}"
        );
        assert_eq!(report.pid(), Some(daemon.child.id()));
        assert!(
            report.to_string().starts_with("the disk stalled"),
            "{report}"
        );
        assert_eq!(
            timeout(PATIENCE, ticket).await.unwrap().unwrap().seq.get(),
            2
        );
        assert!(asked.elapsed() >= LONGER_THAN_FENCING);
        resumed(&mut state).await;
        drop(slow);
        assert!(!node.is_leader());
        node.shutdown().await.unwrap();
    });
    assert!(daemon.child.try_wait().unwrap().is_none());
    assert!(!place.store().join("fenced").exists());
}

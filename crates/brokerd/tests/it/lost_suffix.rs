//! Loss that no broker can see by itself: a log that was put back to an earlier state. Clients that stay alive have seen what is
//! gone, and the daemon raises an alarm instead of giving the same seqs to other messages without a word.

use std::fs::{self, File};
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use broker_core::{Client, ClientConfig, Config, ErrorKind, Node, Role, StartAt, Subscription};
use rustix::process::Signal;

use crate::support::{Daemon, Place, block_on, files, skipped};

/// Messages before the state that is put back, and after it.
const KEPT: u64 = 10;
const LOST: u64 = 10;

/// A store, its daemon while it runs, and the address that it keeps.
struct World {
    place: Place,
    daemon: Option<Daemon>,
    address: String,
}

/// How a daemon ends.
#[derive(Clone, Copy)]
enum End {
    Stopped,
    Killed,
}

impl World {
    fn new() -> Self {
        let place = Place::new();
        let daemon = place.start();
        let address = daemon.address().to_string();
        Self {
            place,
            daemon: Some(daemon),
            address,
        }
    }

    /// A client that goes on trying for as long as the test takes.
    async fn client(&self, name: &str) -> Client {
        ClientConfig::new()
            .sender(name)
            .timeout(Duration::from_secs(60))
            .connect(&format!("tcp://{}", self.address))
            .await
            .unwrap()
    }

    fn start(&mut self) {
        let command = self.place.command(&["--listen", &self.address]);
        self.daemon = Some(Daemon::new(command));
    }

    /// Ends the daemon and gives what it said.
    fn end(&mut self, how: End) -> String {
        let daemon = self.daemon.take().unwrap();
        daemon.signal(match how {
            End::Stopped => Signal::TERM,
            End::Killed => Signal::KILL,
        });
        daemon.end().1
    }

    fn restart(&mut self, how: End) {
        self.end(how);
        self.start();
    }

    /// The store as it is, its daemon at rest.
    fn saved(&mut self) -> Vec<(PathBuf, Vec<u8>)> {
        self.end(End::Stopped);
        let saved = files(&self.place.store());
        self.start();
        saved
    }

    /// The status of the daemon, asked by a client that knows nothing.
    async fn alarms(&self) -> u64 {
        let json = self.client("status").await.status().await.unwrap();
        let (_, rest) = json.split_once("\"lost_suffix_alarms\":").unwrap();
        let digits = rest.split(|c: char| !c.is_ascii_digit()).next().unwrap();
        digits.parse().unwrap()
    }

    /// Puts the log back in place: the same files, only their content and number as they were.
    fn roll_back(&self, saved: &[(PathBuf, Vec<u8>)]) {
        let is_segment = |path: &Path| path.extension().is_some_and(|kind| kind == "seg");
        for (path, _) in files(&self.place.store()) {
            if is_segment(&path) && !saved.iter().any(|(kept, _)| *kept == path) {
                fs::remove_file(path).unwrap();
            }
        }
        for (path, bytes) in saved.iter().filter(|(path, _)| is_segment(path)) {
            let mut file = File::options()
                .write(true)
                .truncate(true)
                .create(true)
                .open(path)
                .unwrap();
            file.write_all(bytes).unwrap();
        }
    }

    /// After an alarm: the daemon counts and logs it, and goes on for who knows of nothing.
    async fn assert_alarm(&mut self, sender: &str) {
        assert!(self.alarms().await >= 1);
        let bob = self.client("bob").await;
        let ack = bob.room("lobby").unwrap().send("other").await.unwrap();
        assert_eq!(ack.seq.get(), KEPT + 1, "the store is as it was found");
        bob.shutdown().await.unwrap();
        let words = self.end(End::Stopped);
        let alarm = words
            .lines()
            .find(|line| line.contains("has lost messages"))
            .unwrap_or_else(|| panic!("{words}"));
        for word in ["ERROR", "lobby", sender, "20", "10"] {
            assert!(alarm.contains(word), "{word}: {alarm}");
        }
    }
}

/// Sends so many messages one by one and gives the last seq.
async fn send(client: &Client, count: u64) -> u64 {
    let room = client.room("lobby").unwrap();
    let mut last = 0;
    for _ in 0..count {
        let ack = room.send(format!("after {last}")).await.unwrap();
        last = ack.seq.get();
    }
    last
}

async fn subscribe(client: &Client) -> Subscription {
    let room = client.room("lobby").unwrap();
    room.subscribe(StartAt::START).wait(true).await.unwrap()
}

async fn receive(subscription: &mut Subscription, count: u64) {
    for _ in 0..count {
        subscription.next_message().await.unwrap().unwrap();
    }
}

/// What a client that saw messages 11 to 20 is told when its next send fails.
async fn assert_told_by_send(client: &Client) {
    let room = client.room("lobby").unwrap();
    let error = room.send("unsure").await.unwrap_err();
    assert_lost(&error);
    // It stays so: this client never goes on with another history.
    let error = room.send("again").await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::LostSuffix, "{error}");
}

fn assert_lost(error: &broker_core::Error) {
    assert_eq!(error.kind(), ErrorKind::LostSuffix, "{error}");
    let text = error.to_string();
    for words in [
        "has lost messages",
        "room lobby had message 20",
        "make a new client",
    ] {
        assert!(text.contains(words), "{text}");
    }
}

/// A publisher whose last messages are rolled away in place.
fn publisher_rolled_back(how: End) {
    let mut world = World::new();
    block_on(async {
        let ann = world.client("ann").await;
        send(&ann, KEPT).await;
        let saved = world.saved();
        assert_eq!(send(&ann, LOST).await, KEPT + LOST);
        world.end(how);
        world.roll_back(&saved);
        world.start();
        assert_told_by_send(&ann).await;
        world.assert_alarm("ann").await;
    });
}

#[test]
fn a_publisher_whose_log_was_rolled_back_after_a_clean_stop() {
    publisher_rolled_back(End::Stopped);
}

#[test]
fn a_publisher_whose_log_was_rolled_back_after_a_kill() {
    publisher_rolled_back(End::Killed);
}

#[test]
fn a_subscriber_alone_raises_the_alarm() {
    let mut world = World::new();
    block_on(async {
        let eve = world.client("eve").await;
        let mut subscription = subscribe(&eve).await;
        let ann = world.client("ann").await;
        send(&ann, KEPT).await;
        let saved = world.saved();
        send(&ann, LOST).await;
        ann.shutdown().await.unwrap();
        receive(&mut subscription, KEPT + LOST).await;
        world.end(End::Killed);
        world.roll_back(&saved);
        world.start();
        let error = subscription.next_message().await.unwrap().unwrap_err();
        assert_lost(&error);
        world.assert_alarm("eve").await;
    });
}

#[test]
fn a_client_that_does_both_is_told_by_both() {
    let mut world = World::new();
    block_on(async {
        let ann = world.client("ann").await;
        let mut subscription = subscribe(&ann).await;
        send(&ann, KEPT).await;
        let saved = world.saved();
        send(&ann, LOST).await;
        receive(&mut subscription, KEPT + LOST).await;
        world.end(End::Stopped);
        world.roll_back(&saved);
        world.start();
        let error = subscription.next_message().await.unwrap().unwrap_err();
        assert_lost(&error);
        assert_told_by_send(&ann).await;
        world.assert_alarm("ann").await;
    });
}

#[test]
fn a_node_that_is_a_client_of_the_daemon() {
    let mut world = World::new();
    block_on(async {
        let config = Config::new(world.place.store())
            .role(Role::ClientOnly)
            .sender("node")
            .timeout(Duration::from_secs(60));
        let node = Node::join(config).await.unwrap();
        let client = node.client();
        send(&client, KEPT).await;
        let saved = world.saved();
        send(&client, LOST).await;
        world.end(End::Killed);
        world.roll_back(&saved);
        world.start();
        assert_told_by_send(&client).await;
        world.assert_alarm("node").await;
    });
}

#[test]
fn what_was_under_way_is_unknown_and_never_stored_again() {
    let mut world = World::new();
    block_on(async {
        let ann = world.client("ann").await;
        send(&ann, KEPT).await;
        let saved = world.saved();
        send(&ann, LOST).await;
        world.end(End::Killed);
        world.roll_back(&saved);
        // Nobody is there: it waits, and is sent when somebody comes.
        let room = ann.room("lobby").unwrap();
        let waiting = room.queue("waiting").await.unwrap();
        world.start();
        assert_lost(&waiting.await.unwrap_err());
        let bob = world.client("bob").await;
        let room = bob.room("lobby").unwrap();
        let page = room.read(StartAt::START, 100, 1 << 20).await.unwrap();
        assert_eq!(page.messages.len() as u64, KEPT);
    });
}

/// Copies the store's files, into files of their own.
fn copy(from: &Path, to: &Path) {
    for (path, bytes) in files(from) {
        fs::write(to.join(path.file_name().unwrap()), bytes).unwrap();
    }
}

#[test]
fn an_old_copy_of_the_directory_in_its_place() {
    let mut world = World::new();
    let old = world.place.directory("old");
    block_on(async {
        let ann = world.client("ann").await;
        send(&ann, KEPT).await;
        world.end(End::Stopped);
        copy(&world.place.store(), &old);
        world.start();
        send(&ann, LOST).await;
        world.end(End::Killed);
        fs::rename(world.place.store(), world.place.path().join("gone")).unwrap();
        fs::rename(old, world.place.store()).unwrap();
        world.start();
        // The copy is a store of its own, but one of the same history: that is said, and not only that it is another.
        assert_told_by_send(&ann).await;
        world.assert_alarm("ann").await;
    });
}

#[test]
fn a_copy_that_lost_nothing_raises_no_alarm() {
    let mut world = World::new();
    let copied = world.place.directory("copied");
    block_on(async {
        let ann = world.client("ann").await;
        send(&ann, KEPT).await;
        world.end(End::Stopped);
        copy(&world.place.store(), &copied);
        fs::rename(world.place.store(), world.place.path().join("gone")).unwrap();
        fs::rename(copied, world.place.store()).unwrap();
        world.start();
        // A copy is another store, and its first client says so as ever; nothing is lost.
        let error = ann.room("lobby").unwrap().send("unsure").await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::OtherStore, "{error}");
        let bob = world.client("bob").await;
        assert_eq!(send(&bob, 1).await, KEPT + 1);
        assert_eq!(world.alarms().await, 0);
    });
}

#[test]
fn a_missing_segment_file() {
    let mut world = World::new();
    block_on(async {
        let ann = world.client("ann").await;
        let room = ann.room("lobby").unwrap();
        // Enough for several segments, the first of which has 1 MiB.
        let mut last = 0;
        for _ in 0..12 {
            last = room.send(vec![b'x'; 512 << 10]).await.unwrap().seq.get();
        }
        world.end(End::Killed);
        let mut segments: Vec<PathBuf> = files(&world.place.store())
            .into_iter()
            .map(|(path, _)| path)
            .filter(|path| path.extension().is_some_and(|kind| kind == "seg"))
            .collect();
        assert!(segments.len() > 1, "{segments:?}");
        fs::remove_file(segments.pop().unwrap()).unwrap();
        world.start();
        let error = room.send("unsure").await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::LostSuffix, "{error}");
        let text = format!("room lobby had message {last}");
        assert!(error.to_string().contains(&text), "{error}");
        assert_eq!(world.alarms().await, 1);
    });
}

#[test]
fn who_has_seen_only_what_is_left_goes_on() {
    let mut world = World::new();
    block_on(async {
        let (ann, eve) = (world.client("ann").await, world.client("eve").await);
        send(&eve, KEPT).await;
        let saved = world.saved();
        send(&ann, LOST).await;
        world.end(End::Stopped);
        world.roll_back(&saved);
        world.start();
        assert_told_by_send(&ann).await;
        assert_eq!(send(&eve, 1).await, KEPT + 1);
        assert_eq!(world.alarms().await, 1);
    });
}

#[test]
fn restarts_and_kills_raise_no_alarm() {
    let mut world = World::new();
    block_on(async {
        let ann = world.client("ann").await;
        let mut subscription = subscribe(&ann).await;
        let mut sent = 0;
        for how in [End::Stopped, End::Killed, End::Killed, End::Stopped] {
            sent += KEPT;
            assert_eq!(send(&ann, KEPT).await, sent);
            receive(&mut subscription, KEPT).await;
            world.restart(how);
        }
        // The same bytes put back in place are the same history.
        world.end(End::Stopped);
        let same = files(&world.place.store());
        world.roll_back(&same);
        world.start();
        assert_eq!(send(&ann, KEPT).await, sent + KEPT);
        receive(&mut subscription, KEPT).await;
        assert_eq!(world.alarms().await, 0);
        ann.shutdown().await.unwrap();
        let words = world.end(End::Stopped);
        assert!(!words.contains("has lost"), "{words}");
    });
}

/// A command that is ended with the test.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn a_command_that_follows_a_room_says_it_and_ends_with_6() {
    let broker = PathBuf::from(env!("CARGO_BIN_EXE_brokerd")).with_file_name("broker");
    if !broker.exists() {
        return skipped("the binary `broker` is not built: cargo build -p broker-cli");
    }
    let mut world = World::new();
    block_on(async {
        let ann = world.client("ann").await;
        send(&ann, KEPT).await;
        let saved = world.saved();
        send(&ann, LOST).await;
        ann.shutdown().await.unwrap();
        let mut command = Command::new(&broker);
        command
            .env_clear()
            .env("HOME", world.place.path())
            .env("BROKER_NAME", "eve")
            .env("BROKER_URL", format!("tcp://{}", world.address))
            .args(["read", "lobby", "--raw", "-f"])
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        let mut follower = Running(command.spawn().unwrap());
        let stdout = BufReader::new(follower.0.stdout.take().unwrap());
        // Everything was delivered when the last is printed.
        let printed = stdout.lines().take(10).map(Result::unwrap);
        assert_eq!(printed.last().unwrap(), "after 19");
        world.end(End::Killed);
        world.roll_back(&saved);
        world.start();
        let mut words = String::new();
        let stderr = BufReader::new(follower.0.stderr.take().unwrap());
        for line in stderr.lines().map_while(Result::ok) {
            words.push_str(&line);
        }
        assert_eq!(follower.0.wait().unwrap().code(), Some(6), "{words}");
        assert!(words.contains("room lobby had message 20"), "{words}");
        assert_eq!(world.alarms().await, 1);
    });
}

//! Doors that lead elsewhere than they seem to: other programs on the port, other stores behind it, locks that nobody answers for.
//! Each is told in words that name who is in the way, and never is there a second writer.

use std::fs::{self, File, Permissions};
use std::io::{Read, Write};
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, TcpStream};
use std::os::unix::fs::{FileExt, PermissionsExt, chown};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::Duration;

use broker_core::dir::{Holder, Lock, ProcessId, StoreDir, SystemProbe, role};
use broker_core::{Client, ClientConfig, Config, ErrorKind, Message, Node, Role, StartAt};
use broker_proto::{Micros, StoreId, Term};

use crate::support::{Daemon, Place, block_on, files, refused, skipped};

/// A user without rights.
const NOBODY: u32 = 65_534;

/// How a program that is no broker treats who connects to it.
#[derive(Debug, Clone, Copy)]
enum Manner {
    /// It takes everything and says nothing.
    Silent,
    /// It speaks HTTP.
    Http,
    /// It closes at once.
    Curt,
}

/// Another program that listens at a port: this process. It is there until the test ends.
fn stranger(manner: Manner) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    thread::spawn(move || {
        for stream in listener.incoming().map_while(Result::ok) {
            thread::spawn(move || receive(stream, manner));
        }
    });
    address
}

fn receive(mut stream: TcpStream, manner: Manner) {
    let mut bytes = [0; 1024];
    match manner {
        Manner::Curt => {}
        Manner::Http => {
            let _asked = stream.read(&mut bytes);
            let _answered = stream
                .write_all(b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n")
                .and_then(|()| stream.shutdown(std::net::Shutdown::Write));
            while matches!(stream.read(&mut bytes), Ok(1..)) {}
        }
        Manner::Silent => while matches!(stream.read(&mut bytes), Ok(1..)) {},
    }
}

/// The log of a store: what nobody but its leader may change.
fn log(dir: &Path) -> Vec<(PathBuf, Vec<u8>)> {
    let mut files = files(dir);
    files.retain(|(path, _)| path.extension().is_some_and(|kind| kind == "seg"));
    files
}

/// A store that holds a message, and nobody leads it.
fn stored(place: &Place) -> Vec<(PathBuf, Vec<u8>)> {
    let daemon = place.start();
    block_on(async { send(&daemon.client().await, "hi").await });
    daemon.signal(rustix::process::Signal::TERM);
    assert!(daemon.end().0.success());
    let log = log(&place.store());
    assert!(!log.is_empty());
    log
}

async fn send(client: &Client, text: &str) -> u64 {
    let room = client.room("lobby").unwrap();
    room.send(text.to_owned()).await.unwrap().seq.get()
}

/// A run of the command line, when it was built beside this daemon: exit code and words.
fn command_line(place: &Place, arguments: &[&str]) -> Option<(Option<i32>, String)> {
    let broker = PathBuf::from(env!("CARGO_BIN_EXE_brokerd")).with_file_name("broker");
    if !broker.exists() {
        skipped("the binary `broker` is not built: cargo build -p broker-cli");
        return None;
    }
    let output = Command::new(&broker)
        .env_clear()
        .env("HOME", place.path())
        .env("BROKER_NAME", "ann")
        .args(arguments)
        .stdin(Stdio::null())
        .output()
        .unwrap();
    let words = String::from_utf8(output.stderr).unwrap();
    Some((output.status.code(), words))
}

/// This process, as it is named in an error.
fn me() -> String {
    format!("process {} (", std::process::id())
}

#[track_caller]
fn assert_says(text: &str, words: &[&str]) {
    for word in words {
        assert!(text.contains(word), "{word} is not in: {text}");
    }
}

/// A program that keeps a descriptor as its input; ended with the test.
struct Keeper(Child);

impl Keeper {
    fn of(file: File) -> Self {
        let mut command = Command::new("sleep");
        command.arg("600").stdin(file).stdout(Stdio::null());
        // When this returns, the program has taken the place of the fork.
        Self(command.spawn().unwrap())
    }

    fn name(&self) -> String {
        format!("process {} (sleep)", self.0.id())
    }
}

impl Drop for Keeper {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// The file `lock`, locked.
fn locked(place: &Place) -> File {
    let lock = File::options()
        .read(true)
        .write(true)
        .open(place.store().join("lock"))
        .unwrap();
    lock.lock().unwrap();
    lock
}

/// The payloads in a store. Who held the lock for a moment may have closed the log anew, but has written nothing into it.
fn payloads(place: &Place) -> Vec<String> {
    let daemon = place.start();
    block_on(async {
        let room = daemon.client().await.room("lobby").unwrap();
        let page = room.read(StartAt::START, 100, 1 << 20).await.unwrap();
        let text = |message: &Message| String::from_utf8(message.payload.to_vec()).unwrap();
        page.messages.iter().map(text).collect()
    })
}

/// A daemon that shall listen where such a program does.
fn assert_kept_out(manner: Manner) {
    let place = Place::new();
    stored(&place);
    let address = stranger(manner).to_string();
    let (code, words) = place.refused(&["--listen", &address]);
    assert_eq!(code, Some(75), "{words}");
    assert_says(
        &words,
        &[&address, &me(), "stop it, or choose another address"],
    );
    assert_eq!(payloads(&place), ["hi"]);
}

#[test]
fn a_daemon_whose_port_another_program_has() {
    thread::scope(|scope| {
        for manner in [Manner::Silent, Manner::Http, Manner::Curt] {
            scope.spawn(move || assert_kept_out(manner));
        }
    });
}

#[test]
fn an_application_whose_port_another_program_has_warns_and_serves_its_socket() {
    let place = Place::new();
    let address = stranger(Manner::Silent);
    block_on(async {
        let config = Config::new(place.store())
            .listen(address)
            .sender("app")
            .build("app 1");
        let node = Node::join(config).await.unwrap();
        assert!(node.is_leader() && node.address().is_none());
        let warning = node.warnings().join("\n");
        assert_says(
            &warning,
            &[&address.to_string(), &me(), "only the store's Unix socket"],
        );
        let config = Config::new(place.store())
            .role(Role::ClientOnly)
            .sender("ann");
        let other = Node::join(config).await.unwrap();
        assert_eq!(send(&other.client(), "by the socket").await, 1);
        let status = other.client().status().await.unwrap();
        assert_says(&status, &["\"warnings\":[\"cannot listen at", &me()]);
        other.shutdown().await.unwrap();
        node.shutdown().await.unwrap();
    });
}

/// What a client and a command are told that were pointed at such a program.
fn assert_no_broker(manner: Manner, kind: ErrorKind, words: &str, exit: i32) {
    let address = format!("tcp://{}", stranger(manner));
    block_on(async {
        let config = ClientConfig::new()
            .sender("ann")
            .timeout(Duration::from_millis(500));
        let error = config.connect(&address).await.unwrap_err();
        assert_eq!(error.kind(), kind, "{error}");
        assert_says(&error.to_string(), &[words, &address]);
    });
    let place = Place::new();
    let arguments = ["send", "lobby", "hi", "--server", &address];
    let arguments = [&arguments[..], &["--timeout", "500ms"]].concat();
    if let Some((code, said)) = command_line(&place, &arguments) {
        assert_eq!(code, Some(exit), "{said}");
        assert_says(&said, &[words, &address]);
    }
}

#[test]
fn a_client_of_a_program_that_says_nothing() {
    let words = "does not answer: is a broker running there?";
    assert_no_broker(Manner::Silent, ErrorKind::Connect, words, 3);
}

#[test]
fn a_client_of_a_program_that_speaks_http() {
    let words = "is no broker that this client understands";
    assert_no_broker(Manner::Http, ErrorKind::Protocol, words, 6);
}

#[test]
fn a_client_of_a_program_that_hangs_up() {
    let words = "ended the connection instead of answering";
    assert_no_broker(Manner::Curt, ErrorKind::Connect, words, 3);
}

/// Two daemons at the same port of both loopback addresses; `None` where there is no IPv6.
fn twins(places: &[Place; 2]) -> Option<[Daemon; 2]> {
    TcpListener::bind((Ipv6Addr::LOCALHOST, 0)).ok()?;
    let four = Daemon::new(places[0].command(&["--listen", "127.0.0.1:0"]));
    let six = format!("[::1]:{}", four.address().port());
    let six = Daemon::new(places[1].command(&["--listen", &six]));
    Some([four, six])
}

#[test]
fn both_loopback_addresses_with_a_store_each() {
    let places = [Place::new(), Place::new()];
    let Some([four, six]) = twins(&places) else {
        return skipped("no IPv6 on this machine");
    };
    let [at_four, at_six] = [four.address(), six.address()];
    assert_eq!(at_four.port(), at_six.port());
    block_on(async {
        let patient = async |daemon: &Daemon| {
            let config = ClientConfig::new()
                .sender("ann")
                .timeout(Duration::from_secs(60));
            config.connect(&daemon.url()).await.unwrap()
        };
        let clients = [patient(&four).await, patient(&six).await];
        for (client, text) in clients.iter().zip(["four", "six"]) {
            assert_eq!(send(client, text).await, 1, "each has a room of its own");
        }
        let stores = clients
            .each_ref()
            .map(|client| client.state().borrow().server().unwrap().store);
        assert_ne!(stores[0], stores[1]);
        drop((four, six));
        // They come back the other way round.
        let crossed = [(0, at_six), (1, at_four)].map(|(place, address)| {
            Daemon::new(places[place].command(&["--listen", &address.to_string()]))
        });
        for (client, [was, is]) in clients
            .iter()
            .zip([[stores[0], stores[1]], [stores[1], stores[0]]])
        {
            let room = client.room("lobby").unwrap();
            let error = room.send("for my own store").await.unwrap_err();
            assert_eq!(error.kind(), ErrorKind::OtherStore, "{error}");
            assert_says(&error.to_string(), &[&was.to_string(), &is.to_string()]);
        }
        // Neither has taken it, nor taken the other's client for one who lost something.
        for daemon in &crossed {
            let client = daemon.client().await;
            assert_eq!(send(&client, "after").await, 2);
            let status = client.status().await.unwrap();
            assert_says(&status, &["\"lost_suffix_alarms\":0"]);
        }
    });
}

#[test]
fn a_free_port_of_a_store_that_is_led() {
    let place = Place::new();
    let first = Daemon::new(place.command(&["--listen", "none"]));
    let before = log(&place.store());
    let free = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let address = free.local_addr().unwrap();
    drop(free);
    let (code, words) = place.refused(&["--listen", &address.to_string()]);
    assert_eq!(code, Some(75), "{words}");
    let holder = format!("pid {} (brokerd ", first.child.id());
    assert_says(&words, &["is held by", &holder]);
    let nobody = TcpStream::connect(address).unwrap_err();
    assert_eq!(nobody.kind(), std::io::ErrorKind::ConnectionRefused);
    assert!(log(&place.store()) == before, "the log was changed");
}

#[test]
fn two_data_directories_with_one_port() {
    let places = [Place::new(), Place::new()];
    stored(&places[1]);
    let first = places[0].start();
    let address = first.address().to_string();
    let (code, words) = places[1].refused(&["--listen", &address]);
    assert_eq!(code, Some(75), "{words}");
    let holder = format!("process {} (brokerd) listens there", first.child.id());
    assert_says(&words, &[&address, &holder]);
    assert_eq!(payloads(&places[1]), ["hi"]);
    // Who asks at the port reaches the first store, which has no room yet.
    block_on(async { assert_eq!(send(&first.client().await, "first").await, 1) });
}

#[test]
fn a_lock_that_is_held_where_nobody_listens() {
    let place = Place::new();
    let before = stored(&place);
    let lock = locked(&place);
    let (code, words) = place.refused(&["--listen", "127.0.0.1:0"]);
    assert_eq!(code, Some(75), "{words}");
    assert_says(&words, &[&me(), "which led last and is gone"]);
    let data = place.store();
    let data = data.to_str().unwrap();
    let arguments = ["send", "lobby", "hi", "--data", data, "--timeout", "500ms"];
    if let Some((code, words)) = command_line(&place, &arguments) {
        assert_eq!(code, Some(3), "{words}");
        assert_says(&words, &[&me(), "0.5 s"]);
    }
    block_on(async {
        let config = Config::new(place.store())
            .role(Role::ClientOnly)
            .timeout(Duration::from_millis(500))
            .sender("ann");
        let error = Node::join(config).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Connect, "{error}");
        assert_says(&error.to_string(), &["nobody serves", &me()]);
    });
    assert!(log(&place.store()) == before, "the log was changed");
    drop(lock);
    drop(place.start());
}

#[test]
fn a_child_that_keeps_the_lock_of_its_parent() {
    let place = Place::new();
    let daemon = place.start();
    block_on(async { send(&daemon.client().await, "hi").await });
    let parent = format!("pid {} (brokerd ", daemon.child.id());
    drop(daemon);
    let child = Keeper::of(locked(&place));
    let before = log(&place.store());
    let data = place.store();
    let (code, words) = place.refused(&["--listen", "127.0.0.1:0"]);
    assert_eq!(code, Some(75), "{words}");
    assert_says(&words, &[&child.name(), &parent, "is gone: end it"]);
    let arguments = ["send", "lobby", "hi", "--data", data.to_str().unwrap()];
    let arguments = [&arguments[..], &["--timeout", "500ms"]].concat();
    if let Some((code, words)) = command_line(&place, &arguments) {
        assert_eq!(code, Some(3), "{words}");
        assert_says(&words, &[&child.name(), &parent]);
    }
    assert!(log(&place.store()) == before, "the log was changed");
    // As it was told to.
    drop(child);
    block_on(async { assert_eq!(send(&place.start().client().await, "again").await, 2) });
}

#[test]
fn a_leader_of_another_build_is_named_by_it() {
    let place = Place::new();
    let before = stored(&place);
    let dir = StoreDir::open(place.store(), &SystemProbe).unwrap();
    let lock = Lock::try_acquire(&dir).unwrap();
    let holder = Holder {
        process: ProcessId::current(),
        term: Term::new(9),
        role: role::SERVE_ALWAYS,
        fencing_allowed: false,
        since: Micros::new(0),
        store: StoreId::new([1; 16]),
        build: "brokerd 99.0.0".into(),
        tcp: "127.0.0.1:1".into(),
        socket: String::new(),
        successor: String::new(),
    };
    lock.publish(&holder).unwrap();
    let (code, words) = place.refused(&["--listen", "127.0.0.1:0"]);
    assert_eq!(code, Some(75), "{words}");
    let named = format!("pid {} (brokerd 99.0.0)", std::process::id());
    assert_says(&words, &[&named, "127.0.0.1:1"]);
    assert!(log(&place.store()) == before, "the log was changed");
}

/// Raises the feature level in `DIR/store`, as a newer version would.
fn raise_level(place: &Place) {
    let file = File::options()
        .read(true)
        .write(true)
        .open(place.store().join("store"))
        .unwrap();
    let mut block = [0; 512];
    file.read_exact_at(&mut block, 0).unwrap();
    block[12..16].copy_from_slice(&999_u32.to_le_bytes());
    let sum = crc32c::crc32c(&block[..508]);
    block[508..].copy_from_slice(&sum.to_le_bytes());
    file.write_all_at(&block, 0).unwrap();
}

#[test]
fn a_store_that_needs_a_newer_build_is_used_but_never_led() {
    let place = Place::new();
    let daemon = place.start();
    raise_level(&place);
    let (code, words) = place.refused(&["--listen", "127.0.0.1:0"]);
    assert_eq!(code, Some(65), "{words}");
    assert_says(&words, &["feature level 999"]);
    block_on(async {
        let config = || {
            Config::new(place.store())
                .listen(None)
                .sender("app")
                .timeout(Duration::from_secs(1))
        };
        let node = Node::join(config()).await.unwrap();
        assert_eq!(send(&node.client(), "through its leader").await, 1);
        drop(daemon);
        let before = log(&place.store());
        let room = node.client().room("lobby").unwrap();
        let error = room.send("nobody is there").await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Timeout, "{error}");
        assert!(!node.is_leader());
        let error = Node::join(config()).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Disk, "{error}");
        let cause = std::error::Error::source(&error).unwrap().to_string();
        assert_says(&cause, &["feature level 999", "use a newer build"]);
        assert!(log(&place.store()) == before, "the log was changed");
    });
}

#[test]
fn a_network_file_system_is_no_place_for_a_store() {
    if !cfg!(debug_assertions) {
        return skipped("release builds take no injected answer");
    }
    let place = Place::new();
    let before = stored(&place);
    let mut command = place.command(&["--listen", "127.0.0.1:0"]);
    command.env("BROKER_TEST_STATFS_MAGIC", "0xff534d42");
    let (code, words) = refused(command);
    assert_eq!(code, Some(78), "{words}");
    let dir = place.store();
    assert_says(
        &words,
        &[
            dir.to_str().unwrap(),
            "CIFS",
            "reach it from other machines",
        ],
    );
    assert!(log(&place.store()) == before, "the log was changed");
}

/// A place that every user may pass through, as root; `None` for others.
fn open_place() -> Option<Place> {
    if !rustix::process::geteuid().is_root() {
        skipped("root: only it can be another user");
        return None;
    }
    let place = Place::new();
    fs::set_permissions(place.path(), Permissions::from_mode(0o711)).unwrap();
    Some(place)
}

#[test]
fn a_directory_of_another_user() {
    let Some(place) = open_place() else { return };
    let before = stored(&place);
    chown(place.store(), Some(NOBODY), None).unwrap();
    let (code, words) = place.refused(&["--listen", "127.0.0.1:0"]);
    assert_eq!(code, Some(78), "{words}");
    assert_says(&words, &["belongs to user 65534", "runs as user 0"]);
    assert!(log(&place.store()) == before, "the log was changed");
}

#[test]
fn another_users_store_and_port() {
    let Some(place) = open_place() else { return };
    let own = place.directory("own");
    chown(&own, Some(NOBODY), Some(NOBODY)).unwrap();
    let daemon = place.start();
    let before = log(&place.store());
    let as_nobody = |arguments: &[&str]| {
        let mut command = place.command(arguments);
        command.uid(NOBODY).gid(NOBODY).current_dir("/");
        command
    };
    if as_nobody(&["--version"]).output().is_err() {
        return skipped("this binary cannot be run by other users");
    }
    let (code, words) = refused(as_nobody(&["--listen", "127.0.0.1:0"]));
    assert_eq!(code, Some(78), "{words}");
    assert_says(&words, &[place.store().to_str().unwrap()]);
    // Whose the port is, another user is not told; that it is taken, he is.
    let address = daemon.address().to_string();
    let own = own.to_str().unwrap();
    let (code, words) = refused(as_nobody(&["--data", own, "--listen", &address]));
    assert_eq!(code, Some(75), "{words}");
    assert_says(&words, &[&address, "stop what listens there"]);
    assert!(log(&place.store()) == before, "the log was changed");
    block_on(async { assert_eq!(send(&daemon.client().await, "hi").await, 1) });
}

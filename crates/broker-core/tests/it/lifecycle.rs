//! Starting, serving, draining, leaving; listeners of every kind.

use std::collections::VecDeque;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use broker_core::net::{Listener, Origin, Server, ServerConfig};
use broker_core::session::{Farewell, Progress};
use broker_proto::{ErrorCode, Frame, GetStatus, Publish, StartAt};
use tokio::io::DuplexStream;
use tokio::net::UnixStream;
use tokio::time::Instant;

use crate::peer::{Peer, hello, room, serving, store};

const PATIENCE: Duration = Duration::from_secs(10);

#[tokio::test]
async fn a_server_answers_before_its_store_is_open() {
    let server = Server::start(ServerConfig::default()).unwrap();
    let address = server.listen_tcp("127.0.0.1:0".parse().unwrap()).unwrap();
    server.progress(Progress {
        done: 1,
        total: 2,
        what: "reading the log".to_owned(),
    });
    assert!(server.status().contains("\"stage\":\"starting\""));
    let mut ann = Peer::connect(address).await;
    ann.say(hello("ann")).await;
    let Frame::Starting(starting) = ann.hear().await else {
        panic!("no starting")
    };
    assert_eq!((starting.done, starting.total), (1, 2));
    server.progress(Progress {
        done: 2,
        total: 2,
        what: "nearly".to_owned(),
    });
    let Frame::Starting(starting) = ann.hear().await else {
        panic!("no starting")
    };
    assert_eq!(starting.done, 2);
    server.serve(store());
    ann.hear_welcome().await;
    ann.publish("ops", &["hi"]).await;
}

#[tokio::test]
async fn a_leaving_server_finishes_what_it_took_and_says_goodbye_after_the_store_is_closed() {
    let server = Server::start(ServerConfig::default()).unwrap();
    let address = server.listen_tcp("127.0.0.1:0".parse().unwrap()).unwrap();
    let store = store();
    server.serve(Arc::clone(&store));
    let mut ann = Peer::welcomed(address, "ann").await;
    ann.publish("ops", &["before"]).await;
    ann.subscribe(1, "ops", StartAt::END, 1 << 20).await;
    ann.hear().await;
    assert!(server.drain(store, PATIENCE).await);
    ann.say(Publish::of(room("ops"), 2, ["after"])).await;
    let Frame::Refused(refused) = ann.hear().await else {
        panic!("not refused")
    };
    assert_eq!(refused.code, ErrorCode::GOING_AWAY);
    assert!(
        tokio::net::TcpStream::connect(address).await.is_err(),
        "still listening"
    );
    let farewell = Farewell {
        code: ErrorCode::GOING_AWAY,
        retry_after_ms: 5,
        ..Farewell::default()
    };
    let leaving = server.farewell(farewell, PATIENCE);
    let ((), goodbye) = tokio::join!(leaving, ann.hear());
    let Frame::Goodbye(goodbye) = goodbye else {
        panic!("no goodbye")
    };
    assert_eq!(
        (goodbye.code, goodbye.retry_after_ms),
        (ErrorCode::GOING_AWAY, 5)
    );
    assert_eq!(ann.hear_or_end().await, None);
    server.stop().await;
}

#[tokio::test]
async fn dropping_a_server_frees_its_port() {
    let (server, address) = serving(ServerConfig::default());
    let mut ann = Peer::welcomed(address, "ann").await;
    server.stop().await;
    assert_eq!(ann.hear_or_end().await, None);
    let again: Server<broker_core::store::MemoryStore> =
        Server::start(ServerConfig::default()).unwrap();
    again.listen_tcp(address).unwrap();
}

#[tokio::test]
async fn a_port_is_never_shared() {
    let (_server, address) = serving(ServerConfig::default());
    let other: Server<broker_core::store::MemoryStore> =
        Server::start(ServerConfig::default()).unwrap();
    let error = other.listen_tcp(address).unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::AddrInUse);
}

#[tokio::test]
async fn a_unix_socket_is_taken_over_by_the_next_and_never_removed() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("sock");
    let place = |name: &str| dir.path().join(name);
    let listen = || {
        let server = Server::start(ServerConfig::default()).unwrap();
        server.listen_unix(place, "sock", path.clone()).unwrap();
        server.serve(store());
        server
    };
    let first = listen();
    let mut ann = Peer::over(UnixStream::connect(&path).await.unwrap());
    ann.say(hello("ann")).await;
    let old = ann.hear_welcome().await.store;
    let _second = listen();
    let mut bob = Peer::over(UnixStream::connect(&path).await.unwrap());
    bob.say(hello("bob")).await;
    assert_ne!(
        bob.hear_welcome().await.store,
        old,
        "the new server has the name"
    );
    first.stop().await;
    assert!(path.exists());
    let mut carl = Peer::over(UnixStream::connect(&path).await.unwrap());
    carl.say(hello("carl")).await;
    carl.hear_welcome().await;
    let names: Vec<_> = std::fs::read_dir(dir.path())
        .unwrap()
        .map(|entry| entry.unwrap().file_name())
        .collect();
    assert_eq!(names, ["sock"], "nothing else is left");
}

#[tokio::test]
async fn a_connection_within_the_process_needs_no_socket() {
    let server = Server::start(ServerConfig::default()).unwrap();
    server.serve(store());
    let mut ann = Peer::over(server.connect());
    ann.say(hello("ann")).await;
    ann.hear_welcome().await;
    ann.subscribe(1, "ops", StartAt::START, 64 << 20).await;
    ann.hear().await;
    let payload = vec![1; 100_000];
    for n in 0..20 {
        ann.send("ops", &[&payload]).await;
        let deliver = ann.hear_deliver().await;
        assert_eq!(deliver.next.get(), n + 2);
    }
}

#[tokio::test]
async fn the_status_says_what_the_server_is() {
    let config = ServerConfig {
        build: "test \"7\"".to_owned(),
        role: "serve_always",
        ..ServerConfig::default()
    };
    let (server, address) = serving(config);
    server.warn("the port is taken".to_owned());
    let mut ann = Peer::welcomed(address, "ann").await;
    ann.publish("ops", &["1", "2"]).await;
    ann.say(GetStatus { correlation: 3 }).await;
    let Frame::Status(status) = ann.hear().await else {
        panic!("no status")
    };
    let json = status.json.as_str();
    for part in [
        "\"state\":\"leader\"",
        "\"role\":\"serve_always\"",
        "\"stage\":\"serving\"",
        "\"build\":\"test \\\"7\\\"\"",
        "\"warnings\":[\"the port is taken\"]",
        "\"connections\":1",
        "\"rooms\":1",
        "\"messages\":2",
        "\"read_only\":null",
        &format!("\"addresses\":[\"tcp://{address}\"]"),
        &format!("\"pid\":{}", std::process::id()),
    ] {
        assert!(json.contains(part), "{part} is not in {json}");
    }
    assert_eq!(json, server.status());
}

/// A listener that fails as told, then gives connections of the test's.
struct Failing {
    errors: VecDeque<io::Error>,
    streams: VecDeque<DuplexStream>,
}

impl Listener for Failing {
    type Stream = DuplexStream;

    async fn accept(&mut self) -> io::Result<(DuplexStream, Origin)> {
        if let Some(error) = self.errors.pop_front() {
            return Err(error);
        }
        match self.streams.pop_front() {
            Some(stream) => Ok((stream, Origin::InProcess)),
            None => std::future::pending().await,
        }
    }

    fn address(&self) -> String {
        "test:".to_owned()
    }
}

#[tokio::test]
async fn accepting_rests_when_there_are_no_more_files_and_goes_on_after() {
    let server = Server::start(ServerConfig::default()).unwrap();
    server.serve(store());
    let (near, far) = tokio::io::duplex(1 << 16);
    let no_more_files = || io::Error::from_raw_os_error(24);
    let began = Instant::now();
    server.listen(Failing {
        errors: [
            no_more_files(),
            io::ErrorKind::ConnectionAborted.into(),
            no_more_files(),
        ]
        .into(),
        streams: [far].into(),
    });
    let mut ann = Peer::over(near);
    ann.say(hello("ann")).await;
    ann.hear_welcome().await;
    assert!(
        began.elapsed() >= Duration::from_millis(200),
        "it tried again at once"
    );
}

#[test]
fn a_socket_that_cannot_be_bound_is_an_error() {
    let server: Server<broker_core::store::MemoryStore> =
        Server::start(ServerConfig::default()).unwrap();
    let place = |name: &str| PathBuf::from("/nonexistent").join(name);
    assert!(server.listen_unix(place, "sock", place("sock")).is_err());
}

//! Starting, serving and stopping.

use std::fs;
use std::path::Path;
use std::process::Stdio;

use rustix::process::Signal;

use crate::support::{Daemon, Place, block_on, refused};

#[test]
fn help_and_version() {
    let place = Place::new();
    let run =
        |argument| String::from_utf8(place.command(&[argument]).output().unwrap().stdout).unwrap();
    assert_eq!(
        run("--version"),
        concat!("brokerd ", env!("CARGO_PKG_VERSION"), "\n")
    );
    let help = run("--help");
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/it/golden/brokerd.txt");
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        fs::write(&path, &help).unwrap();
    }
    assert_eq!(
        help,
        fs::read_to_string(&path).unwrap_or_default(),
        "UPDATE_GOLDEN=1 accepts it"
    );
    for word in [
        "BROKERD_LISTEN",
        "BROKERD_DATA",
        "BROKERD_INSECURE_NO_AUTH",
        "BROKERD_NO_FENCING",
        "BROKERD_SCRUB_EVERY",
        "BROKER_LOG",
        " 65 ",
        " 74 ",
        " 75 ",
        " 78 ",
    ] {
        assert!(help.contains(word), "{word}");
    }
}

#[test]
fn one_line_says_where_it_listens_and_where_the_data_lies() {
    let place = Place::new();
    let daemon = place.start();
    let port = daemon.address().port();
    assert_ne!(port, 0, "the real port");
    let store = fs::canonicalize(place.store()).unwrap();
    assert_eq!(
        daemon.line,
        format!(
            "brokerd {} listening on 127.0.0.1:{port} and unix:{store}/sock, data in {store}",
            env!("CARGO_PKG_VERSION"),
            store = store.display()
        )
    );
    block_on(async {
        let client = daemon.client().await;
        assert_eq!(
            client
                .room("lobby")
                .unwrap()
                .send("hi")
                .await
                .unwrap()
                .seq
                .get(),
            1
        );
        client.shutdown().await.unwrap();
    });
}

#[test]
fn both_signals_drain_and_end_with_0() {
    for signal in [Signal::TERM, Signal::INT] {
        let place = Place::new();
        let daemon = place.start();
        block_on(async {
            let client = daemon.client().await;
            client.room("lobby").unwrap().send("hi").await.unwrap();
            daemon.signal(signal);
        });
        let (status, words) = daemon.end();
        assert_eq!(status.code(), Some(0), "{words}");

        let again = place.start();
        block_on(async {
            let page = again
                .client()
                .await
                .room("lobby")
                .unwrap()
                .read(broker_core::StartAt::START, 10, 1 << 20)
                .await
                .unwrap();
            assert_eq!(page.messages.len(), 1);
        });
    }
}

#[test]
fn the_environment_counts_and_a_flag_beats_it() {
    let place = Place::new();
    let mut command = place.command(&["--data", place.path().join("flag").to_str().unwrap()]);
    command.env("BROKERD_LISTEN", "127.0.0.1:0");
    let daemon = Daemon::new(command);
    assert!(daemon.line.contains("/flag"), "{}", daemon.line);
    assert!(!place.store().exists());
}

#[test]
fn the_unix_socket_alone() {
    let place = Place::new();
    let daemon = Daemon::new(place.command(&["--listen", "none"]));
    let url = format!("unix:{}", place.store().join("sock").display());
    assert!(
        daemon.line.contains(" listening on unix:"),
        "{}",
        daemon.line
    );
    block_on(async {
        let client = broker_core::ClientConfig::new()
            .sender("ann")
            .connect(&url)
            .await
            .unwrap();
        client.room("lobby").unwrap().send("hi").await.unwrap();
    });
}

#[test]
fn an_unusual_address_needs_a_word() {
    let place = Place::new();
    let (code, words) = place.refused(&["--listen", "0.0.0.0:0"]);
    assert_eq!(code, Some(78));
    assert!(
        words.contains("127.0.0.1:0") && words.contains("--insecure-no-auth"),
        "{words}"
    );
    assert!(!place.store().exists());
    let daemon = Daemon::new(place.command(&["--listen", "0.0.0.0:0", "--insecure-no-auth"]));
    assert!(
        daemon.line.contains(" listening on 0.0.0.0:"),
        "{}",
        daemon.line
    );
    let mut command = place.command(&["--listen", "[::]:0"]);
    command.env("BROKERD_INSECURE_NO_AUTH", "0");
    assert_eq!(refused(command).0, Some(78), "a variable that says no");
}

#[test]
fn the_log_level_is_a_setting() {
    let place = Place::new();
    let mut command = place.command(&["--listen", "127.0.0.1:0"]);
    command.env("BROKER_LOG", "debug");
    let daemon = Daemon::new(command);
    block_on(async { drop(daemon.client().await) });
    daemon.signal(Signal::TERM);
    let (_, words) = daemon.end();
    assert!(words.contains("DEBUG"), "{words}");
    assert!(!words.contains('\u{1b}'), "no colour off a terminal");
    let mut command = place.command(&[]);
    command.env("BROKER_LOG", "a=b=c");
    assert_eq!(refused(command).0, Some(78));
}

#[test]
fn a_directory_that_is_moved_away_ends_it_with_74() {
    let place = Place::new();
    let daemon = place.start();
    block_on(async {
        let room = daemon.client().await.room("lobby").unwrap();
        room.send("hi").await.unwrap();
        fs::rename(place.store(), place.path().join("elsewhere")).unwrap();
        // It looks once a second, and may be gone before it has refused anything.
        while room.send("hi").await.is_ok() {}
    });
    let (status, words) = daemon.end();
    assert_eq!(status.code(), Some(74), "{words}");
    assert!(words.contains("moved"), "{words}");
}

/// Its log may lie on the very disk that is full.
#[test]
fn a_full_disk_below_its_log_does_not_end_it() {
    let place = Place::new();
    let store = place.store();
    let mut child = place
        .command(&["--listen", "none"])
        .env("BROKER_LOG", "trace")
        .stdout(Stdio::null())
        .stderr(fs::File::create("/dev/full").unwrap())
        .spawn()
        .unwrap();
    block_on(async {
        // Connecting is retried until it listens.
        let client = broker_core::ClientConfig::new()
            .sender("ann")
            .connect(&format!("unix:{}", store.join("sock").display()))
            .await
            .unwrap();
        client.room("lobby").unwrap().send("hi").await.unwrap();
        client.shutdown().await.unwrap();
    });
    let pid = rustix::process::Pid::from_child(&child);
    rustix::process::kill_process(pid, Signal::TERM).unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(0));
}

//! What can be typed: help, versions, and every way to type it wrong.

use std::fs;
use std::path::Path;

use crate::support::Place;

/// Compares with a file that is kept; `UPDATE_GOLDEN=1` writes it anew.
#[track_caller]
fn golden(name: &str, text: &str) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/it/golden")
        .join(name);
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        fs::write(&path, text).unwrap();
    }
    let kept = fs::read_to_string(&path).unwrap_or_default();
    assert_eq!(text, kept, "{name} differs; UPDATE_GOLDEN=1 accepts it");
}

#[test]
fn help() {
    let place = Place::new();
    golden("broker.txt", &place.text(&["--help"]));
    for command in ["send", "read", "rooms", "status", "bench", "demo"] {
        golden(&format!("{command}.txt"), &place.text(&[command, "--help"]));
    }
    for words in [
        &["room"][..],
        &["room", "info"],
        &["room", "set"],
        &["room", "trim"],
        &["room", "rm"],
        &["store"],
        &["store", "info"],
        &["store", "set"],
        &["cursor"],
        &["cursor", "list"],
        &["cursor", "get"],
        &["cursor", "set"],
        &["cursor", "rm"],
    ] {
        let name = format!("{}.txt", words.join("-"));
        golden(&name, &place.text(&[words, &["--help"]].concat()));
    }
    golden(
        "admin-verify.txt",
        &place.text(&["admin", "verify", "--help"]),
    );
    golden(
        "admin-log-dump.txt",
        &place.text(&["admin", "log", "dump", "--help"]),
    );
    for what in ["pub", "fanout"] {
        let name = format!("bench-{what}.txt");
        golden(&name, &place.text(&["bench", what, "--help"]));
    }
    assert!(!place.store().exists(), "help makes no store");
}

#[test]
fn help_names_every_variable_and_every_exit_code() {
    let help = Place::new().text(&["--help"]);
    for variable in [
        "BROKER_URL",
        "BROKER_DATA",
        "BROKER_LISTEN",
        "BROKER_NAME",
        "BROKER_TIMEOUT",
        "BROKER_LOG",
    ] {
        assert!(help.contains(variable), "{variable}");
    }
    for code in [
        "  0 ",
        "  1 ",
        "  2 ",
        "  3 ",
        "  4 ",
        "  5 ",
        "  6 ",
        "  130, 143 ",
    ] {
        assert!(help.contains(code), "{code:?}");
    }
}

#[test]
fn version() {
    let text = Place::new().text(&["--version"]);
    assert_eq!(text, concat!("broker ", env!("CARGO_PKG_VERSION"), "\n"));
}

#[test]
fn wrong_usage_is_2_and_touches_nothing() {
    let place = Place::new();
    for (arguments, word) in [
        (&["frobnicate"][..], "frobnicate"),
        (&["send"], "ROOM"),
        (&["send", "lobby", "text", "--lines"], "--lines"),
        (&["read", "lobby", "--raw", "--json"], "--json"),
        (&["read", "lobby", "--from", "0"], "--from"),
        (&["read", "lobby", "--from", "@soon"], "@soon"),
        (&["read", "lobby", "-n", "-1"], "-1"),
        (&["rooms", "--timeout", "0"], "--timeout"),
        (&["rooms", "--timeout", "fast"], "fast"),
        (&["rooms", "--listen", "9876"], "--listen"),
        (&["rooms", "--server", "localhost:9876"], "tcp://"),
        (&["rooms", "--server", "http://localhost:9876"], "tcp://"),
        (&["rooms", "--server", ""], "--server"),
        (&["rooms", "--data", ""], "--data"),
        (&["rooms", "--server", "unix:/s", "--data", "/d"], "--data"),
        (&["rooms", "--as", "two words"], "two words"),
        (&["bench", "pub", "--size", "1"], "--size"),
        (&["bench", "pub", "--bulk", "99", "--window", "9"], "--bulk"),
        (&["bench", "rtt", "--duration", "0s"], "--duration"),
        (&["bench", "all"], "all"),
        (&["rooms", "--label", "=red"], "--label"),
        (&["room"], "Usage"),
        (&["room", "set", "lobby"], "nothing is to be set"),
        (&["room", "set", "lobby", "--keep-age", "7"], "--keep-age"),
        (&["room", "set", "lobby", "--keep-age", "0s"], "--keep-age"),
        (
            &["room", "set", "lobby", "--keep-bytes", "1 GiB"],
            "--keep-bytes",
        ),
        (
            &["room", "set", "lobby", "--keep-count", "+3"],
            "--keep-count",
        ),
        (&["room", "set", "lobby", "--max-bytes", "0"], "--max-bytes"),
        (&["room", "set", "lobby", "--max-bytes", "all"], "none"),
        (&["room", "set", "lobby", "--when-full", "wait"], "refuse"),
        (
            &["room", "set", "lobby", "--visibility", "nobody"],
            "private",
        ),
        (&["room", "set", "lobby", "--label", "red"], "NAME=VALUE"),
        (
            &["room", "set", "lobby", "--label", "a=1", "--label", "a=2"],
            "twice",
        ),
        (
            &["room", "set", "lobby", "--label", "a=1", "--no-label", "a"],
            "--no-label",
        ),
        (&["room", "set", "a b", "--topic", "x"], "white space"),
        (&["room", "trim", "lobby"], "--before"),
        (&["room", "trim", "lobby", "--before", "0"], "--before"),
        (&["room", "trim", "lobby", "--before", "@soon"], "@soon"),
        (&["room", "rm", "lobby"], "--yes"),
        (&["store", "set"], "nothing is to be set"),
        (
            &["store", "set", "--room-max-bytes", "x"],
            "--room-max-bytes",
        ),
        (&["store", "set", "--cursor-idle", "60"], "--cursor-idle"),
        (&["cursor", "get", "lobby"], "NAME"),
        (&["cursor", "get", "lobby", "a b"], "white space"),
        (&["cursor", "set", "lobby", "me", "0"], "WHERE"),
        (
            &["cursor", "set", "lobby", "me", "1", "--if-at", "0"],
            "--if-at",
        ),
        (
            &[
                "cursor",
                "set",
                "lobby",
                "me",
                "1",
                "--relaxed",
                "--if-at",
                "1",
            ],
            "--relaxed",
        ),
        (
            &["cursor", "rm", "lobby", "me", "--if-at", "all"],
            "--if-at",
        ),
        (&["demo", "--kills", "3"], "--takeover"),
        (&["demo", "--takeover", "--kills", "0"], "--kills"),
        (&["demo", "--takeover", "--rate", "99999"], "--rate"),
        (&["demo", "--takeover", "--every", "soon"], "soon"),
        (&["demo", "--takeover", "--data", "/d"], "--data"),
    ] {
        place.run(arguments).fails(2, &[word]);
    }
    assert!(!place.store().exists());
}

#[test]
fn a_wrong_variable_is_2_and_an_empty_one_is_not_set() {
    let place = Place::new();
    for (variable, value) in [
        ("BROKER_URL", "nowhere"),
        ("BROKER_LISTEN", "x"),
        ("BROKER_NAME", "a b"),
        ("BROKER_TIMEOUT", "x"),
        ("BROKER_LOG", "a=b=c"),
    ] {
        let output = place
            .command(&["rooms"])
            .env(variable, value)
            .output()
            .unwrap();
        crate::support::Done::new(output).fails(2, &[]);
    }
    let mut command = place.command(&["rooms"]);
    for variable in [
        "BROKER_URL",
        "BROKER_LISTEN",
        "BROKER_TIMEOUT",
        "BROKER_LOG",
    ] {
        command.env(variable, "");
    }
    crate::support::Done::new(command.output().unwrap()).ok();
}

#[test]
fn without_a_home_the_directory_has_to_be_named() {
    let place = Place::new();
    let output = place
        .command(&["rooms"])
        .env_remove("HOME")
        .env_remove("BROKER_DATA")
        .output()
        .unwrap();
    crate::support::Done::new(output).fails(2, &["--data"]);
}

#[test]
fn the_default_directory_follows_the_xdg_rules() {
    let place = Place::new();
    let send = |xdg: Option<&Path>| {
        let mut command = place.command(&["send", "lobby", "hi"]);
        command.env_remove("BROKER_DATA");
        if let Some(xdg) = xdg {
            command.env("XDG_DATA_HOME", xdg);
        }
        crate::support::Done::new(command.output().unwrap()).ok();
    };
    send(None);
    assert!(place.path().join(".local/share/broker/lock").exists());
    send(Some(&place.path().join("xdg")));
    assert!(place.path().join("xdg/broker/lock").exists());
}

#[test]
fn the_sender_is_the_flag_then_the_variable_then_the_login_name() {
    let place = Place::new();
    place.run(&["send", "lobby", "1", "--as", "flag"]).ok();
    place.run(&["send", "lobby", "2"]).ok();
    let output = place
        .command(&["send", "lobby", "3"])
        .env_remove("BROKER_NAME")
        .env("LOGNAME", "login")
        .output()
        .unwrap();
    crate::support::Done::new(output).ok();
    let messages = place.run(&["read", "lobby", "--json"]).ok().json();
    let senders: Vec<_> = messages
        .iter()
        .map(|message| message["sender"].as_str().unwrap())
        .collect();
    assert_eq!(senders, ["flag", "ann", "login"]);
}

#[test]
fn an_impossible_login_name_asks_for_another() {
    let place = Place::new();
    let output = place
        .command(&["rooms"])
        .env_remove("BROKER_NAME")
        .env("LOGNAME", "ann@corp")
        .output()
        .unwrap();
    crate::support::Done::new(output).fails(2, &["ann@corp", "--as"]);
}

/// `--id "$UNSET"` would store the first message and drop all others.
#[test]
fn an_empty_id_is_refused() {
    let place = Place::new();
    place
        .run(&["send", "lobby", "x", "--id", ""])
        .fails(2, &["--id"]);
    place
        .run_with(&["send", "lobby", "--lines", "--id="], b"a\n")
        .fails(2, &["--id"]);
}

#[test]
fn lines_take_a_dash_for_standard_input_and_no_text() {
    let place = Place::new();
    place
        .run_with(&["send", "log", "--lines", "-"], b"a\nb\n")
        .ok();
    assert_eq!(place.raw("log"), b"a\nb\n");
    place
        .run(&["send", "log", "--lines", "text"])
        .fails(2, &["--lines", "TEXT"]);
}

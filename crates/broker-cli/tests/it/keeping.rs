//! What is kept: rooms and the store looked at, changed, trimmed and removed.

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::support::{Place, feed, on_a_terminal, skipped};

/// All that is known of a room.
fn info(place: &Place, room: &str) -> Value {
    place
        .run(&["room", "info", room, "--json"])
        .ok()
        .json()
        .remove(0)
}

fn names(rooms: &[Value]) -> Vec<&str> {
    rooms
        .iter()
        .map(|room| room["room"].as_str().unwrap())
        .collect()
}

#[test]
fn all_that_is_known_of_a_room() {
    let place = Place::new();
    place.send("lobby", &["1", "2", "3"]);
    let text = place.text(&["room", "info", "lobby", "--json"]);
    let keys: Vec<&str> = text.split('"').skip(1).step_by(2).collect();
    for key in [
        "room",
        "epoch",
        "first",
        "head",
        "messages",
        "bytes",
        "time",
        "created",
        "created_by",
        "version",
        "topic",
        "description",
        "labels",
        "keep_age_ms",
        "keep_bytes",
        "keep_count",
        "max_bytes",
        "when_full",
        "visibility",
    ] {
        assert!(keys.contains(&key), "no {key} in {text}");
    }
    let room = info(&place, "lobby");
    let last = &place
        .run(&["read", "lobby", "--from", "-1", "--json"])
        .ok()
        .json()[0];
    assert_eq!(room["room"], "lobby");
    assert_eq!(
        (&room["first"], &room["head"], &room["messages"]),
        (&json!(1), &json!(3), &json!(3))
    );
    assert_eq!(
        (&room["epoch"], &room["time"]),
        (&last["epoch"], &last["time"])
    );
    assert_eq!(
        (&room["created_by"], &room["version"]),
        (&json!("ann"), &json!(0))
    );
    assert!(room["created"].as_str().unwrap() <= room["time"].as_str().unwrap());
    assert!(room["bytes"].as_u64().unwrap() > 100);
    assert_eq!(
        (&room["keep_age_ms"], &room["max_bytes"]),
        (&Value::Null, &Value::Null)
    );
    assert_eq!(
        (&room["labels"], &room["when_full"]),
        (&json!({}), &json!("refuse"))
    );
    let lines = place.text(&["room", "info", "lobby"]);
    for line in [
        "messages                 3",
        "keep_age                 none",
        "created_by               ann",
    ] {
        assert!(
            lines.lines().any(|found| found == line),
            "no {line:?} in {lines}"
        );
    }
}

#[test]
fn a_room_that_is_not_there_is_1() {
    let place = Place::new();
    place.send("lobby", &["1"]);
    for arguments in [
        &["room", "info", "nobody"][..],
        &["room", "set", "nobody", "--topic", "x"],
        &["room", "trim", "nobody", "--before", "1"],
        &["room", "trim", "nobody", "--before", "-1"],
        &["room", "rm", "nobody", "--yes"],
        &["cursor", "list", "nobody"],
        &["cursor", "set", "nobody", "me", "1"],
    ] {
        place.run(arguments).fails(1, &["nobody"]);
    }
    place.run(&["room", "info", "$sys"]).fails(1, &["$sys"]);
    place
        .run(&["room", "set", "$sys", "--topic", "x"])
        .fails(2, &["reserved", "$sys"]);
    place
        .run(&["room", "trim", "$sys", "--before", "1"])
        .fails(2, &["reserved", "$sys"]);
    place
        .run(&["room", "rm", "$sys", "--yes"])
        .fails(2, &["reserved", "$sys"]);
}

#[test]
fn settings_are_set_kept_and_unset() {
    let place = Place::new();
    place.send("lobby", &["1"]);
    let set = |more: &[&str]| place.run(&[&["room", "set", "lobby"], more].concat());
    set(&["--topic", "who \u{1b}comes", "--label", "team=red"]).fails(2, &["control"]);
    let set_now = set(&[
        "--topic",
        "who comes",
        "--description",
        "one\ntwo",
        "--label",
        "team=red",
        "--label",
        "urgent=",
        "--keep-age",
        "1d12h",
        "--keep-bytes",
        "1GiB",
        "--keep-count",
        "1000",
        "--max-bytes",
        "2GB",
        "--when-full",
        "trim",
        "--visibility",
        "private",
        "--json",
    ])
    .ok()
    .json()
    .remove(0);
    // Another process, and the store was closed meanwhile.
    let room = info(&place, "lobby");
    assert_eq!(room, set_now);
    assert_eq!(
        (&room["topic"], &room["description"]),
        (&json!("who comes"), &json!("one\ntwo"))
    );
    assert_eq!(room["labels"], json!({"team": "red", "urgent": ""}));
    assert_eq!(
        (&room["keep_age_ms"], &room["keep_bytes"]),
        (&json!(129_600_000), &json!(1 << 30))
    );
    assert_eq!(
        (&room["keep_count"], &room["max_bytes"]),
        (&json!(1000), &json!(2_000_000_000))
    );
    assert_eq!(
        (&room["when_full"], &room["visibility"]),
        (&json!("trim"), &json!("private"))
    );
    assert_eq!(room["version"], 1);
    let lines = place.text(&["room", "info", "lobby"]);
    for line in [
        "description              one\\ntwo",
        "labels                   team=red urgent=",
        "keep_age                 1d12h",
        "keep_bytes               1GiB",
    ] {
        assert!(
            lines.lines().any(|found| found == line),
            "no {line:?} in {lines}"
        );
    }
    set(&["--topic", "late", "--if-version", "0"]).fails(4, &["conflict", "lobby"]);
    set(&[
        "--topic",
        "",
        "--no-label",
        "urgent",
        "--keep-age",
        "none",
        "--max-bytes",
        "none",
        "--if-version",
        "1",
    ])
    .ok();
    let room = info(&place, "lobby");
    assert_eq!(
        (&room["topic"], &room["labels"]),
        (&json!(""), &json!({"team": "red"}))
    );
    assert_eq!(
        (&room["keep_age_ms"], &room["max_bytes"]),
        (&Value::Null, &Value::Null)
    );
    assert_eq!(
        (&room["keep_count"], &room["version"]),
        (&json!(1000), &json!(2))
    );
}

#[test]
fn what_is_over_the_count_goes_soon() {
    let place = Place::new();
    let _leader = place.serve("none");
    place.send("lobby", &["1", "2", "3", "4", "5"]);
    place
        .run(&["room", "set", "lobby", "--keep-count", "2"])
        .ok();
    let end = Instant::now() + Duration::from_secs(20);
    while info(&place, "lobby")["messages"] != 2 {
        assert!(Instant::now() < end, "{}", info(&place, "lobby"));
    }
    let read = place.run(&["read", "lobby", "--raw", "--from", "1"]);
    assert_eq!(
        (read.code, read.stdout.as_slice()),
        (Some(0), &b"4\n5\n"[..])
    );
    assert!(
        read.stderr.contains("1 to 3 are gone (trimmed)"),
        "{}",
        read.stderr
    );
}

#[test]
fn the_oldest_messages_are_removed_by_seq_count_and_time() {
    let place = Place::new();
    place.send("lobby", &["1", "2", "3", "4", "5", "6"]);
    let trim = |before: &str| {
        let state = place.run(&["room", "trim", "lobby", "--before", before, "--json"]);
        let state = state.ok().json().remove(0);
        assert_eq!(state, info(&place, "lobby"), "{before}");
        (
            state["first"].as_u64().unwrap(),
            state["messages"].as_u64().unwrap(),
        )
    };
    assert_eq!(trim("2"), (2, 5));
    assert_eq!(trim("1"), (2, 5), "nothing comes back");
    assert_eq!(trim("-4"), (3, 4));
    let fourth = &place
        .run(&["read", "lobby", "--from", "4", "-n", "1", "--json"])
        .ok()
        .json()[0];
    let time = format!("@{}", fourth["time"].as_str().unwrap());
    assert_eq!(trim(&time), (4, 3));
    assert_eq!(trim("@1d"), (4, 3));
    place
        .run(&["room", "trim", "lobby", "--before", "99"])
        .fails(1, &["lobby", "99"]);
    assert_eq!(trim("end"), (7, 0));
    place
        .run(&["room", "trim", "lobby", "--before", "end"])
        .ok();
    let sent = &place.run(&["send", "lobby", "x", "--json"]).ok().json()[0];
    assert_eq!(sent["seq"], 7, "seqs go on");
    let done = place.run(&["room", "trim", "lobby", "--before", "end", "-v"]);
    assert_eq!(done.code, Some(0));
    assert!(
        done.stderr.contains("lobby has 0 messages now"),
        "{}",
        done.stderr
    );
}

#[test]
fn a_room_is_removed_and_made_again_with_another_epoch() {
    let place = Place::new();
    place.send("lobby", &["1", "2"]);
    place.send("other", &["1"]);
    let before = info(&place, "lobby");
    place
        .run(&["room", "rm", "lobby"])
        .fails(2, &["--yes", "lobby"]);
    assert_eq!(info(&place, "lobby"), before);
    let was = place
        .run(&["room", "rm", "lobby", "--yes", "--json"])
        .ok()
        .json()
        .remove(0);
    assert_eq!(was, before);
    place.run(&["room", "info", "lobby"]).fails(1, &["lobby"]);
    place
        .run(&["room", "rm", "lobby", "--yes"])
        .fails(1, &["lobby"]);
    assert_eq!(
        names(&place.run(&["rooms", "--json"]).ok().json()),
        ["other"]
    );
    let sent = &place.run(&["send", "lobby", "x", "--json"]).ok().json()[0];
    assert_eq!(sent["seq"], 1);
    assert_ne!(sent["epoch"], before["epoch"]);
}

#[test]
fn on_a_terminal_the_rooms_name_is_asked_for() {
    let place = Place::new();
    place.send("lobby", &["1", "2"]);
    for (typed, removed) in [("y\n", false), ("lobb\n", false), ("lobby\n", true)] {
        let Some(mut command) = on_a_terminal("room rm lobby") else {
            return skipped("no script(1) here");
        };
        command
            .env("BROKER_DATA", place.store())
            .env("BROKER_NAME", "ann")
            .env_remove("BROKER_URL");
        let done = feed(command, typed.as_bytes());
        let shown = String::from_utf8(done.stdout).unwrap();
        assert!(shown.contains("room lobby has 2 messages"), "{shown}");
        assert_eq!(done.code, Some(if removed { 0 } else { 4 }), "{shown}");
        assert_eq!(shown.contains("nothing was removed"), !removed, "{shown}");
        let code = place.run(&["room", "info", "lobby"]).code;
        assert_eq!(code, Some(i32::from(removed)));
    }
}

#[test]
fn rooms_are_found_by_prefix_and_label() {
    let place = Place::new();
    let _leader = place.serve("none");
    for room in ["app-a", "app-b", "web"] {
        place.send(room, &["1", "2"]);
    }
    let label = |room: &str, label: &str| {
        place
            .run(&["room", "set", room, "--label", label, "--topic", "t\u{fc}"])
            .ok();
    };
    label("app-a", "team=red");
    label("app-b", "team=blue");
    label("web", "team=red");
    let found = |more: &[&str]| {
        let rooms = place
            .run(&[&["rooms", "--json"], more].concat())
            .ok()
            .json();
        names(&rooms).join(" ")
    };
    assert_eq!(found(&[]), "app-a app-b ready web");
    assert_eq!(found(&["--prefix", "app-"]), "app-a app-b");
    assert_eq!(found(&["--prefix", "none"]), "");
    assert_eq!(found(&["--label", "team"]), "app-a app-b web");
    assert_eq!(found(&["--label", "team=red"]), "app-a web");
    assert_eq!(found(&["--label", "team=red", "--prefix", "app-"]), "app-a");
    assert_eq!(found(&["--label", "team=red", "--label", "urgent"]), "");
    let short = place.text(&["rooms", "--prefix", "web"]);
    let long = place.text(&["rooms", "--prefix", "web", "--long"]);
    assert!(long.starts_with(short.trim_end()), "{short:?} {long:?}");
    let room = info(&place, "web");
    let fields: Vec<&str> = long.trim_end().split('\t').collect();
    assert_eq!(fields[4..], ["2", &room["bytes"].to_string(), "t\u{fc}"]);
    assert_eq!(
        place
            .run(&["rooms", "--prefix", "web", "--long", "--json"])
            .ok()
            .json(),
        [room]
    );
    assert_eq!(
        place
            .run(&["rooms", "--prefix", "web", "--json"])
            .ok()
            .json()[0]
            .as_object()
            .unwrap()
            .len(),
        5
    );
    place
        .run(&["rooms", "--prefix", &"x".repeat(129)])
        .fails(2, &["128"]);
}

#[test]
fn a_limit_refuses_or_trims() {
    let place = Place::new();
    let _leader = place.serve("none");
    let payload = "x".repeat(50);
    place.send("hard", &[&payload]);
    place.send("soft", &[&payload]);
    place
        .run(&["room", "set", "hard", "--max-bytes", "4KiB"])
        .ok();
    place
        .run(&[
            "room",
            "set",
            "soft",
            "--max-bytes",
            "4KiB",
            "--when-full",
            "trim",
        ])
        .ok();
    let refused = (0..80)
        .map(|_| place.run(&["send", "hard", &payload]))
        .find(|done| done.code != Some(0));
    let refused = refused.unwrap();
    let words = ["quota", "hard", "of at most 4096 bytes", "broker room trim"];
    refused.fails(4, &words);
    refused.fails(4, &["--max-bytes", "sending again does not help"]);
    assert!(info(&place, "hard")["bytes"].as_u64().unwrap() <= 4096);
    place.run(&["room", "trim", "hard", "--before", "-1"]).ok();
    place.run(&["send", "hard", &payload]).ok();
    for _ in 0..80 {
        let end = Instant::now() + Duration::from_secs(20);
        while place.run(&["send", "soft", &payload]).code != Some(0) {
            assert!(Instant::now() < end, "the oldest make place");
        }
    }
    let soft = info(&place, "soft");
    assert!(
        soft["bytes"].as_u64().unwrap() <= 4096 && soft["head"] == 81,
        "{soft}"
    );
}

#[test]
fn settings_of_the_store() {
    let place = Place::new();
    place.send("lobby", &["1"]);
    let before = place
        .run(&["store", "info", "--json"])
        .ok()
        .json()
        .remove(0);
    assert_eq!(
        (&before["version"], &before["rooms"]),
        (&json!(0), &json!(1))
    );
    assert_eq!(
        (&before["fullness"], &before["max_bytes"]),
        (&json!("fine"), &Value::Null)
    );
    assert!(before["log_bytes"].as_u64().unwrap() > 0);
    let set = &place
        .run(&[
            "store",
            "set",
            "--keep-age",
            "90d",
            "--max-bytes",
            "1TiB",
            "--room-max-bytes",
            "1GiB",
            "--cursor-idle",
            "60d",
            "--json",
        ])
        .ok()
        .json()[0];
    let now = place
        .run(&["store", "info", "--json"])
        .ok()
        .json()
        .remove(0);
    for key in [
        "version",
        "keep_age_ms",
        "keep_bytes",
        "keep_count",
        "max_bytes",
        "room_max_bytes",
        "cursor_idle_ms",
    ] {
        assert_eq!(set[key], now[key], "{key}");
    }
    assert_eq!(
        (&now["version"], &now["keep_age_ms"]),
        (&json!(1), &json!(7_776_000_000_u64))
    );
    assert_eq!(
        (&now["max_bytes"], &now["room_max_bytes"]),
        (&json!(1_u64 << 40), &json!(1 << 30))
    );
    place
        .run(&["store", "set", "--max-bytes", "1GiB", "--if-version", "0"])
        .fails(4, &["conflict"]);
    place
        .run(&["store", "set", "--max-bytes", "none", "--if-version", "1"])
        .ok();
    let lines = place.text(&["store", "info"]);
    for line in [
        "max_bytes                none",
        "room_max_bytes           1GiB",
        "cursor_idle              60d",
    ] {
        assert!(
            lines.lines().any(|found| found == line),
            "no {line:?} in {lines}"
        );
    }
}

#[test]
fn a_store_at_its_limit_refuses_and_the_status_warns() {
    let place = Place::new();
    let _leader = place.serve("none");
    assert_eq!(place.run(&["status"]).ok().stderr, "");
    place.run(&["store", "set", "--max-bytes", "1"]).ok();
    place.run(&["send", "lobby", "x"]).fails(
        4,
        &["quota", "may have 1 in all", "broker store set --max-bytes"],
    );
    let status = place.run(&["status"]);
    assert_eq!(status.code, Some(0));
    for word in [
        "of at most 1 bytes",
        "full",
        "messages are refused",
        "broker store set",
    ] {
        assert!(
            status.stderr.contains(word),
            "no {word:?} in {}",
            status.stderr
        );
    }
    let status = place.run(&["status", "--json"]).ok().json().remove(0);
    assert_eq!(
        (&status["space"]["fullness"], &status["space"]["bytes_max"]),
        (&json!("full"), &json!(1))
    );
    for key in [
        "rooms_near_limit",
        "messages_trimmed",
        "bytes_freed",
        "bytes_rewritten",
        "bytes_waiting",
    ] {
        assert!(status["space"][key].is_u64(), "{key} in {status}");
    }
    place.run(&["store", "set", "--max-bytes", "none"]).ok();
    place.run(&["send", "lobby", "x"]).ok();
    assert_eq!(place.run(&["status"]).ok().stderr, "");
}

#[test]
fn cursors_are_listed_moved_compared_and_removed() {
    let place = Place::new();
    let _leader = place.serve("none");
    place.send("jobs", &["1", "2", "3", "4"]);
    let cursor = |more: &[&str]| place.run(&[&["cursor"], more].concat());
    cursor(&["get", "jobs", "me"]).fails(1, &["jobs", "me", "broker cursor list"]);
    cursor(&["rm", "jobs", "me"]).fails(1, &["me"]);
    assert!(cursor(&["list", "jobs"]).ok().stdout.is_empty());
    cursor(&["set", "jobs", "me", "3"]).ok();
    assert_eq!(place.text(&["cursor", "get", "jobs", "me"]), "3\n");
    let at = cursor(&["get", "jobs", "me", "--json"])
        .ok()
        .json()
        .remove(0);
    let epoch = &info(&place, "jobs")["epoch"];
    assert_eq!(
        at,
        json!({"room": "jobs", "cursor": "me", "epoch": epoch, "seq": 3})
    );
    cursor(&["set", "jobs", "me", "start", "--if-at", "none"]).fails(4, &["conflict", "me"]);
    cursor(&["set", "jobs", "me", "4", "--if-at", "2"]).fails(4, &["conflict", "me"]);
    let moved = cursor(&["set", "jobs", "me", "4", "--if-at", "3", "--json"])
        .ok()
        .json()
        .remove(0);
    assert_eq!(moved["seq"], 4);
    cursor(&["set", "jobs", "first", "-4", "--if-at", "none"]).ok();
    cursor(&["set", "jobs", "last", "end"]).ok();
    cursor(&["set", "jobs", "far", "99"]).fails(1, &["jobs"]);
    let list = cursor(&["list", "jobs", "--json"]).ok().json();
    let shown: Vec<_> = list
        .iter()
        .map(|one| {
            (
                one["cursor"].as_str().unwrap(),
                one["seq"].as_u64().unwrap(),
                one["behind"].as_u64().unwrap(),
            )
        })
        .collect();
    assert_eq!(shown, [("first", 1, 4), ("last", 5, 0), ("me", 4, 1)]);
    let line = place.text(&["cursor", "list", "jobs"]);
    let fields: Vec<&str> = line.lines().next().unwrap().split('\t').collect();
    assert_eq!(
        fields,
        [
            "first",
            "1",
            "4",
            &epoch.to_string(),
            list[0]["moved"].as_str().unwrap()
        ]
    );
    cursor(&["rm", "jobs", "me", "--if-at", "3"]).fails(4, &["conflict"]);
    cursor(&["rm", "jobs", "me", "--if-at", "4"]).ok();
    cursor(&["rm", "jobs", "last"]).ok();
    assert_eq!(cursor(&["list", "jobs", "--json"]).ok().json().len(), 1);
    let status = place.run(&["status", "--json"]).ok().json().remove(0);
    assert_eq!(
        (&status["cursors"]["count"], &status["cursors"]["pending"]),
        (&json!(1), &json!(0))
    );
}

#[test]
fn a_cursor_that_moves_often_is_moved_without_waiting() {
    let place = Place::new();
    let leader = place.serve("none");
    place.send("jobs", &["1", "2", "3", "4"]);
    let cursors = || place.run(&["status", "--json"]).ok().json()[0]["cursors"].clone();
    let at = || place.text(&["cursor", "get", "jobs", "me"]);
    // The last of several moves stands for all of them, which a move that is waited for does not.
    let moves = 12;
    for n in 1..=moves {
        let seq = (n % 4 + 1).to_string();
        place
            .run(&["cursor", "set", "jobs", "me", &seq, "--relaxed"])
            .ok();
        assert_eq!(at(), format!("{seq}\n"), "seen at once");
    }
    let end = Instant::now() + Duration::from_secs(20);
    while cursors()["pending"] != 0 {
        assert!(Instant::now() < end, "it is never stored");
    }
    let written = cursors()["written"].as_u64().unwrap();
    assert!((1..moves).contains(&written), "{written} moves are written");
    let json = place.run(&["cursor", "set", "jobs", "me", "3", "--relaxed", "--json"]);
    assert_eq!(json.ok().json()[0]["seq"], 3);
    // A leader that ends in order stores them.
    leader.signal(rustix::process::Signal::TERM);
    leader.end_unread();
    assert_eq!(at(), "3\n");
    // Without one the command leads itself, and ends so.
    place
        .run(&["cursor", "set", "jobs", "me", "2", "--relaxed"])
        .ok();
    assert_eq!(at(), "2\n");
}

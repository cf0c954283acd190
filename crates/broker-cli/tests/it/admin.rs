//! `broker admin`: stores that are whole, damaged, torn or being written, looked at from outside.

use std::fs::{self, OpenOptions};
use std::os::unix::fs::{FileExt, symlink};
use std::path::Path;

use serde_json::Value;

use crate::support::{Done, Place, feed, files};

const FIRST: &str = "0000000000000001-0000.seg";

/// A store whose first segment is sealed: 3,000 lines of about a thousand bytes in one room, and one
/// message in another.
fn filled() -> Place {
    let place = Place::new();
    place.send("other", &["not harmed"]);
    // The first ones by themselves: one large batch would go into the second segment.
    for range in [1..=100, 101..=3000] {
        let lines: String = range.map(|n| format!("{}\n", text(n))).collect();
        place
            .run_with(&["send", "lobby", "--lines"], lines.as_bytes())
            .ok();
    }
    place
}

fn text(n: u32) -> String {
    format!("message {n:05} {}", "x".repeat(1000))
}

/// Where in a file this text lies.
fn find(file: &Path, text: &str) -> u64 {
    let bytes = fs::read(file).unwrap();
    let found = bytes
        .windows(text.len())
        .position(|at| at == text.as_bytes());
    found.unwrap() as u64
}

fn write_at(file: &Path, at: u64, bytes: &[u8]) {
    let file = OpenOptions::new().write(true).open(file).unwrap();
    file.write_all_at(bytes, at).unwrap();
}

/// Damages the payload of a message in the first segment; where.
fn damage(place: &Place, n: u32) -> u64 {
    let file = place.store().join(FIRST);
    let at = find(&file, &format!("message {n:05}"));
    write_at(&file, at + 9, b"!");
    at
}

#[track_caller]
fn summary(done: &Done, code: i32) -> Value {
    assert_eq!((done.code, done.stderr.as_str()), (Some(code), ""));
    done.json().pop().unwrap()
}

#[test]
fn a_clean_store_is_clean_and_stays_as_it_is() {
    let place = filled();
    let before = files(&place.store());
    let told = summary(&place.run(&["admin", "verify", "--json"]), 0);
    assert_eq!(
        (&told["clean"], &told["damaged"]),
        (&true.into(), &0.into())
    );
    assert_eq!(
        (&told["messages"], &told["tail_bytes"]),
        (&3001.into(), &0.into())
    );
    assert!(told["segments"].as_u64() > Some(1) && told["bytes"].as_u64() > Some(3_000_000));
    assert_eq!(told["bytes"], told["durable"], "every byte of the log");
    assert_eq!(told["served_by"], Value::Array(Vec::new()));
    let dir = place.store();
    let text = place.text(&["admin", "verify", dir.to_str().unwrap()]);
    assert!(
        text.contains("nobody serves") && text.ends_with("no damage\n"),
        "{text}"
    );
    place.run(&["admin", "log", "dump", "--payload"]).ok();
    assert_eq!(files(&place.store()), before, "nothing was changed");
}

#[test]
fn a_flipped_byte_is_named_shown_listed_and_its_neighbours_are_served() {
    let place = filled();
    let at = damage(&place, 100);
    // Seen from outside.
    let done = place.run(&["admin", "verify", "--json"]);
    let told = summary(&done, 6);
    assert_eq!(
        (&told["clean"], &told["damaged"]),
        (&false.into(), &1.into())
    );
    let found = &done.json()[0];
    assert_eq!(
        (&found["finding"], &found["part"]),
        (&"damaged".into(), &"record".into())
    );
    assert_eq!(
        (&found["file"], &found["room"]),
        (&FIRST.into(), &"lobby".into())
    );
    assert_eq!(
        (&found["first_seq"], &found["last_seq"]),
        (&100.into(), &100.into())
    );
    let offset = found["offset"].as_u64().unwrap();
    let length = found["upto"].as_u64().unwrap() - found["from"].as_u64().unwrap();
    assert!((offset..offset + length).contains(&(at + 9)));
    assert_eq!(offset - 4096, found["from"].as_u64().unwrap());
    let done = place.run(&["admin", "verify"]);
    assert_eq!(done.code, Some(6));
    let words = String::from_utf8(done.stdout).unwrap();
    assert!(
        words.contains(&format!("record in {FIRST} at byte {offset}")),
        "{words}"
    );
    assert!(words.ends_with("1 damaged place\n"), "{words}");

    let file = place.store().join(FIRST);
    let dump = place.run(&["admin", "log", "dump", file.to_str().unwrap(), "--json"]);
    let lines = dump.ok().json();
    let bad: Vec<&Value> = lines
        .iter()
        .filter(|line| line["checks"].as_str().is_some_and(|checks| checks != "ok"))
        .collect();
    assert_eq!(bad.len(), 1);
    assert_eq!(
        (&bad[0]["checks"], &bad[0]["seq"]),
        (&"bad_payload".into(), &100.into())
    );
    assert_eq!(bad[0]["offset"], offset);

    // Served.
    let _leader = place.serve("none");
    assert!(
        place
            .text(&["status"])
            .contains("\ndamaged                  0\n")
    );
    let done = place.run(&["read", "lobby", "--raw"]);
    assert_eq!(done.code, Some(0));
    let expected: String = (1..=3000)
        .filter(|n| *n != 100)
        .map(|n| format!("{}\n", text(n)))
        .collect();
    assert!(done.stdout == expected.as_bytes(), "all but one");
    assert!(done.stderr.contains("100"), "{}", done.stderr);
    assert_eq!(place.raw("other"), b"not harmed\n");
    let status = &place.run(&["status", "--json"]).ok().json()[0];
    assert_eq!(status["damaged"], 1);
    let listed = &status["damage"][0];
    assert_eq!(
        (&listed["file"], &listed["offset"]),
        (&FIRST.into(), &offset.into())
    );
    assert_eq!(
        (&listed["room"], &listed["found_by"]),
        (&"lobby".into(), &"reader".into())
    );
    let words = place.text(&["status"]);
    let line = format!("record in {FIRST} at byte {offset}");
    assert!(
        words.contains(&line) && words.contains("room lobby seq 100 to 100"),
        "{words}"
    );
}

#[test]
fn a_write_that_was_cut_short_is_no_damage() {
    let place = filled();
    let names: Vec<_> = files(&place.store())
        .into_iter()
        .map(|(path, _)| path)
        .filter(|path| path.extension().is_some_and(|ending| ending == "seg"))
        .collect();
    let last = names.last().unwrap();
    // What was proven when the log was closed is where its mark lies.
    let durable = {
        let told = summary(&place.run(&["admin", "verify", "--json"]), 0);
        let dump = place.run(&["admin", "log", "dump", "--json"]).ok().json();
        let mark = dump
            .iter()
            .find(|line| line["what"] == "close_mark")
            .unwrap();
        assert_eq!(mark["position"], told["durable"]);
        mark["offset"].as_u64().unwrap()
    };
    write_at(last, durable + 96, &[0xab; 5000]);
    summary(&place.run(&["admin", "verify", "--json"]), 0);
    write_at(last, durable, &[0xab; 5000]);
    let done = place.run(&["admin", "verify", "--json"]);
    let told = summary(&done, 0);
    assert_eq!((&told["clean"], done.json().len()), (&true.into(), 2));
    assert_eq!(done.json()[0]["finding"], "tail");
    let dump = place.text(&["admin", "log", "dump"]);
    assert!(
        dump.contains("finding\ttail") && dump.contains("no damage"),
        "it is shown"
    );
}

#[test]
fn a_store_that_is_written_meanwhile_is_never_called_damaged() {
    let place = filled();
    let leader = place.serve("none");
    let lines: Vec<u8> = (0..60_000_u32)
        .flat_map(|n| format!("{n} {}\n", "y".repeat(n as usize % 700)).into_bytes())
        .collect();
    let sender = std::thread::spawn({
        let command = place.command(&["send", "load", "--lines"]);
        move || feed(command, &lines)
    });
    let mut looked = 0;
    let mut last = 0;
    while !sender.is_finished() || looked < 3 {
        let told = summary(&place.run(&["admin", "verify", "--json"]), 0);
        assert_eq!(told["clean"], true, "{told}");
        assert_eq!(
            told["served_by"][0],
            leader.child.id(),
            "it says who serves"
        );
        let durable = told["durable"].as_u64().unwrap();
        assert!(durable >= last, "{durable} after {last}");
        (looked, last) = (looked + 1, durable);
    }
    sender.join().unwrap().ok();
    assert!(
        place
            .text(&["admin", "verify"])
            .contains("served by process")
    );
}

#[test]
fn what_is_no_store_is_refused_with_a_reason() {
    let place = Place::new();
    let run = |dir: &Path| place.run(&["admin", "verify", dir.to_str().unwrap()]);
    run(&place.store()).fails(3, &["no such directory", "store"]);
    let empty = place.directory("empty");
    run(&empty).fails(3, &["there is no store in", "empty"]);
    assert_eq!(fs::read_dir(&empty).unwrap().count(), 0, "and none is made");
    let file = place.path().join("file");
    fs::write(&file, b"text").unwrap();
    run(&file).fails(3, &["not a directory"]);
    let dump = |path: &Path| place.run(&["admin", "log", "dump", path.to_str().unwrap()]);
    dump(&file).fails(2, &["is no segment"]);
    dump(&empty).fails(3, &["there is no store in"]);
    dump(&empty.join(FIRST)).fails(3, &["there is no segment"]);
    let link = place.path().join("link");
    symlink(&empty, &link).unwrap();
    assert_eq!(run(&link).code, Some(3));
    let mut remote = place.command(&["admin", "verify", "--server", "tcp://127.0.0.1:1"]);
    remote.env_remove("BROKER_DATA");
    Done::new(remote.output().unwrap()).fails(2, &["name the directory"]);
    assert!(!place.store().exists());
}

#[test]
fn a_segment_or_a_header_that_is_gone_is_damage_and_a_newer_one_is_not() {
    let place = filled();
    let file = place.store().join(FIRST);
    let whole = fs::read(&file).unwrap();
    fs::remove_file(&file).unwrap();
    let done = place.run(&["admin", "verify", "--json"]);
    summary(&done, 6);
    let found = &done.json()[0];
    assert_eq!(
        (&found["part"], &found["file"]),
        (&"segment_missing".into(), &FIRST.into())
    );

    let mut other = whole.clone();
    other[..5000].fill(0);
    fs::write(&file, &other).unwrap();
    let done = place.run(&["admin", "verify", "--json"]);
    summary(&done, 6);
    assert_eq!(done.json()[0]["part"], "header");
    // Its neighbours can be looked at.
    assert!(
        place
            .text(&["admin", "log", "dump"])
            .contains("\tmessage\tlobby\t3000\t")
    );

    // The version of both copies, with right checksums.
    let mut newer = whole;
    for at in [0, 2048] {
        newer[at + 12] = 9;
        let crc = crc32c::crc32c_append(
            crc32c::crc32c(&newer[at..at + 8]),
            &newer[at + 12..at + 256],
        );
        newer[at + 8..at + 12].copy_from_slice(&crc.to_le_bytes());
    }
    fs::write(&file, &newer).unwrap();
    let done = place.run(&["admin", "verify", "--json"]);
    assert_eq!(done.json()[0]["finding"], "newer");
    assert_eq!(
        summary(&done, 3)["clean"],
        true,
        "it says nothing of damage"
    );
}

#[test]
fn a_dump_names_everything_and_ends_quietly_when_nobody_reads_on() {
    let place = filled();
    let dump = place
        .run(&["admin", "log", "dump", "--json", "--payload"])
        .ok();
    let lines = dump.json();
    let count = |what: &str| lines.iter().filter(|line| line["what"] == what).count();
    assert_eq!((count("message"), count("close_mark")), (3001, 1));
    assert!(count("segment") > 1 && count("room") > 1 && count("producer_run") > 1);
    assert!(
        lines
            .iter()
            .all(|line| line["checks"].is_null() || line["checks"] == "ok")
    );
    let first = lines.iter().find(|line| line["room"] == "lobby").unwrap();
    assert_eq!(
        (&first["seq"], &first["sender"]),
        (&1.into(), &"ann".into())
    );
    assert_eq!(first["payload"], text(1));
    assert!(first["time"].as_str().unwrap().ends_with('Z'));
    // Escaped: one line stays one line.
    place
        .run_with(&["send", "lobby", "-"], b"two\nlines\x1b[2J\t\xff")
        .ok();
    let words = place.text(&["admin", "log", "dump", "--payload"]);
    assert!(
        words.contains("payload=two\\nlines\\x1b[2J\\t\\xff\n"),
        "escaped"
    );
    assert!(!words.contains('\x1b'));
    let message = words
        .lines()
        .find(|line| line.contains("\tmessage\tlobby\t7\t"))
        .unwrap();
    assert!(
        message.contains("\tok\tsender=ann payload=message 00007"),
        "{message}"
    );

    let done = place
        .start(&["admin", "log", "dump", "--payload"])
        .end_unread();
    assert_eq!((done.code, done.stderr.as_str()), (Some(0), ""));
}

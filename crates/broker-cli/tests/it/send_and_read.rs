//! What goes in comes out.

use std::io::Write;
use std::process::Stdio;

use crate::support::{Done, Place, feed, json_lines, on_a_terminal};

#[test]
fn a_message_comes_back_in_every_form() {
    let place = Place::new();
    let sent = place
        .run(&["send", "lobby", "h\u{e9}llo\tyou", "--json"])
        .ok()
        .json();
    assert_eq!(sent.len(), 1);
    assert_eq!(sent[0]["room"], "lobby");
    assert_eq!(sent[0]["seq"], 1);
    assert_eq!(sent[0]["level"], "synced");
    assert!(sent[0]["epoch"].as_u64().unwrap() > 0);

    let message = &place.run(&["read", "lobby", "--json"]).ok().json()[0];
    assert_eq!(message["epoch"], sent[0]["epoch"]);
    assert_eq!(
        (
            message["room"].as_str(),
            message["sender"].as_str(),
            message["text"].as_str()
        ),
        (Some("lobby"), Some("ann"), Some("h\u{e9}llo\tyou"))
    );
    assert_eq!(message["seq"], 1);
    let time = message["time"].as_str().unwrap();
    assert!(
        time.len() == "2026-11-20T09:30:00.000000Z".len() && time.ends_with('Z'),
        "{time}"
    );

    assert_eq!(place.text(&["read", "lobby", "--raw"]), "h\u{e9}llo\tyou\n");
    assert_eq!(
        place.text(&["read", "lobby"]),
        format!("1\t{time}\tann\th\u{e9}llo\\tyou\n")
    );
}

#[test]
fn send_prints_nothing_unless_asked() {
    let place = Place::new();
    assert!(place.run(&["send", "lobby", "hi"]).ok().stdout.is_empty());
    let told = place.run(&["send", "lobby", "hi", "-v"]);
    assert_eq!((told.code, told.stdout.len()), (Some(0), 0));
    assert!(told.stderr.contains("seq 2"), "{}", told.stderr);
}

#[test]
fn standard_input_is_one_message_byte_for_byte() {
    let place = Place::new();
    for (arguments, input) in [
        (&["send", "lobby"][..], &b"two\nlines\n"[..]),
        (&["send", "lobby", "-"], b"no newline"),
        (&["send", "lobby"], b""),
        (&["send", "lobby"], b"\xff\x00\r\n\xfe"),
    ] {
        place.run_with(arguments, input).ok();
    }
    assert_eq!(
        place.raw("lobby"),
        b"two\nlines\n\nno newline\n\n\xff\x00\r\n\xfe\n"
    );
    let messages = place.run(&["read", "lobby", "--json"]).ok().json();
    assert_eq!(messages[2]["text"], "");
    assert_eq!(messages[3]["data"], "/wANCv4=");
    assert!(messages[3].get("text").is_none());
}

#[test]
fn arguments_are_bytes_and_may_begin_with_a_dash() {
    use std::os::unix::ffi::OsStrExt;
    let place = Place::new();
    place.run(&["send", "lobby", "--", "--help"]).ok();
    place.run(&["send", "lobby", ""]).ok();
    let mut command = place.command(&["send", "lobby"]);
    command.arg(std::ffi::OsStr::from_bytes(b"\xff\xfe"));
    Done::new(command.output().unwrap()).ok();
    assert_eq!(place.raw("lobby"), b"--help\n\n\xff\xfe\n");
}

#[test]
fn lines_are_messages_and_nothing_of_them_is_lost() {
    let place = Place::new();
    let input = b"one\n\n\r\ntwo\r\n \t\n\xff\xfe\x00\n\n\nlast without newline";
    place.run_with(&["send", "log", "--lines"], input).ok();
    let mut expected = input.to_vec();
    expected.push(b'\n');
    assert_eq!(place.raw("log"), expected);
    let messages = place.run(&["read", "log", "--json"]).ok().json();
    assert_eq!(messages.len(), 9);
    assert_eq!(messages[2]["text"], "\r");
    place.run_with(&["send", "log", "--lines"], b"").ok();
    assert_eq!(place.raw("log"), expected);
}

#[test]
fn many_lines_keep_their_order_and_every_one_is_acknowledged() {
    let place = Place::new();
    let input: Vec<u8> = (0..20_000)
        .flat_map(|number| format!("line {number} {}\n", "x".repeat(number % 300)).into_bytes())
        .collect();
    let acks = place
        .run_with(&["send", "log", "--lines", "--json"], &input)
        .ok()
        .json();
    let seqs: Vec<u64> = acks
        .iter()
        .map(|ack| ack["seq"].as_u64().unwrap())
        .collect();
    assert_eq!(seqs, (1..=20_000).collect::<Vec<_>>());
    assert!(place.raw("log") == input, "the bytes differ");
}

#[test]
fn a_large_message_passes_and_a_larger_one_is_refused() {
    let place = Place::new();
    let largest = vec![b'x'; 1 << 20];
    place.run_with(&["send", "lobby"], &largest).ok();
    let mut larger = largest.clone();
    larger.push(b'x');
    place
        .run_with(&["send", "lobby"], &larger)
        .fails(4, &["1048577", "1048576"]);
    place
        .run_with(&["send", "lobby"], &vec![b'x'; (8 << 20) + 1])
        .fails(4, &["8388608", "--lines"]);
    let mut back = place.raw("lobby");
    assert_eq!(back.pop(), Some(b'\n'));
    assert!(back == largest, "the bytes differ");
}

#[test]
fn a_line_over_the_limit_stops_there_and_says_which() {
    let place = Place::new();
    let mut input = b"one\ntwo\n".to_vec();
    input.extend(vec![b'x'; (1 << 20) + 1]);
    input.extend(b"\nfour\n");
    place
        .run_with(&["send", "log", "--lines"], &input)
        .fails(4, &["line 3", "1048576"]);
    assert_eq!(place.raw("log"), b"one\ntwo\n");

    let endless = vec![b'x'; (8 << 20) + 2];
    place
        .run_with(&["send", "log", "--lines"], &endless)
        .fails(4, &["line 1", "8388608"]);
    assert_eq!(place.raw("log"), b"one\ntwo\n");
}

#[test]
fn lines_are_sent_as_they_come_and_acks_printed_when_idle() {
    let place = Place::new();
    let _leader = place.serve("none");
    let mut command = place.command(&["send", "log", "--lines", "--json"]);
    command.stdin(Stdio::piped());
    let mut sender = crate::support::Running::new(command);
    let mut stdin = sender.child.stdin.take().unwrap();
    for seq in 1..=3 {
        writeln!(stdin, "line {seq}").unwrap();
        // It comes although the input goes on: nothing waits for a buffer to fill.
        let ack = &json_lines(sender.line().as_bytes())[0];
        assert_eq!(ack["seq"], seq);
        assert_eq!(
            place
                .run(&["read", "log", "--raw", "--from", "-1"])
                .ok()
                .stdout,
            format!("line {seq}\n").into_bytes()
        );
    }
    drop(stdin);
    assert_eq!(sender.end().code, Some(0));
}

#[test]
fn an_id_makes_a_retry_safe() {
    let place = Place::new();
    let first = place
        .run(&["send", "jobs", "done", "--id", "build-17", "--json"])
        .ok()
        .json();
    let again = place
        .run(&["send", "jobs", "done", "--id", "build-17", "--json"])
        .ok()
        .json();
    assert_eq!(first, again, "the retry gets the seq of the first");
    let other = place
        .run(&["send", "jobs", "done", "--id", "build-18", "--json"])
        .ok()
        .json();
    assert_eq!(other[0]["seq"], 2);
    assert_eq!(place.raw("jobs"), b"done\ndone\n");

    let lines = b"a\nb\nc\n";
    let first = place
        .run_with(
            &["send", "log", "--lines", "--id", "import", "--json"],
            lines,
        )
        .ok()
        .json();
    let again = place
        .run_with(
            &["send", "log", "--lines", "--id", "import", "--json"],
            b"a\nb\nc\nd\n",
        )
        .ok()
        .json();
    assert_eq!(first[..], again[..3]);
    assert_eq!(place.raw("log"), b"a\nb\nc\nd\n");
    // The same key in another room, or of somebody else, is another key.
    place.run(&["send", "log", "e", "--id", "build-17"]).ok();
    place
        .run(&["send", "jobs", "x", "--id", "build-17", "--as", "bob"])
        .ok();
    assert_eq!(place.raw("log"), b"a\nb\nc\nd\ne\n");
    assert_eq!(place.raw("jobs"), b"done\ndone\nx\n");
}

#[test]
fn every_start() {
    let place = Place::new();
    place.send("lobby", &["1", "2", "3", "4", "5"]);
    let read = |arguments: &[&str]| {
        let mut all = vec!["read", "lobby", "--raw"];
        all.extend_from_slice(arguments);
        place.text(&all).split_whitespace().collect::<String>()
    };
    assert_eq!(read(&[]), "12345");
    assert_eq!(read(&["--from", "start"]), "12345");
    assert_eq!(read(&["--from", "end"]), "");
    assert_eq!(read(&["--from", "3"]), "345");
    assert_eq!(read(&["--from", "-2"]), "45");
    assert_eq!(read(&["--from=-2", "-n", "1"]), "4");
    assert_eq!(read(&["--from", "-99"]), "12345");
    assert_eq!(read(&["-n", "2"]), "12");
    assert_eq!(read(&["-n", "0"]), "");
    assert_eq!(read(&["--from", "@1h"]), "12345");
    assert_eq!(read(&["--from", "@0"]), "12345");
    assert_eq!(read(&["--from", "@9999-01-01"]), "");
    let messages = place.run(&["read", "lobby", "--json"]).ok().json();
    let at = format!("@{}", messages[2]["time"].as_str().unwrap());
    assert_eq!(read(&["--from", &at]), "345");
}

#[test]
fn what_is_not_there_is_1() {
    let place = Place::new();
    place.run(&["read", "nowhere"]).fails(1, &["nowhere"]);
    place.send("lobby", &["hi"]);
    place.run(&["read", "nowhere"]).fails(1, &["nowhere"]);
    place
        .run(&["read", "lobby", "--from", "9"])
        .fails(1, &["lobby", "9"]);
}

#[test]
fn following_shows_the_last_ten_and_then_what_comes() {
    let place = Place::new();
    place.send(
        "lobby",
        &(1..=12)
            .map(|number| number.to_string())
            .collect::<Vec<_>>()
            .iter()
            .map(String::as_str)
            .collect::<Vec<_>>(),
    );
    let mut reader = place.start(&["read", "lobby", "-f", "--raw", "-n", "12"]);
    for number in 3..=12 {
        assert_eq!(reader.line(), format!("{number}\n"));
    }
    place.send("lobby", &["13"]);
    assert_eq!(reader.line(), "13\n");
    place.send("lobby", &["14"]);
    let done = reader.end();
    assert_eq!((done.code, done.stdout), (Some(0), b"14\n".to_vec()));
}

#[test]
fn following_waits_for_a_room_that_does_not_exist() {
    let place = Place::new();
    let _leader = place.serve("none");
    let mut reader = place.start(&["read", "later", "--follow", "--json"]);
    let mut other = place.start(&["read", "later", "-f", "--raw"]);
    place.send("later", &["first"]);
    assert_eq!(json_lines(reader.line().as_bytes())[0]["text"], "first");
    assert_eq!(other.line(), "first\n");
}

#[test]
fn a_closed_pipe_is_success_and_quiet() {
    let place = Place::new();
    let input: Vec<u8> = (0..50_000)
        .flat_map(|number| format!("{number}\n").into_bytes())
        .collect();
    place.run_with(&["send", "log", "--lines"], &input).ok();
    for form in ["--raw", "--json"] {
        let mut reader = place.start(&["read", "log", form]);
        reader.line();
        let done = reader.end_unread();
        assert_eq!((done.code, done.stderr.as_str()), (Some(0), ""), "{form}");
    }
    let mut follower = place.start(&["read", "log", "-f", "--raw", "--from", "start"]);
    follower.line();
    let done = follower.end_unread();
    assert_eq!((done.code, done.stderr.as_str()), (Some(0), ""));
}

#[test]
fn sending_goes_on_when_nobody_reads_the_acks() {
    let place = Place::new();
    let input: Vec<u8> = (0..50_000)
        .flat_map(|number| format!("{number}\n").into_bytes())
        .collect();
    let mut command = place.command(&["send", "log", "--lines", "--json"]);
    command.stdin(Stdio::piped());
    let mut sender = crate::support::Running::new(command);
    let mut stdin = sender.child.stdin.take().unwrap();
    let whole = input.clone();
    let feeding = std::thread::spawn(move || stdin.write_all(&whole).unwrap());
    sender.line();
    let done = sender.end_unread();
    feeding.join().unwrap();
    assert_eq!((done.code, done.stderr.as_str()), (Some(0), ""));
    assert!(place.raw("log") == input, "lines are missing");
}

#[test]
fn a_full_disk_under_standard_output_is_an_error() {
    let place = Place::new();
    place.send("lobby", &["hi"]);
    let full = std::fs::OpenOptions::new()
        .write(true)
        .open("/dev/full")
        .unwrap();
    let output = place
        .command(&["read", "lobby"])
        .stdout(full)
        .stderr(Stdio::piped())
        .output()
        .unwrap();
    Done::new(output).fails(6, &["standard output"]);
}

#[test]
fn a_terminal_gets_text_that_it_does_not_obey() {
    let place = Place::new();
    place
        .run_with(
            &["send", "lobby"],
            "\u{1b}[2Jone\ntwo\u{202e}\u{9b}31m\x07".as_bytes(),
        )
        .ok();
    let Some(mut command) = on_a_terminal("read lobby") else {
        return crate::support::skipped("script");
    };
    command
        .env("BROKER_DATA", place.store())
        .env("BROKER_NAME", "ann")
        .env("TERM", "dumb")
        .env_remove("BROKER_URL");
    let shown = String::from_utf8(feed(command, b"").stdout).unwrap();
    assert!(
        shown.contains("\\x1b[2Jone\r\n    two\\u{202e}\\u{9b}31m\\x07"),
        "{shown:?}"
    );
    assert!(shown.contains(" ann  "), "{shown:?}");
    assert!(
        !shown
            .chars()
            .any(|c| c.is_control() && !"\r\n\t".contains(c)),
        "{shown:?}"
    );
}

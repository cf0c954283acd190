//! Bad input: what is wrong, where, and what next; a documented exit code; nothing changed.

use std::fs::{self, File, Permissions};
use std::net::TcpListener;
use std::os::unix::fs::{FileExt, PermissionsExt};

use crate::support::{Done, Place, SmallDisk, files, skipped};

#[test]
fn every_rule_of_room_names() {
    let place = Place::new();
    let long = "x".repeat(129);
    for (name, word) in [
        ("", "empty"),
        (&long, "128"),
        ("e\u{301}", "NFC"),
        ("a\u{7}b", "control"),
        ("a\u{9b}b", "control"),
        ("a\u{202e}b", "bidi"),
        ("a\u{200f}b", "bidi"),
        ("a b", "white space"),
        ("a\u{a0}b", "white space"),
        ("a/b", "'"),
        ("a\\b", "'"),
        ("a*b", "'"),
        ("a>b", "'"),
        ("a?b", "'"),
        (".hidden", "starts with"),
        ("-x", "starts with"),
    ] {
        place
            .run(&["send", "--", name, "text"])
            .fails(2, &["room name", word]);
        place
            .run(&["read", "--", name])
            .fails(2, &["room name", word]);
    }
    assert!(
        !place.store().exists(),
        "a name is judged before anything is made"
    );
    // The broker's own names can be read, if there is anything, but not sent to.
    for name in ["@ann", "$sys", "lobby.dead"] {
        place
            .run(&["send", name, "text"])
            .fails(2, &["reserved", name]);
        place.run(&["read", name]).fails(1, &[name]);
    }
    for name in [
        "x".repeat(128).as_str(),
        "\u{e9}\u{1f600}",
        "a-b.c",
        "Lobby",
        "a@b",
        "a$b",
        "dead",
    ] {
        place.run(&["send", name, "text"]).ok();
    }
    place.run(&["send", "lobby", "text"]).ok();
    assert_eq!(
        place.run(&["rooms", "--json"]).ok().json().len(),
        8,
        "case counts, and nothing refused was made"
    );
}

#[test]
fn every_rule_of_sender_names() {
    let place = Place::new();
    let long = "x".repeat(65);
    for (name, word) in [
        (long.as_str(), "64"),
        ("e\u{301}", "NFC"),
        ("a\u{7}b", "control"),
        ("a\u{202e}b", "bidi"),
        ("a b", "white space"),
        ("a/b", "'"),
        ("a\\b", "'"),
        ("a*b", "'"),
        ("a>b", "'"),
        ("a?b", "'"),
        (".a", "starts with"),
        ("@ann", "character"),
        ("a@b", "character"),
        ("$sys", "belong"),
        ("a.dead", "belong"),
    ] {
        place
            .run(&["send", "lobby", "text", "--as", name])
            .fails(2, &["sender name", word]);
    }
    place
        .run(&["send", "lobby", "text", "--as=-a"])
        .fails(2, &["starts with"]);
    assert!(!place.store().exists());
}

#[test]
fn nobody_at_the_address() {
    let place = Place::new();
    let port = {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        listener.local_addr().unwrap().port()
    };
    let tcp = format!("tcp://127.0.0.1:{port}");
    place
        .run(&["rooms", "--server", &tcp, "--timeout", "200ms"])
        .fails(3, &[&tcp]);
    let unix = format!("unix:{}", place.path().join("nothing").display());
    place
        .run(&[
            "send",
            "lobby",
            "hi",
            "--server",
            &unix,
            "--timeout",
            "200ms",
        ])
        .fails(3, &["nothing"]);
    assert!(!place.store().exists(), "--server never leads");
}

#[test]
fn another_program_at_the_address() {
    let place = Place::new();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let tcp = format!("tcp://{}", listener.local_addr().unwrap());
    let answering = std::thread::spawn(move || {
        use std::io::Write;
        // Until the test drops it with the process.
        while let Ok((mut stream, _)) = listener.accept() {
            let _ = stream.write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n");
        }
    });
    let done = place.run(&["rooms", "--server", &tcp, "--timeout", "1s"]);
    assert!(matches!(done.code, Some(3 | 6)), "{done:?}");
    assert!(done.stderr.contains(&tcp), "{}", done.stderr);
    drop(answering);
}

#[test]
fn a_taken_port_is_a_warning_for_a_command() {
    let place = Place::new();
    place.send("lobby", &["hi"]);
    let other = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = other.local_addr().unwrap().to_string();
    let done = place.run(&[
        "read", "lobby", "-f", "--raw", "-n", "1", "--listen", &address,
    ]);
    assert_eq!((done.code, done.stdout.as_slice()), (Some(0), &b"hi\n"[..]));
    assert!(done.stderr.contains(&address), "{}", done.stderr);
}

#[test]
fn an_address_that_others_can_reach() {
    let place = Place::new();
    place
        .run(&[
            "read",
            "lobby",
            "-f",
            "--listen",
            "0.0.0.0:0",
            "--timeout",
            "1s",
        ])
        .fails(2, &["0.0.0.0", "brokerd"]);
}

#[test]
fn a_lock_that_is_held_by_a_process_that_does_not_answer() {
    let place = Place::new();
    place.send("lobby", &["hi"]);
    let lock = File::options()
        .read(true)
        .write(true)
        .open(place.store().join("lock"))
        .unwrap();
    lock.lock().unwrap();
    let done = place.run(&["send", "lobby", "again", "--timeout", "300ms"]);
    done.fails(3, &["lock"]);
    drop(lock);
    assert_eq!(place.raw("lobby"), b"hi\n");
}

#[test]
fn rights_that_let_others_write() {
    let place = Place::new();
    place.send("lobby", &["hi"]);
    for mode in [0o770, 0o702, 0o777] {
        fs::set_permissions(place.store(), Permissions::from_mode(mode)).unwrap();
        let before = files(&place.store());
        place
            .run(&["send", "lobby", "hi"])
            .fails(3, &["chmod 700", place.store().to_str().unwrap()]);
        assert!(files(&place.store()) == before, "nothing was changed");
    }
    fs::set_permissions(place.store(), Permissions::from_mode(0o700)).unwrap();
    assert_eq!(place.raw("lobby"), b"hi\n");
}

#[test]
fn a_path_that_is_no_directory() {
    let place = Place::new();
    fs::write(place.store(), b"a file").unwrap();
    place
        .run(&["send", "lobby", "hi"])
        .fails(3, &["not a directory"]);
    assert_eq!(fs::read(place.store()).unwrap(), b"a file");
}

#[test]
fn a_directory_that_cannot_be_written() {
    let place = Place::new();
    let dir = place.directory("store");
    if rustix::process::geteuid().is_root() {
        // Modes do not bind root; /proc does.
        let output = place
            .command(&["send", "lobby", "hi", "--data", "/proc/broker"])
            .output()
            .unwrap();
        Done::new(output).fails(3, &["/proc/broker"]);
        return skipped("root: modes do not bind it");
    }
    fs::set_permissions(&dir, Permissions::from_mode(0o500)).unwrap();
    place
        .run(&["send", "lobby", "hi"])
        .fails(3, &[dir.to_str().unwrap()]);
    fs::set_permissions(&dir, Permissions::from_mode(0o700)).unwrap();
}

#[test]
fn a_network_file_system() {
    let place = Place::new();
    if !cfg!(debug_assertions) {
        return skipped("release builds take no injected answer");
    }
    for (magic, name) in [("0x6969", "NFS"), ("0xff534d42", "CIFS")] {
        let output = place
            .command(&["send", "lobby", "hi"])
            .env("BROKER_TEST_STATFS_MAGIC", magic)
            .output()
            .unwrap();
        Done::new(output).fails(3, &[name, place.store().to_str().unwrap()]);
    }
    place.run(&["send", "lobby", "hi"]).ok();
}

/// Changes a field of `DIR/store` as a newer version would write it.
fn newer(place: &Place, at: usize, value: &[u8]) {
    let file = File::options()
        .read(true)
        .write(true)
        .open(place.store().join("store"))
        .unwrap();
    let mut block = [0; 512];
    file.read_exact_at(&mut block, 0).unwrap();
    block[at..at + value.len()].copy_from_slice(value);
    let sum = crc32c::crc32c(&block[..508]);
    block[508..].copy_from_slice(&sum.to_le_bytes());
    file.write_all_at(&block, 0).unwrap();
}

#[test]
fn a_store_of_a_newer_version() {
    for (at, value, word) in [
        (8, &999u16.to_le_bytes()[..], "format"),
        (12, &999u32.to_le_bytes()[..], "feature level"),
    ] {
        let place = Place::new();
        place.send("lobby", &["hi"]);
        newer(&place, at, value);
        let before = files(&place.store());
        for command in [&["send", "lobby", "hi"][..], &["read", "lobby"], &["rooms"]] {
            // Whoever serves it may be newer too, so it looks for one for a while.
            let mut command = command.to_vec();
            command.extend(["--timeout", "300ms"]);
            place.run(&command).fails(3, &[word, "999", "newer"]);
        }
        assert!(files(&place.store()) == before, "nothing was changed");
    }
}

#[test]
fn a_full_disk() {
    let place = Place::new();
    let Some(disk) = SmallDisk::mount(place.directory("small"), 64 << 10) else {
        return skipped("mount");
    };
    let data = disk.path().join("store");
    let done = place.run(&["send", "lobby", "hi", "--data", data.to_str().unwrap()]);
    assert!(matches!(done.code, Some(3 | 4)), "{done:?}");
    assert!(done.stderr.contains("space"), "{}", done.stderr);
}

#[test]
fn a_disk_that_fills_up() {
    let place = Place::new();
    let Some(disk) = SmallDisk::mount(place.directory("small"), 12 << 20) else {
        return skipped("mount");
    };
    let data = disk.path().join("store");
    let data = data.to_str().unwrap();
    let line = "x".repeat(10_000);
    let input: Vec<u8> = (0..3000)
        .flat_map(|number| format!("{number} {line}\n").into_bytes())
        .collect();
    let done = crate::support::feed(
        place.command(&["send", "log", "--lines", "--json", "--data", data]),
        &input,
    );
    assert_eq!(done.code, Some(4), "{}", done.stderr);
    assert!(
        done.stderr.contains("space") && done.stderr.contains("line"),
        "{}",
        done.stderr
    );
    let acked = done.json().len();
    assert!(acked > 0);
    // What was acknowledged is there, in order. Lines that were on their way when one was refused may
    // be there too; then that was said.
    let back = place.run(&["read", "log", "--raw", "--data", data]);
    assert_eq!(back.code, Some(0), "{}", back.stderr);
    let number = |line: &str| line.split_once(' ').unwrap().0.parse::<usize>().unwrap();
    let numbers: Vec<usize> = String::from_utf8(back.stdout)
        .unwrap()
        .lines()
        .map(number)
        .collect();
    assert_eq!(numbers.len(), acked);
    assert!(
        numbers.windows(2).all(|pair| pair[0] < pair[1]),
        "each once, in order"
    );
    let first_missing = (0..).zip(&numbers).find(|(due, number)| due != *number);
    assert_eq!(
        first_missing.is_some(),
        done.stderr.contains("on their way"),
        "{}",
        done.stderr
    );
    if let Some((line, _)) = first_missing {
        assert!(
            done.stderr.contains(&format!("line {}", line + 1)),
            "{}",
            done.stderr
        );
    }
}

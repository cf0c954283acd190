//! The scrub of a daemon: it finds damage that nobody has read, and says so.

use std::fs;
use std::os::unix::fs::FileExt;

use bytes::Bytes;
use rustix::process::Signal;

use crate::support::{Daemon, Place, block_on, refused};

/// A number in the status.
fn figure(status: &str, key: &str) -> u64 {
    let (_, after) = status.split_once(&format!("\"{key}\":")).unwrap();
    let digits = after.bytes().take_while(u8::is_ascii_digit).count();
    after[..digits].parse().unwrap()
}

#[test]
fn damage_that_nobody_reads_is_found_by_the_scrub() {
    let place = Place::new();
    let daemon = place.start();
    block_on(async {
        let room = daemon.client().await.room("lobby").unwrap();
        for n in 0..40_u8 {
            room.send(Bytes::from(vec![n; 60_000])).await.unwrap();
        }
    });
    daemon.signal(Signal::TERM);
    assert!(daemon.end().0.success());

    // One bit of a message in the first segment, which is sealed.
    let segment = place.store().join("0000000000000001-0000.seg");
    let bytes = fs::read(&segment).unwrap();
    let at = bytes.windows(100).position(|at| at == [3; 100]).unwrap();
    let file = fs::OpenOptions::new().write(true).open(&segment).unwrap();
    file.write_all_at(&[2], at as u64 + 50).unwrap();
    drop(file);

    let scrub = ["--listen", "127.0.0.1:0", "--scrub-every", "1s"];
    let daemon = Daemon::new(place.command(&scrub));
    let status = block_on(async {
        let client = daemon.client().await;
        loop {
            let status = client.status().await.unwrap();
            if figure(&status, "scrub_passes") > 1 {
                return status;
            }
        }
    });
    assert_eq!(figure(&status, "damaged"), 1, "{status}");
    assert_eq!(figure(&status, "scrub_every_seconds"), 1);
    for part in [
        "\"part\":\"record\"",
        "\"file\":\"0000000000000001-0000.seg\"",
        "\"room\":\"lobby\",\"first_seq\":4,\"last_seq\":4",
        "\"found_by\":\"scrub\"",
    ] {
        assert!(status.contains(part), "no {part} in {status}");
    }
    daemon.signal(Signal::TERM);
    let (ended, words) = daemon.end();
    assert!(ended.success());
    let told: Vec<&str> = words
        .lines()
        .filter(|line| line.contains("is damaged"))
        .collect();
    assert_eq!(told.len(), 1, "told once: {words}");
    assert!(told[0].contains("0000000000000001-0000.seg"), "{words}");
    assert!(told[0].contains("restore the file"), "what next: {words}");

    // Switched off, it says so.
    let daemon = Daemon::new(place.command(&["--listen", "127.0.0.1:0", "--scrub-every", "off"]));
    let status = block_on(async { daemon.client().await.status().await.unwrap() });
    assert!(status.contains("\"scrub_every_seconds\":null"), "{status}");
}

#[test]
fn a_time_that_is_none_is_refused() {
    let place = Place::new();
    for wrong in ["0s", "often", "7"] {
        let (code, words) = refused(place.command(&["--scrub-every", wrong]));
        assert_eq!(code, Some(78));
        assert!(
            words.contains("--scrub-every") && words.contains(wrong),
            "{words}"
        );
    }
}

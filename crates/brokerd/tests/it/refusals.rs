//! What the daemon refuses: an exit code that a service manager can act on, and words for a person.

use std::fs::{self, File, Permissions};
use std::net::TcpListener;
use std::os::unix::fs::{FileExt, PermissionsExt};

use broker_core::ErrorKind;
use broker_proto::ErrorCode;
use rustix::process::Signal;

use crate::support::{Daemon, Place, SmallDisk, block_on, files, refused, skipped};

#[test]
fn wrong_usage() {
    let place = Place::new();
    assert_eq!(place.refused(&["--frobnicate"]).0, Some(2));
    let (code, words) = place.refused(&["--listen", "9876"]);
    assert_eq!(code, Some(78));
    assert!(words.contains("127.0.0.1:9876"), "{words}");
    assert!(!place.store().exists());
}

#[test]
fn a_second_daemon_names_the_first() {
    let place = Place::new();
    let first = place.start();
    let (code, words) = place.refused(&[
        "--listen",
        "127.0.0.1:0",
        "--data",
        place.store().to_str().unwrap(),
    ]);
    assert_eq!(code, Some(75), "{words}");
    assert!(words.contains(&first.child.id().to_string()), "{words}");
}

#[test]
fn a_port_that_another_program_has() {
    let place = Place::new();
    let other = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = other.local_addr().unwrap().to_string();
    let (code, words) = place.refused(&["--listen", &address]);
    assert_eq!(code, Some(75), "{words}");
    assert!(words.contains(&address), "{words}");
    // And the store is free again.
    drop(place.start());
}

#[test]
fn a_lock_that_somebody_holds() {
    let place = Place::new();
    drop(place.start());
    let lock = File::options()
        .read(true)
        .write(true)
        .open(place.store().join("lock"))
        .unwrap();
    lock.lock().unwrap();
    let (code, words) = place.refused(&["--listen", "127.0.0.1:0"]);
    assert_eq!(code, Some(75), "{words}");
    assert!(words.contains("lock"), "{words}");
    drop(lock);
}

#[test]
fn rights_that_let_others_write() {
    let place = Place::new();
    let dir = place.directory("store");
    fs::set_permissions(&dir, Permissions::from_mode(0o770)).unwrap();
    let (code, words) = place.refused(&["--listen", "127.0.0.1:0"]);
    assert_eq!(code, Some(78), "{words}");
    assert!(words.contains("chmod 700"), "{words}");
    assert_eq!(fs::read_dir(&dir).unwrap().count(), 0);
}

#[test]
fn a_directory_that_cannot_be_written() {
    let place = Place::new();
    if rustix::process::geteuid().is_root() {
        // Modes do not bind root; /proc does.
        let (code, words) = place.refused(&["--listen", "127.0.0.1:0", "--data", "/proc/broker"]);
        assert!(matches!(code, Some(74 | 78)), "{words}");
        assert!(words.contains("/proc/broker"), "{words}");
        return skipped("root: modes do not bind it");
    }
    let dir = place.directory("store");
    fs::set_permissions(&dir, Permissions::from_mode(0o500)).unwrap();
    let (code, words) = place.refused(&["--listen", "127.0.0.1:0"]);
    assert!(matches!(code, Some(74 | 78)), "{words}");
    assert!(words.contains(dir.to_str().unwrap()), "{words}");
    fs::set_permissions(&dir, Permissions::from_mode(0o700)).unwrap();
}

#[test]
fn a_network_file_system() {
    let place = Place::new();
    if !cfg!(debug_assertions) {
        return skipped("release builds take no injected answer");
    }
    let mut command = place.command(&["--listen", "127.0.0.1:0"]);
    command.env("BROKER_TEST_STATFS_MAGIC", "0x6969");
    let (code, words) = refused(command);
    assert_eq!(code, Some(78), "{words}");
    assert!(words.contains("NFS"), "{words}");
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
        drop(place.start());
        newer(&place, at, value);
        let before = files(&place.store());
        let (code, words) = place.refused(&["--listen", "127.0.0.1:0"]);
        assert_eq!(code, Some(65), "{words}");
        assert!(words.contains(word) && words.contains("999"), "{words}");
        assert!(files(&place.store()) == before, "nothing was changed");
    }
}

/// Changes a field in both copies of a segment's header as a newer version would write it.
fn newer_segment(place: &Place, at: usize, value: &[u8]) {
    let mut segments = files(&place.store()).into_iter().map(|(path, _)| path);
    let segment = segments
        .find(|path| path.extension().is_some_and(|extension| extension == "seg"))
        .unwrap();
    let file = File::options()
        .read(true)
        .write(true)
        .open(segment)
        .unwrap();
    for copy in [0, 2048] {
        let mut header = [0; 256];
        file.read_exact_at(&mut header, copy).unwrap();
        header[at..at + value.len()].copy_from_slice(value);
        let sum = crc32c::crc32c_append(crc32c::crc32c(&header[..8]), &header[12..]);
        header[8..12].copy_from_slice(&sum.to_le_bytes());
        file.write_all_at(&header, copy).unwrap();
    }
}

#[test]
fn a_log_of_a_newer_version() {
    for (at, value, word) in [
        (12, &999u16.to_le_bytes()[..], "format"),
        (16, &999u32.to_le_bytes()[..], "feature level"),
    ] {
        let place = Place::new();
        let daemon = place.start();
        block_on(async {
            daemon
                .client()
                .await
                .room("lobby")
                .unwrap()
                .send("hi")
                .await
                .unwrap()
        });
        drop(daemon);
        newer_segment(&place, at, value);
        let (code, words) = place.refused(&["--listen", "127.0.0.1:0"]);
        assert_eq!(code, Some(65), "{words}");
        assert!(words.contains(word) && words.contains("999"), "{words}");
    }
}

#[test]
fn a_store_whose_identity_is_damaged() {
    let place = Place::new();
    drop(place.start());
    let file = File::options()
        .write(true)
        .open(place.store().join("store"))
        .unwrap();
    file.write_all_at(&[0xff; 4], 20).unwrap();
    let (code, words) = place.refused(&["--listen", "127.0.0.1:0"]);
    assert_eq!(code, Some(74), "{words}");
    assert!(words.contains("damaged"), "{words}");
}

#[test]
fn a_full_disk() {
    let place = Place::new();
    let Some(disk) = SmallDisk::mount(place.directory("small"), 64 << 10) else {
        return skipped("mount");
    };
    // It serves all the same: what is stored can be read, and space may come back.
    let data = disk.path().join("store");
    let daemon =
        Daemon::new(place.command(&["--listen", "127.0.0.1:0", "--data", data.to_str().unwrap()]));
    block_on(async {
        let client = daemon.client().await;
        let error = client.room("lobby").unwrap().send("hi").await.unwrap_err();
        assert_eq!(
            error.kind(),
            ErrorKind::Refused(ErrorCode::NO_SPACE),
            "{error}"
        );
        assert!(error.to_string().contains("space"), "{error}");
        assert!(client.rooms("", 10).await.unwrap().rooms.is_empty());
    });
    daemon.signal(Signal::TERM);
    let (status, words) = daemon.end();
    assert_eq!(status.code(), Some(0), "{words}");
}

/// `--data "$UNSET"` must not serve the default store.
#[test]
fn a_directory_without_a_name() {
    let place = Place::new();
    let (code, words) = place.refused(&["--listen", "none", "--data", ""]);
    assert_eq!(code, Some(78));
    assert!(words.contains("--data needs the name"), "{words}");
    assert!(!place.path().join(".local").exists());
}

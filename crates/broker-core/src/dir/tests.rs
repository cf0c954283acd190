//! The data directory as other processes and people may leave it.

#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a test may panic"
)]
#![expect(
    clippy::disallowed_methods,
    reason = "a test looks at the directory from outside"
)]

use std::fs::{self, File, Permissions};
use std::io::ErrorKind;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::{FileExt, MetadataExt, PermissionsExt, chown, symlink};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};

use broker_proto::{Micros, StoreId, Term};
use tempfile::TempDir;

use super::block::{BLOCK_BYTES, CRC_AT};
use super::*;

/// Says what it is told, about every directory.
#[derive(Debug)]
struct Says(u32);

impl Probe for Says {
    fn file_system(&self, _dir: BorrowedFd<'_>) -> std::io::Result<FileSystem> {
        Ok(FileSystem {
            magic: self.0,
            kind: None,
        })
    }
}

const EXT4: Says = Says(0xEF53);

fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

/// A place for a data directory, which does not exist yet.
fn place() -> (TempDir, PathBuf) {
    let parent = tempfile::tempdir().unwrap();
    let path = parent.path().join("data");
    (parent, path)
}

fn opened() -> (TempDir, StoreDir) {
    let (parent, path) = place();
    let dir = StoreDir::open(path, &EXT4).unwrap();
    (parent, dir)
}

fn refusal(path: &Path, probe: &dyn Probe) -> DirError {
    StoreDir::open(path, probe).unwrap_err()
}

fn new_store(byte: u8) -> NewStore {
    NewStore {
        id: StoreId::new([byte; 16]),
        created: Micros::new(5_000_000),
    }
}

fn holder() -> Holder {
    Holder {
        process: ProcessId::current(),
        term: Term::new(2),
        role: role::ELIGIBLE,
        fencing_allowed: false,
        since: Micros::new(0),
        store: StoreId::new([1; 16]),
        build: "test 1".into(),
        tcp: "127.0.0.1:9".into(),
        socket: String::new(),
        successor: String::new(),
    }
}

#[test]
fn a_missing_directory_is_made_private_with_its_parents() {
    let (_parent, path) = place();
    let path = path.join("deep/er");
    let dir = StoreDir::open(&path, &EXT4).unwrap();
    assert_eq!(dir.path(), path);
    for made in [&path, path.parent().unwrap()] {
        assert_eq!(fs::metadata(made).unwrap().mode() & 0o777, 0o700);
    }
    StoreDir::open(&path, &SystemProbe).unwrap();
}

#[test]
fn things_that_are_not_directories_are_refused() {
    let (parent, path) = place();
    fs::write(&path, "").unwrap();
    assert!(matches!(
        refusal(&path, &EXT4),
        DirError::NotADirectory { .. }
    ));
    let error = refusal(&path.join("below"), &EXT4);
    assert!(
        matches!(error, DirError::Examine { .. } | DirError::Create { .. }),
        "{error}"
    );
    assert_eq!(error.exit_class(), ExitClass::RefusedConfig);

    let (link, real) = (parent.path().join("link"), parent.path().join("real"));
    fs::create_dir(&real).unwrap();
    symlink(&real, &link).unwrap();
    assert!(matches!(
        refusal(&link, &EXT4),
        DirError::SymbolicLink { .. }
    ));
    assert!(
        matches!(
            refusal(&link.join(""), &EXT4),
            DirError::SymbolicLink { .. }
        ),
        "also with a slash at the end"
    );
    symlink("nowhere", parent.path().join("broken")).unwrap();
    assert!(matches!(
        refusal(&parent.path().join("broken"), &EXT4),
        DirError::SymbolicLink { .. }
    ));
    // A link on the way there is the user's business.
    StoreDir::open(link.join("data"), &EXT4).unwrap();
}

#[test]
fn a_directory_that_others_can_write_to_is_refused_with_the_remedy() {
    let (_parent, path) = place();
    fs::create_dir(&path).unwrap();
    for mode in [0o770, 0o702, 0o1777] {
        fs::set_permissions(&path, Permissions::from_mode(mode)).unwrap();
        let error = refusal(&path, &EXT4);
        assert!(
            matches!(error, DirError::TooOpen { mode: found, .. } if found == mode),
            "{error}"
        );
        assert!(error.to_string().contains("run: chmod 700"), "{error}");
        assert_eq!(error.exit_class().code(), 78);
    }
    for mode in [0o755, 0o700] {
        fs::set_permissions(&path, Permissions::from_mode(mode)).unwrap();
        StoreDir::open(&path, &EXT4).unwrap();
    }
    for mode in [0o500, 0o600] {
        fs::set_permissions(&path, Permissions::from_mode(mode)).unwrap();
        let error = refusal(&path, &EXT4);
        assert!(
            matches!(
                error,
                DirError::NoPermission { .. } | DirError::Examine { .. }
            ),
            "{error}"
        );
        assert_eq!(error.exit_class().code(), 78);
    }
}

#[test]
fn a_directory_of_another_user_is_refused() {
    let (_parent, path) = place();
    let path = if is_root() {
        fs::create_dir(&path).unwrap();
        chown(&path, Some(12_345), None).unwrap();
        path
    } else {
        PathBuf::from("/usr")
    };
    let error = refusal(&path, &EXT4);
    assert!(matches!(error, DirError::ForeignOwner { .. }), "{error}");
    assert_eq!(error.exit_class(), ExitClass::RefusedConfig);
}

#[test]
fn shared_temporary_folders_are_refused_and_private_ones_inside_are_not() {
    for path in ["/tmp", "/tmp/", "/var/tmp", "/dev/shm", "/tmp/../tmp"] {
        if !Path::new(path).is_dir() {
            continue;
        }
        let error = refusal(Path::new(path), &EXT4);
        assert!(matches!(error, DirError::SharedTemporary { .. }), "{error}");
        assert_eq!(error.exit_class(), ExitClass::RefusedConfig);
    }
    let inside = TempDir::new_in("/tmp").unwrap();
    fs::set_permissions(inside.path(), Permissions::from_mode(0o700)).unwrap();
    StoreDir::open(inside.path(), &EXT4).unwrap();
}

#[test]
fn network_file_systems_are_refused_before_anything_is_made() {
    let (parent, path) = place();
    let error = refusal(&path.join("deeper"), &Says(0x6969));
    assert!(
        matches!(&error, DirError::NetworkFileSystem { name, magic: 0x6969, .. } if name == "NFS"),
        "{error}"
    );
    assert!(error.to_string().contains("local disk"), "{error}");
    assert_eq!(error.exit_class().code(), 78);
    assert_eq!(fs::read_dir(parent.path()).unwrap().count(), 0);

    fs::create_dir(&path).unwrap();
    fs::set_permissions(&path, Permissions::from_mode(0o700)).unwrap();
    assert!(matches!(
        refusal(&path, &Says(0xFE53_4D42)),
        DirError::NetworkFileSystem { .. }
    ));
    StoreDir::open(&path, &EXT4).unwrap();
}

#[test]
fn a_replaced_directory_is_noticed() {
    let (parent, dir) = opened();
    dir.check_identity().unwrap();
    let lock = Lock::try_acquire(&dir).unwrap();
    lock.check(&dir).unwrap();
    fs::rename(dir.path(), parent.path().join("moved")).unwrap();
    assert!(matches!(
        dir.check_identity(),
        Err(DirError::Replaced { .. })
    ));
    fs::create_dir(dir.path()).unwrap();
    let error = dir.check_identity().unwrap_err();
    assert_eq!(error.exit_class(), ExitClass::Disk);
    assert!(matches!(lock.check(&dir), Err(LockError::Replaced { .. })));
    drop(lock);
    assert!(matches!(
        Lock::try_acquire(&dir),
        Err(LockError::Replaced { .. })
    ));
}

#[test]
fn a_store_is_made_once_and_found_again() {
    let (_parent, dir) = opened();
    assert_eq!(dir.read_store().unwrap(), None);
    let lock = Lock::try_acquire(&dir).unwrap();
    let made = dir.open_store(&lock, new_store(1)).unwrap();
    assert_eq!(made.identity, Identity::Created);
    assert_eq!(
        (made.id, made.created),
        (StoreId::new([1; 16]), Micros::new(5_000_000))
    );
    let found = dir.open_store(&lock, new_store(2)).unwrap();
    assert_eq!(
        found,
        StoreFile {
            identity: Identity::Same,
            ..made
        }
    );
    assert_eq!(dir.read_store().unwrap(), Some(found));
    assert_eq!(
        fs::metadata(dir.path().join("store")).unwrap().mode() & 0o777,
        0o600
    );
    assert!(!dir.path().join("store.tmp").exists());
}

#[test]
fn the_layout_is_the_one_in_the_table() {
    let (_parent, dir) = opened();
    dir.open_store(&Lock::try_acquire(&dir).unwrap(), new_store(3))
        .unwrap();
    let path = dir.path().join("store");
    let bytes = fs::read(&path).unwrap();
    assert_eq!(bytes.len(), 512);
    assert_eq!(bytes[..16], *b"BRKRSTOR\x01\0\0\0\x01\0\0\0");
    assert_eq!(bytes[16..32], [3; 16]);
    assert_eq!(
        bytes[32..40],
        fs::metadata(&path).unwrap().ino().to_le_bytes()
    );
    assert_eq!(bytes[48..56], 5_000_000_i64.to_le_bytes());
    assert_eq!(bytes[56..72], [3; 16]);
    assert!(bytes[72..508].iter().all(|byte| *byte == 0));
    assert_eq!(bytes[508..], crc32c::crc32c(&bytes[..508]).to_le_bytes());
}

#[test]
fn a_copied_store_is_noticed_and_gets_a_new_identity() {
    let (parent, dir) = opened();
    let made = dir
        .open_store(&Lock::try_acquire(&dir).unwrap(), new_store(1))
        .unwrap();
    let copy = StoreDir::open(parent.path().join("copy"), &EXT4).unwrap();
    fs::copy(dir.path().join("store"), copy.path().join("store")).unwrap();
    let lock = Lock::try_acquire(&copy).unwrap();
    let found = copy.open_store(&lock, new_store(2)).unwrap();
    assert_eq!(
        found,
        StoreFile {
            identity: Identity::Copied,
            ..made
        }
    );

    let renewed = copy.renew_identity(&lock, StoreId::new([7; 16])).unwrap();
    assert_eq!(
        (renewed.id, renewed.created),
        (StoreId::new([7; 16]), made.created)
    );
    assert_eq!(
        copy.read_store().unwrap().unwrap(),
        StoreFile {
            identity: Identity::Same,
            ..renewed
        }
    );
    assert_eq!(
        dir.read_store().unwrap().unwrap().identity,
        Identity::Same,
        "the original is not touched"
    );

    // Moving the whole directory on one disk keeps the file.
    drop(lock);
    fs::rename(copy.path(), parent.path().join("moved")).unwrap();
    let moved = StoreDir::open(parent.path().join("moved"), &EXT4).unwrap();
    assert_eq!(
        moved.read_store().unwrap().unwrap().identity,
        Identity::Same
    );
}

fn changed(dir: &StoreDir, change: impl FnOnce(&mut Vec<u8>)) -> Vec<u8> {
    let path = dir.path().join("store");
    let mut bytes = fs::read(&path).unwrap();
    change(&mut bytes);
    if bytes.len() == BLOCK_BYTES {
        let crc = crc32c::crc32c(&bytes[..CRC_AT]);
        bytes[CRC_AT..].copy_from_slice(&crc.to_le_bytes());
    }
    fs::write(&path, &bytes).unwrap();
    bytes
}

#[test]
fn a_newer_store_is_refused_and_not_touched() {
    for (at, says) in [(8, "versions up to 1"), (12, "levels up to 1")] {
        let (_parent, dir) = opened();
        let lock = Lock::try_acquire(&dir).unwrap();
        dir.open_store(&lock, new_store(1)).unwrap();
        let before = changed(&dir, |bytes| bytes[at] = 2);
        for error in [
            dir.read_store().unwrap_err(),
            dir.open_store(&lock, new_store(2)).unwrap_err(),
            dir.renew_identity(&lock, StoreId::new([4; 16]))
                .unwrap_err(),
        ] {
            assert_eq!(error.exit_class().code(), 65);
            assert!(
                error.to_string().contains(says)
                    && error.to_string().contains("nothing was changed"),
                "{error}"
            );
        }
        assert_eq!(fs::read(dir.path().join("store")).unwrap(), before);
    }
}

#[test]
fn every_damaged_bit_is_noticed_and_nothing_is_made_anew() {
    let (_parent, dir) = opened();
    let lock = Lock::try_acquire(&dir).unwrap();
    dir.open_store(&lock, new_store(1)).unwrap();
    let path = dir.path().join("store");
    let good = fs::read(&path).unwrap();
    let file = File::options().write(true).open(&path).unwrap();
    for bit in 0..512 * 8 {
        let mut bad = good.clone();
        bad[bit / 8] ^= 1 << (bit % 8);
        // In place, so that the file stays the same.
        file.write_all_at(&bad, 0).unwrap();
        let error = dir.open_store(&lock, new_store(2)).unwrap_err();
        assert!(
            matches!(error, DirError::StoreDamaged { .. }),
            "bit {bit}: {error}"
        );
        assert_eq!(error.exit_class(), ExitClass::Disk);
        assert_eq!(fs::read(&path).unwrap(), bad);
    }
    for len in [0, 1, 511] {
        fs::write(&path, &good[..len]).unwrap();
        assert!(matches!(
            dir.read_store(),
            Err(DirError::StoreDamaged { .. })
        ));
    }
    fs::write(&path, &good).unwrap();
    assert_eq!(dir.read_store().unwrap().unwrap().identity, Identity::Same);
}

#[test]
fn a_store_without_its_file_is_not_made_anew() {
    let (_parent, dir) = opened();
    let lock = Lock::try_acquire(&dir).unwrap();
    let _socket = UnixListener::bind(dir.path().join("sock")).unwrap();
    fs::write(dir.path().join("store.tmp"), "half").unwrap();
    fs::write(dir.path().join(".directory"), "").unwrap();
    fs::write(dir.path().join("segment"), "messages").unwrap();
    let error = dir.open_store(&lock, new_store(1)).unwrap_err();
    assert!(
        matches!(&error, DirError::StoreMissing { found, .. } if found == "segment"),
        "{error}"
    );
    assert_eq!(error.exit_class(), ExitClass::Disk);
    fs::remove_file(dir.path().join("segment")).unwrap();
    dir.open_store(&lock, new_store(1)).unwrap();
}

#[test]
fn only_one_holds_the_lock_and_the_other_learns_who() {
    let (_parent, dir) = opened();
    assert_eq!(Lock::holder(&dir).unwrap(), None);
    let lock = Lock::try_acquire(&dir).unwrap();
    let held = Lock::try_acquire(&dir).unwrap_err();
    assert!(
        matches!(&held, LockError::Held { holder: None, .. }),
        "{held}"
    );
    assert!(held.to_string().contains("another process"), "{held}");

    lock.publish(&holder()).unwrap();
    let again = StoreDir::open(dir.path(), &EXT4).unwrap();
    let held = Lock::try_acquire(&again).unwrap_err();
    assert_eq!(held.exit_class().code(), 75);
    let who = format!(
        "pid {} (test 1), listening on 127.0.0.1:9, since 1970-01-01T00:00:00Z",
        std::process::id()
    );
    assert!(held.to_string().contains(&who), "{held}");
    assert_eq!(DirError::from(held).exit_class(), ExitClass::Held);
    assert_eq!(Lock::holder(&again).unwrap(), Some(holder()));
    assert_eq!(fs::metadata(dir.path().join("lock")).unwrap().len(), 512);

    drop(lock);
    let next = Lock::try_acquire(&again).unwrap();
    assert_eq!(
        Lock::holder(&dir).unwrap(),
        Some(holder()),
        "the last holder stays written down"
    );
    let shorter = Holder {
        build: "b".into(),
        tcp: String::new(),
        ..holder()
    };
    next.publish(&shorter).unwrap();
    assert_eq!(Lock::holder(&dir).unwrap(), Some(shorter));
}

#[test]
fn a_half_written_block_names_nobody() {
    let (_parent, dir) = opened();
    let lock = Lock::try_acquire(&dir).unwrap();
    lock.publish(&holder()).unwrap();
    let path = dir.path().join("lock");
    let mut bytes = fs::read(&path).unwrap();
    bytes[20] ^= 1;
    fs::write(&path, &bytes).unwrap();
    assert_eq!(Lock::holder(&dir).unwrap(), None);
    assert!(matches!(
        Lock::try_acquire(&dir),
        Err(LockError::Held { holder: None, .. })
    ));
    fs::write(&path, &bytes[..100]).unwrap();
    assert_eq!(Lock::holder(&dir).unwrap(), None);
}

#[test]
fn a_text_that_does_not_fit_leaves_the_block_alone() {
    let (_parent, dir) = opened();
    let lock = Lock::try_acquire(&dir).unwrap();
    lock.publish(&holder()).unwrap();
    let error = lock
        .publish(&Holder {
            tcp: "x".repeat(65),
            ..holder()
        })
        .unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidInput);
    assert_eq!(Lock::holder(&dir).unwrap(), Some(holder()));
}

#[test]
fn a_replaced_lock_file_is_noticed() {
    let (_parent, dir) = opened();
    let lock = Lock::try_acquire(&dir).unwrap();
    fs::remove_file(dir.path().join("lock")).unwrap();
    assert!(matches!(lock.check(&dir), Err(LockError::Replaced { .. })));
    fs::write(dir.path().join("lock"), "").unwrap();
    assert!(matches!(lock.check(&dir), Err(LockError::Replaced { .. })));
    fs::remove_file(dir.path().join("lock")).unwrap();
    symlink("elsewhere", dir.path().join("lock")).unwrap();
    assert!(
        matches!(Lock::try_acquire(&dir), Err(LockError::Io { .. })),
        "never through a link"
    );
    assert!(!dir.path().join("elsewhere").exists());
}

#[test]
fn a_lock_that_was_passed_on_is_held_until_both_are_closed() {
    let (_parent, dir) = opened();
    let first = Lock::try_acquire(&dir).unwrap();
    let second = Lock::adopt(&dir, first.as_fd().try_clone_to_owned().unwrap()).unwrap();
    drop(first);
    assert!(matches!(
        Lock::try_acquire(&dir),
        Err(LockError::Held { .. })
    ));
    drop(second);
    let third = Lock::try_acquire(&dir).unwrap();

    let unrelated = File::open(dir.path().join("lock")).unwrap();
    assert!(
        matches!(
            Lock::adopt(&dir, unrelated.into()),
            Err(LockError::Held { .. })
        ),
        "a descriptor that does not hold it"
    );
    drop(third);
    let other = File::create(dir.path().join(".other")).unwrap();
    assert!(
        matches!(
            Lock::adopt(&dir, other.into()),
            Err(LockError::Replaced { .. })
        ),
        "a lock on something else"
    );
}

#[test]
fn programs_that_this_process_starts_do_not_inherit_the_lock() {
    // Asked of the descriptor, not tried with a child: until it executes its program a child has the locks of all tests here.
    let (_parent, dir) = opened();
    let lock = Lock::try_acquire(&dir).unwrap();
    for fd in [lock.as_fd(), dir.as_fd()] {
        assert!(
            rustix::io::fcntl_getfd(fd)
                .unwrap()
                .contains(rustix::io::FdFlags::CLOEXEC)
        );
    }
}

#[test]
fn long_socket_paths_go_through_proc() {
    let (parent, short) = opened();
    assert_eq!(short.socket_path(), short.path().join("sock"));
    let deep = parent.path().join("d".repeat(100)).join("e".repeat(100));
    let dir = StoreDir::open(&deep, &EXT4).unwrap();
    if !cfg!(target_os = "linux") {
        return;
    }
    for path in [
        dir.socket_path(),
        dir.health_socket_path(),
        dir.bindable("sock.tmp"),
    ] {
        assert!(
            path.as_os_str().len() <= 107 && path.starts_with("/proc/self/fd"),
            "{path:?}"
        );
    }
    let _listener = UnixListener::bind(dir.bindable("sock.tmp")).unwrap();
    fs::rename(dir.bindable("sock.tmp"), dir.socket_path()).unwrap();
    assert!(deep.join("sock").exists());
    UnixStream::connect(dir.socket_path()).unwrap();

    // The longest that fits as it is.
    let fill = 107 - "/sock".len() - parent.path().as_os_str().len() - 1;
    let edge = StoreDir::open(parent.path().join("f".repeat(fill)), &EXT4).unwrap();
    assert_eq!(edge.socket_path().as_os_str().len(), 107);
    assert!(!edge.socket_path().starts_with("/proc"));
    UnixListener::bind(edge.socket_path()).unwrap();
}

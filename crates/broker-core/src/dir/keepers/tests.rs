//! Real children, real sockets, and tables as the kernel prints them.

#![expect(clippy::unwrap_used, reason = "a test may panic")]
#![expect(clippy::disallowed_methods, reason = "a test opens what it locks")]

use std::fs::File;
use std::io::{BufRead, BufReader};
use std::net::{TcpListener, UdpSocket};
use std::os::fd::{AsFd, OwnedFd};
use std::process::{Child, Command, Stdio};

use broker_proto::{Micros, StoreId, Term};
use tempfile::TempDir;

use super::tcp_table::{conflict, parse_listening};
use super::*;
use crate::dir::{Lock, SystemProbe, role};

fn opened() -> (TempDir, StoreDir) {
    let parent = tempfile::tempdir().unwrap();
    let dir = StoreDir::open(parent.path().join("data"), &SystemProbe).unwrap();
    (parent, dir)
}

fn me() -> Keeper {
    Keeper::of(std::process::id())
}

/// A process that has a descriptor as its input, and ends with the test.
struct Sleeper(Child);

impl Sleeper {
    fn with(descriptor: impl Into<OwnedFd>) -> Self {
        let input = Stdio::from(descriptor.into());
        // The word tells that the shell's place was taken by the program of that name.
        let mut child = Command::new("sh")
            .args(["-c", "echo ready; exec sleep 600"])
            .stdin(input)
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut word = String::new();
        BufReader::new(child.stdout.as_mut().unwrap())
            .read_line(&mut word)
            .unwrap();
        assert_eq!(word, "ready\n");
        Self(child)
    }

    fn pid(&self) -> u32 {
        self.0.id()
    }
}

impl Drop for Sleeper {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn holder(process: ProcessId) -> Holder {
    Holder {
        process,
        term: Term::new(2),
        role: role::ELIGIBLE,
        fencing_allowed: false,
        since: Micros::new(0),
        store: StoreId::new([1; 16]),
        build: "test 1".into(),
        tcp: String::new(),
        socket: String::new(),
        successor: String::new(),
    }
}

fn gone() -> ProcessId {
    ProcessId {
        start_ticks: 1,
        ..ProcessId::current()
    }
}

/// What is said to who does not get the lock.
fn held(dir: &StoreDir) -> String {
    Lock::try_acquire(dir)
        .unwrap_err()
        .explained(dir)
        .to_string()
}

#[test]
fn nobody_keeps_a_lock_that_is_free() {
    let (_parent, dir) = opened();
    assert_eq!(keepers(&dir), []);
    drop(Lock::try_acquire(&dir).unwrap());
    assert_eq!(keepers(&dir), []);
}

#[test]
fn this_process_is_named_only_while_it_holds_the_lock() {
    let (_parent, dir) = opened();
    let lock = Lock::try_acquire(&dir).unwrap();
    assert_eq!(keepers(&dir), [me()]);
    drop(lock);
    assert_eq!(keepers(&dir), []);
}

#[test]
fn a_child_that_kept_the_descriptor_is_named_and_one_that_only_opened_the_file_is_not() {
    let (_parent, dir) = opened();
    let lock = Lock::try_acquire(&dir).unwrap();
    let keeps = Sleeper::with(lock.as_fd().try_clone_to_owned().unwrap());
    let reads = Sleeper::with(File::open(dir.lock_path()).unwrap());
    drop(lock);

    let found = keepers(&dir);
    assert_eq!(found.len(), 1, "{found:?}");
    assert_eq!(found.first().unwrap().pid, keeps.pid());
    let text = held(&dir);
    assert!(
        text.contains(&format!("process {} (", keeps.pid())),
        "{text}"
    );
    assert!(!text.contains(&reads.pid().to_string()), "{text}");

    drop(keeps);
    assert!(Lock::try_acquire(&dir).is_ok());
}

#[test]
fn a_holder_that_is_gone_and_the_child_that_keeps_its_lock_are_told_apart() {
    let (_parent, dir) = opened();
    let lock = Lock::try_acquire(&dir).unwrap();
    lock.publish(&holder(gone())).unwrap();
    let child = Sleeper::with(lock.as_fd().try_clone_to_owned().unwrap());
    drop(lock);
    let text = held(&dir);
    let pid = std::process::id();
    assert!(text.contains(&format!("pid {pid} (test 1)")), "{text}");
    let names = format!("is held by process {} (", child.pid());
    assert!(text.contains(&names), "{text}");
    assert!(
        text.ends_with("which led last and is gone: end it"),
        "{text}"
    );
}

#[test]
fn a_holder_that_runs_is_named_with_its_build() {
    let (_parent, dir) = opened();
    let lock = Lock::try_acquire(&dir).unwrap();
    lock.publish(&holder(ProcessId::current())).unwrap();
    let text = held(&dir);
    let expected = format!(
        "is held by pid {} (test 1), since 1970-01-01T00:00:00Z",
        std::process::id()
    );
    assert!(text.ends_with(&expected), "{text}");
}

#[test]
fn what_is_known_decides_what_is_said() {
    let other = Keeper {
        pid: 7,
        name: "sh".into(),
    };
    let one = std::slice::from_ref(&other);
    let here = ProcessId::current();
    let elsewhere = ProcessId {
        pid_namespace: here.pid_namespace + 1,
        ..here
    };
    let said = |process, keepers: &[Keeper]| reason(Some(&holder(process)), keepers);
    assert!(reason(None, one).starts_with("process 7 (sh), which has not said"));
    assert!(reason(None, &[]).contains("can see no process"));
    assert!(said(here, one).starts_with("process 7 (sh), and not by pid"));
    assert!(said(here, &[]).starts_with("pid "));
    assert!(said(gone(), &[]).starts_with("somebody else than pid"));
    assert!(said(elsewhere, &[]).contains("another process id namespace"));
    assert!(said(elsewhere, one).starts_with("process 7 (sh); pid"));
}

#[test]
fn names_hold_no_control_characters() {
    assert_eq!(
        me().to_string(),
        format!("process {} ({})", me().pid, me().name)
    );
    let nobody = Keeper::of(u32::MAX);
    assert_eq!(nobody.to_string(), format!("process {}", u32::MAX));
}

#[test]
fn descriptors_are_read_as_the_kernel_prints_them() {
    assert!(holds_lock(
        "pos:\t0\nflags:\t02\nmnt_id:\t29\nlock:\t1: FLOCK  ADVISORY  WRITE 812 08:01:1234 0 EOF\n"
    ));
    assert!(!holds_lock("pos:\t0\nflags:\t02\nmnt_id:\t29\n"));
    assert!(!holds_lock(
        "lock:\t1: POSIX  ADVISORY  READ 812 08:01:1234 0 EOF\n"
    ));
    assert_eq!(parse_socket("socket:[1234]"), Some(1234));
    assert_eq!(parse_socket("socket:[x]"), None);
    assert_eq!(parse_socket("anon_inode:[eventpoll]"), None);
    assert!(has_lock_name(Path::new("/data/lock")));
    assert!(!has_lock_name(Path::new("/data/lock (deleted)")));
    assert!(!has_lock_name(Path::new("pipe:[3]")));
}

#[cfg(target_endian = "little")]
#[test]
fn lines_of_the_tables_are_read() {
    let v4 = "   0: 0100007F:2694 00000000:0000 0A 00000000:00000000 00:00000000 00000000  1000        0 77123 1 0000000000000000 100 0 0 10 0";
    assert_eq!(
        parse_listening(v4),
        Some(("127.0.0.1:9876".parse().unwrap(), 77123))
    );
    let v6 = "   3: 00000000000000000000000001000000:2694 00000000000000000000000000000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 9 1 0 100 0 0 10 0";
    assert_eq!(
        parse_listening(v6),
        Some(("[::1]:9876".parse().unwrap(), 9))
    );
    let connected = v4.replace(" 0A ", " 01 ");
    assert_eq!(parse_listening(&connected), None);
    for broken in [
        "",
        "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode",
        "0: 0100007F 00000000:0000 0A 0 0 0 0 0 5",
        "0: 0100007:2694 00000000:0000 0A 0 0 0 0 0 5",
        "0: 0100007F:12694 00000000:0000 0A 0 0 0 0 0 5",
        "0: é100007:2694 00000000:0000 0A 0 0 0 0 0 5",
        "0: 0100007F:2694 00000000:0000 0A 0 0 0 0 0 many",
    ] {
        assert_eq!(parse_listening(broken), None, "{broken}");
    }
}

#[test]
fn addresses_conflict_as_the_kernel_has_it() {
    for (listens, wanted, expected) in [
        ("127.0.0.1:1", "127.0.0.1:1", Some(0)),
        ("[::ffff:127.0.0.1]:1", "127.0.0.1:1", Some(0)),
        ("127.0.0.1:1", "127.0.0.1:2", None),
        ("127.0.0.2:1", "127.0.0.1:1", None),
        ("0.0.0.0:1", "127.0.0.1:1", Some(1)),
        ("127.0.0.1:1", "0.0.0.0:1", Some(1)),
        ("[::]:1", "127.0.0.1:1", Some(2)),
        ("127.0.0.1:1", "[::]:1", Some(2)),
        ("[::]:1", "[::1]:1", Some(1)),
        ("[::1]:1", "127.0.0.1:1", None),
        ("0.0.0.0:1", "[::1]:1", None),
    ] {
        let found = conflict(listens.parse().unwrap(), wanted.parse().unwrap());
        assert_eq!(found, expected, "{listens} {wanted}");
    }
}

#[test]
fn the_process_that_listens_is_found() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    assert_eq!(listener_at(address), Some(me()));
    let any = SocketAddr::new("0.0.0.0".parse().unwrap(), address.port());
    assert_eq!(listener_at(any), Some(me()));

    let child = Sleeper::with(listener);
    assert_eq!(listener_at(address).unwrap().pid, child.pid());
    drop(child);
    assert_eq!(listener_at(address), None);
}

#[test]
fn a_connection_and_another_kind_of_socket_do_not_listen() {
    let udp = UdpSocket::bind("127.0.0.1:0").unwrap();
    assert_eq!(listener_at(udp.local_addr().unwrap()), None);
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let client = std::net::TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    assert_eq!(listener_at(client.local_addr().unwrap()), None);
}

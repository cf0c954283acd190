//! Both ends of the socket, over real ones.

#![expect(clippy::unwrap_used, reason = "a test may panic")]
#![expect(
    clippy::disallowed_methods,
    reason = "a test measures how long an answer takes"
)]

use std::io::{ErrorKind, Read, Write};
use std::net::TcpListener;
use std::os::fd::OwnedFd;
use std::os::unix::net::{UnixListener, UnixStream};
use std::time::{Duration, Instant};

use broker_proto::Term;
use tempfile::TempDir;
use tokio::time::{sleep, timeout};

use super::offering::{ANSWER_PATIENCE, ASKED_MAX};
use super::thread::{ASKING_MAX, SILENCE_MAX};
use super::wire::{Introduction, Message};
use super::*;
use crate::dir::{Lock, LockError, SystemProbe, role};
use crate::log::storage::MemoryStorage;
use crate::store::{EmbeddedConfig, EmbeddedStore};

/// Long enough for a busy machine; nothing waits for it unless a test fails.
const PATIENCE: Duration = Duration::from_secs(20);

fn directory() -> (TempDir, StoreDir) {
    let parent = tempfile::tempdir().unwrap();
    let dir = StoreDir::open(parent.path().join("data"), &SystemProbe).unwrap();
    (parent, dir)
}

fn start(dir: &StoreDir, role: u8) -> Warden {
    Warden::start(dir, Vitals::new(role, "test 1")).unwrap()
}

async fn stand_by(dir: &StoreDir) -> Line {
    Line::open(dir, Intent::StandBy, "standby 1", 1)
        .await
        .unwrap()
}

/// Waits until so many stand by.
async fn stands(warden: &Warden, count: usize) {
    let counted = async {
        while warden.standbys() != count {
            sleep(Duration::from_millis(1)).await;
        }
    };
    let counted = timeout(PATIENCE, counted).await;
    assert!(counted.is_ok(), "{} stand by", warden.standbys());
}

async fn next(line: &mut Line) -> News {
    timeout(PATIENCE, line.next()).await.unwrap()
}

async fn health(dir: &StoreDir) -> Health {
    ask(&dir.health_socket_path(), PATIENCE).await.unwrap()
}

/// A peer that says what a test wants.
fn raw(dir: &StoreDir) -> UnixStream {
    let stream = UnixStream::connect(dir.health_socket_path()).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream
}

fn is_closed(mut stream: &UnixStream) -> bool {
    match stream.read(&mut [0; 1]) {
        Ok(bytes) => bytes == 0,
        Err(error) => error.kind() == ErrorKind::ConnectionReset,
    }
}

fn is_free(dir: &StoreDir) -> bool {
    match Lock::try_acquire(dir) {
        Ok(_) => true,
        Err(LockError::Held { .. }) => false,
        Err(error) => panic!("{error}"),
    }
}

/// A copy of the lock's descriptor, as a leader makes it before it lets go of its own.
fn estate(lock: Lock) -> Estate {
    use std::os::fd::AsFd;
    let copy = lock.as_fd().try_clone_to_owned().unwrap();
    drop(lock);
    Estate {
        lock: copy,
        unix: None,
        tcp: None,
    }
}

#[tokio::test]
async fn a_leader_tells_how_it_is() {
    let (_parent, dir) = directory();
    let vitals = Vitals::new(role::ELIGIBLE, "test 1");
    let warden = Warden::start(&dir, Arc::clone(&vitals)).unwrap();
    let first = health(&dir).await;
    assert_eq!((first.pid, &*first.build), (process::id(), "test 1"));
    assert_eq!((first.stage, first.writer), (Stage::Starting, Writer::Idle));
    assert_eq!(first.term, Term::new(0));

    vitals.set_term(Term::new(7));
    vitals.set_stage(Stage::Serving);
    let (store, mut engine) = EmbeddedStore::open_manual(
        Arc::new(MemoryStorage::default()),
        EmbeddedConfig::new(broker_proto::StoreId::new([1; 16])),
        &mut |_, _| {},
    )
    .unwrap();
    vitals.set_pulse(store.pulse());
    let served = health(&dir).await;
    assert_eq!((served.stage, served.term), (Stage::Serving, Term::new(7)));
    assert_eq!(served.writer, Writer::Idle);
    engine.close();
    drop(warden);
    // The name stays, and nobody listens.
    let error = ask(&dir.health_socket_path(), PATIENCE).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::ConnectionRefused);
}

#[tokio::test]
async fn nobody_is_there() {
    let (_parent, dir) = directory();
    let error = ask(&dir.health_socket_path(), PATIENCE).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NotFound);
    let opened = Line::open(&dir, Intent::StandBy, "x", 1).await;
    assert_eq!(opened.unwrap_err().kind(), ErrorKind::NotFound);
}

#[tokio::test]
async fn who_does_not_answer_is_not_waited_for() {
    let (_parent, dir) = directory();
    let _silent = UnixListener::bind(dir.health_socket_path()).unwrap();
    let began = Instant::now();
    let error = ask(&dir.health_socket_path(), Duration::from_millis(50))
        .await
        .unwrap_err();
    assert_eq!(error.kind(), ErrorKind::TimedOut);
    assert!(began.elapsed() < PATIENCE);
}

#[tokio::test]
async fn the_lock_and_the_listeners_pass() {
    let (_parent, dir) = directory();
    let lock = Lock::try_acquire(&dir).unwrap();
    let warden = start(&dir, role::ELIGIBLE);
    let mut line = stand_by(&dir).await;
    stands(&warden, 1).await;

    let heir = tokio::spawn(async move { (next(&mut line).await, line) });
    let candidate = timeout(PATIENCE, warden.offer(1)).await.unwrap().unwrap();
    assert_eq!(
        (candidate.pid, &*candidate.build),
        (process::id(), "standby 1")
    );
    let unix = UnixListener::bind(dir.bindable("sock")).unwrap();
    let tcp = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = tcp.local_addr().unwrap();
    let estate = Estate {
        unix: Some(unix.into()),
        tcp: Some(tcp.into()),
        ..estate(lock)
    };
    warden.pass(candidate, estate).await.unwrap();
    // Nobody has read it yet, perhaps; it is held all the same.
    assert!(!is_free(&dir));
    drop(warden);

    let (news, _line) = heir.await.unwrap();
    let News::Inherited(estate) = news else {
        panic!("{news:?}");
    };
    for descriptor in [&estate.lock, estate.unix.as_ref().unwrap()] {
        let flags = rustix::io::fcntl_getfd(descriptor).unwrap();
        assert!(flags.contains(rustix::io::FdFlags::CLOEXEC));
    }
    assert!(!is_free(&dir));
    let tcp = TcpListener::from(estate.tcp.unwrap());
    assert_eq!(tcp.local_addr().unwrap(), port);
    let unix = UnixListener::from(estate.unix.unwrap());
    let guest = UnixStream::connect(dir.socket_path()).unwrap();
    unix.accept().unwrap();
    drop(guest);
    let lock = Lock::adopt(&dir, estate.lock).unwrap();
    assert!(!is_free(&dir));
    drop(lock);
    assert!(is_free(&dir));
}

#[tokio::test]
async fn a_lock_alone_passes() {
    let (_parent, dir) = directory();
    let lock = Lock::try_acquire(&dir).unwrap();
    let warden = start(&dir, role::ELIGIBLE);
    let mut line = stand_by(&dir).await;
    stands(&warden, 1).await;
    let (candidate, ()) = tokio::join!(warden.offer(1), async {
        // Takes the offer, and gives up waiting for more.
        let more = timeout(Duration::from_millis(100), line.next()).await;
        assert!(more.is_err());
    });
    warden.pass(candidate.unwrap(), estate(lock)).await.unwrap();
    let News::Inherited(estate) = next(&mut line).await else {
        panic!("no estate");
    };
    assert!(estate.unix.is_none() && estate.tcp.is_none());
    assert!(!is_free(&dir));
    assert!(matches!(next(&mut line).await, News::Ended));
}

#[tokio::test]
async fn a_recipient_that_dies_frees_the_lock() {
    let (_parent, dir) = directory();
    // Before it is sent, and after, unread.
    for early in [true, false] {
        let lock = Lock::try_acquire(&dir).unwrap();
        let warden = start(&dir, role::ELIGIBLE);
        let mut line = stand_by(&dir).await;
        stands(&warden, 1).await;
        let (candidate, _gave_up) = tokio::join!(
            warden.offer(1),
            timeout(Duration::from_millis(100), line.next())
        );
        let mut line = Some(line);
        if early {
            line.take();
        }
        let passed = warden.pass(candidate.unwrap(), estate(lock)).await;
        assert_eq!(passed.is_err(), early, "{passed:?}");
        drop(line);
        assert!(is_free(&dir));
    }
}

#[tokio::test]
async fn who_does_not_answer_an_offer_is_passed_over() {
    let (_parent, dir) = directory();
    let warden = start(&dir, role::ELIGIBLE);
    let greeting = Message::StandBy(Introduction {
        pid: 1,
        build: "stopped".to_owned(),
        feature_level: 1,
    });
    let mut stopped = raw(&dir);
    stopped.write_all(&greeting.encode()).unwrap();
    stands(&warden, 1).await;
    let mut line = stand_by(&dir).await;
    stands(&warden, 2).await;

    let began = Instant::now();
    let heir = tokio::spawn(async move { next(&mut line).await });
    let candidate = timeout(PATIENCE, warden.offer(1)).await.unwrap().unwrap();
    assert_eq!(candidate.build, "standby 1");
    assert!(began.elapsed() >= ANSWER_PATIENCE);

    // It woke up too late: it may stay, and is the first to be asked the next time.
    stopped.write_all(&Message::Ready.encode()).unwrap();
    warden.pass(candidate, nothing()).await.unwrap();
    assert!(matches!(heir.await.unwrap(), News::Inherited(_)));
    stands(&warden, 1).await;
    let awake = tokio::task::spawn_blocking(move || {
        // The offer that it missed, and this one.
        for _ in 0..2 {
            stopped.read_exact(&mut [0; 128]).unwrap();
        }
        stopped.write_all(&Message::Ready.encode()).unwrap();
        stopped
    });
    let again = timeout(PATIENCE, warden.offer(1)).await.unwrap();
    assert_eq!(again.unwrap().build, "stopped");
    awake.await.unwrap();
}

/// An estate of no value.
fn nothing() -> Estate {
    let (end, _) = UnixStream::pair().unwrap();
    Estate {
        lock: OwnedFd::from(end),
        unix: None,
        tcp: None,
    }
}

#[tokio::test]
async fn nobody_stands_by_or_nobody_can() {
    let (_parent, dir) = directory();
    let warden = start(&dir, role::ELIGIBLE);
    assert!(warden.offer(1).await.is_none());
    let _too_old = stand_by(&dir).await;
    let _gone = stand_by(&dir).await;
    stands(&warden, 2).await;
    assert!(warden.offer(2).await.is_none());
}

#[tokio::test]
async fn only_so_many_are_asked() {
    let (_parent, dir) = directory();
    let warden = start(&dir, role::ELIGIBLE);
    let mut deaf = Vec::new();
    for _ in 0..=ASKED_MAX {
        deaf.push(stand_by(&dir).await);
    }
    stands(&warden, ASKED_MAX + 1).await;
    let began = Instant::now();
    assert!(warden.offer(1).await.is_none());
    let asked = u32::try_from(ASKED_MAX).unwrap();
    assert!(began.elapsed() >= ANSWER_PATIENCE * asked);
    // The last one was not asked.
    let last = timeout(Duration::from_millis(100), deaf.last_mut().unwrap().next());
    assert!(last.await.is_err());
    stands(&warden, ASKED_MAX + 1).await;
}

#[tokio::test]
async fn a_candidate_that_hangs_up_is_followed_by_the_next() {
    let (_parent, dir) = directory();
    let warden = start(&dir, role::ELIGIBLE);
    let leaving = stand_by(&dir).await;
    stands(&warden, 1).await;
    let mut line = stand_by(&dir).await;
    stands(&warden, 2).await;
    let heir = tokio::spawn(async move { next(&mut line).await });
    drop(leaving);
    let candidate = timeout(PATIENCE, warden.offer(1)).await.unwrap().unwrap();
    warden.pass(candidate, nothing()).await.unwrap();
    assert!(matches!(heir.await.unwrap(), News::Inherited(_)));
}

#[tokio::test]
async fn lines_end_with_the_leader() {
    let (_parent, dir) = directory();
    let warden = start(&dir, role::ELIGIBLE);
    let mut lines = Vec::new();
    for _ in 0..3 {
        lines.push(stand_by(&dir).await);
    }
    stands(&warden, 3).await;
    drop(warden);
    for line in &mut lines {
        assert!(matches!(next(line).await, News::Ended));
        assert!(matches!(next(line).await, News::Ended));
    }
}

#[tokio::test]
async fn a_daemon_stays_and_says_who_it_is() {
    let (_parent, dir) = directory();
    let warden = start(&dir, role::SERVE_ALWAYS);
    let mut line = Line::open(&dir, Intent::Claim, "brokerd 2", 1)
        .await
        .unwrap();
    let News::Refused(why) = next(&mut line).await else {
        panic!("not refused");
    };
    assert_eq!(
        why,
        format!("a daemon leads: pid {} (test 1)", process::id())
    );
    assert!(matches!(next(&mut line).await, News::Ended));
    // It may stand by all the same.
    let _standby = stand_by(&dir).await;
    stands(&warden, 1).await;
    let claimed = timeout(Duration::from_millis(50), warden.claimed());
    assert!(claimed.await.is_err());
}

#[tokio::test]
async fn a_daemon_that_is_leaving_refuses_nobody() {
    let (_parent, dir) = directory();
    let vitals = Vitals::new(role::SERVE_ALWAYS, "test 1");
    let warden = Warden::start(&dir, Arc::clone(&vitals)).unwrap();
    vitals.set_stage(Stage::Draining);
    let mut line = Line::open(&dir, Intent::Claim, "brokerd 2", 1)
        .await
        .unwrap();
    timeout(PATIENCE, warden.claimed()).await.unwrap();
    let ready = tokio::spawn(async move { next(&mut line).await });
    let heir = timeout(PATIENCE, warden.offer(1)).await.unwrap();
    assert_eq!(heir.unwrap().build, "brokerd 2");
    ready.abort();
}

#[tokio::test]
async fn an_application_hears_a_claim_and_asks_the_daemon_first() {
    let (_parent, dir) = directory();
    let warden = start(&dir, role::ELIGIBLE);
    let _first = stand_by(&dir).await;
    stands(&warden, 1).await;
    let mut daemon = Line::open(&dir, Intent::Claim, "brokerd 2", 1)
        .await
        .unwrap();
    timeout(PATIENCE, warden.claimed()).await.unwrap();
    timeout(PATIENCE, warden.claimed()).await.unwrap();
    let heir = tokio::spawn(async move { (next(&mut daemon).await, daemon) });
    let candidate = timeout(PATIENCE, warden.offer(1)).await.unwrap().unwrap();
    assert_eq!(candidate.build, "brokerd 2");
    // It dies before it gets anything: nobody claims any more.
    heir.abort();
    stands(&warden, 1).await;
    let claimed = timeout(Duration::from_millis(50), warden.claimed());
    assert!(claimed.await.is_err());
    assert!(warden.pass(candidate, nothing()).await.is_err());
}

#[tokio::test]
async fn a_claim_is_answered_with_the_lead_for_who_claims_and_nobody_else() {
    let (_parent, dir) = directory();
    let warden = start(&dir, role::ELIGIBLE);
    let mut line = stand_by(&dir).await;
    stands(&warden, 1).await;
    let _deaf = Line::open(&dir, Intent::Claim, "brokerd 2", 1)
        .await
        .unwrap();
    stands(&warden, 2).await;
    // It does not answer, and nobody else is asked.
    assert!(warden.offer_to_claimants(1).await.is_none());
    let asked = timeout(Duration::from_millis(50), line.next());
    assert!(asked.await.is_err());
}

#[tokio::test]
async fn an_heir_is_asked_again_before_the_others_and_followed_if_it_is_deaf_now() {
    let (_parent, dir) = directory();
    let warden = start(&dir, role::ELIGIBLE);
    let mut lines = Vec::new();
    for count in 1..=3 {
        lines.push(stand_by(&dir).await);
        stands(&warden, count).await;
    }
    let _deaf = lines.remove(0);
    let mut others = lines.into_iter();
    let (mut second, mut third) = (others.next().unwrap(), others.next().unwrap());
    let second = tokio::spawn(async move { next(&mut second).await });
    let before = timeout(PATIENCE, warden.offer(1)).await.unwrap().unwrap();
    let line = before.line;
    let began = Instant::now();
    let again = timeout(PATIENCE, warden.offer_again(1, before)).await;
    let again = again.unwrap().unwrap();
    assert_eq!(again.line, line);
    assert!(began.elapsed() < ANSWER_PATIENCE, "the deaf one was asked");
    second.abort();
    stands(&warden, 2).await;
    let third = tokio::spawn(async move { next(&mut third).await });
    let other = timeout(PATIENCE, warden.offer_again(1, again)).await;
    assert_eq!(other.unwrap().unwrap().line, line + 1);
    third.abort();
}

#[tokio::test]
async fn what_nobody_understands_ends_the_connection() {
    let (_parent, dir) = directory();
    let warden = start(&dir, role::ELIGIBLE);
    let mut version = Message::Ask.encode();
    if let Some(place) = version.get_mut(4) {
        *place = 2;
    }
    for bytes in [
        [b'G'; 128],
        [0; 128],
        version,
        Message::Offer { feature_level: 1 }.encode(),
        Message::Ready.encode(),
    ] {
        let mut stream = raw(&dir);
        stream.write_all(&bytes).unwrap();
        assert!(is_closed(&stream));
    }
    let mut twice = raw(&dir);
    let greeting = Message::StandBy(Introduction::default()).encode();
    twice.write_all(&greeting).unwrap();
    stands(&warden, 1).await;
    twice.write_all(&greeting).unwrap();
    assert!(is_closed(&twice));
    stands(&warden, 0).await;
    health(&dir).await;
}

#[tokio::test]
async fn a_peer_that_takes_nothing_is_closed() {
    let (_parent, dir) = directory();
    let _warden = start(&dir, role::ELIGIBLE);
    let mut stream = raw(&dir);
    let asks = Message::Ask.encode().repeat(64);
    // Until its queue of answers is full, and the warden has let go of it.
    let lost = loop {
        if let Err(error) = stream.write_all(&asks) {
            break error;
        }
    };
    let kinds = [ErrorKind::BrokenPipe, ErrorKind::ConnectionReset];
    assert!(kinds.contains(&lost.kind()), "{lost}");
    health(&dir).await;
}

#[tokio::test]
async fn hundreds_stand_by_and_the_silent_are_let_go() {
    let (_parent, dir) = directory();
    let warden = start(&dir, role::ELIGIBLE);
    let mut lines = Vec::new();
    for _ in 0..300 {
        lines.push(stand_by(&dir).await);
    }
    stands(&warden, 300).await;
    let silent: Vec<_> = (0..=ASKING_MAX).map(|_| raw(&dir)).collect();
    let began = Instant::now();
    health(&dir).await;
    // One too many, so that the oldest is closed before its time; the others when it has come.
    assert!(silent.first().is_some_and(is_closed));
    assert!(silent.iter().all(is_closed));
    assert!(began.elapsed() < SILENCE_MAX + PATIENCE);
    assert_eq!(warden.standbys(), 300);
    drop(warden);
    for line in &mut lines {
        assert!(matches!(next(line).await, News::Ended));
    }
}

#[tokio::test]
async fn nobody_wakes_up_while_nothing_happens() {
    let (_parent, dir) = directory();
    let warden = start(&dir, role::ELIGIBLE);
    let _lines = [stand_by(&dir).await, stand_by(&dir).await];
    stands(&warden, 2).await;
    health(&dir).await;
    // Until the connection that asked is gone.
    let mut turns = warden.turns();
    let quiet = Duration::from_millis(300);
    let came_to_rest = async {
        loop {
            sleep(quiet).await;
            if warden.turns() == turns {
                break;
            }
            turns = warden.turns();
        }
    };
    timeout(PATIENCE, came_to_rest).await.unwrap();
    sleep(SILENCE_MAX + quiet).await;
    assert_eq!(warden.turns(), turns);
    health(&dir).await;
    assert!(warden.turns() > turns);
}

#[tokio::test]
async fn the_next_leader_takes_the_name_over() {
    let (_parent, dir) = directory();
    let first = start(&dir, role::ELIGIBLE);
    let mut of_the_first = stand_by(&dir).await;
    stands(&first, 1).await;
    let second = start(&dir, role::ELIGIBLE);
    let _of_the_second = stand_by(&dir).await;
    stands(&second, 1).await;
    drop(first);
    assert!(matches!(next(&mut of_the_first).await, News::Ended));
    health(&dir).await;
    let mode = fs::metadata(dir.health_socket_path())
        .unwrap()
        .permissions()
        .mode();
    assert_eq!(mode & 0o777, 0o600);
}

#[tokio::test]
async fn a_long_path_is_no_obstacle() {
    let parent = tempfile::tempdir().unwrap();
    let path = parent.path().join("d".repeat(100)).join("e".repeat(100));
    let dir = StoreDir::open(path, &SystemProbe).unwrap();
    let warden = start(&dir, role::ELIGIBLE);
    let _line = stand_by(&dir).await;
    stands(&warden, 1).await;
    health(&dir).await;
}

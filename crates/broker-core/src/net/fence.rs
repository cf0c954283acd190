//! Fencing: a leader that hangs is killed, so that another process can lead.
//!
//! The lock goes on with the death of its holder, and with nothing less. So a process that is stopped,
//! or whose every thread hangs, would keep the store from everybody. It is killed only when
//!
//! - it has said in the lock file that it may be, as brokerd does;
//! - it is the process that is named there: same machine run, same process id namespace, same start
//!   time, same user, and it holds the lock;
//! - it does not answer at `health.sock`. A leader that waits for the disk does: killing it mends
//!   nothing, and the next one would wait for the same disk;
//! - nobody has killed a leader of this store in the last minute.
//!
//! The process is held by a descriptor (pidfd) before its start time is looked at for the last time, so
//! that no other process that was given the same number can be hit.

use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::time::Duration;

use tokio::sync::{oneshot, watch};
use tokio::time::timeout;

use super::client::{StallKind, State};
use super::warden::ask;
use crate::clock::{Clock, SystemClock};
use crate::dir::{Holder, Liveness, Lock, LockError, StoreDir, keepers};
use crate::sync::Arc;

/// How long a leader hangs before it is killed.
pub(super) const PATIENCE: Duration = Duration::from_secs(2);

/// How long a leader has to answer the last question.
const LAST_WORD: Duration = Duration::from_millis(500);

/// Between two attempts, while it goes on hanging.
const TRY_AGAIN: Duration = Duration::from_secs(5);

/// How long looking at a leader may take: the disk may hang too.
const LOOK_PATIENCE: Duration = Duration::from_secs(2);

/// Kills a leader that has hung for so long, if it may be killed. Runs until the client is closed.
pub(super) async fn guard(
    mut state: watch::Receiver<State>,
    dir: Arc<StoreDir>,
    patience: Duration,
) {
    while until(&mut state, hangs).await {
        let recovered = timeout(patience, until(&mut state, |state| !hangs(state)));
        if recovered.await.is_ok() {
            continue;
        }
        match fence(&dir).await {
            Ok(holder) => tracing::warn!(
                pid = holder.process.pid,
                build = holder.build,
                "killed the leader: it answered nobody, and kept the lock"
            ),
            Err(reason) => tracing::info!(%reason, "the leader hangs and is left alone"),
        }
        // Its connections end with it; should they not, it is looked at again.
        let _recovered = timeout(TRY_AGAIN, until(&mut state, |state| !hangs(state))).await;
    }
}

/// Waits for such a state; false when the client is closed before.
async fn until(state: &mut watch::Receiver<State>, wanted: impl Fn(&State) -> bool) -> bool {
    let closed = |state: &State| matches!(state, State::Closed { .. });
    let found = state.wait_for(|state| wanted(state) || closed(state)).await;
    found.is_ok_and(|state| !closed(&state))
}

/// Whether a leader hangs in a way that only its end can mend.
fn hangs(state: &State) -> bool {
    let State::Stalled { report } = state else {
        return false;
    };
    matches!(report.kind(), StallKind::Stopped | StallKind::NotAnswering)
}

/// Why a leader is left alone.
#[derive(Debug, thiserror::Error)]
enum Reason {
    #[error("it answers how it is")]
    Well,
    #[error("nobody can be asked how it is")]
    NobodyToAsk(#[source] io::Error),
    #[error("nobody is named in the lock file")]
    Unnamed,
    #[error("it has not allowed it")]
    NotAllowed,
    #[error("it is this process")]
    Oneself,
    #[error("it cannot be told from here whether it is the process that is named")]
    Elsewhere,
    #[error("it is the process of another user")]
    OtherUser,
    #[error("it does not hold the lock")]
    NotHolding,
    #[error("a leader was killed less than a minute ago")]
    TooSoon,
    #[error("it cannot be reached")]
    System(#[source] io::Error),
    #[error("the disk does not answer either")]
    Disk,
}

/// Kills the leader, if everything speaks for it.
async fn fence(dir: &Arc<StoreDir>) -> Result<Holder, Reason> {
    match ask(&dir.health_socket_path(), LAST_WORD).await {
        Ok(_) => return Err(Reason::Well),
        Err(error) if error.kind() == io::ErrorKind::TimedOut => {}
        Err(error) => return Err(Reason::NobodyToAsk(error)),
    }
    let (reply, done) = oneshot::channel();
    let dir = Arc::clone(dir);
    // Files are read, and the disk may hang: on a thread of its own.
    let spawned = std::thread::Builder::new()
        .name("broker-fence".to_owned())
        .spawn(move || {
            let _nobody_waits = reply.send(kill(&dir));
        });
    spawned.map_err(Reason::System)?;
    match timeout(LOOK_PATIENCE, done).await {
        Ok(Ok(done)) => done,
        _ => Err(Reason::Disk),
    }
}

/// Kills the holder of the lock, if it may be.
fn kill(dir: &StoreDir) -> Result<Holder, Reason> {
    let holder = Lock::holder(dir)
        .map_err(Reason::System)?
        .ok_or(Reason::Unnamed)?;
    if !holder.fencing_allowed {
        return Err(Reason::NotAllowed);
    }
    let process = holder.process;
    if process.pid == std::process::id() {
        return Err(Reason::Oneself);
    }
    if process.liveness() != Liveness::Running {
        return Err(Reason::Elsewhere);
    }
    let owner = fs::metadata(format!("/proc/{}", process.pid)).map_err(Reason::System)?;
    if owner.uid() != rustix::process::geteuid().as_raw() {
        return Err(Reason::OtherUser);
    }
    match Lock::try_acquire(dir) {
        Err(LockError::Held {
            holder: Some(now), ..
        }) if now.process == process => {}
        _ => return Err(Reason::NotHolding),
    }
    let handle = Handle::open(&holder)?;
    // The file says who led last; the kernel, who keeps the lock. They differ while a leader that has
    // handed over still runs, and its heir has not said so yet.
    if !keepers(dir).iter().any(|keeper| keeper.pid == process.pid) {
        return Err(Reason::NotHolding);
    }
    if !dir
        .begin_fencing(SystemClock::new().now())
        .map_err(Reason::System)?
    {
        return Err(Reason::TooSoon);
    }
    handle.kill()?;
    Ok(holder)
}

/// A process that can be killed and cannot be mistaken.
#[cfg(target_os = "linux")]
struct Handle(std::os::fd::OwnedFd);

#[cfg(target_os = "linux")]
impl Handle {
    fn open(holder: &Holder) -> Result<Self, Reason> {
        use rustix::process::{Pid, PidfdFlags, pidfd_open};
        let pid = i32::try_from(holder.process.pid)
            .ok()
            .and_then(Pid::from_raw)
            .ok_or(Reason::Unnamed)?;
        let handle = pidfd_open(pid, PidfdFlags::empty());
        let handle = handle.map_err(|errno| Reason::System(errno.into()))?;
        // From here on the number can be given to nobody else without this descriptor knowing.
        if holder.process.liveness() != Liveness::Running {
            return Err(Reason::Elsewhere);
        }
        Ok(Self(handle))
    }

    fn kill(&self) -> Result<(), Reason> {
        rustix::process::pidfd_send_signal(&self.0, rustix::process::Signal::KILL)
            .map_err(|errno| Reason::System(errno.into()))
    }
}

/// Other systems have no such descriptor, and nobody is killed there.
#[cfg(not(target_os = "linux"))]
struct Handle;

#[cfg(not(target_os = "linux"))]
impl Handle {
    fn open(_holder: &Holder) -> Result<Self, Reason> {
        Err(Reason::System(io::ErrorKind::Unsupported.into()))
    }

    fn kill(&self) -> Result<(), Reason> {
        Err(Reason::System(io::ErrorKind::Unsupported.into()))
    }
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test may panic")]

    use std::os::fd::AsFd;
    use std::os::unix::net::UnixListener;
    use std::process::{Child, Command};

    use broker_proto::{Micros, StoreId, Term};
    use tempfile::TempDir;

    use super::*;
    use crate::dir::{ProcessId, SystemProbe, role};
    use crate::net::warden::{Vitals, Warden};

    /// A store whose lock is held by a child, as far as the system can tell.
    struct Store {
        dir: Arc<StoreDir>,
        child: Child,
        _health: UnixListener,
        _parent: TempDir,
    }

    impl Drop for Store {
        fn drop(&mut self) {
            let _ended_already = self.child.kill();
            let _reaped = self.child.wait();
        }
    }

    /// The child has the lock's descriptor as its standard input, and nobody else has it.
    fn held() -> Store {
        let parent = tempfile::tempdir().unwrap();
        let dir = Arc::new(StoreDir::open(parent.path().join("data"), &SystemProbe).unwrap());
        let lock = Lock::try_acquire(&dir).unwrap();
        let descriptor = lock.as_fd().try_clone_to_owned().unwrap();
        let child = Command::new("sleep").arg("600").stdin(descriptor).spawn();
        Store {
            _health: UnixListener::bind(dir.health_socket_path()).unwrap(),
            dir,
            child: child.unwrap(),
            _parent: parent,
        }
    }

    fn holder(store: &Store) -> Holder {
        let here = ProcessId::current();
        Holder {
            process: ProcessId {
                pid: store.child.id(),
                start_ticks: start_ticks(store.child.id()),
                ..here
            },
            term: Term::new(1),
            role: role::SERVE_ALWAYS,
            fencing_allowed: true,
            since: Micros::new(0),
            store: StoreId::new([1; 16]),
            build: "test 1".to_owned(),
            tcp: String::new(),
            socket: String::new(),
            successor: String::new(),
        }
    }

    fn start_ticks(pid: u32) -> u64 {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
        let (_, fields) = stat.rsplit_once(") ").unwrap();
        fields.split(' ').nth(19).unwrap().parse().unwrap()
    }

    /// Writes the block as the holder would.
    fn publish(store: &Store, holder: &Holder) {
        // The lock itself is the child's; its file can be written by anybody of this user.
        let scratch = tempfile::tempdir().unwrap();
        let other = StoreDir::open(scratch.path().join("data"), &SystemProbe).unwrap();
        Lock::try_acquire(&other).unwrap().publish(holder).unwrap();
        let bytes = fs::read(other.path().join("lock")).unwrap();
        fs::write(store.dir.path().join("lock"), bytes).unwrap();
    }

    fn is_alive(store: &mut Store) -> bool {
        store.child.try_wait().unwrap().is_none()
    }

    #[tokio::test]
    async fn a_holder_that_allows_it_is_killed_and_frees_the_lock() {
        let mut store = held();
        publish(&store, &holder(&store));
        let killed = fence(&store.dir).await.unwrap();
        assert_eq!(killed.process.pid, store.child.id());
        store.child.wait().unwrap();
        drop(Lock::try_acquire(&store.dir).unwrap());
    }

    #[tokio::test]
    async fn nobody_else_is() {
        let mut store = held();
        let good = holder(&store);
        let cases: [(&str, Holder); 6] = [
            (
                "it has not allowed it",
                Holder {
                    fencing_allowed: false,
                    ..good.clone()
                },
            ),
            (
                "it cannot be told",
                Holder {
                    process: ProcessId {
                        start_ticks: good.process.start_ticks + 1,
                        ..good.process
                    },
                    ..good.clone()
                },
            ),
            (
                "it cannot be told",
                Holder {
                    process: ProcessId {
                        boot_id: [9; 16],
                        ..good.process
                    },
                    ..good.clone()
                },
            ),
            (
                "it cannot be told",
                Holder {
                    process: ProcessId {
                        pid_namespace: 1,
                        ..good.process
                    },
                    ..good.clone()
                },
            ),
            (
                "it cannot be told",
                Holder {
                    process: ProcessId {
                        start_ticks: 0,
                        ..good.process
                    },
                    ..good.clone()
                },
            ),
            (
                "it is this process",
                Holder {
                    process: ProcessId::current(),
                    ..good.clone()
                },
            ),
        ];
        for (expected, named) in cases {
            publish(&store, &named);
            let reason = fence(&store.dir).await.unwrap_err();
            assert!(reason.to_string().starts_with(expected), "{reason}");
        }
        publish(&store, &good);
        let now = SystemClock::new().now();
        assert!(store.dir.begin_fencing(now).unwrap());
        let reason = fence(&store.dir).await.unwrap_err();
        assert!(matches!(reason, Reason::TooSoon), "{reason}");
        assert!(is_alive(&mut store));
    }

    #[tokio::test]
    async fn a_holder_without_the_lock_is_left_alone() {
        let mut store = held();
        let named = holder(&store);
        let mut other = held();
        publish(&other, &named);
        other.child.kill().unwrap();
        other.child.wait().unwrap();
        let reason = fence(&other.dir).await.unwrap_err();
        assert!(matches!(reason, Reason::NotHolding), "{reason}");
        assert!(is_alive(&mut store));
    }

    #[tokio::test]
    async fn who_is_named_still_and_has_passed_the_lock_on_is_left_alone() {
        let mut before = held();
        let mut heir = held();
        publish(&heir, &holder(&before));
        let reason = fence(&heir.dir).await.unwrap_err();
        assert!(matches!(reason, Reason::NotHolding), "{reason}");
        assert!(is_alive(&mut before) && is_alive(&mut heir));
    }

    #[tokio::test]
    async fn a_leader_that_answers_is_left_alone() {
        let mut store = held();
        publish(&store, &holder(&store));
        let warden = Warden::start(&store.dir, Vitals::new(role::SERVE_ALWAYS, "test 1")).unwrap();
        let reason = fence(&store.dir).await.unwrap_err();
        assert!(matches!(reason, Reason::Well), "{reason}");
        drop(warden);
        let reason = fence(&store.dir).await.unwrap_err();
        assert!(matches!(reason, Reason::NobodyToAsk(_)), "{reason}");
        assert!(is_alive(&mut store));
    }
}

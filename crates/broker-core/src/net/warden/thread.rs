//! [`Post`]: the warden's thread, a loop around `poll`.
//!
//! It wakes up when a peer or the leader has something to say, and by the clock only while somebody is
//! being offered the place, has connected without a word, or the process has no file for a connection.

use std::collections::BTreeMap;
use std::io::{self, Read};
use std::os::fd::AsFd;
use std::os::unix::net::{UnixListener, UnixStream};
use std::sync::mpsc::{Receiver, TryRecvError};
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use tokio::sync::{oneshot, watch};

use super::offering::{Offering, Whom};
use super::peer::{Heard, Peer, Standing};
use super::wire::{Descriptors, Introduction, Message};
use super::{Candidate, Estate, Vitals, rights};
use crate::clock::{Clock, SystemClock};
use crate::sync::{Arc, AtomicU64, Ordering};

/// Most processes that stand by.
pub(super) const STANDING_MAX: usize = 960;

/// Most other connections; one more, and the one that was silent the longest is closed.
pub(super) const ASKING_MAX: usize = 64;

/// A connection that does not stand by is closed after so long a silence.
pub(super) const SILENCE_MAX: Duration = if cfg!(test) {
    Duration::from_millis(300)
} else {
    Duration::from_secs(5)
};

/// How long accepting rests when the process has no more files for a connection.
const ACCEPT_REST: Duration = Duration::from_millis(100);

/// Connections that are accepted, and messages of one peer that are read, before others have their turn.
const TURN_MAX: usize = 64;

/// What the leader wants of the thread.
#[derive(Debug)]
pub(super) enum Command {
    /// Find somebody who leads next.
    Offer {
        feature_level: u32,
        whom: Whom,
        reply: oneshot::Sender<Option<Candidate>>,
    },
    /// Pass everything on.
    Pass {
        line: u64,
        estate: Estate,
        reply: oneshot::Sender<io::Result<()>>,
    },
}

/// What `poll` has found.
#[derive(Debug, Default)]
struct Found {
    woken: bool,
    arrived: bool,
    lines: Vec<u64>,
}

/// See the module's documentation.
#[derive(Debug)]
pub(super) struct Post {
    listener: UnixListener,
    woken: UnixStream,
    commands: Receiver<Command>,
    vitals: Arc<Vitals>,
    claim: watch::Sender<bool>,
    clock: SystemClock,
    /// By number; numbers rise, so that the first is the oldest.
    peers: BTreeMap<u64, Peer>,
    next_line: u64,
    offering: Option<Offering>,
    /// No connection is accepted before.
    rest_until: Option<Duration>,
    pub(super) standing: Arc<AtomicU64>,
    /// How often the thread has woken up.
    pub(super) turns: Arc<AtomicU64>,
}

impl Post {
    pub(super) fn new(
        listener: UnixListener,
        woken: UnixStream,
        commands: Receiver<Command>,
        vitals: Arc<Vitals>,
        claim: watch::Sender<bool>,
    ) -> Self {
        Self {
            listener,
            woken,
            commands,
            vitals,
            claim,
            clock: SystemClock::new(),
            peers: BTreeMap::new(),
            next_line: 0,
            offering: None,
            rest_until: None,
            standing: Arc::default(),
            turns: Arc::default(),
        }
    }

    /// Serves until the leader lets go of it.
    pub(super) fn run(mut self) {
        loop {
            let found = self.wait();
            self.turns.fetch_add(1, Ordering::Relaxed);
            if found.woken {
                self.drain_wake_ups();
            }
            for line in found.lines {
                self.hear(line);
            }
            if found.arrived {
                self.accept();
            }
            // After the lines: whoever has hung up is not offered anything.
            if !self.take_commands() {
                return;
            }
            self.look_at_the_clock();
            self.tell();
        }
    }

    // ---- Waiting ----

    fn wait(&self) -> Found {
        let limit = self.next_look().map(|at| {
            let left = at.saturating_sub(self.clock.monotonic());
            Timespec {
                tv_sec: i64::try_from(left.as_secs()).unwrap_or(i64::MAX),
                tv_nsec: left.subsec_nanos().into(),
            }
        });
        let mut fds = Vec::with_capacity(self.peers.len() + 2);
        fds.push(PollFd::new(&self.woken, PollFlags::IN));
        let accepts = match self.rest_until {
            None => PollFlags::IN,
            Some(_) => PollFlags::empty(),
        };
        fds.push(PollFd::new(&self.listener, accepts));
        for peer in self.peers.values() {
            fds.push(PollFd::new(&peer.socket, PollFlags::IN));
        }
        match poll(&mut fds, limit.as_ref()) {
            Ok(_) => {}
            Err(rustix::io::Errno::INTR) => return Found::default(),
            Err(_) => {
                // Out of memory in the kernel: nothing to do but try again, and not at once.
                std::thread::sleep(ACCEPT_REST);
                return Found::default();
            }
        }
        let mut found = fds.iter().map(|fd| !fd.revents().is_empty());
        Found {
            woken: found.next().unwrap_or(false),
            arrived: found.next().unwrap_or(false),
            lines: self
                .peers
                .keys()
                .zip(found)
                .filter_map(|(line, found)| found.then_some(*line))
                .collect(),
        }
    }

    /// When there is something to do although nobody says anything.
    fn next_look(&self) -> Option<Duration> {
        let silent = self.silent_longest().map(|(_, heard)| heard + SILENCE_MAX);
        let answer = self.offering.as_ref().and_then(Offering::deadline);
        [silent, answer, self.rest_until]
            .into_iter()
            .flatten()
            .min()
    }

    /// Of those who do not stand by.
    fn silent_longest(&self) -> Option<(u64, Duration)> {
        let asking = self
            .peers
            .iter()
            .filter(|(_, peer)| peer.standing.is_none());
        asking
            .map(|(line, peer)| (*line, peer.heard))
            .min_by_key(|(_, heard)| *heard)
    }

    fn drain_wake_ups(&self) {
        let mut bytes = [0; 64];
        while matches!((&self.woken).read(&mut bytes), Ok(read) if read == bytes.len()) {}
    }

    fn look_at_the_clock(&mut self) {
        let now = self.clock.monotonic();
        while let Some((line, heard)) = self.silent_longest()
            && now >= heard + SILENCE_MAX
        {
            self.peers.remove(&line);
        }
        self.rest_until = self.rest_until.filter(|until| now < *until);
        let late = self.offering.as_ref().and_then(Offering::deadline);
        if late.is_some_and(|until| now >= until) {
            self.offer_next();
        }
    }

    /// Lets the leader see who stands here.
    fn tell(&self) {
        let standing = || {
            self.peers
                .values()
                .filter_map(|peer| peer.standing.as_ref())
        };
        let count = standing().count() as u64;
        self.standing.store(count, Ordering::Relaxed);
        let claims = standing().any(|standing| standing.claims);
        self.claim.send_if_modified(|claimed| {
            let changed = *claimed != claims;
            *claimed = claims;
            changed
        });
    }

    // ---- Peers ----

    fn accept(&mut self) {
        let now = self.clock.monotonic();
        for _ in 0..TURN_MAX {
            let socket = match self.listener.accept() {
                Ok((socket, _)) => socket,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return,
                Err(error) if is_of_one_connection(&error) => continue,
                Err(_) => {
                    // Such as too many open files. The connection stays in the queue, so trying again at
                    // once would only burn the processor.
                    if let Some((line, _)) = self.silent_longest() {
                        self.peers.remove(&line);
                    }
                    self.rest_until = Some(now + ACCEPT_REST);
                    return;
                }
            };
            if socket.set_nonblocking(true).is_err() {
                continue;
            }
            let asking = self.peers.values().filter(|peer| peer.standing.is_none());
            if asking.count() >= ASKING_MAX
                && let Some((line, _)) = self.silent_longest()
            {
                self.peers.remove(&line);
            }
            let line = self.next_line;
            self.next_line += 1;
            self.peers.insert(line, Peer::new(socket, now));
            // What it has to say is there already, as a rule.
            self.hear(line);
        }
    }

    /// Takes what a peer says.
    fn hear(&mut self, line: u64) {
        for _ in 0..TURN_MAX {
            let Some(peer) = self.peers.get_mut(&line) else {
                return;
            };
            let message = match peer.hear() {
                Heard::Nothing => return,
                Heard::Gone => return self.lose(line),
                Heard::Message(message) => message,
            };
            peer.heard = self.clock.monotonic();
            let going_on = match message {
                Message::Ask => peer.say(&Message::Health(self.vitals.health())).is_ok(),
                Message::StandBy(who) => self.stand(line, who, false),
                Message::Claim(who) => self.stand(line, who, true),
                Message::Ready => self.ready(line),
                Message::Decline => {
                    self.passed_over(line);
                    true
                }
                // What only a leader says.
                _ => false,
            };
            if !going_on {
                return self.lose(line);
            }
        }
    }

    /// Takes a peer as one that stands by. Says whether it may stay.
    fn stand(&mut self, line: u64, who: Introduction, claims: bool) -> bool {
        let standing = self.peers.values().filter(|peer| peer.standing.is_some());
        let full = standing.count() >= STANDING_MAX;
        let Some(peer) = self.peers.get_mut(&line) else {
            return false;
        };
        if peer.standing.is_some() {
            return false;
        }
        let refusal = match self.vitals.refusal() {
            Some(refusal) if claims => Some(refusal),
            _ if full => Some(format!("{STANDING_MAX} processes stand by already")),
            _ => None,
        };
        if let Some(refusal) = refusal {
            // Should it not be taken, the end of the line tells as much.
            let _not_taken = peer.say(&Message::Refused(refusal));
            return false;
        }
        peer.standing = Some(Standing { who, claims });
        true
    }

    /// Lets a peer go.
    fn lose(&mut self, line: u64) {
        self.peers.remove(&line);
        self.passed_over(line);
    }

    // ---- Handing over ----

    /// Does what the leader wants; false when it has let go.
    fn take_commands(&mut self) -> bool {
        loop {
            match self.commands.try_recv() {
                Ok(Command::Offer {
                    feature_level,
                    whom,
                    reply,
                }) => self.offer(feature_level, whom, reply),
                Ok(Command::Pass {
                    line,
                    estate,
                    reply,
                }) => {
                    let passed = self.pass(line, estate);
                    let _nobody_waits = reply.send(passed);
                }
                Err(TryRecvError::Empty) => return true,
                Err(TryRecvError::Disconnected) => return false,
            }
        }
    }

    fn offer(&mut self, feature_level: u32, whom: Whom, reply: oneshot::Sender<Option<Candidate>>) {
        let able = self.peers.iter().filter_map(|(line, peer)| {
            let standing = peer.standing.as_ref()?;
            let able = standing.who.feature_level >= feature_level;
            let rank = whom.rank(*line, standing.claims).filter(|_| able)?;
            Some((rank, *line))
        });
        let mut able: Vec<(u8, u64)> = able.collect();
        able.sort_unstable();
        let lines = able.into_iter().map(|(_, line)| line);
        let offering = Offering::new(feature_level, lines, reply);
        if let Some(before) = self.offering.replace(offering) {
            before.end(None);
        }
        self.offer_next();
    }

    /// Asks the next one, or tells the leader that there is nobody.
    fn offer_next(&mut self) {
        let Some(mut offering) = self.offering.take() else {
            return;
        };
        let offer = Message::Offer {
            feature_level: offering.feature_level,
        };
        while let Some(line) = offering.next() {
            let asked = self.peers.get(&line).map(|peer| peer.say(&offer));
            if matches!(asked, Some(Ok(()))) {
                offering.asked(line, self.clock.monotonic());
                self.offering = Some(offering);
                return;
            }
            self.peers.remove(&line);
        }
        offering.end(None);
    }

    /// A peer that is not, or no longer, a candidate.
    fn passed_over(&mut self, line: u64) {
        if self.asks(line) {
            self.offer_next();
        }
    }

    fn asks(&self, line: u64) -> bool {
        let offering = self.offering.as_ref();
        offering.is_some_and(|offering| offering.asks(line))
    }

    /// A peer says that it is ready, perhaps too late. Says whether it may stay.
    fn ready(&mut self, line: u64) -> bool {
        let Some(standing) = self
            .peers
            .get(&line)
            .and_then(|peer| peer.standing.as_ref())
        else {
            return false;
        };
        let candidate = Candidate {
            pid: standing.who.pid,
            build: standing.who.build.clone(),
            line,
        };
        if self.asks(line)
            && let Some(offering) = self.offering.take()
        {
            offering.end(Some(candidate));
        }
        true
    }

    /// Sends the estate. This process's copies and the line end with this call, sent or not.
    fn pass(&mut self, line: u64, estate: Estate) -> io::Result<()> {
        let peer = self.peers.remove(&line).ok_or(io::ErrorKind::BrokenPipe)?;
        let with = Descriptors {
            unix: estate.unix.is_some(),
            tcp: estate.tcp.is_some(),
        };
        let descriptors: Vec<_> = [
            Some(&estate.lock),
            estate.unix.as_ref(),
            estate.tcp.as_ref(),
        ]
        .into_iter()
        .flatten()
        .map(AsFd::as_fd)
        .collect();
        let bytes = Message::Estate(with).encode();
        rights::send(&peer.socket, &bytes, &descriptors)
    }
}

/// Whether an error of accept is about the one connection, which is gone, and not about all.
fn is_of_one_connection(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::ConnectionAborted
            | io::ErrorKind::ConnectionReset
            | io::ErrorKind::Interrupted
    )
}

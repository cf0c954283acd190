//! One connection: bytes between a transport and a session, one task each.
//!
//! Every wake-up is one round: what the store said, all complete frames that have come, one turn of
//! the session, one vectored write. Reading and writing go on independently of each other, so that
//! two sides that both write never wait for each other: a peer whose bytes cannot leave is still
//! read, until the session itself wants no more.

use std::future::{Future, poll_fn};
use std::io::{self, IoSlice};
use std::pin::{Pin, pin};
use std::task::{Context, Poll};
use std::time::Duration;

use broker_proto::Decoder;
use broker_proto::ErrorCode;
use bytes::BytesMut;
use tokio::io::AsyncReadExt;
use tokio::sync::OwnedSemaphorePermit;
use tokio::time::{Sleep, sleep_until, timeout_at};

use super::doors;
use super::hub::{Hub, Place};
use super::transport::{Origin, Stream};
use crate::clock::{Random, SystemRandom};
use crate::session::{Session, Stage};
use crate::store::Store;
use crate::sync::Arc;

/// Bytes of a read buffer, to begin with.
const READ_BYTES_MIN: usize = 16 << 10;

/// Bytes that a read buffer grows to while reads fill it: twice what a read is worth, so that frames of
/// 256 KiB that wait for the log leave room for the next and no other buffer is needed.
const READ_BYTES_MAX: usize = 512 << 10;

/// Reads in a row that used little of a grown buffer before it shrinks.
const SMALL_READS_MAX: u32 = 64;

/// Slices of one vectored write.
const SLICES: usize = 64;

/// Serves one peer until either side ends it. `permit` is held until the peer has said who it is.
pub(super) async fn serve<S: Store>(
    hub: Arc<Hub<S>>,
    mut io: impl Stream,
    origin: Origin,
    permit: Option<OwnedSemaphorePermit>,
) {
    let began = hub.now();
    let deadline = hub.instant(began + hub.terms.patience.hello);
    let mut buf = BytesMut::new();
    let ended = match timeout_at(deadline, doors::recognise(&mut io, &mut buf)).await {
        Ok(Ok(None)) => Driver::new(hub, io, buf, began, permit).run().await,
        Ok(Ok(Some(answer))) => doors::refuse(&mut io, answer).await,
        Ok(Err(error)) => Err(error),
        Err(_) => Err(io::ErrorKind::TimedOut.into()),
    };
    match ended {
        Ok(()) => tracing::debug!(%origin, "connection closed"),
        Err(error) => tracing::debug!(%origin, %error, "connection lost"),
    }
}

/// Moves bytes and wakes the session.
struct Driver<S: Store, IO> {
    hub: Arc<Hub<S>>,
    io: IO,
    session: Session<S>,
    /// Its place among the connections; none when there are too many.
    place: Option<Place<S>>,
    decoder: Decoder,
    buf: BytesMut,
    /// How many bytes to make room for.
    read_bytes: usize,
    small_reads: u32,
    /// Which change of the stage the session knows.
    stage_seen: u64,
    draining: bool,
    /// The time of the round that has just been, until it has been used.
    now: Option<Duration>,
    timer: Pin<Box<Sleep>>,
    /// When the timer fires.
    armed: Duration,
    unflushed: bool,
    /// Frames may lie in `buf` that the session did not want yet.
    unread: bool,
    permit: Option<OwnedSemaphorePermit>,
}

impl<S: Store, IO: Stream> Driver<S, IO> {
    fn new(
        hub: Arc<Hub<S>>,
        io: IO,
        buf: BytesMut,
        began: Duration,
        permit: Option<OwnedSemaphorePermit>,
    ) -> Self {
        let (stage_seen, stage) = hub.stage();
        let draining = matches!(stage, Stage::Draining(_));
        let id = hub.next_id();
        let mut session = Session::new(
            began,
            id,
            SystemRandom.bytes_16(),
            Arc::clone(&hub.terms),
            stage,
        );
        let place = match hub.enter(id, session.mailbox()) {
            Ok(place) => Some(place),
            Err(most) => {
                let detail = format!(
                    "this broker has {most} connections, the most allowed; try again later"
                );
                session.handle_refusal(hub.now(), ErrorCode::LIMIT, detail);
                None
            }
        };
        let armed = session.poll_timeout();
        let timer = Box::pin(sleep_until(hub.instant(armed)));
        Self {
            hub,
            io,
            session,
            place,
            decoder: Decoder::new(),
            buf,
            read_bytes: doors::UNKNOWN_BYTES_MAX,
            small_reads: 0,
            stage_seen,
            draining,
            now: None,
            timer,
            armed,
            unflushed: false,
            unread: false,
            permit,
        }
    }

    /// Runs until the connection ends; in order when the session said so.
    async fn run(mut self) -> io::Result<()> {
        loop {
            self.round();
            if self.is_done() {
                break;
            }
            poll_fn(|context| self.poll(context)).await?;
        }
        // The store and the other connections need not wait for a peer that is slow to leave.
        let Self {
            mut io, session, ..
        } = self;
        drop(session);
        doors::close(&mut io).await;
        Ok(())
    }

    /// Hands everything that has come to the session and lets it have its turn.
    fn round(&mut self) {
        let now = self.hub.now();
        self.now = Some(now);
        if self.hub.generation() != self.stage_seen {
            let (seen, stage) = self.hub.stage();
            self.stage_seen = seen;
            self.draining = matches!(stage, Stage::Draining(_));
            self.session.handle_stage(now, stage);
        }
        self.session.handle_notices(now);
        self.handle_frames(now);
        if now >= self.armed {
            self.session.handle_timeout(now);
            if self.buf.is_empty() {
                // Nothing came for seconds: an idle connection keeps no buffer.
                self.buf = BytesMut::new();
            }
        }
        self.session.turn(now);
        if self.permit.is_some() && self.session.has_greeted() {
            self.permit = None;
            self.read_bytes = READ_BYTES_MIN;
        }
        if self.draining
            && self.session.is_settled()
            && let Some(place) = &self.place
        {
            place.settle();
        }
        let due = self.session.poll_timeout();
        if due < self.armed || now >= self.armed {
            self.armed = due;
            self.timer.as_mut().reset(self.hub.instant(due));
        }
    }

    /// Decodes what is complete, as far as the session wants it.
    fn handle_frames(&mut self, now: Duration) {
        self.unread = true;
        while self.session.wants_read() {
            match self
                .decoder
                .take(&mut self.buf, self.session.frame_bytes_max())
            {
                Ok(Some(frame)) => self.session.handle_frame(now, frame),
                Ok(None) => {
                    self.unread = false;
                    return;
                }
                Err(error) => self.session.handle_bad_frame(now, &error),
            }
        }
    }

    fn is_done(&self) -> bool {
        self.session.is_closing() && self.session.outbox().is_empty() && !self.unflushed
    }

    /// Ready when there is reason for another round.
    fn poll(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut woken = self.poll_write(context)?;
        woken |= self.is_done() || self.session.has_work();
        woken |= self.unread && self.session.wants_read();
        woken |= self.poll_read(context)?;
        if woken {
            // Whatever else there is, is seen after the round that follows at once.
            return Poll::Ready(Ok(()));
        }
        woken |= self.session.mailbox().poll_ready(context).is_ready();
        woken |= self.hub.generation() != self.stage_seen;
        if woken {
            return Poll::Ready(Ok(()));
        }
        woken |= self.timer.as_mut().poll(context).is_ready();
        if woken {
            Poll::Ready(Ok(()))
        } else {
            Poll::Pending
        }
    }

    /// Writes what the transport takes; says whether that makes another round worthwhile.
    fn poll_write(&mut self, context: &mut Context<'_>) -> io::Result<bool> {
        let mut wrote = 0;
        let mut now = self.now.take();
        while !self.session.outbox().is_empty() {
            let mut slices = [IoSlice::new(&[]); SLICES];
            let used = self.session.outbox().chunks(&mut slices);
            let slices = slices.get(..used).unwrap_or_default();
            let Poll::Ready(written) = Pin::new(&mut self.io).poll_write_vectored(context, slices)
            else {
                self.session.handle_blocked();
                break;
            };
            match written? {
                0 => return Err(io::ErrorKind::WriteZero.into()),
                bytes => {
                    wrote += bytes;
                    let now = *now.get_or_insert_with(|| self.hub.now());
                    self.session.handle_written(now, bytes);
                }
            }
        }
        self.unflushed |= wrote > 0;
        if self.unflushed
            && self.session.outbox().is_empty()
            && let Poll::Ready(flushed) = Pin::new(&mut self.io).poll_flush(context)
        {
            flushed?;
            self.unflushed = false;
        }
        // What was written may have been the last thing that a leaving server waits for.
        Ok(wrote > 0 && self.draining)
    }

    /// Reads what has come, when the session wants it; says whether something did.
    fn poll_read(&mut self, context: &mut Context<'_>) -> io::Result<bool> {
        if !self.session.wants_read() {
            return Ok(false);
        }
        let room = make_room(&mut self.buf, self.read_bytes);
        let Poll::Ready(read) = pin!(self.io.read_buf(&mut self.buf)).poll(context) else {
            return Ok(false);
        };
        match read? {
            0 => Err(io::ErrorKind::UnexpectedEof.into()),
            bytes => {
                self.adapt(bytes, room);
                Ok(true)
            }
        }
    }

    /// Grows the buffer while reads fill it and shrinks it when they no longer do. Measured: with
    /// messages of 16 KiB a buffer of 256 KiB takes 206,000 a second, one of 16 KiB 143,000.
    fn adapt(&mut self, bytes: usize, room: usize) {
        if !self.session.has_greeted() {
            return;
        }
        if bytes >= room {
            self.small_reads = 0;
            // A small rest of a buffer that is filled says nothing about the size of a whole one.
            if room >= self.read_bytes / 2 {
                self.read_bytes = (self.read_bytes * 2).clamp(READ_BYTES_MIN, READ_BYTES_MAX);
            }
        } else if bytes < self.read_bytes / 8 && self.read_bytes > READ_BYTES_MIN {
            self.small_reads += 1;
            if self.small_reads > SMALL_READS_MAX {
                self.small_reads = 0;
                self.read_bytes = READ_BYTES_MIN;
                if self.buf.is_empty() {
                    self.buf = BytesMut::new();
                }
            }
        }
    }
}

/// Makes room to read into, and says how much there is. A buffer whose frames have all been stored is
/// begun anew from its front: the same few pages for read after read stay in the processor's cache, and
/// nothing is allocated. While frames in it wait for the log, the rest of it is used first.
fn make_room(buf: &mut BytesMut, read_bytes: usize) -> usize {
    let least = read_bytes / 4;
    let wanted = read_bytes.saturating_sub(buf.len()).max(least);
    if !buf.try_reclaim(wanted) && buf.capacity() - buf.len() < least {
        buf.reserve(wanted);
    }
    buf.capacity() - buf.len()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(buf: &BytesMut) -> usize {
        buf.as_ptr().addr()
    }

    #[test]
    fn a_buffer_whose_frames_are_gone_is_read_into_from_its_front() {
        let mut buf = BytesMut::new();
        assert_eq!(make_room(&mut buf, 16 << 10), 16 << 10);
        let front = address(&buf);
        for _ in 0..100 {
            buf.extend_from_slice(&[1; 3000]);
            drop(buf.split().freeze());
            assert_eq!(make_room(&mut buf, 16 << 10), 16 << 10);
            assert_eq!(address(&buf), front);
        }
    }

    #[test]
    fn while_frames_are_held_the_rest_of_the_buffer_is_used_and_then_another_one() {
        let mut buf = BytesMut::new();
        make_room(&mut buf, 16 << 10);
        let front = address(&buf);
        buf.extend_from_slice(&[1; 10_000]);
        let held = buf.split().freeze();
        assert_eq!(make_room(&mut buf, 16 << 10), (16 << 10) - 10_000);
        assert_eq!(address(&buf), front + 10_000);
        buf.extend_from_slice(&[1; 5000]);
        let more = buf.split().freeze();
        assert!(make_room(&mut buf, 16 << 10) >= 16 << 10);
        assert!(!(front..front + (16 << 10)).contains(&address(&buf)));
        drop((held, more));
    }

    #[test]
    fn the_beginning_of_a_frame_is_kept_and_does_not_make_the_buffer_grow() {
        let mut buf = BytesMut::new();
        make_room(&mut buf, 16 << 10);
        let front = address(&buf);
        buf.extend_from_slice(&[1; 12_000]);
        drop(buf.split_to(11_000).freeze());
        assert_eq!(make_room(&mut buf, 16 << 10), (16 << 10) - 1000);
        assert_eq!((address(&buf), buf.len()), (front, 1000));
    }
}

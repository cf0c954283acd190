//! The two ends of a simulated connection: what a client connects with, and what a server listens on.
//!
//! turmoil carries the segments. What it does not do is done here: bytes are written in any pieces, and a connection can be reset
//! in the middle of a frame.

use std::collections::BTreeMap;
use std::io;
use std::pin::Pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};

use broker_core::net::client::{BoxStream, Connect, Opening};
use broker_core::net::{Listener, Origin};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use turmoil::net::{TcpListener, TcpStream};

use crate::rng::Rng;

/// Where every broker listens.
const PORT: u16 = 9876;

/// The connections of one host.
#[derive(Debug, Default)]
pub(super) struct Sockets {
    inner: Mutex<Inner>,
}

#[derive(Debug, Default)]
struct Inner {
    /// Open ones, by a number that rises.
    open: BTreeMap<u64, TcpStream>,
    last: u64,
    /// All up to this one were reset.
    reset_upto: u64,
    wakers: Vec<Waker>,
    /// The host is being stopped.
    stops: bool,
    /// The host has no power any more: nothing leaves it, and nothing arrives.
    dark: bool,
}

impl Sockets {
    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Resets all connections that are open now, as a router that forgets them.
    pub(super) fn reset(&self) {
        let wakers = {
            let mut inner = self.lock();
            inner.reset_upto = inner.last;
            std::mem::take(&mut inner.wakers)
        };
        wakers.into_iter().for_each(Waker::wake);
    }

    /// Tells that the host is about to stop, or that it has. A runtime drops its tasks in an order that varies; while it stops,
    /// the first connection to go takes all others with it, in their order.
    pub(super) fn stop(&self, stops: bool) {
        let mut inner = self.lock();
        inner.stops = stops;
        inner.dark = false;
    }

    /// The host lost its power a moment ago, and is stopped soon.
    pub(super) fn go_dark(&self) {
        self.lock().dark = true;
    }
}

/// A connection that breaks what is written into pieces, and that can be reset.
#[derive(Debug)]
pub(super) struct Rough {
    sockets: Arc<Sockets>,
    number: u64,
    piece_max: usize,
    rng: Rng,
}

impl Rough {
    fn new(stream: TcpStream, mut rng: Rng, sockets: Arc<Sockets>) -> Self {
        let piece_max = rng.pick(&[96, 700, 1460, 1 << 16, 1 << 16]).copied();
        let number = {
            let mut inner = sockets.lock();
            inner.last += 1;
            let number = inner.last;
            inner.open.insert(number, stream);
            number
        };
        Self {
            sockets,
            number,
            piece_max: piece_max.unwrap_or(1460),
            rng,
        }
    }

    /// Does something with the connection, unless it was reset.
    fn with<T>(
        &self,
        cx: &mut Context<'_>,
        work: impl FnOnce(Pin<&mut TcpStream>, &mut Context<'_>) -> Poll<io::Result<T>>,
    ) -> Poll<io::Result<T>> {
        let mut inner = self.sockets.lock();
        if inner.dark {
            return Poll::Pending;
        }
        if self.number <= inner.reset_upto {
            return Poll::Ready(Err(io::ErrorKind::ConnectionReset.into()));
        }
        let known = inner.wakers.iter().any(|waker| waker.will_wake(cx.waker()));
        if !known {
            inner.wakers.push(cx.waker().clone());
        }
        match inner.open.get_mut(&self.number) {
            Some(stream) => work(Pin::new(stream), cx),
            None => Poll::Ready(Err(io::ErrorKind::NotConnected.into())),
        }
    }
}

impl Drop for Rough {
    fn drop(&mut self) {
        let mut inner = self.sockets.lock();
        if inner.stops {
            while let Some((_, stream)) = inner.open.pop_first() {
                drop(stream);
            }
        }
        inner.open.remove(&self.number);
    }
}

impl AsyncRead for Rough {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        self.with(cx, |stream, cx| stream.poll_read(cx, buf))
    }
}

impl AsyncWrite for Rough {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        let most = buf.len().min(self.piece_max);
        let len = match self.rng.chance(1, 8) {
            true => 1 + self.rng.index(most),
            false => most,
        };
        let piece = buf.get(..len.min(buf.len())).unwrap_or_default();
        self.with(cx, |stream, cx| stream.poll_write(cx, piece))
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.with(cx, |stream, cx| stream.poll_flush(cx))
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.with(cx, |stream, cx| stream.poll_shutdown(cx)) {
            // A real socket may be shut down twice.
            Poll::Ready(Err(error)) if error.kind() == io::ErrorKind::NotConnected => {
                Poll::Ready(Ok(()))
            }
            polled => polled,
        }
    }
}

/// Connects to the brokers in turn, as a client that knows several addresses.
#[derive(Debug)]
pub(super) struct SimConnect {
    brokers: Vec<String>,
    turn: AtomicUsize,
    sockets: Arc<Sockets>,
    rng: Mutex<Rng>,
}

impl SimConnect {
    pub(super) fn new(brokers: Vec<String>, sockets: Arc<Sockets>, rng: Rng) -> Self {
        Self {
            brokers,
            turn: AtomicUsize::new(0),
            sockets,
            rng: Mutex::new(rng),
        }
    }
}

impl Connect for SimConnect {
    fn connect(&self) -> Opening<'_> {
        Box::pin(async move {
            let turn = self.turn.fetch_add(1, Ordering::SeqCst);
            let at = turn.checked_rem(self.brokers.len()).unwrap_or(0);
            let broker = self.brokers.get(at).map_or("", String::as_str);
            let stream = TcpStream::connect((broker, PORT)).await?;
            let rng = {
                let mut rng = self.rng.lock().unwrap_or_else(PoisonError::into_inner);
                rng.fork()
            };
            let rough = Rough::new(stream, rng, Arc::clone(&self.sockets));
            Ok(Box::new(rough) as BoxStream)
        })
    }

    fn address(&self) -> String {
        self.brokers.join(" or ")
    }
}

/// A port of a simulated host.
pub(super) struct SimListener {
    listener: TcpListener,
    sockets: Arc<Sockets>,
    rng: Rng,
}

impl SimListener {
    /// Listens at the broker's port of this host.
    pub(super) async fn bind(sockets: Arc<Sockets>, rng: Rng) -> io::Result<Self> {
        let listener = TcpListener::bind(("0.0.0.0", PORT)).await?;
        Ok(Self {
            listener,
            sockets,
            rng,
        })
    }
}

impl Listener for SimListener {
    type Stream = Rough;

    async fn accept(&mut self) -> io::Result<(Rough, Origin)> {
        let (stream, from) = self.listener.accept().await?;
        let rough = Rough::new(stream, self.rng.fork(), Arc::clone(&self.sockets));
        Ok((rough, Origin::Tcp(from)))
    }

    fn address(&self) -> String {
        format!("tcp://simulated:{PORT}")
    }
}

//! The two ends of a simulated connection: what a client connects with, and what a server listens on.
//!
//! turmoil carries the segments. What it does not do is done here: bytes are written in any pieces, and a connection can be reset
//! in the middle of a frame.

use std::io;
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, Waker};

use broker_core::net::client::{BoxStream, Connect, Opening};
use broker_core::net::{Listener, Origin};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use turmoil::net::{TcpListener, TcpStream};

use crate::rng::Rng;

/// Where every broker listens.
const PORT: u16 = 9876;

/// Cuts the connections of one client off, as a router that forgets them.
#[derive(Debug, Default)]
pub(super) struct Scissors {
    cuts: AtomicU64,
    wakers: Mutex<Vec<Waker>>,
}

impl Scissors {
    /// Resets all connections that are open now.
    pub(super) fn cut(&self) {
        self.cuts.fetch_add(1, Ordering::SeqCst);
        let wakers = {
            let mut wakers = self.wakers.lock().unwrap_or_else(PoisonError::into_inner);
            std::mem::take(&mut *wakers)
        };
        wakers.into_iter().for_each(Waker::wake);
    }

    fn count(&self) -> u64 {
        self.cuts.load(Ordering::SeqCst)
    }

    fn wake_me(&self, cx: &Context<'_>) {
        let mut wakers = self.wakers.lock().unwrap_or_else(PoisonError::into_inner);
        if !wakers.iter().any(|waker| waker.will_wake(cx.waker())) {
            wakers.push(cx.waker().clone());
        }
    }
}

/// A stream that breaks what is written into pieces, and that can be cut.
#[derive(Debug)]
struct Rough {
    stream: TcpStream,
    piece_max: usize,
    rng: Rng,
    scissors: Arc<Scissors>,
    /// How often the scissors had cut when this connection was made.
    cuts: u64,
}

impl Rough {
    fn new(stream: TcpStream, mut rng: Rng, scissors: Arc<Scissors>) -> Self {
        let piece_max = rng.pick(&[96, 700, 1460, 1 << 16, 1 << 16]).copied();
        Self {
            stream,
            piece_max: piece_max.unwrap_or(1460),
            rng,
            cuts: scissors.count(),
            scissors,
        }
    }

    fn check(&self, cx: &Context<'_>) -> io::Result<()> {
        if self.scissors.count() != self.cuts {
            return Err(io::ErrorKind::ConnectionReset.into());
        }
        self.scissors.wake_me(cx);
        Ok(())
    }
}

impl AsyncRead for Rough {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        this.check(cx)?;
        Pin::new(&mut this.stream).poll_read(cx, buf)
    }
}

impl AsyncWrite for Rough {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        this.check(cx)?;
        let most = buf.len().min(this.piece_max);
        let len = if this.rng.chance(1, 8) {
            1 + this.rng.index(most)
        } else {
            most
        };
        let piece = buf.get(..len.min(buf.len())).unwrap_or_default();
        Pin::new(&mut this.stream).poll_write(cx, piece)
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let stream = &mut self.get_mut().stream;
        match Pin::new(stream).poll_shutdown(cx) {
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
    scissors: Arc<Scissors>,
    rng: Mutex<Rng>,
}

impl SimConnect {
    pub(super) fn new(brokers: Vec<String>, scissors: Arc<Scissors>, rng: Rng) -> Self {
        Self {
            brokers,
            turn: AtomicUsize::new(0),
            scissors,
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
            let rough = Rough::new(stream, rng, Arc::clone(&self.scissors));
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
    rng: Rng,
}

impl SimListener {
    /// Listens at the broker's port of this host.
    pub(super) async fn bind(rng: Rng) -> io::Result<Self> {
        let listener = TcpListener::bind(("0.0.0.0", PORT)).await?;
        Ok(Self { listener, rng })
    }
}

/// The end of a connection that a server has.
#[derive(Debug)]
pub(super) struct Accepted(Rough);

impl AsyncRead for Accepted {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().0).poll_read(cx, buf)
    }
}

impl AsyncWrite for Accepted {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.get_mut().0).poll_write(cx, buf)
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().0).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().0).poll_shutdown(cx)
    }
}

impl Listener for SimListener {
    type Stream = Accepted;

    async fn accept(&mut self) -> io::Result<(Accepted, Origin)> {
        let (stream, from) = self.listener.accept().await?;
        let rough = Rough::new(stream, self.rng.fork(), Arc::default());
        Ok((Accepted(rough), Origin::Tcp(from)))
    }

    fn address(&self) -> String {
        format!("tcp://simulated:{PORT}")
    }
}

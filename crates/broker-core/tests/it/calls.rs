//! How often a connection calls its transport: system calls are most of what a message costs.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll};

use broker_core::net::{Listener, Origin, Server, ServerConfig};
use broker_proto::{Frame, Publish, StartAt};
use bytes::BytesMut;
use tokio::io::{AsyncRead, AsyncWrite, DuplexStream, ReadBuf};

use crate::peer::{Peer, encoded, hello, room, store};

/// Counts the reads and writes that moved bytes.
#[derive(Debug, Default)]
struct Calls {
    reads: AtomicUsize,
    writes: AtomicUsize,
}

impl Calls {
    fn take(&self) -> (usize, usize) {
        (
            self.reads.swap(0, Ordering::SeqCst),
            self.writes.swap(0, Ordering::SeqCst),
        )
    }
}

struct Counting(DuplexStream, Arc<Calls>);

impl AsyncRead for Counting {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let read = Pin::new(&mut self.0).poll_read(context, buf);
        self.1
            .reads
            .fetch_add(usize::from(read.is_ready()), Ordering::SeqCst);
        read
    }
}

impl AsyncWrite for Counting {
    fn poll_write(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.poll_write_vectored(context, &[IoSlice::new(buf)])
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.0).poll_write_vectored(context, bufs);
        self.1
            .writes
            .fetch_add(usize::from(written.is_ready()), Ordering::SeqCst);
        written
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_shutdown(context)
    }
}

/// Gives one connection.
struct Once(Option<Counting>);

impl Listener for Once {
    type Stream = Counting;

    async fn accept(&mut self) -> io::Result<(Counting, Origin)> {
        match self.0.take() {
            Some(stream) => Ok((stream, Origin::InProcess)),
            None => std::future::pending().await,
        }
    }

    fn address(&self) -> String {
        "test:".to_owned()
    }
}

#[tokio::test]
async fn a_burst_of_publishes_is_one_read_and_one_write() {
    let server = Server::start(ServerConfig::default()).unwrap();
    server.serve(store());
    let (near, far) = tokio::io::duplex(1 << 20);
    let calls = Arc::new(Calls::default());
    server.listen(Once(Some(Counting(far, Arc::clone(&calls)))));
    let mut ann = Peer::over(near);
    ann.say(hello("ann")).await;
    ann.hear_welcome().await;
    ann.subscribe(1, "ops", StartAt::START, 64 << 20).await;
    ann.hear().await;
    // One more round trip: the server has counted its last write when this is answered.
    ann.publish("other", &["x"]).await;
    calls.take();
    let mut burst = BytesMut::new();
    for frame in 0..64 {
        burst.unsplit(encoded(Publish::of(
            room("ops"),
            2 + frame * 4,
            ["a message"; 4],
        )));
    }
    ann.say_bytes(&burst).await;
    let (mut acked, mut came) = (0, 0);
    while acked < 256 || came < 256 {
        match ann.hear().await {
            Frame::Ack(ack) => acked += ack.iter().map(|run| run.count).sum::<u32>(),
            Frame::Deliver(deliver) => came += deliver.count,
            Frame::Subscribed(_) => {}
            other => panic!("{other:?}"),
        }
    }
    let (reads, writes) = calls.take();
    assert!(
        reads <= 3 && writes <= 3,
        "{reads} reads and {writes} writes for 64 frames of 4 messages"
    );
}

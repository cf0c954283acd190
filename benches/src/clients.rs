//! [`Pipe`]: a client on a runtime of one thread, and a broker at the other end of its socket that stores nothing,
//! acknowledges everything and delivers what was made before. Its own work for a message is next to nothing.

use std::future::{Future, poll_fn};
use std::io::{self, ErrorKind, Read, Write};
use std::os::unix::net::UnixStream as StdUnixStream;
use std::pin::{Pin, pin};
use std::sync::{Mutex, PoisonError};
use std::task::Poll;

use broker_core::net::client::{
    BoxStream, Client, Connect, Connector, Opening, Room, StartAt, Ticket,
};
use broker_proto::limits::FRAME_BYTES_MAX;
use broker_proto::record::{encode_message, encode_message_head};
use broker_proto::{
    AckWriter, Decoder, Epoch, Frame, Level, Micros, Pong, RoomId, SenderName, Seq, StoreId,
    Subscribed, Term, Welcome, ack, deliver,
};
use bytes::{Bytes, BytesMut};
use tokio::net::UnixStream;
use tokio::runtime::{Builder, Runtime};

/// Messages that are queued before any answer is waited for, at most.
pub const WINDOW: u32 = 1024;
/// Messages of one delivery.
const DELIVERED: u32 = 256;
/// Bytes that the broker reads at a time.
const READ_BYTES: usize = 64 << 10;
const EPOCH: Epoch = Epoch::new(7);

/// Connects once.
struct Once(Mutex<Option<StdUnixStream>>);

impl Connect for Once {
    fn connect(&self) -> Opening<'_> {
        let stream = self.0.lock().unwrap_or_else(PoisonError::into_inner).take();
        Box::pin(async move {
            let stream = stream.ok_or(ErrorKind::ConnectionRefused)?;
            Ok(Box::new(UnixStream::from_std(stream)?) as BoxStream)
        })
    }

    fn address(&self) -> String {
        "bench:".to_owned()
    }
}

/// See the module's documentation.
#[derive(Debug)]
pub struct Pipe {
    runtime: Runtime,
    broker: Broker,
    room: Room,
    payload: Bytes,
    tickets: Vec<Ticket>,
}

impl Pipe {
    /// A client that is connected, and sends payloads of `size` bytes.
    ///
    /// # Panics
    /// When the system has no sockets left.
    #[must_use]
    pub fn new(size: usize) -> Self {
        let (near, far) = pair().expect("a pair of sockets");
        let runtime = Builder::new_current_thread()
            .enable_all()
            .event_interval(1)
            .build()
            .expect("a runtime");
        let mut broker = Broker::new(near, size);
        let once = Connector::new(Once(Mutex::new(Some(far))));
        let connecting = Client::builder().sender("bench").connect_with(once);
        let client = drive(&runtime, &mut broker, connecting).expect("a broker that welcomes");
        Self {
            room: client.room("lobby").expect("a good name"),
            runtime,
            broker,
            payload: vec![b'x'; size].into(),
            tickets: Vec::new(),
        }
    }

    /// Sends `count` messages with one call and waits until all are answered.
    ///
    /// # Panics
    /// When one was refused.
    pub fn send_all(&mut self, count: u32) {
        let Self {
            runtime,
            broker,
            room,
            payload,
            ..
        } = self;
        let stored = drive(runtime, broker, async {
            let payloads = (0..count).map(|_| payload.clone());
            room.send_all(payloads).await?.await
        });
        let stored = stored.expect("the broker stores everything");
        assert_eq!(stored.count, count as usize);
    }

    /// Queues up to [`WINDOW`] messages with a future for each, and waits for all of them at once.
    ///
    /// # Panics
    /// When one was refused.
    pub fn send_each(&mut self, count: u32) {
        let Self {
            runtime,
            broker,
            room,
            payload,
            tickets,
        } = self;
        drive(runtime, broker, async {
            for _ in 0..count.min(WINDOW) {
                let queued = room.queue(payload.clone()).await;
                tickets.push(queued.expect("the window has room"));
            }
            poll_fn(|cx| {
                tickets.retain_mut(|ticket| match Pin::new(ticket).poll(cx) {
                    Poll::Ready(answer) => {
                        answer.expect("the broker stores everything");
                        false
                    }
                    Poll::Pending => true,
                });
                if tickets.is_empty() {
                    Poll::Ready(())
                } else {
                    Poll::Pending
                }
            })
            .await;
        });
    }

    /// Subscribes, receives [`WINDOW`] messages, and takes each of them out.
    ///
    /// # Panics
    /// When one does not come.
    pub fn receive(&mut self) {
        let Self {
            runtime,
            broker,
            room,
            ..
        } = self;
        drive(runtime, broker, async {
            let mut messages = room.subscribe(StartAt::START).await.expect("a room");
            for _ in 0..WINDOW {
                let message = messages.next_message().await;
                message.expect("a message").expect("a good message");
            }
        });
    }
}

fn pair() -> io::Result<(StdUnixStream, StdUnixStream)> {
    let (near, far) = StdUnixStream::pair()?;
    near.set_nonblocking(true)?;
    far.set_nonblocking(true)?;
    Ok((near, far))
}

/// Does the application's work while the broker answers.
fn drive<T>(runtime: &Runtime, broker: &mut Broker, work: impl Future<Output = T>) -> T {
    let mut work = pin!(work);
    runtime.block_on(poll_fn(|cx| {
        let done = work.as_mut().poll(cx);
        if done.is_pending() {
            broker.turn();
            cx.waker().wake_by_ref();
        }
        done
    }))
}

/// The other end of the socket.
#[derive(Debug)]
struct Broker {
    stream: StdUnixStream,
    decoder: Decoder,
    read: BytesMut,
    chunk: Vec<u8>,
    /// What is to be written.
    out: BytesMut,
    acks: AckWriter,
    next: u64,
    /// The bodies of the deliveries from the first message on.
    bodies: Vec<Bytes>,
}

impl Broker {
    fn new(stream: StdUnixStream, size: usize) -> Self {
        Self {
            stream,
            decoder: Decoder::new(),
            read: BytesMut::new(),
            chunk: vec![0; READ_BYTES],
            out: BytesMut::new(),
            acks: AckWriter::new(),
            next: 1,
            bodies: (0..WINDOW / DELIVERED).map(|n| records(n, size)).collect(),
        }
    }

    fn turn(&mut self) {
        loop {
            match self.stream.read(&mut self.chunk) {
                Ok(0) => break,
                Ok(bytes) => self
                    .read
                    .extend_from_slice(self.chunk.get(..bytes).unwrap_or_default()),
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                Err(error) => panic!("{error}"),
            }
        }
        while let Some(frame) = self
            .decoder
            .decode(&mut self.read, FRAME_BYTES_MAX)
            .expect("frames made by the codec")
        {
            self.answer(frame);
        }
        while !self.out.is_empty() {
            match self.stream.write(&self.out) {
                Ok(bytes) => drop(self.out.split_to(bytes)),
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                Err(error) => panic!("{error}"),
            }
        }
    }

    fn answer(&mut self, frame: Frame) {
        match frame {
            Frame::Hello(_) => Frame::from(welcome()).encode(&mut self.out),
            Frame::Ping(ping) => Frame::from(Pong { nonce: ping.nonce }).encode(&mut self.out),
            Frame::Publish(publish) => {
                self.acks.push(&ack::Run {
                    room: &publish.room,
                    epoch: EPOCH,
                    first_number: publish.first_number,
                    count: publish.count,
                    first_seq: Seq::new(self.next),
                });
                self.next += u64::from(publish.count);
                self.acks.finish(&mut self.out, Level::SYNCED, None);
            }
            Frame::Subscribe(subscribe) => self.deliver_all(subscribe.sub),
            _ => {}
        }
    }

    fn deliver_all(&mut self, sub: u32) {
        Frame::from(Subscribed {
            sub,
            epoch: EPOCH,
            first: Seq::FIRST,
            next: Seq::FIRST,
            head: Seq::new(WINDOW.into()),
        })
        .encode(&mut self.out);
        for (n, body) in (1_u32..).zip(&self.bodies) {
            let next = Seq::new(u64::from(n * DELIVERED) + 1);
            deliver::encode_head(&mut self.out, sub, DELIVERED, next, body.len());
            self.out.extend_from_slice(body);
        }
    }
}

/// The records of the `n`th delivery.
fn records(n: u32, size: usize) -> Bytes {
    let mut head = Vec::new();
    let sender = SenderName::parse("bench").expect("a good name");
    encode_message_head(&mut head, &sender, 0, &[]);
    let payload = vec![b'x'; size];
    let crc = crc32c::crc32c(&payload);
    let mut body = BytesMut::new();
    for seq in (n * DELIVERED + 1..).take(DELIVERED as usize) {
        let (room, seq, time) = (RoomId::new(5), Seq::new(seq.into()), Micros::new(9));
        encode_message(&mut body, room, seq, time, &head, &payload, crc);
    }
    body.freeze()
}

fn welcome() -> Welcome {
    Welcome {
        store: StoreId::new([7; 16]),
        term: Term::new(3),
        build: "bench".to_owned(),
        feature_level: 1,
        payload_bytes_max: 1 << 20,
        unacked_max: 4096,
        window_bytes_max: 1 << 24,
        producer_window_secs: 3600,
        pid: 1,
        auth: 0,
        nonce: [0; 16],
        connection: 1,
    }
}

//! What the client library costs: from the call of the application to the socket, and back.

use std::future::{Future, poll_fn};
use std::io;
use std::os::unix::net::UnixStream as StdUnixStream;
use std::pin::{Pin, pin};
use std::sync::{Mutex, PoisonError};
use std::task::Poll;

use broker_core::net::client::{
    BoxStream, Client, Connect, Connector, Opening, Room, StartAt, Ticket,
};
use broker_proto::record::{encode_message, encode_message_head};
use broker_proto::{
    AckWriter, Deliver, Epoch, Frame, Level, Micros, Pong, RoomId, SenderName, Seq, StoreId,
    Subscribed, Term, Welcome, ack,
};
use bytes::{Bytes, BytesMut};
use tokio::net::UnixStream;
use tokio::runtime::{Builder, Runtime};

use crate::count::{LARGE, cost, uncounted};
use crate::peer::Peer;

/// Payload of a message, in bytes.
const PAYLOAD: &[u8] = &[b'x'; 128];
const EPOCH: Epoch = Epoch::new(7);

/// Connects once.
struct Pipe(Mutex<Option<StdUnixStream>>);

impl Connect for Pipe {
    fn connect(&self) -> Opening<'_> {
        let stream = self.0.lock().unwrap_or_else(PoisonError::into_inner).take();
        Box::pin(async move {
            let stream = stream.ok_or(io::ErrorKind::ConnectionRefused)?;
            Ok(Box::new(UnixStream::from_std(stream)?) as BoxStream)
        })
    }

    fn address(&self) -> String {
        "test:".to_owned()
    }
}

/// A client on this thread, and the broker that it is connected to.
struct Connected {
    runtime: Runtime,
    client: Option<Client>,
    broker: Broker,
}

impl Connected {
    fn start() -> Self {
        let (peer, far) = Peer::pair();
        let runtime = Builder::new_current_thread()
            .enable_all()
            // Otherwise a turn in which nothing sleeps does not look at the sockets.
            .event_interval(1)
            // However busy the machine is, nobody grows impatient.
            .start_paused(true)
            .build()
            .unwrap();
        let mut connected = Self {
            runtime,
            client: None,
            broker: Broker { peer, next: 1 },
        };
        let pipe = Connector::new(Pipe(Mutex::new(Some(far))));
        let connecting = Client::builder().sender("ann").connect_with(pipe);
        connected.client = Some(connected.run(connecting).unwrap());
        connected
    }

    fn room(&self) -> Room {
        self.client.as_ref().unwrap().room("lobby").unwrap()
    }

    /// Does the application's work, while the broker answers.
    fn run<T>(&mut self, work: impl Future<Output = T>) -> T {
        let Self {
            runtime, broker, ..
        } = self;
        let mut work = pin!(work);
        runtime.block_on(poll_fn(|cx| {
            let done = work.as_mut().poll(cx);
            if done.is_pending() {
                uncounted(|| broker.answer());
                cx.waker().wake_by_ref();
            }
            done
        }))
    }
}

/// A broker that stores nothing and acknowledges everything.
struct Broker {
    peer: Peer,
    next: u64,
}

impl Broker {
    fn answer(&mut self) {
        while let Some(frame) = self.peer.hear(Some) {
            match frame {
                Frame::Hello(_) => self.peer.say(welcome()),
                Frame::Ping(ping) => self.peer.say(Pong { nonce: ping.nonce }),
                Frame::Publish(publish) => {
                    let mut acks = AckWriter::new();
                    acks.push(&ack::Run {
                        room: &publish.room,
                        epoch: EPOCH,
                        first_number: publish.first_number,
                        count: publish.count,
                        first_seq: Seq::new(self.next),
                    });
                    self.next += u64::from(publish.count);
                    self.peer.say(acks.into_frame(Level::SYNCED, None));
                }
                Frame::Subscribe(subscribe) => self.peer.say(Subscribed {
                    sub: subscribe.sub,
                    epoch: EPOCH,
                    first: Seq::FIRST,
                    next: Seq::FIRST,
                    head: Seq::NONE,
                }),
                Frame::Credit(_) => {}
                other => panic!("{other:?}"),
            }
        }
    }

    /// Delivers messages with the next seqs.
    fn deliver(&mut self, count: u32) {
        let mut head = Vec::new();
        encode_message_head(&mut head, &SenderName::parse("bob").unwrap(), 0, &[]);
        let mut body = BytesMut::new();
        let next = self.next + u64::from(count);
        for seq in self.next..next {
            let crc = crc32c::crc32c(PAYLOAD);
            let (room, seq, time) = (RoomId::new(5), Seq::new(seq), Micros::new(9));
            encode_message(&mut body, room, seq, time, &head, PAYLOAD, crc);
        }
        self.next = next;
        self.peer.say(Deliver {
            sub: 1,
            count,
            next: Seq::new(next),
            body: body.freeze(),
        });
    }
}

fn welcome() -> Welcome {
    Welcome {
        store: StoreId::new([7; 16]),
        term: Term::new(3),
        build: "peer 1".to_owned(),
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

/// Waits for all answers at once, as tasks with a message each do.
async fn all_answered(tickets: &mut Vec<Ticket>) {
    poll_fn(|cx| {
        tickets.retain_mut(|ticket| match Pin::new(ticket).poll(cx) {
            Poll::Ready(answer) => {
                answer.unwrap();
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
}

#[test]
fn a_bulk_send_costs_nothing_for_each_message() {
    let mut connected = Connected::start();
    let room = connected.room();
    let cost = cost(|messages| {
        let payloads = (0..messages).map(|_| Bytes::from_static(PAYLOAD));
        connected.run(async { room.send_all(payloads).await.unwrap().await.unwrap() });
    });
    cost.expect("client, one bulk send", 9.25, 0.05);
}

#[test]
fn a_future_for_each_message_costs_no_allocation() {
    let mut connected = Connected::start();
    let room = connected.room();
    let mut tickets = Vec::with_capacity(usize::try_from(LARGE).unwrap());
    let cost = cost(|messages| {
        connected.run(async {
            for _ in 0..messages {
                tickets.push(room.queue(Bytes::from_static(PAYLOAD)).await.unwrap());
            }
            all_answered(&mut tickets).await;
        });
    });
    cost.expect("client, a future for each message", 4.0, 0.05);
}

#[test]
fn received_messages_cost_no_allocation() {
    let mut connected = Connected::start();
    let room = connected.room();
    let mut messages = connected
        .run(async { room.subscribe(StartAt::START).await })
        .unwrap();
    let cost = cost(|count| {
        uncounted(|| connected.broker.deliver(count));
        connected.run(async {
            for _ in 0..count {
                let message = messages.next_message().await.unwrap().unwrap();
                assert_eq!(message.payload, PAYLOAD);
            }
        });
    });
    cost.expect("client, a batch received", 0.1, 0.05);
    // It goes before its client and its runtime do.
    drop(messages);
}

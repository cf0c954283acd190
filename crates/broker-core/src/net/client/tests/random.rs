//! Random histories: disconnects at any byte, late and doubled acks, against a model of a broker.
//!
//! The model stores a message once per producer and number, in order, as the real broker does. Whatever happens to the
//! connections, every send must be acknowledged, with the place that the model gave it, and stand there exactly once and in
//! order.

use std::collections::BTreeMap;
use std::time::Duration;

use broker_proto::{Frame, ProducerId, Publish};
use proptest::prelude::*;
use tokio::io::AsyncWriteExt;

use super::peer::{Listener, Peer, ack_frame, config, pipe, texts, welcome};
use crate::net::client::Client;

/// What the model has stored: of each room the payloads in order, of each producer and number the room and seq.
#[derive(Default)]
struct Model {
    rooms: BTreeMap<String, Vec<String>>,
    seen: BTreeMap<(ProducerId, u64), (String, u64)>,
}

impl Model {
    /// Stores what is new; gives the acks, number by number.
    fn store(&mut self, own: ProducerId, publish: &Publish) -> Vec<Frame> {
        let producer = publish.extensions.producer;
        let mut acks = Vec::new();
        for (number, text) in (publish.first_number..).zip(texts(publish)) {
            let room = publish.room.to_string();
            let place = self
                .seen
                .entry((producer.unwrap_or(own), number))
                .or_insert_with(|| {
                    let stored = self.rooms.entry(room.clone()).or_default();
                    stored.push(text);
                    (room, stored.len() as u64)
                });
            acks.push(ack_frame(&place.0, number, 1, place.1, producer));
        }
        acks
    }
}

/// What becomes of one connection.
#[derive(Debug, Clone)]
struct Fate {
    /// Frames that are taken before it ends; `None` = it stays.
    frames: Option<usize>,
    /// How many of the last frame's acks still leave.
    acks: usize,
    /// Bytes of the pipe, so that frames are cut anywhere.
    pipe: usize,
    /// Whether each ack comes twice.
    doubled: bool,
    /// Whether it ends before the welcome.
    mute: bool,
}

fn fate() -> impl Strategy<Value = Fate> {
    (
        0..6_usize,
        0..9_usize,
        1..400_usize,
        any::<bool>(),
        prop::bool::weighted(0.2),
    )
        .prop_map(|(frames, acks, pipe, doubled, mute)| Fate {
            frames: Some(frames),
            acks,
            pipe,
            doubled,
            mute,
        })
}

/// What the application does.
#[derive(Debug, Clone)]
enum Step {
    /// Queues so many messages to a room, one by one.
    Queue(u8, u8),
    /// Queues so many messages to a room in bulk.
    Bulk(u8, u8),
    /// Sends lines under an id.
    Lines(u8, u8),
    /// Lets others run.
    Pause,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        (0..3_u8, 1..20_u8).prop_map(|(room, count)| Step::Queue(room, count)),
        (0..3_u8, 1..60_u8).prop_map(|(room, count)| Step::Bulk(room, count)),
        (0..3_u8, 1..10_u8).prop_map(|(room, count)| Step::Lines(room, count)),
        Just(Step::Pause),
    ]
}

/// Plays the broker over all connections until the client says goodbye.
async fn serve(mut listener: Listener, fates: Vec<Fate>, unacked_max: u32) -> Model {
    let mut model = Model::default();
    let mut fates = fates.into_iter();
    loop {
        // A goodbye may have gone down with its connection.
        let Some(mut peer) = listener.try_accept().await else {
            return model;
        };
        let stays = Fate {
            frames: None,
            acks: 0,
            pipe: 0,
            doubled: false,
            mute: false,
        };
        let fate = fates.next().unwrap_or(stays);
        if fate.mute {
            continue;
        }
        let limits = broker_proto::Welcome {
            unacked_max,
            ..welcome()
        };
        peer.greet(limits).await;
        if serve_one(&mut peer, &fate, &mut model).await {
            return model;
        }
    }
}

/// Plays one connection; true when the client said goodbye.
async fn serve_one(peer: &mut Peer, fate: &Fate, model: &mut Model) -> bool {
    let mut left = fate.frames;
    while let Some(frame) = peer.try_recv().await {
        let publish = match frame {
            Frame::Publish(publish) => publish,
            Frame::Goodbye(goodbye) => {
                assert!(goodbye.forgets());
                return true;
            }
            other => panic!("{other:?}"),
        };
        let last = left == Some(0);
        left = left.map(|left| left.saturating_sub(1));
        let acks = model.store(peer.producer(), &publish);
        let leave = if last { fate.acks } else { acks.len() };
        for ack in acks.into_iter().take(leave) {
            for _ in 0..=usize::from(fate.doubled) {
                peer.send(ack.clone()).await;
            }
        }
        if last {
            let _ = peer.stream.shutdown().await;
            return false;
        }
    }
    false
}

async fn run_steps(
    client: &Client,
    steps: Vec<Step>,
) -> Result<BTreeMap<String, Vec<(u64, String)>>, TestCaseError> {
    let mut sent: BTreeMap<String, Vec<String>> = BTreeMap::new();
    let mut tickets = Vec::new();
    let mut bulks = Vec::new();
    let mut text = 0_u32;
    let mut next_text = || {
        text += 1;
        text.to_string()
    };
    for (id, step) in steps.into_iter().enumerate() {
        let (name, count) = match step {
            Step::Queue(room, count) | Step::Bulk(room, count) | Step::Lines(room, count) => {
                (format!("room{room}"), count)
            }
            Step::Pause => {
                tokio::time::sleep(Duration::from_millis(3)).await;
                continue;
            }
        };
        let room = client.room(&name).unwrap();
        let texts: Vec<String> = (0..count).map(|_| next_text()).collect();
        sent.entry(name).or_default().extend(texts.iter().cloned());
        match step {
            Step::Queue(..) => {
                for text in texts {
                    tickets.push((text.clone(), room.queue(text).await.unwrap()));
                }
            }
            Step::Lines(..) => {
                for (number, text) in (1..).zip(texts) {
                    tickets.push((
                        text.clone(),
                        room.queue_with_id(&format!("id{id}"), number, text)
                            .await
                            .unwrap(),
                    ));
                }
            }
            _ => bulks.push((texts.clone(), room.send_all(texts).await.unwrap())),
        }
    }
    let mut acked: BTreeMap<String, Vec<(u64, String)>> = BTreeMap::new();
    for (text, ticket) in tickets {
        let ack = ticket.await.unwrap();
        acked
            .entry(ack.room.to_string())
            .or_default()
            .push((ack.seq.get(), text));
    }
    for (texts, bulk) in bulks {
        let mut texts = texts.into_iter();
        for run in bulk.await.unwrap().runs {
            let seqs = run.first_seq.get()..run.first_seq.get() + u64::from(run.count);
            acked
                .entry(run.room.to_string())
                .or_default()
                .extend(seqs.zip(texts.by_ref()));
        }
        prop_assert!(
            texts.next().is_none(),
            "a message of a bulk send was not acknowledged"
        );
    }
    for (room, mut places) in acked.clone() {
        places.sort_unstable();
        let in_order: Vec<String> = places.into_iter().map(|(_, text)| text).collect();
        prop_assert_eq!(
            Some(&in_order),
            sent.get(&room),
            "the order of {} is not that of the sends",
            room
        );
    }
    Ok(acked)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, ..ProptestConfig::default() })]

    #[test]
    fn every_send_is_stored_once_and_in_order(
        steps in prop::collection::vec(step(), 1..12),
        fates in prop::collection::vec(fate(), 0..12),
        unacked_max in prop_oneof![Just(1_u32), 2..40_u32, Just(4096)],
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().start_paused(true).build().unwrap();
        runtime.block_on(async {
            let (connector, listener) = pipe(fates.first().map_or(1 << 16, |fate| fate.pipe));
            let model = tokio::spawn(serve(listener, fates, unacked_max));
            let client = config().timeout(Duration::from_secs(600)).connect_with(connector).await.unwrap();
            let acked = run_steps(&client, steps).await?;
            client.shutdown().await.unwrap();
            let model = model.await.unwrap();
            for (room, stored) in &model.rooms {
                let mut places = acked.get(room).cloned().unwrap_or_default();
                places.sort_unstable();
                let expected: Vec<(u64, String)> = (1..).zip(stored.iter().cloned()).collect();
                prop_assert_eq!(&places, &expected, "room {}", room);
            }
            Ok(())
        })?;
    }
}

//! The publishing half of a session: checks, hands on, counts, and tells the outcome.
//!
//! A publish frame becomes ONE [`Append`] whose entries are the received bytes. What the session
//! refuses itself it tells the store as a hole, so that the numbers after it are known to follow.
//! Acks collect over a turn, consecutive runs of a room merge, and leave in one frame.

use std::collections::VecDeque;

use broker_proto::{
    AckWriter, ErrorCode, Kind, ProducerId, Publish, Refused, SenderName, ack, publish, record,
};
use bytes::Bytes;

use super::turn::{Fault, Turn};
use crate::store::{AckRun, Append, Busy, ProducerKey, Store};

/// When to try again what was refused because the server leaves, in milliseconds.
const LEAVING_RETRY_MS: u32 = 10;

/// Who publishes over this connection.
#[derive(Debug)]
pub(super) struct Publisher {
    /// The connection's own producer, claimed by its hello.
    pub(super) key: ProducerKey,
    /// The encoded head of a message without extensions, with the sender in it.
    pub(super) head: Bytes,
}

/// What is on its way through this connection.
#[derive(Debug, Default)]
pub(super) struct Publishing {
    /// Numbers handed to the store or waiting for it, without an outcome yet.
    unacked: u32,
    /// Appends that found the store's queue full, oldest first.
    stalled: VecDeque<Append>,
    /// Outcomes of this turn.
    acked: Vec<(ProducerId, AckRun)>,
    /// Its memory is used again from turn to turn.
    writer: AckWriter,
    /// No new publishes: the server is about to leave.
    leaving: bool,
}

impl Publishing {
    /// Whether an append waits for space, so that nothing more may be read from the peer.
    pub(super) fn is_stalled(&self) -> bool {
        !self.stalled.is_empty()
    }

    /// Whether every publish has been answered.
    pub(super) fn is_settled(&self) -> bool {
        self.unacked == 0 && self.acked.is_empty()
    }

    /// Refuses new publishes from here on.
    pub(super) fn leave(&mut self) {
        self.leaving = true;
    }

    /// Takes one publish frame.
    pub(super) fn publish<S: Store>(
        &mut self,
        turn: &mut Turn<'_, S>,
        who: &Publisher,
        frame: Publish,
    ) -> Result<(), Fault> {
        if self.leaving {
            // Not a hole: the same numbers are welcome at the next leader.
            let detail = "this server is handing over; resend to the next one".to_owned();
            refuse(
                turn,
                &frame,
                ErrorCode::GOING_AWAY,
                detail,
                LEAVING_RETRY_MS,
            );
            return Ok(());
        }
        match self.check(turn, &frame) {
            Ok(()) => self.append(turn, who, frame),
            Err(Refusal::Frame(fault)) => return Err(fault),
            Err(Refusal::Numbers(code, detail)) => {
                let key = who.key_of(&frame);
                turn.store
                    .hole(&key, turn.session, frame.first_number, frame.count);
                refuse(turn, &frame, code, detail, 0);
            }
        }
        Ok(())
    }

    /// Everything that is decided without the store.
    fn check<S: Store>(&self, turn: &Turn<'_, S>, frame: &Publish) -> Result<(), Refusal> {
        let max = turn.terms.unacked_max;
        if self.unacked >= max || frame.count > max {
            return Err(Refusal::Numbers(
                ErrorCode::LIMIT,
                format!(
                    "{} numbers of this connection are unacknowledged and {} more came; the limit is {max}",
                    self.unacked, frame.count
                ),
            ));
        }
        if frame.room.is_reserved() {
            let detail = format!("room {} belongs to the broker", frame.room);
            return Err(Refusal::Numbers(ErrorCode::RESERVED_NAME, detail));
        }
        publish::check(&frame.body, frame.count, turn.payload_bytes_max).map_err(|error| {
            let code = error.code();
            if code == ErrorCode::BAD_FRAME {
                Refusal::Frame(Fault::new(code, Kind::Publish, error.to_string()))
            } else {
                Refusal::Numbers(code, error.to_string())
            }
        })
    }

    fn append<S: Store>(&mut self, turn: &mut Turn<'_, S>, who: &Publisher, frame: Publish) {
        self.unacked += frame.count;
        let append = Append {
            session: turn.session,
            key: who.key_of(&frame),
            claimed: frame.extensions.producer.is_none(),
            room: frame.room,
            first_number: frame.first_number,
            count: frame.count,
            head: who.head.clone(),
            entries: frame.body,
            expected_head: frame.extensions.expected_head,
            resend: frame.extensions.resend,
        };
        if self.is_stalled() {
            self.stalled.push_back(append);
        } else if let Err(Busy(append)) = turn.store.append(append, turn.mailbox) {
            self.stalled.push_back(append);
        }
    }

    /// The store has space again.
    pub(super) fn space<S: Store>(&mut self, turn: &Turn<'_, S>) {
        while let Some(append) = self.stalled.pop_front() {
            if let Err(Busy(append)) = turn.store.append(append, turn.mailbox) {
                self.stalled.push_front(append);
                return;
            }
        }
    }

    /// Messages are durable; told at the end of the turn.
    pub(super) fn acked(&mut self, producer: ProducerId, run: AckRun) {
        self.unacked = self.unacked.saturating_sub(run.count);
        if let Some((last_producer, last)) = self.acked.last_mut()
            && *last_producer == producer
            && follows(last, &run)
        {
            last.count += run.count;
            return;
        }
        self.acked.push((producer, run));
    }

    /// Messages were not stored.
    pub(super) fn refused<S: Store>(
        &mut self,
        turn: &mut Turn<'_, S>,
        own: &ProducerId,
        refused: Refused,
    ) {
        self.unacked = self.unacked.saturating_sub(refused.count);
        let producer = refused.producer.filter(|producer| producer != own);
        turn.answer_publish(&Refused {
            producer,
            ..refused
        });
    }

    /// Tells the acks of this turn: one frame a producer and level, nearly always one in all.
    pub(super) fn flush<S: Store>(&mut self, turn: &mut Turn<'_, S>, own: &ProducerId) {
        if self.acked.is_empty() {
            return;
        }
        for group in self
            .acked
            .chunk_by(|one, next| one.0 == next.0 && one.1.level == next.1.level)
        {
            let Some((producer, AckRun { level, .. })) = group.first() else {
                continue;
            };
            for (_, run) in group {
                self.writer.push(&ack::Run {
                    room: &run.room,
                    epoch: run.epoch,
                    first_number: run.first_number,
                    count: run.count,
                    first_seq: run.first_seq,
                });
            }
            self.writer.finish(
                turn.out.control(),
                *level,
                Some(producer).filter(|id| *id != own),
            );
        }
        self.acked.clear();
        turn.ack_queued();
    }
}

/// Why a publish goes no further than the session.
enum Refusal {
    /// The frame is no publish at all.
    Frame(Fault),
    /// Its numbers are used up without being stored.
    Numbers(ErrorCode, String),
}

impl Publisher {
    /// The publisher that a hello names.
    pub(super) fn new(sender: SenderName, producer: ProducerId) -> Self {
        let mut head = Vec::new();
        record::encode_message_head(&mut head, &sender, 0, &[]);
        Self {
            key: ProducerKey { sender, producer },
            head: head.into(),
        }
    }

    /// Whose numbers a publish has: the connection's own, or those of the key it names.
    fn key_of(&self, frame: &Publish) -> ProducerKey {
        let producer = frame.extensions.producer.unwrap_or(self.key.producer);
        ProducerKey {
            sender: self.key.sender.clone(),
            producer,
        }
    }
}

/// Whether `next` goes on where `last` ends, in numbers and in seqs.
fn follows(last: &AckRun, next: &AckRun) -> bool {
    let count = u64::from(last.count);
    last.first_number.checked_add(count) == Some(next.first_number)
        && last.first_seq.get().checked_add(count) == Some(next.first_seq.get())
        && last.epoch == next.epoch
        && last.level == next.level
        && last.room == next.room
        && last.count.checked_add(next.count).is_some()
}

/// Answers a publish that goes no further.
fn refuse<S: Store>(
    turn: &mut Turn<'_, S>,
    frame: &Publish,
    code: ErrorCode,
    detail: String,
    retry_after_ms: u32,
) {
    turn.answer_publish(&Refused {
        first_number: frame.first_number,
        count: frame.count,
        code,
        detail,
        retry_after_ms,
        producer: frame.extensions.producer,
    });
}

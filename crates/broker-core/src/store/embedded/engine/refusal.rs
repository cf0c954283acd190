//! What a batch that could not be written leaves behind: nothing, and an honest word to everybody.

use broker_proto::ErrorCode;

use super::super::super::producers::{Known, Producer};
use super::super::super::sequencer::Refusal;
use super::super::super::{AckRun, StoreError};
use super::Engine;
use super::asks::refused;
use crate::log::WriteFault;
use crate::log::storage::Storage;
use crate::planted::{Bug, planted};

/// How long a publisher should wait before it tries again on a full disk.
const NO_SPACE_RETRY_MS: u32 = 1000;

impl<S: Storage> Engine<S> {
    /// The batch is not durable and never will be, or nobody knows: nothing of it happened.
    pub(super) fn give_up(&mut self, fault: &WriteFault) {
        self.note_segment();
        self.sequencer.rollback();
        // What a checkpoint had so far refers to state that stays; a lost piece ends it.
        if let Some(ended) = self.checkpoint.take() {
            // Who asked for it may ask again.
            self.shared.keep.note_missed();
            if planted(Bug::NoSpaceIgnoredOnCheckpoint) {
                self.writer.checkpoint = ended.begin;
            }
        }
        // ... and the next one waits for its turn, rather than meet the same full disk at once.
        self.last_checkpoint.1 = self.writer.end();
        let (code, detail, error) = match fault {
            WriteFault::NoSpace(error) => (
                ErrorCode::NO_SPACE,
                format!("the disk is full: {error}"),
                None,
            ),
            WriteFault::NoSpaceUnknown(error) => (
                ErrorCode::IN_DOUBT,
                format!(
                    "the disk was full in the middle of a write ({error}); the message may appear after a restart"
                ),
                None,
            ),
            WriteFault::Failed(error) => {
                let reason = format!(
                    "the disk failed: {error}; check the disk, then start the broker again"
                );
                (
                    ErrorCode::IN_DOUBT,
                    format!("{reason}; the message may appear after a restart"),
                    Some(reason),
                )
            }
        };
        if let Some(reason) = error {
            self.shared.set_read_only(reason);
        }
        self.refuse_appends(code, &detail);
        self.refuse_cursors(fault, &detail);
        self.refuse_asked(fault, &detail);
        self.relaxed_moves.clear();
    }

    fn refuse_appends(&mut self, code: ErrorCode, detail: &str) {
        for admitted in &mut self.admitted {
            let decision = &mut admitted.decision;
            let mut refuse = |first_number, count| {
                decision.refused.push(Refusal {
                    first_number,
                    count,
                    code,
                    detail: detail.to_owned(),
                    retry_after_ms: match code {
                        ErrorCode::NO_SPACE => NO_SPACE_RETRY_MS,
                        _ => 0,
                    },
                });
            };
            if let Some(placed) = decision.placed.take() {
                refuse(placed.first_number, placed.count);
            }
            // What was known may have been known from this very batch.
            let producer = self.sequencer.producers.get(&admitted.append.key);
            for run in std::mem::take(&mut decision.known) {
                let stored = producer.map_or(0, |producer| stored_count(producer, &run));
                if stored < run.count {
                    let first = run.first_number + u64::from(stored);
                    refuse(first, run.count - stored);
                }
                if stored > 0 {
                    decision.known.push(AckRun {
                        count: stored,
                        ..run
                    });
                }
            }
        }
    }

    fn refuse_cursors(&mut self, fault: &WriteFault, detail: &str) {
        for moved in &mut self.cursor_moves {
            if let Some(asked) = &moved.asked {
                // It may have been moved in this very batch.
                moved.result = Ok(self.sequencer.stand(asked).map(|stand| stand.at));
            }
            let conflict = matches!(moved.result, Err(StoreError::Conflict { .. }));
            if moved.key.take().is_some() || conflict {
                moved.result = Err(refused(fault, detail));
            }
        }
    }
}

/// How many messages at the front of a run are stored for certain.
fn stored_count(producer: &Producer, run: &AckRun) -> u32 {
    match producer.look_up(run.first_number) {
        Known::Stored { count, .. } => u32::try_from(count).map_or(run.count, |n| n.min(run.count)),
        _ => 0,
    }
}

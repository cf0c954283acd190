//! Bugs planted on purpose, to prove that the tests catch them.
//!
//! They exist only under `--cfg broker_planted_bugs`, are chosen at run time, one at a time, by the
//! environment variable `BROKER_PLANTED_BUG`, and are constantly absent from every other build.

/// A bug that a test has to catch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Bug {
    /// Acknowledges without a sync what does not begin a segment.
    AckBeforeSync,
    /// Never syncs the directory after a new segment.
    NoDirectorySync,
    /// Syncs again after a failed sync, and believes the answer.
    SyncAgainAfterError,
    /// Appends behind an unproven tail instead of copying it into a new segment.
    TrustTail,
    /// Ends the log at the first bad batch, whatever later batches say.
    TruncateAtFirstBad,
    /// Never says what is durable.
    DurableUptoNeverAdvances,
    /// Starts a leadership with the term of the one before.
    TermNotRaised,
    /// Loses the producers' windows at a restart.
    ProducersForgotten,
    /// Loads files whose names only begin like a segment's.
    TemporaryFileLoaded,
    /// Gives a new segment its name before its first batch is synced.
    NoSyncAtRoll,
    /// Goes on behind the torn bytes of a write that was cut short, in the same segment.
    AppendBehindTornTail,
    /// Passes over a batch by the length in its head although the head's checksum is wrong.
    LengthBeforeChecksum,
    /// Leaves the length out of the checksum of a batch's head.
    LengthNotInChecksum,
    /// Shows a batch to readers, and syncs it then.
    DeliveredBeforeDurable,
    /// Gives seqs again that may have been given in a part of the log that is lost.
    SeqReusedAfterLoss,
    /// Deletes a segment whose header cannot be read, and goes on without it.
    UnreadableDeleted,
    /// Takes a checkpoint for complete although the disk had no space for a piece of it.
    NoSpaceIgnoredOnCheckpoint,
    /// Believes a footer as far as it goes, as if the disk had had space for all of it.
    NoSpaceIgnoredOnIndex,
    /// Takes a write for done of which the system took only a part.
    ShortWriteIgnored,
    /// Goes on behind damage with whatever looks like the head of a batch, under any marker.
    ResyncUnchecked,
    /// Looks whether there is work, and goes to sleep a moment later.
    WakeupLost,
    /// Syncs the spare in place of the file that was written.
    SyncOfAnotherFile,
    /// Takes over what can be read of a checkpoint of which a piece is missing.
    CheckpointBelievedInPart,
    /// Takes the mark of a segment that was begun to cut off another one for one that proves the end.
    CutMarkIgnored,
    /// Believes an early footer whose end nothing in the segment vouches for.
    FooterBeyondProven,
    /// Takes a batch to lie where it is found, wherever it says that it belongs.
    PositionUnchecked,
    /// Serves records from the disk without a look at their checksums.
    ServedUnchecked,
    /// Stores what is sent again without comparing it with the messages in doubt.
    ResendRuleOff,
    /// Writes a mark whose sync failed into a new segment as it was.
    SecondMarkVouches,
    /// Shows readers that a room was trimmed before the record of it is durable.
    TrimNotSynced,
    /// Gives a segment that was written anew its name before it is synced.
    PackedUnsynced,
    /// Deletes segments before the one that stands for them has its name.
    DeletedBeforeRename,
    /// Deletes segments of which the state is not in two checkpoints yet.
    DeletedUncovered,
    /// Loads segments that another one stands for.
    SupersededLoaded,
    /// Believes that a segment has its name as long as the page cache says so, and deletes those that it stands for.
    UnsafeNameBelieved,
    /// A leader that leaves releases the lock before the store is closed.
    #[cfg(feature = "net")]
    LockDroppedBeforeLastWrite,
    /// A leader that hands over goes on writing after it has passed the lock.
    #[cfg(feature = "net")]
    EstateKept,
    /// Leads when nobody listens, whoever holds the lock.
    PortAsArbiter,
    /// A client gives a publish a new number when it sends it again on a new connection.
    #[cfg(feature = "net")]
    ResendUnderNewNumber,
    /// A client resumes a subscription one message after its place, and believes that this is its place.
    #[cfg(feature = "net")]
    ResumeOneLate,
    /// A client says that a message was not sent although it was.
    #[cfg(feature = "net")]
    SentSaidUnsent,
}

#[cfg(broker_planted_bugs)]
impl Bug {
    const ALL: &'static [(Self, &'static str)] = &[
        (Self::AckBeforeSync, "ack_before_sync"),
        (Self::NoDirectorySync, "no_directory_sync"),
        (Self::SyncAgainAfterError, "sync_again_after_error"),
        (Self::TrustTail, "trust_tail"),
        (Self::TruncateAtFirstBad, "truncate_at_first_bad"),
        (
            Self::DurableUptoNeverAdvances,
            "durable_upto_never_advances",
        ),
        (Self::TermNotRaised, "term_not_raised"),
        (Self::ProducersForgotten, "producers_forgotten"),
        (Self::TemporaryFileLoaded, "temporary_file_loaded"),
        (Self::NoSyncAtRoll, "no_sync_at_roll"),
        (Self::AppendBehindTornTail, "append_behind_torn_tail"),
        (Self::LengthBeforeChecksum, "length_before_checksum"),
        (Self::LengthNotInChecksum, "length_not_in_checksum"),
        (Self::DeliveredBeforeDurable, "delivered_before_durable"),
        (Self::SeqReusedAfterLoss, "seq_reused_after_loss"),
        (Self::UnreadableDeleted, "unreadable_deleted"),
        (
            Self::NoSpaceIgnoredOnCheckpoint,
            "no_space_ignored_on_checkpoint",
        ),
        (Self::NoSpaceIgnoredOnIndex, "no_space_ignored_on_index"),
        (Self::ShortWriteIgnored, "short_write_ignored"),
        (Self::ResyncUnchecked, "resync_unchecked"),
        (Self::WakeupLost, "wakeup_lost"),
        (Self::SyncOfAnotherFile, "sync_of_another_file"),
        (
            Self::CheckpointBelievedInPart,
            "checkpoint_believed_in_part",
        ),
        (Self::CutMarkIgnored, "cut_mark_ignored"),
        (Self::FooterBeyondProven, "footer_beyond_proven"),
        (Self::PositionUnchecked, "position_unchecked"),
        (Self::ServedUnchecked, "served_unchecked"),
        (Self::ResendRuleOff, "resend_rule_off"),
        (Self::SecondMarkVouches, "second_mark_vouches"),
        (Self::TrimNotSynced, "trim_not_synced"),
        (Self::PackedUnsynced, "packed_unsynced"),
        (Self::DeletedBeforeRename, "deleted_before_rename"),
        (Self::DeletedUncovered, "deleted_uncovered"),
        (Self::SupersededLoaded, "superseded_loaded"),
        (Self::UnsafeNameBelieved, "unsafe_name_believed"),
        #[cfg(feature = "net")]
        (
            Self::LockDroppedBeforeLastWrite,
            "lock_dropped_before_last_write",
        ),
        #[cfg(feature = "net")]
        (Self::EstateKept, "estate_kept"),
        (Self::PortAsArbiter, "port_as_arbiter"),
        #[cfg(feature = "net")]
        (Self::ResendUnderNewNumber, "resend_under_new_number"),
        #[cfg(feature = "net")]
        (Self::ResumeOneLate, "resume_one_late"),
        #[cfg(feature = "net")]
        (Self::SentSaidUnsent, "sent_said_unsent"),
    ];
}

/// Whether this bug is to show itself.
#[cfg(broker_planted_bugs)]
pub(crate) fn planted(bug: Bug) -> bool {
    use std::sync::OnceLock;
    static CHOSEN: OnceLock<Option<Bug>> = OnceLock::new();
    let chosen = CHOSEN.get_or_init(|| {
        let name = std::env::var("BROKER_PLANTED_BUG").ok()?;
        Bug::ALL
            .iter()
            .find(|(_, known)| *known == name)
            .map(|(bug, _)| *bug)
    });
    *chosen == Some(bug)
}

/// Whether this bug is to show itself.
#[cfg(not(broker_planted_bugs))]
#[inline(always)]
pub(crate) fn planted(_: Bug) -> bool {
    false
}

//! Bugs planted on purpose, to prove that the tests catch them.
//!
//! They exist only under `--cfg broker_planted_bugs`, are chosen at run time, one at a time, by the
//! environment variable `BROKER_PLANTED_BUG`, and are constantly absent from every other build.

/// A bug that a test has to catch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Bug {
    /// Acknowledges without a sync.
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
    /// Releases the lock before the store is closed.
    LockDroppedBeforeLastWrite,
    /// Leads when nobody listens, whoever holds the lock.
    PortAsArbiter,
}

#[cfg(broker_planted_bugs)]
impl Bug {
    const ALL: [(Self, &'static str); 11] = [
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
        (
            Self::LockDroppedBeforeLastWrite,
            "lock_dropped_before_last_write",
        ),
        (Self::PortAsArbiter, "port_as_arbiter"),
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
            .into_iter()
            .find(|(_, known)| *known == name)
            .map(|(bug, _)| bug)
    });
    *chosen == Some(bug)
}

/// Whether this bug is to show itself.
#[cfg(not(broker_planted_bugs))]
#[inline(always)]
pub(crate) fn planted(_: Bug) -> bool {
    false
}

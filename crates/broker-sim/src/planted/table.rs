//! Which bugs there are, and which test has to catch each.

use crate::report::Target;

/// One executable with bugs in it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Build {
    /// The tests of this crate.
    Simulation,
    /// The tests within `broker-core`.
    Units,
    /// Those that explore the schedules of threads.
    Schedules,
}

impl Build {
    pub(super) fn target(self) -> Target {
        let planted = "--cfg broker_planted_bugs";
        match self {
            Self::Simulation => Target {
                package: "broker-sim",
                which: &["--test", "it"],
                args: &["--target-dir", "target/planted"],
                rustflags: Some(planted),
            },
            Self::Units => Target {
                package: "broker-core",
                which: &["--lib"],
                args: &["--target-dir", "target/planted"],
                rustflags: Some(planted),
            },
            Self::Schedules => Target {
                package: "broker-core",
                which: &["--test", "schedules"],
                args: &["--no-default-features", "--target-dir", "target/planted"],
                rustflags: Some("--cfg broker_planted_bugs --cfg broker_schedules"),
            },
        }
    }
}

/// One test.
#[derive(Debug)]
pub(super) struct Test {
    pub(super) build: Build,
    pub(super) name: &'static str,
    /// How deep it goes here, where that is not as deep as on every change.
    pub(super) settings: &'static [(&'static str, &'static str)],
}

impl Test {
    const fn simulation(name: &'static str) -> Self {
        Self {
            build: Build::Simulation,
            name,
            settings: &[],
        }
    }

    const fn schedules(name: &'static str) -> Self {
        Self {
            build: Build::Schedules,
            name,
            settings: &[("BROKER_SCHEDULES", "20000")],
        }
    }
}

static MATRIX: Test = Test {
    settings: &[("BROKER_SIM_STATES", "40000")],
    ..Test::simulation("crash_matrix::sim_crash_matrix")
};
static DAMAGE: Test = Test::simulation("rot::damage_is_told_and_never_served");
static LIES: Test = Test::simulation("fsync_lies::fsync_lies");
static NETWORK: Test = Test {
    settings: &[("BROKER_NET_SEEDS", "60")],
    ..Test::simulation("net_sim::net_sim")
};
static HANDOVERS: Test =
    Test::simulation("kill9_takeover::a_handover_survives_the_death_of_either_side");
static LENGTHS: Test =
    Test::simulation("beliefs::a_length_is_believed_only_when_its_checksum_is_right");
static PLACES: Test = Test::simulation("beliefs::a_head_in_another_place_is_not_one_of_that_place");
static UNREADABLE: Test =
    Test::simulation("beliefs::a_segment_that_cannot_be_read_is_refused_and_stays");
static CHECKPOINTS: Test = Test::simulation("beliefs::a_checkpoint_counts_whole_or_not_at_all");
static FORGED: Test = Test::simulation("beliefs::a_payload_does_not_pass_for_a_batch");
static FOOTERS: Test = Test::simulation("early_footers::footers_change_nothing_but_the_time");
static NAMES: Test =
    Test::simulation("regressions::a_segment_whose_name_is_not_safe_yet_is_not_gone_on_in");
static UNSAFE_NAMES: Test =
    Test::simulation("regressions::a_rewritten_segment_whose_name_may_be_lost_does_not_count");
static MARKS: Test = Test::simulation(
    "regressions::a_mark_that_was_written_a_second_time_does_not_vouch_for_its_segment",
);
static RESENDS: Test =
    Test::simulation("regressions::a_resend_is_not_stored_twice_when_its_numbers_were_lost");
static SHORT_WRITES: Test = Test {
    build: Build::Units,
    name: "log::storage::file::tests::short_writes_continue",
    settings: &[],
};
static LOCK: Test = Test {
    build: Build::Units,
    name: "dir::tests::only_one_holds_the_lock_and_the_other_learns_who",
    settings: &[],
};
static COMMITS: Test = Test::schedules("cases::group_commit");
static WATCHES: Test = Test::schedules("cases::a_watch_is_never_missed");

/// A bug, and what has to catch it.
#[derive(Debug)]
pub(super) struct Planted {
    pub(super) name: &'static str,
    pub(super) promise: &'static str,
    pub(super) test: &'static Test,
    /// The failure has to say one of these.
    pub(super) says: &'static [&'static str],
}

const fn bug(
    name: &'static str,
    promise: &'static str,
    test: &'static Test,
    says: &'static [&'static str],
) -> Planted {
    Planted {
        name,
        promise,
        test,
        says,
    }
}

/// A promise that does not hold, of whatever kind.
const LOST: &str = "BROKEN(lost ack)";
const SILENT: &str = "BROKEN(silent corruption)";
const DOUBLED: &str = "BROKEN(doubled or reordered)";
/// Recovery tells of damage on a disk that did none.
const FALSE_ALARM: &str = "damaged and nothing did it";
/// A leader does not know of the one before it.
const FORGOTTEN: &str = "the term is";
/// A client of the next leader knows more than that.
const TAKEN_BACK: &str = "has lost messages";
const UNOPENED: &str = "the store cannot be opened";

/// All of them.
pub(super) static BUGS: [Planted; 41] = [
    bug("ack_before_sync", "P1", &MATRIX, &[LOST, FALSE_ALARM]),
    bug("no_directory_sync", "P1", &MATRIX, &[LOST, FORGOTTEN]),
    bug("no_sync_at_roll", "P1", &MATRIX, &[LOST, UNOPENED]),
    bug("sync_of_another_file", "P1", &MATRIX, &[LOST, FALSE_ALARM]),
    bug(
        "sync_again_after_error",
        "P4",
        &LIES,
        &[LOST, FALSE_ALARM, UNOPENED],
    ),
    bug(
        "short_write_ignored",
        "P1",
        &SHORT_WRITES,
        &["assertion `left == right` failed"],
    ),
    bug(
        "delivered_before_durable",
        "P3",
        &WATCHES,
        &["delivered before it was durable"],
    ),
    bug("wakeup_lost", "P2", &COMMITS, &["deadlock"]),
    bug("durable_upto_never_advances", "P6", &MATRIX, &[FALSE_ALARM]),
    bug(
        "trust_tail",
        "P4",
        &MATRIX,
        &[LOST, FALSE_ALARM, "tells of damage"],
    ),
    bug(
        "append_behind_torn_tail",
        "P1",
        &MATRIX,
        &[LOST, FALSE_ALARM],
    ),
    bug("cut_mark_ignored", "P4", &NAMES, &[LOST, FORGOTTEN]),
    bug("second_mark_vouches", "P4", &MARKS, &[LOST, FORGOTTEN]),
    bug("truncate_at_first_bad", "P6", &DAMAGE, &[LOST, SILENT]),
    bug("length_before_checksum", "P6", &LENGTHS, &[LOST, SILENT]),
    bug("length_not_in_checksum", "P6", &LENGTHS, &[LOST, SILENT]),
    bug("position_unchecked", "P6", &PLACES, &[LOST, SILENT]),
    bug("resync_unchecked", "P6", &FORGED, &[LOST, SILENT]),
    bug("served_unchecked", "P6", &DAMAGE, &[SILENT]),
    bug("seq_reused_after_loss", "P6", &DAMAGE, &[SILENT, DOUBLED]),
    bug(
        "unreadable_deleted",
        "P6",
        &UNREADABLE,
        &["the store is opened"],
    ),
    bug("temporary_file_loaded", "P6", &MATRIX, &[UNOPENED]),
    bug("checkpoint_believed_in_part", "P1", &CHECKPOINTS, &[LOST]),
    bug(
        "footer_beyond_proven",
        "P1",
        &FOOTERS,
        &[LOST, SILENT, FALSE_ALARM],
    ),
    bug(
        "no_space_ignored_on_checkpoint",
        "P5",
        &MATRIX,
        &[FALSE_ALARM],
    ),
    bug(
        "no_space_ignored_on_index",
        "P5",
        &MATRIX,
        &["tells of damage"],
    ),
    bug("trim_not_synced", "P3", &MATRIX, &["shows seq"]),
    bug(
        "packed_unsynced",
        "P1",
        &MATRIX,
        &[LOST, FALSE_ALARM, UNOPENED],
    ),
    bug("deleted_before_rename", "P1", &MATRIX, &[LOST, FALSE_ALARM]),
    bug("deleted_uncovered", "P1", &MATRIX, &[LOST, FALSE_ALARM]),
    bug("superseded_loaded", "P6", &MATRIX, &[UNOPENED, FALSE_ALARM]),
    bug(
        "unsafe_name_believed",
        "P4",
        &UNSAFE_NAMES,
        &["left == right"],
    ),
    bug("producers_forgotten", "P9", &MATRIX, &[DOUBLED]),
    bug("resend_rule_off", "P9", &RESENDS, &["left == right"]),
    bug("term_not_raised", "P7", &MATRIX, &[FORGOTTEN]),
    bug(
        "lock_dropped_before_last_write",
        "P7",
        &HANDOVERS,
        &[TAKEN_BACK],
    ),
    bug("estate_kept", "P7", &HANDOVERS, &[TAKEN_BACK]),
    bug("port_as_arbiter", "P7", &LOCK, &["on an `Ok` value: Lock"]),
    bug(
        "resend_under_new_number",
        "P9",
        &NETWORK,
        &["is twice in room"],
    ),
    bug(
        "resume_one_late",
        "P3",
        &NETWORK,
        &["the subscription to room"],
    ),
    bug(
        "sent_said_unsent",
        "P9",
        &NETWORK,
        &["was said not to be stored"],
    ),
];

#[cfg(test)]
mod tests {
    use super::BUGS;

    /// The words in quotes between two lines of the file that plants the bugs.
    fn planted() -> Vec<&'static str> {
        let file = include_str!("../../../broker-core/src/planted.rs");
        let list = file.split_once("const ALL").map_or("", |(_, rest)| rest);
        let list = list.split_once("];").map_or("", |(list, _)| list);
        let quoted = list.split('"').skip(1).step_by(2);
        quoted.filter(|word| word.contains('_')).collect()
    }

    #[test]
    fn all_planted_bugs_are_tried() {
        let mut tried: Vec<&str> = BUGS.iter().map(|bug| bug.name).collect();
        let mut planted = planted();
        tried.sort_unstable();
        planted.sort_unstable();
        assert_eq!(planted, tried);
    }
}

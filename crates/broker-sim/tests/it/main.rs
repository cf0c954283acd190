//! The log against a hostile disk, and real processes that are killed.
#![expect(
    clippy::print_stdout,
    reason = "a test tells its seed and how much it tried"
)]

mod beliefs;
mod big_log;
mod bitrot;
mod crash_matrix;
mod detectors_fire;
mod early_footers;
mod exhaustive_small;
mod fleets;
mod forge;
mod fsync_lies;
mod full_disk;
mod golden;
mod histories;
mod kill9_takeover;
mod net_sim;
mod powercut;
mod recovery_crashes;
mod regressions;
mod reserve;
mod rot;
mod stampede;
mod syscall_kill_points;
mod takeover_steps;
mod truth_table;

use broker_sim::campaign::setting;

//! The log against a hostile disk, and real processes that are killed.
#![expect(
    clippy::print_stdout,
    reason = "a test tells its seed and how much it tried"
)]

mod beliefs;
mod big_log;
mod crash_matrix;
mod detectors_fire;
mod exhaustive_small;
mod fleets;
mod fsync_lies;
mod histories;
mod kill9_takeover;
mod net_sim;
mod recovery_crashes;
mod regressions;
mod reserve;
mod rot;
mod stampede;
mod takeover_steps;

use broker_sim::campaign::setting;

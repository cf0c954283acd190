//! Surroundings for testing the broker: a hostile disk, a hostile network and numbers that repeat for a seed, and fleets of real
//! processes that are killed. Not published.
//!
//! On the simulated disk the log is attacked: [`crash_matrix`] cuts the power at every moment of many [`workload`]s, [`exhaustive`]
//! tries every end of small ones, [`recovery_crashes`] cuts off leaders that are only beginning, in [`fsync_lies`] syncs fail once and
//! then lie, [`early_footers`] compares starts with and without them, [`rot`] damages what was stored and [`bitrot`] every bit of a segment, and the [`oracle`] knows what must be true all the same. [`workers`] spread them over the
//! cores. [`net_sim`] puts server and clients on the
//! network. A [`fleet`] starts [`agent`]s as real processes, which write down what they do and see; their [`history`] is checked as
//! a whole. Real file systems, full disks and single system calls are the matter of [`kernel`]. What to run, and for how long:
//!
//! ```text
//! cargo test -p broker-sim                                      seconds; prints seed and number of states
//! BROKER_SIM_STATES=1000000 BROKER_SIM_STRIKES=100000 BROKER_SEED=7 cargo test -p broker-sim --test it -- --nocapture
//! BROKER_NET_SEEDS=20000 BROKER_SEED=7 cargo test -p broker-sim --test it net_sim -- --nocapture
//! BROKER_TAKEOVER_KILLS=3000 BROKER_STAMPEDE_ROUNDS=1000 cargo test -p broker-sim --test it -- --nocapture takeover stampede
//! cargo run --release -p broker-sim -- report                   runs everything and prints one page of what was tried and found
//! cargo run --release -p broker-sim --bin takeover              kills leaders and prints how long nobody was answered
//! cargo run --release -p broker-sim --bin powercut -- fs --cuts 3000   cuts the power of real file systems; needs root
//! cargo run -p broker-sim --bin planted                         plants bugs and shows which test catches each
//! ```
//!
//! **Invariant:** outside [`agent`], [`fleet`], [`kernel`], [`report`] and the files of [`history`] nothing in this library reads a clock, asks for real
//! random numbers or touches a real disk or network; there a seed repeats any run.

pub mod agent;
pub mod bitrot;
pub mod campaign;
pub mod crash_matrix;
pub mod disk;
pub mod early_footers;
pub mod exhaustive;
pub mod fleet;
pub mod forge;
pub mod fsync_lies;
pub mod golden;
pub mod history;
pub mod kernel;
pub mod net_sim;
pub mod oracle;
pub mod planted;
pub mod recovery_crashes;
pub mod report;
pub mod rig;
pub mod rng;
pub mod rot;
pub mod truth_table;
pub mod workers;
pub mod workload;

pub use disk::{CrashMode, Errno, Fault, Injuries, Injury, SimDisk, SimFile, Tear};
pub use rng::Rng;

//! Simulated surroundings for testing the broker: a hostile disk, and numbers that repeat for a seed. Not published.
//!
//! **Invariant:** nothing here reads a clock, asks for real random numbers or touches a real disk; a seed repeats any run.

pub mod crash_matrix;
pub mod disk;
pub mod oracle;
pub mod rig;
pub mod rng;
pub mod rot;
pub mod workload;

pub use disk::{CrashMode, Errno, Fault, SimDisk, SimFile, Tear};
pub use rng::Rng;

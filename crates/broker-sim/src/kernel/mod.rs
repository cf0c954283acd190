//! The log against a real kernel: file systems that lose what was not synced, system calls that fail, disks that are full or lie.
//!
//! A [`writer`] process publishes and says on its stdout what it sends and what is acknowledged. It is stopped in some way, what the
//! disk then holds is opened again, and the [`account`] of its words is compared with what is served. How it is stopped:
//!
//! - [`power_cut`]: the file system is shut down under it, so that the kernel forgets whatever was not synced;
//! - [`calls`]: it is killed, or gets an error, at one system call after the other;
//! - [`full`]: there is no space left;
//! - [`block_log`]: the disk below the file system writes down what it is given, and what a power cut could leave of it is tried; or
//!   it fails a flush and then lies.
//!
//! What [`machine`] sets up (mounts, loop devices, processes) goes when it is dropped, also in a panic.
//!
//! **Invariant:** whatever needs a tool or a right that this machine does not have ends as [`machine::Missing`], before anything was
//! tried.

pub mod account;
#[cfg(target_os = "linux")]
pub mod block_disk;
#[cfg(target_os = "linux")]
pub mod block_log;
pub mod calls;
pub mod full;
pub mod machine;
pub mod power_cut;
pub mod writer;

//! The durable queue: one log for all rooms, on a directory of segment files.

pub mod storage;

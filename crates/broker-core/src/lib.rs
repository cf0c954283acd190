//! A durable, room-based message broker that applications embed.

pub mod clock;
pub mod dir;
pub mod log;
mod planted;
pub mod store;
mod sync;

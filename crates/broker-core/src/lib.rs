//! A durable, room-based message broker that applications embed.

pub mod log;
pub mod store;
mod sync;

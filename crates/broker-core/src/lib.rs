//! A durable, room-based message broker that applications embed.

pub mod session;
pub mod store;
mod sync;

//! A durable, room-based message broker that applications embed.

#[cfg(feature = "net")]
pub mod net;

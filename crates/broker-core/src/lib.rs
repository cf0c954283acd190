//! A durable, room-based message broker that applications embed.

pub mod clock;
pub mod dir;
pub mod log;
#[cfg(feature = "net")]
pub mod net;
mod planted;
pub mod session;
pub mod store;
mod sync;

//! The tokio shell: what connects applications to a store.

pub mod client;

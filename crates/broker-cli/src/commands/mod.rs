//! commands
pub(crate) mod bench;

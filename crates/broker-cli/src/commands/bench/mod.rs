//! bench
pub(crate) mod figures;
pub(crate) mod stamp;

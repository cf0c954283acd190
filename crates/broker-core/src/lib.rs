//! broker-core.

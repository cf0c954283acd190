//! broker-proto.

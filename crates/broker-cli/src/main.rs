//! broker-cli
fn main() {}

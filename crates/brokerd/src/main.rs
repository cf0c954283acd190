//! brokerd
fn main() {}

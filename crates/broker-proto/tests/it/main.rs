//! The protocol from outside: known bytes, rules broken one by one, and properties.

mod arbitrary;
#[cfg(feature = "codec")]
mod codec;
mod examples;
mod frames;
mod golden;
mod known_heads;
mod names;
mod records;
mod refusals;

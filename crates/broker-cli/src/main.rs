//! broker
mod args;
mod commands;
mod config;
mod escape;
mod exit;
mod format;
mod lines;
mod log;
mod output;
mod start;
mod time;
mod units;
fn main() {}

//! The log against a hostile disk.
#![expect(
    clippy::print_stdout,
    reason = "a test tells its seed and how much it tried"
)]

mod crash_matrix;
mod net_sim;
mod regressions;
mod rot;

/// A number from the environment.
fn setting(name: &str, otherwise: u64) -> u64 {
    std::env::var(name)
        .ok()
        .and_then(|value| value.parse().ok())
        .unwrap_or(otherwise)
}

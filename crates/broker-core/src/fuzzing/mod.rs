//! What the fuzz targets and the property tests call: each function panics when an invariant does not hold.
//!
//! Not part of the API. Checksums would stop random bytes early, so [`scan`](scan()) also tries its input with right ones, and
//! [`recovery`](recovery()) can seal what it damaged.

mod forged;
mod recovery;
mod scan;

pub use forged::{Batch, Told, batch, marker, scan_log};
pub use recovery::recovery;
pub use scan::scan;

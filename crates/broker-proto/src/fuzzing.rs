//! What the fuzz targets and the property tests call: each function panics when an invariant does not hold.

//! broker-sim.

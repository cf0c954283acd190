//! Any bytes as the batches of a segment, as they are and with right checksums.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| broker_core::fuzzing::scan(data));

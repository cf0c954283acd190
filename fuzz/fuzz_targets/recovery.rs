//! Any bytes as the story of a store and of what befalls its files.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| broker_core::fuzzing::recovery(data));

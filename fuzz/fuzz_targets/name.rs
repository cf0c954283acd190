//! Any bytes as a name.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| broker_proto::fuzzing::name(data));

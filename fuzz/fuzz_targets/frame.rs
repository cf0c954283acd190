//! Any bytes as a stream of frames, split in three ways.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| broker_proto::fuzzing::frame(data));

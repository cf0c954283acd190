//! Any bytes as stored records, as they are and with right checksums.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| broker_proto::fuzzing::record(data));

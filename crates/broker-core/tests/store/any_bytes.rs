//! What the fuzz targets of `fuzz/` try for long, for a moment.

use broker_core::log::fuzzing;
use proptest::prelude::*;

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn any_bytes_can_be_scanned(data in proptest::collection::vec(any::<u8>(), 0..2000)) {
        fuzzing::scan(&data);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    #[test]
    fn a_store_opens_or_says_why_whatever_happened_to_its_files(
        data in proptest::collection::vec(any::<u8>(), 0..160),
    ) {
        fuzzing::recovery(&data);
    }
}

//! Stores of every version of the format: opened, refused, left alone.
//!
//! The golden store of a new version is written once, by `cargo run -p broker-sim -- golden`; one that is there is never written
//! again.
#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a test may panic"
)]

use std::path::Path;
use std::sync::Arc;

use broker_core::log::RecoveryError;
use broker_core::log::segment::{FORMAT_VERSION, HEADER_BYTES, HEADER_COPY_OFFSET, SegmentName};
use broker_core::log::storage::FileStorage;
use broker_sim::campaign::{Tally, seed};
use broker_sim::golden::{Golden, Leader, files_of, files_on, raise, unchanged};

/// Names that a careless program would take for files of the log, or for rubbish.
const NEAR_MISSES: [&str; 14] = [
    "0001.seg~",
    "0000000000000001-0000.seg~",
    "0000000000000001-0000.seg.tmp",
    "0000000000000001-0000.SEG",
    "000000000000000A-0000.seg",
    "00000000000000001-0000.seg",
    "0000000000000001-00000.seg",
    "0000000000000099-0000 .seg",
    " 0000000000000099-0000.seg",
    "0000000000000099-0000.seg ",
    "0000000000000000-0000.seg",
    "0000000000000099.seg",
    "spare-1.tmp",
    "spare-0000000G.tmp",
];

#[test]
fn golden_formats() {
    let all = Golden::all().unwrap_or_else(|broken| panic!("{broken}"));
    let present = format!("v{FORMAT_VERSION}");
    assert!(
        all.iter().any(|golden| golden.version == present),
        "the golden store of {present} is missing"
    );
    let mut cases = 0;
    for golden in &all {
        cases += serves_all(golden);
        cases += newer_is_refused(golden);
        cases += damaged_headers_change_nothing(golden);
        cases += near_misses_are_left_alone(golden);
    }
    let tally = Tally::new("golden_formats", seed(1)).with("cases", cases);
    println!("{tally}");
}

/// All messages are there, more are taken, and the next leader has them all.
fn serves_all(golden: &Golden) -> u64 {
    let disk = Arc::new(golden.disk(|_, _| {}).unwrap());
    let mut leader = Leader::open(Arc::clone(&disk)).unwrap();
    assert!(golden.expected.lines().count() >= 24);
    assert_eq!(
        leader.content().unwrap(),
        golden.expected,
        "{}",
        golden.version
    );
    leader.send(9, 1, "zoo", b"more").unwrap();
    leader.close();
    let leader = Leader::open(disk).unwrap();
    let crc = crc32c_of(b"more");
    let expected = format!("{}zoo 1 4 {crc:08x}\n", golden.expected);
    assert_eq!(leader.content().unwrap(), expected, "{}", golden.version);
    1
}

fn crc32c_of(bytes: &[u8]) -> u32 {
    // CRC-32C bit by bit: the files must not be checked by the code that wrote them.
    !bytes.iter().fold(!0, |crc, byte| {
        (0..8).fold(crc ^ u32::from(*byte), |crc, _| {
            (crc >> 1) ^ (0x82f6_3b78 & 0_u32.wrapping_sub(crc & 1))
        })
    })
}

/// A segment of a newer version, or with newer features, is refused, and no byte changes.
fn newer_is_refused(golden: &Golden) -> u64 {
    let mut cases = 0;
    for (name, _) in golden.segments() {
        for version in [FORMAT_VERSION + 1, u16::MAX] {
            let disk = golden
                .disk(|file, bytes| {
                    if file == name {
                        raise(bytes, 12, version.to_le_bytes());
                    }
                })
                .unwrap();
            let before = files_on(&disk).unwrap();
            let error = Leader::open(Arc::new(disk.clone())).unwrap_err();
            assert!(
                matches!(&error, RecoveryError::Newer { file, version: found, .. } if file == name && *found == version),
                "{error}"
            );
            assert_eq!(
                files_on(&disk).unwrap(),
                before,
                "BROKEN(lost ack): refused and changed"
            );
            cases += 1;
        }
        let disk = golden
            .disk(|file, bytes| {
                if file == name {
                    raise(bytes, 16, u32::MAX.to_le_bytes());
                }
            })
            .unwrap();
        let before = files_on(&disk).unwrap();
        let error = Leader::open(Arc::new(disk.clone())).unwrap_err();
        assert!(
            matches!(error, RecoveryError::NewerFeatures { .. }),
            "{error}"
        );
        assert_eq!(
            files_on(&disk).unwrap(),
            before,
            "BROKEN(lost ack): refused and changed"
        );
        cases += 1;
    }
    cases
}

/// One bit of one copy, and the same bit of both.
fn damaged_headers_change_nothing(golden: &Golden) -> u64 {
    let mut cases = 0;
    for (name, _) in golden.segments() {
        for bit in 0..HEADER_BYTES * 8 {
            let first: &[usize] = &[0];
            let both: &[usize] = &[0, HEADER_COPY_OFFSET];
            // Every bit of one copy; of both copies one in each byte.
            let is_both = bit % 8 == bit / 8 % 8;
            for copies in [Some(first), is_both.then_some(both)].into_iter().flatten() {
                let disk = golden
                    .disk(|file, bytes| {
                        for copy in copies.iter().filter(|_| file == name) {
                            bytes[copy + bit / 8] ^= 1 << (bit % 8);
                        }
                    })
                    .unwrap();
                let before = files_on(&disk).unwrap();
                let place = format!(
                    "{} {name}, bit {bit} of {} copies",
                    golden.version,
                    copies.len()
                );
                match Leader::open(Arc::new(disk.clone())) {
                    Ok(leader) => assert_eq!(leader.content().unwrap(), golden.expected, "{place}"),
                    Err(error) => assert!(copies.len() > 1, "{place}: {error}"),
                }
                unchanged(&before, &files_on(&disk).unwrap())
                    .unwrap_or_else(|broken| panic!("{}", broken.at(&place)));
                cases += 1;
            }
        }
    }
    cases
}

/// Files that are almost called like the log's are neither read nor deleted.
fn near_misses_are_left_alone(golden: &Golden) -> u64 {
    let dir = tempfile::tempdir().unwrap();
    let put = |name: &str, bytes: &[u8]| std::fs::write(dir.path().join(name), bytes).unwrap();
    for (name, bytes) in &golden.files {
        put(name, bytes);
    }
    let (_, segment) = golden.segments().next().unwrap();
    for (n, name) in NEAR_MISSES.iter().enumerate() {
        assert_eq!(SegmentName::parse(name), None, "{name}");
        // Whole segments among them, and rubbish.
        put(name, if n % 2 == 0 { segment } else { b"rubbish" });
    }
    let strangers: Vec<_> = files_of(dir.path())
        .unwrap()
        .into_iter()
        .filter(|(name, _)| NEAR_MISSES.contains(&name.as_str()))
        .collect();
    assert_eq!(strangers.len(), NEAR_MISSES.len());
    let open = |dir: &Path| Leader::open(Arc::new(FileStorage::open(dir).unwrap())).unwrap();
    let mut leader = open(dir.path());
    assert_eq!(
        leader.content().unwrap(),
        golden.expected,
        "{}",
        golden.version
    );
    for number in 1..8 {
        leader.send(9, number, "zoo", &[7; 2000]).unwrap();
    }
    leader.close();
    open(dir.path()).close();
    unchanged(&strangers, &files_of(dir.path()).unwrap())
        .unwrap_or_else(|broken| panic!("{broken}"));
    NEAR_MISSES.len() as u64
}

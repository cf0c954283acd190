//! [`FileStorage`] on a real directory: names, direct I/O at any alignment against a `Vec`, and its refusals.

#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a test may panic"
)]
#![expect(
    clippy::disallowed_methods,
    reason = "a test looks at the directory from outside"
)]

use std::fs;
use std::io::ErrorKind;
use std::os::unix::fs::{MetadataExt, symlink};
use std::os::unix::net::UnixListener;

use proptest::prelude::*;
use tempfile::TempDir;

use super::*;

fn directory() -> (TempDir, FileStorage) {
    let dir = tempfile::tempdir().unwrap();
    let storage = FileStorage::open(dir.path()).unwrap();
    (dir, storage)
}

fn content(file: &DiskFile) -> Vec<u8> {
    let mut all = vec![0; usize::try_from(file.len().unwrap()).unwrap()];
    assert_eq!(file.read_at(0, &mut all).unwrap(), all.len());
    all
}

#[test]
fn files_are_private_and_names_behave() {
    let (dir, disk) = directory();
    let a = disk.create("a").unwrap();
    a.write_at(0, b"new!").unwrap();
    assert_eq!(
        fs::metadata(dir.path().join("a")).unwrap().mode() & 0o777,
        0o600
    );
    assert_eq!(
        disk.create("a").unwrap_err().kind(),
        ErrorKind::AlreadyExists
    );
    assert_eq!(disk.open("b").unwrap_err().kind(), ErrorKind::NotFound);
    assert_eq!(disk.delete("b").unwrap_err().kind(), ErrorKind::NotFound);
    for name in ["../a", "", ".a", "x/y"] {
        assert_eq!(
            disk.create(name).unwrap_err().kind(),
            ErrorKind::InvalidInput,
            "{name}"
        );
        assert_eq!(
            disk.rename("a", name).unwrap_err().kind(),
            ErrorKind::InvalidInput,
            "{name}"
        );
    }

    disk.create("b").unwrap();
    disk.rename("a", "b").unwrap();
    disk.sync_dir().unwrap();
    assert_eq!(disk.list().unwrap(), ["b"]);
    assert_eq!(content(&disk.open_read("b").unwrap()), b"new!");
    disk.delete("b").unwrap();
    assert_eq!(content(&a), b"new!", "an open handle outlives its name");
    assert!(disk.free_bytes().unwrap() > 0);
}

#[test]
fn the_listing_holds_plain_files_only() {
    let (dir, disk) = directory();
    disk.create("segment").unwrap();
    disk.create("another").unwrap();
    fs::write(dir.path().join(".hidden"), "").unwrap();
    fs::write(dir.path().join("name with blanks"), "").unwrap();
    fs::create_dir(dir.path().join("folder")).unwrap();
    symlink("segment", dir.path().join("link")).unwrap();
    let _socket = UnixListener::bind(dir.path().join("sock")).unwrap();
    assert_eq!(disk.list().unwrap(), ["another", "segment"]);
}

#[test]
fn links_and_other_things_are_not_opened() {
    let (dir, disk) = directory();
    fs::write(dir.path().join("target"), "secret").unwrap();
    symlink("target", dir.path().join("link")).unwrap();
    assert!(disk.open("link").is_err());
    assert!(disk.open_read("link").is_err());
    assert!(disk.create("link").is_err());

    fs::create_dir(dir.path().join("folder")).unwrap();
    assert!(disk.open_read("folder").is_err());
    rustix::fs::mknodat(
        rustix::fs::CWD,
        dir.path().join("pipe"),
        FileType::Fifo,
        Mode::RWXU,
        0,
    )
    .unwrap();
    assert!(disk.open("pipe").is_err(), "and does not hang");
    assert!(disk.open_read("pipe").is_err());

    symlink(dir.path(), dir.path().join("itself")).unwrap();
    assert!(FileStorage::open(dir.path().join("itself")).is_err());
    assert!(FileStorage::open(dir.path().join("target")).is_err());
}

#[test]
fn a_replaced_directory_is_noticed() {
    let parent = tempfile::tempdir().unwrap();
    let (path, moved) = (parent.path().join("data"), parent.path().join("moved"));
    fs::create_dir(&path).unwrap();
    let disk = FileStorage::open(&path).unwrap();
    disk.check_identity().unwrap();
    fs::rename(&path, &moved).unwrap();
    assert_eq!(
        disk.check_identity().unwrap_err().kind(),
        ErrorKind::NotFound
    );
    fs::create_dir(&path).unwrap();
    assert!(
        disk.check_identity()
            .unwrap_err()
            .to_string()
            .contains("another directory")
    );
    // What is held is still the old one.
    disk.create("a").unwrap();
    assert!(moved.join("a").exists());
    fs::remove_dir(&path).unwrap();
    fs::rename(&moved, &path).unwrap();
    disk.check_identity().unwrap();
}

#[test]
fn a_reader_cannot_write() {
    let (_dir, disk) = directory();
    disk.create("a").unwrap();
    let reader = disk.open_read("a").unwrap();
    assert!(!reader.is_direct());
    assert!(reader.write_at(0, b"x").is_err());
    assert!(reader.truncate(0).is_err());
}

#[test]
fn what_is_read_without_waiting_is_the_beginning_of_what_is_there() {
    let (_dir, disk) = directory();
    let (file, reader) = (disk.create("a").unwrap(), disk.open_read("a").unwrap());
    let bytes: Vec<u8> = (0..100_000_u32).map(|n| n.to_le_bytes()[0]).collect();
    file.write_at(0, &bytes).unwrap();
    // Not every file system can tell what is in memory; one that can has all of it there now.
    assert_eq!(content(&reader), bytes);
    for offset in [0, 1, 99_000, 100_000, 200_000] {
        let mut read = vec![0; 5000];
        let count = reader.read_cached_at(u64_of(offset), &mut read).unwrap();
        let there = bytes.get(offset..).unwrap_or_default();
        assert!(count <= there.len().min(5000));
        assert_eq!(read[..count], there[..count]);
    }
}

#[test]
fn aligned_writes_are_seen_by_a_buffered_reader_at_once() {
    let (_dir, disk) = directory();
    let (file, reader) = (disk.create("a").unwrap(), disk.open_read("a").unwrap());
    file.zero_fill(0, 1 << 16).unwrap();
    assert_eq!(content(&reader), vec![0; 1 << 16]);
    for round in 1..20_u8 {
        let mut block = AlignedBuf::zeroed(4096);
        block.as_mut_slice().fill(round);
        file.write_at(4096 * u64::from(round % 3), block.as_slice())
            .unwrap();
        file.sync().unwrap();
        let mut seen = [0; 4096];
        reader
            .read_at(4096 * u64::from(round % 3), &mut seen)
            .unwrap();
        assert_eq!(seen, [round; 4096]);
    }
}

#[test]
fn zero_fill_allocates_real_space() {
    let (_dir, disk) = directory();
    let file = disk.create("a").unwrap();
    let len = 3 * u64_of(CHUNK_BYTES) + 5000;
    file.zero_fill(0, len).unwrap();
    file.sync_all().unwrap();
    let metadata = file.file.metadata().unwrap();
    assert_eq!(metadata.len(), len);
    assert!(
        metadata.blocks() * 512 >= len,
        "{} blocks",
        metadata.blocks()
    );
}

#[test]
fn refused_direct_calls_go_on_through_the_page_cache() {
    let (_dir, disk) = directory();
    let file = disk.create("a").unwrap();
    file.zero_fill(0, 1 << 13).unwrap();
    if !file.is_direct() || file.file.write_at(b"x", 1).is_ok() {
        return; // A file system without direct I/O, or (tmpfs) one without rules: nothing can be refused here.
    }
    // An access that breaks the rules is what a disk with a larger unit than it says would refuse.
    file.write_full(1, b"xyz").unwrap();
    assert!(!file.is_direct());
    assert_eq!(content(&file)[..6], *b"\0xyz\0\0");
    file.write_at(8191, b"end").unwrap();
    assert_eq!(file.len().unwrap(), 8194);
}

#[test]
fn offsets_beyond_the_largest_file_are_refused_and_direct_io_stays() {
    let (_dir, disk) = directory();
    let file = disk.create("a").unwrap();
    let direct = file.is_direct();
    for offset in [u64::MAX, u64::MAX - 3, 1 << 63] {
        assert_eq!(
            file.write_at(offset, b"x").unwrap_err().kind(),
            ErrorKind::FileTooLarge
        );
        assert_eq!(
            file.read_at(offset, &mut [0; 8]).unwrap_err().kind(),
            ErrorKind::FileTooLarge
        );
    }
    assert_eq!(file.is_direct(), direct);
}

#[test]
fn interrupted_calls_are_repeated_and_errors_are_not() {
    let (_dir, disk) = directory();
    let file = disk.create("a").unwrap();
    let mut answers = vec![
        Ok(5),
        Err(ErrorKind::Interrupted),
        Err(ErrorKind::Interrupted),
    ];
    let count = file
        .call(|_| answers.pop().unwrap().map_err(Into::into))
        .unwrap();
    assert_eq!(count, 5);
    let broken = file.call(|_| Err(Errno::IO.into())).unwrap_err();
    assert!(is(&broken, Errno::IO));

    // A device that is always full.
    let full = DiskFile::buffered(
        fs::OpenOptions::new()
            .write(true)
            .open("/dev/full")
            .unwrap(),
    );
    assert_eq!(
        full.write_at(0, b"x").unwrap_err().kind(),
        ErrorKind::StorageFull
    );
}

#[test]
fn short_writes_continue() {
    let mut written = Vec::new();
    let mut sizes = [3, 1, 4].into_iter();
    write_all(100, b"12345678", |rest, at| {
        let count = sizes.next().unwrap();
        assert_eq!(at, 100 + u64_of(written.len()));
        written.extend_from_slice(&rest[..count]);
        Ok(u64_of(count))
    })
    .unwrap();
    assert_eq!(written, b"12345678");
    assert_eq!(
        write_all(0, b"1", |_, _| Ok(0)).unwrap_err().kind(),
        ErrorKind::WriteZero
    );
    let full = write_all(0, b"1", |_, _| Err(Errno::NOSPC.into())).unwrap_err();
    assert_eq!(full.kind(), ErrorKind::StorageFull, "as the system gave it");
}

#[test]
fn one_write_spans_several_windows() {
    let (_dir, disk) = directory();
    let file = disk.create("a").unwrap();
    let bytes: Vec<u8> = (0..3 * CHUNK_BYTES + 777)
        .map(|n| u8::try_from(n % 251).unwrap())
        .collect();
    file.write_at(4095, &bytes).unwrap();
    let all = content(&file);
    assert_eq!(all.len(), 4095 + bytes.len());
    assert!(all[..4095].iter().all(|byte| *byte == 0));
    assert_eq!(all[4095..], bytes);
    let mut tail = vec![0; 5000];
    assert_eq!(
        file.read_at(u64_of(all.len() - 3000), &mut tail).unwrap(),
        3000
    );
    assert_eq!(tail[..3000], all[all.len() - 3000..]);
}

#[derive(Debug, Clone)]
enum Step {
    Write { at: u64, bytes: Vec<u8> },
    WriteAligned { block: u64, blocks: usize, fill: u8 },
    Zero { from: u64, to: u64 },
    Truncate(u64),
    Read { at: u64, len: usize },
    ReadAligned { block: u64, blocks: usize },
    Reopen,
}

fn step() -> impl Strategy<Value = Step> {
    let at = || {
        prop_oneof![
            0_u64..40_000,
            (0_u64..80).prop_map(|n| n * 512),
            (0_u64..10).prop_map(|n| n * 4096)
        ]
    };
    let len = || {
        prop_oneof![
            0_usize..9000,
            0_usize..4,
            (0_usize..3).prop_map(|n| n * 4096)
        ]
    };
    prop_oneof![
        4 => (at(), len().prop_flat_map(|len| prop::collection::vec(1_u8.., len))).prop_map(|(at, bytes)| Step::Write { at, bytes }),
        2 => (0_u64..10, 0_usize..4, 1_u8..).prop_map(|(block, blocks, fill)| Step::WriteAligned { block, blocks, fill }),
        1 => (at(), at()).prop_map(|(from, to)| Step::Zero { from, to }),
        1 => at().prop_map(Step::Truncate),
        3 => (at(), len()).prop_map(|(at, len)| Step::Read { at, len }),
        1 => (0_u64..12, 0_usize..4).prop_map(|(block, blocks)| Step::ReadAligned { block, blocks }),
        1 => Just(Step::Reopen),
    ]
}

fn overwrite(model: &mut Vec<u8>, at: u64, bytes: &[u8]) {
    let at = usize::try_from(at).unwrap();
    if bytes.is_empty() {
        return;
    }
    model.resize(model.len().max(at + bytes.len()), 0);
    model[at..at + bytes.len()].copy_from_slice(bytes);
}

fn check_read(file: &DiskFile, model: &[u8], at: u64, buf: &mut [u8]) {
    let rest = usize::try_from(at)
        .ok()
        .and_then(|at| model.get(at..))
        .unwrap_or_default();
    let count = file.read_at(at, buf).unwrap();
    assert_eq!(count, rest.len().min(buf.len()));
    assert_eq!(buf[..count], rest[..count]);
}

fn apply(file: &DiskFile, model: &mut Vec<u8>, step: &Step) {
    match step {
        Step::Write { at, bytes } => {
            file.write_at(*at, bytes).unwrap();
            overwrite(model, *at, bytes);
        }
        Step::WriteAligned {
            block,
            blocks,
            fill,
        } => {
            let mut buf = AlignedBuf::zeroed(blocks * 4096);
            buf.as_mut_slice().fill(*fill);
            file.write_at(block * 4096, buf.as_slice()).unwrap();
            overwrite(model, block * 4096, buf.as_slice());
        }
        Step::Zero { from, to } => {
            file.zero_fill(*from, *to).unwrap();
            overwrite(
                model,
                *from,
                &vec![0; usize::try_from(to.saturating_sub(*from)).unwrap()],
            );
        }
        Step::Truncate(len) => {
            file.truncate(*len).unwrap();
            model.resize(usize::try_from(*len).unwrap(), 0);
        }
        Step::Read { at, len } => check_read(file, model, *at, &mut vec![0; *len]),
        Step::ReadAligned { block, blocks } => check_read(
            file,
            model,
            block * 4096,
            AlignedBuf::zeroed(blocks * 4096).as_mut_slice(),
        ),
        Step::Reopen => {}
    }
    assert_eq!(file.len().unwrap(), u64_of(model.len()), "after {step:?}");
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, ..ProptestConfig::default() })]

    #[test]
    fn a_file_behaves_like_a_vec(direct: bool, steps in prop::collection::vec(step(), 1..25)) {
        let (_dir, disk) = directory();
        let mut file = disk.create("a").unwrap();
        let mut model = Vec::new();
        for step in &steps {
            if matches!(step, Step::Reopen) {
                file = disk.open("a").unwrap();
            }
            if !direct && file.is_direct() {
                leave_direct(&file.file).unwrap();
                file.direct.store(false, Ordering::Relaxed);
            }
            apply(&file, &mut model, step);
        }
        prop_assert_eq!(content(&file), &model[..]);
        prop_assert_eq!(content(&disk.open_read("a").unwrap()), &model[..]);
    }
}

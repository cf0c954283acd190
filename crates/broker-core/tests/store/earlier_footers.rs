//! Footers of version 1, which had no bytes and no marker, and of version 2, whose rooms did not say which entries are theirs:
//! they are passed over and made again from their segments.

use std::collections::BTreeMap;

use broker_core::log::storage::{Storage, StorageFile};
use broker_proto::{Seq, StartAt};

use crate::scene::Scene;

const HEAD: usize = 64;
const ROOM: usize = 48;
/// What an entry had in version 1, and has since.
const ENTRY: [usize; 2] = [24, 32];

/// All footers by their names.
fn footers(scene: &Scene) -> BTreeMap<String, Vec<u8>> {
    let names = scene.disk.list().unwrap().into_iter();
    let names = names.filter(|name| name.ends_with(".idx"));
    let content = |name: String| {
        let file = scene.disk.open_read(&name).unwrap();
        let mut bytes = vec![0; usize::try_from(file.len().unwrap()).unwrap()];
        assert_eq!(file.read_at(0, &mut bytes).unwrap(), bytes.len());
        (name, bytes)
    };
    names.map(content).collect()
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(bytes[at..at + 4].try_into().unwrap())
}

/// The same footer as version 2 wrote it.
fn of_version_2(footer: &[u8]) -> Vec<u8> {
    assert_eq!(u32_at(footer, 12), 3);
    let rooms = u32_at(footer, 28) as usize;
    let mut old = footer.to_vec();
    old[12..16].copy_from_slice(&2_u32.to_le_bytes());
    for room in old[HEAD..][..rooms * ROOM].chunks_exact_mut(ROOM) {
        room[40..].fill(0);
    }
    sealed(old)
}

/// The same footer as version 1 wrote it.
fn of_version_1(footer: &[u8]) -> Vec<u8> {
    let rooms = u32_at(footer, 28) as usize;
    let (head, entries) = footer.split_at(HEAD + rooms * ROOM);
    let mut old = head.to_vec();
    old[12..16].copy_from_slice(&1_u32.to_le_bytes());
    old[40..HEAD].fill(0);
    for room in old[HEAD..].chunks_exact_mut(ROOM) {
        room[32..].fill(0);
    }
    for entry in entries.chunks_exact(ENTRY[1]) {
        old.extend_from_slice(&entry[..ENTRY[0]]);
    }
    sealed(old)
}

/// With the right checksum.
fn sealed(mut footer: Vec<u8>) -> Vec<u8> {
    let crc = crc32c::crc32c_append(crc32c::crc32c(&footer[..8]), &footer[12..]);
    footer[8..12].copy_from_slice(&crc.to_le_bytes());
    footer
}

fn put(scene: &Scene, name: &str, bytes: &[u8]) {
    scene.disk.delete(name).unwrap();
    let file = scene.disk.create(name).unwrap();
    file.write_at(0, bytes).unwrap();
}

#[test]
fn a_store_with_footers_of_version_1_is_read_and_they_are_made_again() {
    is_read_and_made_again(of_version_1);
}

#[test]
fn a_store_with_footers_of_version_2_is_read_and_they_are_made_again() {
    is_read_and_made_again(of_version_2);
}

fn is_read_and_made_again(earlier: fn(&[u8]) -> Vec<u8>) {
    let mut scene = Scene::on_disk();
    for n in 0..300_u16 {
        let payload = [n.to_le_bytes().as_slice(), &[5; 700]].concat();
        scene.send(["lobby", "jobs", "ops"][usize::from(n) % 3], &[&payload]);
    }
    scene.restart(true);
    scene.work();
    let right = footers(&scene);
    assert!(right.len() > 3, "{} footers", right.len());
    // Their checksums are made as the store checks them, so that only the version is in the way.
    for footer in right.values() {
        assert_eq!(&sealed(footer.clone()), footer);
    }
    for (name, footer) in &right {
        put(&scene, name, &earlier(footer));
    }
    scene.reopen();
    reads_all(&scene);
    let made_again = scene.store.info().footers.made_again;
    assert!(made_again >= 3, "{made_again}");
    // Readers change nothing on the disk. A keeper looks at every sealed segment, and writes what they have made too.
    let now = footers(&scene);
    for (name, footer) in &right {
        assert_eq!(now.get(name), Some(&earlier(footer)), "{name}");
    }
    scene.look();
    assert_eq!(scene.store.info().damaged, 0);
    let now = footers(&scene);
    for (name, footer) in &right {
        assert_eq!(now.get(name), Some(footer), "{name}");
    }
    scene.reopen();
    reads_all(&scene);
    assert_eq!(scene.store.info().footers.made_again, 0);
}

fn reads_all(scene: &Scene) {
    for room in ["lobby", "jobs", "ops"] {
        assert_eq!(scene.seqs(room), (1..=100).collect::<Vec<_>>(), "{room}");
        let from = scene.read(room, StartAt::seq(Seq::new(41))).unwrap();
        assert_eq!(from.next.get(), 41 + u64::from(from.count), "{room}");
    }
}

//! The names of very many rooms, each kept once, one after the other in large blocks of memory, and found by a table of numbers.
//!
//! A name is never moved or taken out: what refers to it is a number of four bytes, and rooms that were removed keep their
//! place in the order of names.

use std::hash::{BuildHasher, RandomState};

use broker_proto::RoomId;
use hashbrown::HashTable;

/// One block; a name never lies in two.
const BLOCK_BYTES: usize = 64 << 10;

/// Where a name lies: block and place in it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct NameRef(u32);

/// All names.
#[derive(Debug, Default)]
pub(super) struct Names {
    blocks: Vec<Vec<u8>>,
}

impl Names {
    /// Keeps a name of at most 255 bytes; `None` when there is no place for more, beyond four gigabytes.
    pub(super) fn add(&mut self, name: &str) -> Option<NameRef> {
        let length = u8::try_from(name.len()).ok()?;
        let needed = name.len() + 1;
        let is_full = |block: &Vec<u8>| block.len() + needed > BLOCK_BYTES;
        if self.blocks.last().is_none_or(is_full) {
            u16::try_from(self.blocks.len()).ok()?;
            self.blocks.push(Vec::with_capacity(BLOCK_BYTES));
        }
        let number = self.blocks.len() - 1;
        let block = self.blocks.last_mut()?;
        let at = number * BLOCK_BYTES + block.len();
        block.push(length);
        block.extend_from_slice(name.as_bytes());
        u32::try_from(at).ok().map(NameRef)
    }

    pub(super) fn get(&self, name: NameRef) -> &str {
        let at = name.0 as usize;
        let block = self.blocks.get(at / BLOCK_BYTES);
        let found = block
            .and_then(|block| block.get(at % BLOCK_BYTES..))
            .and_then(<[u8]>::split_first)
            .and_then(|(length, rest)| rest.get(..usize::from(*length)));
        // Whole names were kept.
        std::str::from_utf8(found.unwrap_or_default()).unwrap_or_default()
    }
}

/// Which room has a name.
#[derive(Debug)]
pub(super) struct ByName {
    table: HashTable<Named>,
    /// Names come from strangers: they must not know which ones meet.
    hasher: RandomState,
}

/// A room, with the hash of its name: a table that grows would have to look at every name again.
#[derive(Debug, Clone, Copy)]
struct Named {
    hash: u32,
    id: RoomId,
}

/// What the table is told: its low bits choose the place, the highest seven tell names there apart.
fn spread(hash: u32) -> u64 {
    u64::from(hash) << 32 | u64::from(hash)
}

impl Default for ByName {
    fn default() -> Self {
        Self {
            table: HashTable::new(),
            hasher: RandomState::new(),
        }
    }
}

impl ByName {
    fn hash(&self, name: &str) -> u32 {
        let hash = self.hasher.hash_one(name);
        // Any half is as good as the whole.
        u32::try_from(hash >> 32).unwrap_or_default()
    }

    pub(super) fn get<'a>(
        &self,
        name: &str,
        name_of: impl Fn(RoomId) -> &'a str,
    ) -> Option<RoomId> {
        let hash = self.hash(name);
        let is_it = |named: &Named| named.hash == hash && name_of(named.id) == name;
        self.table.find(spread(hash), is_it).map(|named| named.id)
    }

    /// Notes who has a name; false when another room has it.
    pub(super) fn insert<'a>(
        &mut self,
        name: &str,
        id: RoomId,
        name_of: impl Fn(RoomId) -> &'a str,
    ) -> bool {
        let hash = self.hash(name);
        let is_it = |named: &Named| named.hash == hash && name_of(named.id) == name;
        let hash_of = |named: &Named| spread(named.hash);
        let entry = self.table.entry(spread(hash), is_it, hash_of);
        match entry {
            hashbrown::hash_table::Entry::Occupied(_) => false,
            hashbrown::hash_table::Entry::Vacant(place) => {
                place.insert(Named { hash, id });
                true
            }
        }
    }

    /// The room that had it has it no more.
    pub(super) fn remove<'a>(
        &mut self,
        name: &str,
        id: RoomId,
        name_of: impl Fn(RoomId) -> &'a str,
    ) {
        let hash = self.hash(name);
        let is_it = |named: &Named| named.id == id && name_of(id) == name;
        let found = self.table.find_entry(spread(hash), is_it);
        if let Ok(entry) = found {
            entry.remove();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_kept_and_found() {
        let mut names = Names::default();
        let mut by_name = ByName::default();
        let mut refs = Vec::new();
        let long = "x".repeat(128);
        for n in 0..2000_u32 {
            let name = format!("{long}{n}");
            refs.push(names.add(&name).expect("place for a name"));
            let name_of = |id: RoomId| {
                let at = refs.get(id.get() as usize).copied();
                at.map_or("", |at| names.get(at))
            };
            assert!(by_name.insert(&name, RoomId::new(n), name_of));
            assert!(!by_name.insert(&name, RoomId::new(n + 1), name_of));
        }
        let name_of = |id: RoomId| {
            let at = refs.get(id.get() as usize).copied();
            at.map_or("", |at| names.get(at))
        };
        for n in 0..2000_u32 {
            let name = format!("{long}{n}");
            assert_eq!(by_name.get(&name, name_of), Some(RoomId::new(n)));
        }
        let first = format!("{long}0");
        by_name.remove(&first, RoomId::new(0), name_of);
        assert_eq!(by_name.get(&first, name_of), None);
    }
}

//! The entries of keys, found by their hashes.
//!
//! Hashes are made by a [`RandomState`](std::hash::RandomState), so no input can choose them, and
//! the table takes them as they are. Two keys that have the same hash are rare: the second one is
//! kept beside the table. There is no second one without a first when it is added; later there may
//! be.

use std::collections::hash_map::Entry;
use std::collections::{BTreeMap, HashMap};
use std::hash::{BuildHasherDefault, Hasher};
use std::mem;

use super::name::KeyId;
use crate::group::small_deque::smaller_capacity;

/// The entries of all keys that are not absent.
pub(super) struct Entries<V> {
    /// By hash, with the rest of the id.
    table: HashMap<u64, (usize, V), BuildHasherDefault<KnownHash>>,
    /// Entries whose hash was in the table when they were added.
    others: BTreeMap<KeyId, V>,
}

/// Hashes a number that is a hash already.
#[derive(Default)]
struct KnownHash(u64);

impl Hasher for KnownHash {
    fn write(&mut self, _: &[u8]) {
        unreachable!("only hashes of 64 bits are hashed");
    }

    fn write_u64(&mut self, hash: u64) {
        self.0 = hash;
    }

    fn finish(&self) -> u64 {
        self.0
    }
}

impl<V> Entries<V> {
    pub(super) fn new() -> Self {
        Self { table: HashMap::default(), others: BTreeMap::new() }
    }

    pub(super) fn len(&self) -> usize {
        self.table.len() + self.others.len()
    }

    pub(super) fn get(&self, key: KeyId) -> Option<&V> {
        match self.table.get(&key.0) {
            Some((address, entry)) if *address == key.1 => Some(entry),
            _ => self.others.get(&key),
        }
    }

    pub(super) fn get_mut(&mut self, key: KeyId) -> Option<&mut V> {
        match self.table.get_mut(&key.0) {
            Some((address, entry)) if *address == key.1 => Some(entry),
            _ => self.others.get_mut(&key),
        }
    }

    /// Returns all entries with this hash.
    pub(super) fn with_hash(&self, hash: u64) -> impl Iterator<Item = &V> {
        let others = self.others.range((hash, 0)..=(hash, usize::MAX)).map(|(_, entry)| entry);
        self.table.get(&hash).map(|(_, entry)| entry).into_iter().chain(others)
    }

    /// Returns the entry of a key, which is made if there is none.
    pub(super) fn get_or_insert_with(&mut self, key: KeyId, make: impl FnOnce() -> V) -> &mut V {
        if !self.others.is_empty() && self.others.contains_key(&key) {
            return self.others.entry(key).or_insert_with(make);
        }
        match self.table.entry(key.0) {
            Entry::Vacant(place) => &mut place.insert((key.1, make())).1,
            Entry::Occupied(place) if place.get().0 == key.1 => &mut place.into_mut().1,
            Entry::Occupied(_) => self.others.entry(key).or_insert_with(make),
        }
    }

    /// Removes an entry.
    pub(super) fn remove(&mut self, key: KeyId) -> Option<V> {
        if self.table.get(&key.0).is_none_or(|(address, _)| *address != key.1) {
            return self.others.remove(&key);
        }
        let removed = self.table.remove(&key.0);
        if let Some(capacity) = smaller_capacity(self.table.len(), self.table.capacity()) {
            self.table.shrink_to(capacity);
        }
        removed.map(|(_, entry)| entry)
    }

    /// Takes all entries.
    pub(super) fn take_all(&mut self) -> impl Iterator<Item = V> + use<V> {
        let table = mem::take(&mut self.table).into_values().map(|(_, entry)| entry);
        table.chain(mem::take(&mut self.others).into_values())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::group::small_deque::MIN_SHRUNK;

    /// Fault 642.
    #[test]
    fn keys_with_one_hash_have_entries_of_their_own_in_whatever_order_they_come_and_go() {
        let mut random = fastrand::Rng::with_seed(11);
        let (mut entries, mut model) = (Entries::new(), BTreeMap::new());
        for step in 0..20_000 {
            let key = (random.u64(0..4), random.usize(0..6));
            match random.u8(0..3) {
                0 => {
                    let value = entries.get_or_insert_with(key, || step);
                    assert_eq!(value, model.entry(key).or_insert(step));
                }
                1 => assert_eq!(entries.remove(key), model.remove(&key)),
                _ => assert_eq!(entries.get_mut(key), model.get_mut(&key)),
            }
            assert_eq!((entries.get(key), entries.len()), (model.get(&key), model.len()));
            let same: Vec<_> = model.range((key.0, 0)..(key.0 + 1, 0)).map(|(_, value)| *value).collect();
            let mut found: Vec<_> = entries.with_hash(key.0).copied().collect();
            found.sort_unstable();
            assert!(found.len() == same.len() && same.iter().all(|value| found.binary_search(value).is_ok()));
        }
        let mut left: Vec<_> = entries.take_all().collect();
        let mut expected: Vec<_> = model.into_values().collect();
        left.sort_unstable();
        expected.sort_unstable();
        assert_eq!((left, entries.len()), (expected, 0));
    }

    #[test]
    fn a_million_entries_that_were_removed_leave_no_memory() {
        let mut entries = Entries::new();
        let keys = 0..1_000_000_u64;
        keys.clone().for_each(|hash| _ = entries.get_or_insert_with((hash, 1), || hash));
        assert!(keys.into_iter().all(|hash| entries.remove((hash, 1)) == Some(hash)));
        assert!(entries.len() == 0 && entries.table.capacity() <= 2 * MIN_SHRUNK);
    }
}

//! A hash table with an entry for each key. Finds the entries with a hash, since the keys
//! themselves must not be compared under a lock.
//!
//! The hash of a key is random already, so it is not hashed again. Entries are boxed: a table that
//! grows moves pointers. A table that becomes empty, or nearly so, releases its memory.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::hash::{BuildHasherDefault, Hasher};
use std::mem;

use super::name::KeyId;

/// The smallest capacity of which [`remove`](KeyTable::remove) releases a part.
const MIN_SHRUNK: usize = 128;

/// The entries, by the ids of their keys.
pub(super) struct KeyTable<V> {
    /// By the hash, which two keys rarely share.
    chains: HashMap<u64, Box<Chain<V>>, BuildHasherDefault<SameHash>>,
    /// How many entries there are.
    len: usize,
}

/// The entries with the same hash.
struct Chain<V> {
    first: (KeyId, V),
    others: Vec<(KeyId, V)>,
}

impl<V> Chain<V> {
    fn iter(&self) -> impl Iterator<Item = &(KeyId, V)> {
        std::iter::once(&self.first).chain(&self.others)
    }
}

impl<V> KeyTable<V> {
    pub(super) const fn new() -> Self {
        Self { chains: HashMap::with_hasher(BuildHasherDefault::new()), len: 0 }
    }

    #[inline]
    pub(super) fn len(&self) -> usize {
        self.len
    }

    /// Returns the entry of a key.
    #[inline]
    pub(super) fn get(&self, key: KeyId) -> Option<&V> {
        let chain = self.chains.get(&key.0)?;
        if chain.first.0 == key {
            return Some(&chain.first.1);
        }
        chain.others.iter().find(|(other, _)| *other == key).map(|(_, value)| value)
    }

    /// Returns the entry of a key.
    #[inline]
    pub(super) fn get_mut(&mut self, key: KeyId) -> Option<&mut V> {
        let chain = self.chains.get_mut(&key.0)?;
        if chain.first.0 == key {
            return Some(&mut chain.first.1);
        }
        chain.others.iter_mut().find(|(other, _)| *other == key).map(|(_, value)| value)
    }

    /// Returns the entries of all keys with this hash.
    pub(super) fn with_hash(&self, hash: u64) -> impl Iterator<Item = &V> {
        self.chains.get(&hash).into_iter().flat_map(|chain| chain.iter().map(|(_, value)| value))
    }

    /// Returns the entry of a key, which `make` makes if there is none.
    pub(super) fn get_or_insert_with(&mut self, key: KeyId, make: impl FnOnce() -> V) -> &mut V {
        let chain = match self.chains.entry(key.0) {
            Entry::Occupied(chain) => chain.into_mut(),
            Entry::Vacant(place) => {
                self.len += 1;
                return &mut place.insert(Box::new(Chain { first: (key, make()), others: Vec::new() })).first.1;
            }
        };
        if chain.first.0 == key {
            return &mut chain.first.1;
        }
        let place = chain.others.iter().position(|(other, _)| *other == key).unwrap_or_else(|| {
            self.len += 1;
            chain.others.push((key, make()));
            chain.others.len() - 1
        });
        &mut chain.others[place].1
    }

    /// Removes the entry of a key.
    pub(super) fn remove(&mut self, key: KeyId) -> Option<V> {
        let Entry::Occupied(mut place) = self.chains.entry(key.0) else { return None };
        let chain = place.get_mut();
        let (_, value) = if chain.first.0 != key {
            let place = chain.others.iter().position(|(other, _)| *other == key)?;
            chain.others.swap_remove(place)
        } else if let Some(other) = chain.others.pop() {
            mem::replace(&mut chain.first, other)
        } else {
            place.remove().first
        };
        self.len -= 1;
        self.shrink();
        Some(value)
    }

    /// Removes all entries.
    pub(super) fn take_all(&mut self) -> impl Iterator<Item = (KeyId, V)> + use<V> {
        let chains = mem::replace(self, Self::new()).chains;
        chains.into_values().flat_map(|chain| std::iter::once(chain.first).chain(chain.others))
    }

    /// Releases half of the memory if seven eighths are unused. Takes constant time for each
    /// removal, on average.
    fn shrink(&mut self) {
        let capacity = self.chains.capacity();
        if capacity >= MIN_SHRUNK && self.chains.len() < capacity / 8 {
            self.chains.shrink_to(capacity / 2);
        }
    }
}

/// Returns the hash that it is given.
#[derive(Default)]
struct SameHash(u64);

impl Hasher for SameHash {
    fn write(&mut self, _: &[u8]) {
        unreachable!("a hash is hashed as a number");
    }

    #[inline]
    fn write_u64(&mut self, hash: u64) {
        self.0 = hash;
    }

    #[inline]
    fn finish(&self) -> u64 {
        self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The table and a list of the same entries, whose hashes collide.
    #[test]
    fn entries_with_equal_hashes_are_told_apart() {
        let (mut table, mut list) = (KeyTable::new(), Vec::new());
        let mut random = fastrand::Rng::with_seed(1);
        for number in 0..10_000_usize {
            let key = (random.u64(..8), random.usize(..8));
            match (random.bool(), list.iter().position(|(other, _)| *other == key)) {
                (true, None) => {
                    assert_eq!(*table.get_or_insert_with(key, || number), number);
                    list.push((key, number));
                }
                (true, Some(place)) => {
                    assert_eq!(*table.get_or_insert_with(key, || number), list[place].1);
                    *table.get_mut(key).expect("it is there") += 1;
                    list[place].1 += 1;
                }
                (false, place) => assert_eq!(table.remove(key), place.map(|place| list.swap_remove(place).1)),
            }
            assert_eq!(table.len(), list.len());
            assert!(list.iter().all(|(key, value)| table.get(*key) == Some(value)));
            let with_hash = |hash| list.iter().filter(|((other, _), _)| *other == hash).count();
            assert!((0..8).all(|hash| table.with_hash(hash).count() == with_hash(hash)));
        }
        let mut taken: Vec<_> = table.take_all().collect();
        assert_eq!(table.len(), 0);
        taken.sort_unstable();
        list.sort_unstable();
        assert_eq!(taken, list);
    }

    #[test]
    fn a_table_that_becomes_empty_releases_its_memory() {
        let mut table = KeyTable::new();
        for key in 0..100_000 {
            table.get_or_insert_with((key, 0), || ());
        }
        assert!(table.chains.capacity() >= 100_000);
        (0..100_000).for_each(|key| assert!(table.remove((key, 0)).is_some()));
        assert!(table.chains.capacity() < MIN_SHRUNK);
    }
}

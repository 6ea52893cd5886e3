//! Finding the entry of a key without calling user code under the lock.
//!
//! The hash of a key is computed before the lock is taken. Entries are found by their hash; a key
//! with the same hash is then compared without the lock, and looked for again under it. In between
//! the key may become absent, so the search starts again. Each new search means that another thread
//! has ended the last turn of an equal key, or that two keys have the same hash.

use std::hash::{BuildHasher, Hash};

use super::name::{KeyId, KeyName};
use super::state::{KeyedInner, State};
use crate::sync::{Arc, MutexGuard};

/// A key that is looked for, and what is known of the entries with its hash.
pub(super) struct Lookup<K> {
    /// The name that a new entry gets.
    pub(super) name: Arc<KeyName<K>>,
    /// A name with an equal key. Its entry may be gone.
    equal: Option<Arc<KeyName<K>>>,
    /// Names with other keys. Kept, so that no address is reused.
    unequal: Vec<Arc<KeyName<K>>>,
}

impl<K: Hash + Eq> Lookup<K> {
    /// Hashes the key.
    pub(super) fn new(key: K, inner: &KeyedInner<K>) -> Self {
        let hash = inner.hasher.hash_one(&key);
        Self { name: Arc::new(KeyName { hash, key }), equal: None, unequal: Vec::new() }
    }

    /// Takes the lock, and returns the id of the key's entry if there is one. Compares keys without
    /// the lock.
    pub(super) fn find<'a>(&mut self, inner: &'a KeyedInner<K>) -> (MutexGuard<'a, State<K>>, Option<KeyId>) {
        loop {
            let state = inner.state.lock();
            let known = self.equal.as_ref().map(KeyName::id).filter(|id| state.keys.contains_key(id));
            if known.is_some() {
                return (state, known);
            }
            let hash = self.name.hash;
            let mut names = state.keys.range((hash, 0)..=(hash, usize::MAX)).map(|(_, queue)| &queue.name);
            let is_new = |name: &&Arc<KeyName<K>>| !self.unequal.iter().any(|other| Arc::ptr_eq(other, name));
            let Some(name) = names.find(is_new).cloned() else { return (state, None) };
            drop(state);
            if name.key == self.name.key {
                self.equal = Some(name);
            } else {
                self.unequal.push(name);
            }
        }
    }
}

//! Finding the entry of a key without calling user code under the lock.
//!
//! The hash of a key is computed before the lock is taken. Entries are found by their hash; a key
//! with the same hash is then compared without the lock, and looked for again under it. In between
//! the key may become absent, so the search starts again. Each new search means that another thread
//! has ended the last turn of an equal key, or that two keys have the same hash.

use std::hash::{BuildHasher, Hash, RandomState};

use super::name::{KeyId, KeyName};
use super::serial_queues::{KeyState, SerialQueues};
use crate::nesting;
use crate::sync::{Arc, MutexGuard};

/// A key that is looked for, and what is known of the entries with its hash.
pub(crate) struct Lookup<K> {
    /// The name that a new entry gets.
    pub(super) name: KeyName<K>,
    known: KnownNames<K>,
}

/// What a lookup leaves when its name was taken.
pub(super) struct LookupRest<K> {
    _unused: Option<KeyName<K>>,
    _known: KnownNames<K>,
}

/// What is known of the entries with one hash.
pub(crate) struct KnownNames<K> {
    hash: u64,
    /// A name with an equal key. Its entry may be gone.
    equal: Option<Arc<KeyName<K>>>,
    /// Names with other keys. Kept, so that no address is reused.
    unequal: Vec<Arc<KeyName<K>>>,
}

impl<K: Hash> Lookup<K> {
    /// Hashes the key, whose tasks have that label.
    pub(super) fn new(key: K, hasher: &RandomState, label: Option<Arc<str>>) -> Self {
        let hash = nesting::key_code(|| hasher.hash_one(&key));
        Self { name: KeyName { hash, key, label }, known: KnownNames::new(hash) }
    }
}

impl<K> Lookup<K> {
    /// Returns the name of the entry that was found, or of a new one. The caller drops the rest
    /// without the lock.
    pub(super) fn into_name(self, found: Option<&Arc<KeyName<K>>>) -> (Arc<KeyName<K>>, LookupRest<K>) {
        let Self { name, known } = self;
        let (name, unused) = match found {
            Some(found) => (Arc::clone(found), Some(name)),
            None => (Arc::new(name), None),
        };
        (name, LookupRest { _unused: unused, _known: known })
    }
}

impl<K: PartialEq> Lookup<K> {
    /// Takes the lock, and returns the id of the key's entry if there is one. Compares keys without
    /// the lock.
    pub(crate) fn find<'a, S, T: 'a, X: KeyState + 'a>(
        &mut self,
        lock: impl Fn() -> MutexGuard<'a, S>,
        queues: impl Fn(&S) -> Option<&SerialQueues<K, T, X>>,
    ) -> (MutexGuard<'a, S>, Option<KeyId>)
    where
        K: 'a,
    {
        self.known.find(|other| *other == self.name.key, lock, queues)
    }
}

impl<K> KnownNames<K> {
    pub(crate) fn new(hash: u64) -> Self {
        Self { hash, equal: None, unequal: Vec::new() }
    }

    /// Like [`Lookup::find`], for the key that `is_equal` compares with others.
    pub(crate) fn find<'a, S, T: 'a, X: KeyState + 'a>(
        &mut self,
        is_equal: impl Fn(&K) -> bool,
        lock: impl Fn() -> MutexGuard<'a, S>,
        queues: impl Fn(&S) -> Option<&SerialQueues<K, T, X>>,
    ) -> (MutexGuard<'a, S>, Option<KeyId>)
    where
        K: 'a,
    {
        loop {
            let state = lock();
            let Some(keys) = queues(&state) else { return (state, None) };
            let known = self.equal.as_ref().map(KeyName::id).filter(|id| keys.get(*id).is_some());
            if known.is_some() {
                return (state, known);
            }
            let is_new = |name: &&Arc<KeyName<K>>| !self.unequal.iter().any(|other| Arc::ptr_eq(other, name));
            let Some(name) = keys.names(self.hash).find(is_new).cloned() else { return (state, None) };
            drop(state);
            if is_equal(&name.key) {
                self.equal = Some(name);
            } else {
                self.unequal.push(name);
            }
        }
    }

    /// Takes the name with an equal key, and leaves the others.
    #[cfg(feature = "events")]
    pub(crate) fn take_equal(&mut self) -> Option<Arc<KeyName<K>>> {
        self.equal.take()
    }

    /// Returns `true` if no names are left.
    #[cfg(feature = "events")]
    pub(crate) fn is_empty(&self) -> bool {
        self.equal.is_none() && self.unequal.is_empty()
    }
}

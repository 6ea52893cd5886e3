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
    pub(crate) name: Arc<KeyName<K>>,
    /// A name with an equal key. Its entry may be gone.
    equal: Option<Arc<KeyName<K>>>,
    /// Names with other keys. Kept, so that no address is reused.
    unequal: Vec<Arc<KeyName<K>>>,
}

impl<K: Hash> Lookup<K> {
    /// Hashes the key, whose tasks have that label.
    pub(super) fn new(key: K, hasher: &RandomState, label: Option<Arc<str>>) -> Self {
        let hash = nesting::key_code(|| hasher.hash_one(&key));
        Self::with_name(KeyName { hash, key, label })
    }
}

impl<K> Lookup<K> {
    fn with_name(name: KeyName<K>) -> Self {
        Self { name: Arc::new(name), equal: None, unequal: Vec::new() }
    }

    /// Looks for a key that was hashed before.
    #[cfg(feature = "events")]
    pub(crate) fn with_hash(hash: u64, key: K) -> Self {
        Self::with_name(KeyName { hash, key, label: None })
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
        loop {
            let state = lock();
            let Some(keys) = queues(&state) else { return (state, None) };
            let known = self.equal.as_ref().map(KeyName::id).filter(|id| keys.get(*id).is_some());
            if known.is_some() {
                return (state, known);
            }
            let is_new = |name: &&Arc<KeyName<K>>| !self.unequal.iter().any(|other| Arc::ptr_eq(other, name));
            let Some(name) = keys.names(self.name.hash).find(is_new).cloned() else { return (state, None) };
            drop(state);
            if name.key == self.name.key {
                self.equal = Some(name);
            } else {
                self.unequal.push(name);
            }
        }
    }
}

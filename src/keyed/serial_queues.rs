//! Serial queues by key that take turns: the data of a keyed executor, and of a subscription whose
//! events are ordered by a key.
//!
//! | a key is | meaning | next |
//! |---|---|---|
//! | *absent* | has no entry | *ready*; *resting* |
//! | *resting* | has an entry, which its owner keeps, and no items | *ready*; *absent* |
//! | *ready* | has items, and one place in the ready queue | *busy*, when its oldest item is taken |
//! | *busy* | an item was taken and has not ended; has no place in the ready queue | when [settled](SerialQueues::settle): *ready*, at the back of the ready queue, *resting* or *absent* |
//!
//! The owner says in its [`KeyState`] which keys are busy, and which entries it keeps. This module
//! knows no locks, and drops no key: an entry that is removed is returned.

use super::entries::Entries;
use super::name::{KeyId, KeyName};
use super::ready::ReadyQueue;
use crate::group::small_deque::SmallDeque;
use crate::sync::Arc;

/// What the owner knows of a key.
pub(crate) trait KeyState {
    /// Returns `true` if an item of the key was taken and has not ended.
    fn is_busy(&self) -> bool;

    /// Returns `true` if the entry is kept, even without items.
    fn is_kept(&self) -> bool {
        false
    }
}

/// The keys, and the order in which they take turns.
pub(crate) struct SerialQueues<K, T, X> {
    /// The keys that are not absent.
    keys: Entries<KeyQueue<K, T, X>>,
    /// The ready keys.
    ready: ReadyQueue,
    /// How many items are in the queues of all keys.
    queued: usize,
}

/// The entry of a key.
pub(crate) struct KeyQueue<K, T, X> {
    /// The key.
    pub(crate) name: Arc<KeyName<K>>,
    /// What the owner knows of it.
    pub(crate) state: X,
    /// The items, oldest first.
    items: SmallDeque<T>,
    /// The place in the ready queue; `None` if the key is not ready.
    place: Option<u64>,
}

/// What [`SerialQueues::take_items`] takes of a key: its name, its items, and what the owner knows of it
/// if the whole entry was taken.
pub(crate) type TakenEntry<K, T, X> = (Arc<KeyName<K>>, SmallDeque<T>, Option<X>);

impl<K, T, X> KeyQueue<K, T, X> {
    fn new(name: &Arc<KeyName<K>>) -> Self
    where
        X: Default,
    {
        Self { name: Arc::clone(name), state: X::default(), items: SmallDeque::new(), place: None }
    }

    /// Returns the number of its items.
    pub(crate) fn len(&self) -> usize {
        self.items.len()
    }

    /// Returns `true` if the key is ready.
    pub(crate) fn is_ready(&self) -> bool {
        self.place.is_some()
    }

    /// Puts the key to the back of the ready queue, if it has items and is neither busy nor ready.
    fn make_ready(&mut self, ready: &mut ReadyQueue)
    where
        X: KeyState,
    {
        if self.place.is_none() && !self.items.is_empty() && !self.state.is_busy() {
            self.place = Some(ready.push_back(self.name.id()));
        }
    }
}

impl<K, T, X: KeyState> SerialQueues<K, T, X> {
    pub(crate) fn new() -> Self {
        Self { keys: Entries::new(), ready: ReadyQueue::new(), queued: 0 }
    }

    /// Returns the number of keys that have an entry.
    pub(crate) fn keys(&self) -> usize {
        self.keys.len()
    }

    /// Returns the number of items in the queues of all keys.
    pub(crate) fn queued(&self) -> usize {
        self.queued
    }

    /// Returns the number of ready keys.
    pub(crate) fn ready(&self) -> usize {
        self.ready.len()
    }

    /// Returns the entry of a key.
    pub(crate) fn get(&self, key: KeyId) -> Option<&KeyQueue<K, T, X>> {
        self.keys.get(key)
    }

    /// Returns the entry of a key.
    pub(crate) fn get_mut(&mut self, key: KeyId) -> Option<&mut KeyQueue<K, T, X>> {
        self.keys.get_mut(key)
    }

    /// Returns the names of all keys with this hash.
    pub(crate) fn names(&self, hash: u64) -> impl Iterator<Item = &Arc<KeyName<K>>> {
        self.keys.with_hash(hash).map(|queue| &queue.name)
    }

    /// Returns the entry of a key, which is made if the key is absent.
    #[cfg(feature = "events")]
    pub(crate) fn entry(&mut self, name: &Arc<KeyName<K>>) -> &mut KeyQueue<K, T, X>
    where
        X: Default,
    {
        self.keys.get_or_insert_with(name.id(), || KeyQueue::new(name))
    }

    /// Adds an item to the queue of a key, which becomes ready unless it is busy.
    pub(crate) fn push_back(&mut self, name: &Arc<KeyName<K>>, item: T)
    where
        X: Default,
    {
        let queue = self.keys.get_or_insert_with(name.id(), || KeyQueue::new(name));
        queue.items.push_back(item);
        queue.make_ready(&mut self.ready);
        self.queued += 1;
    }

    /// Puts an item before all others of its key, which becomes ready unless it is busy. Returns
    /// the item if the key is absent.
    #[cfg(feature = "retry")]
    pub(crate) fn push_front(&mut self, key: KeyId, item: T) -> Result<(), T> {
        let Some(queue) = self.keys.get_mut(key) else { return Err(item) };
        queue.items.push_front(item);
        queue.make_ready(&mut self.ready);
        self.queued += 1;
        Ok(())
    }

    /// Returns the key at the front of the ready queue.
    pub(crate) fn first(&self) -> Option<KeyId> {
        self.ready.first()
    }

    /// Takes the oldest item of a key, if the key is ready. The caller makes the key busy.
    pub(crate) fn take(&mut self, key: KeyId) -> Option<(&mut KeyQueue<K, T, X>, T)> {
        let queue = self.keys.get_mut(key)?;
        let place = queue.place?;
        let item = queue.items.pop_front().expect("a ready key has an item");
        queue.items.shrink();
        queue.place = None;
        self.ready.remove(place);
        self.queued -= 1;
        Some((queue, item))
    }

    /// Removes the oldest item of a key, which takes no turn by that.
    #[cfg(feature = "events")]
    pub(crate) fn remove_first(&mut self, key: KeyId) -> Option<T> {
        let queue = self.keys.get_mut(key)?;
        let item = queue.items.pop_front()?;
        queue.items.shrink();
        self.queued -= 1;
        if queue.items.is_empty()
            && let Some(place) = queue.place.take()
        {
            self.ready.remove(place);
        }
        Some(item)
    }

    /// Makes a key ready if it has items and is not busy. Returns its entry if it has no items, is
    /// not busy and is not kept.
    pub(crate) fn settle(&mut self, key: KeyId) -> Option<KeyQueue<K, T, X>> {
        let queue = self.keys.get_mut(key)?;
        queue.make_ready(&mut self.ready);
        let has_ended = queue.items.is_empty() && !queue.state.is_busy() && !queue.state.is_kept();
        if has_ended { self.keys.remove(key) } else { None }
    }

    /// Takes all items, and the entries except those that `keep` keeps.
    pub(crate) fn take_items(&mut self, keep: impl Fn(&X) -> bool) -> Vec<TakenEntry<K, T, X>> {
        self.queued = 0;
        self.ready = ReadyQueue::new();
        let mut taken = Vec::new();
        for mut queue in self.keys.take_all() {
            queue.place = None;
            if keep(&queue.state) {
                let name = Arc::clone(&queue.name);
                taken.push((Arc::clone(&name), queue.items.take_all(), None));
                self.keys.get_or_insert_with(name.id(), || queue);
            } else {
                taken.push((queue.name, queue.items, Some(queue.state)));
            }
        }
        taken
    }
}

#[cfg(all(test, feature = "events"))]
mod tests;

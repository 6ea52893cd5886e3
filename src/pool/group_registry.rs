//! A sharded registry of the groups and subscriptions of a pool, which are notified of its shutdown
//! and of new workers.

use std::mem;

use crate::sync::{Arc, CachePadded, Mutex, Weak};

/// The number of shards. Threads that use different shards do not contend.
const SHARDS: usize = 8;
/// The number of slots that an empty shard keeps allocated.
const MAX_KEPT: usize = 64;

/// The number of slots that are looked at under one hold of a lock.
const PER_HOLD: usize = 64;

/// The live groups of a pool.
///
/// To register and to deregister takes one lock each, and seldom allocates, because slots are
/// reused.
pub(crate) struct GroupRegistry<T: ?Sized>([CachePadded<Mutex<State<T>>>; SHARDS]);

/// What the lock of a shard guards.
struct State<T: ?Sized> {
    /// A group, or `None` if the slot is free.
    slots: Vec<Option<Weak<T>>>,
    /// The free slots.
    free: Vec<usize>,
}

/// The slot of a registered group, until it is deregistered.
#[derive(Debug)]
pub(crate) struct Registration {
    pub(crate) shard: usize,
    slot: usize,
}

impl<T: ?Sized> GroupRegistry<T> {
    pub(crate) fn new() -> Self {
        Self(Default::default())
    }

    /// Registers a group. Any number is a valid shard.
    #[inline]
    pub(crate) fn register(&self, group: Weak<T>, shard: usize) -> Registration {
        let shard = shard % SHARDS;
        let mut state = self.0[shard].0.lock();
        let slot = if let Some(slot) = state.free.pop() {
            state.slots[slot] = Some(group);
            slot
        } else {
            state.slots.push(Some(group));
            state.slots.len() - 1
        };
        Registration { shard, slot }
    }

    /// Frees the slot of a group. Called once for each registration.
    #[inline]
    pub(crate) fn deregister(&self, registration: &Registration) {
        let mut state = self.0[registration.shard].0.lock();
        let group = state.slots[registration.slot].take();
        state.free.push(registration.slot);
        let mut unused = State::default();
        if state.free.len() == state.slots.len() && state.slots.len() > MAX_KEPT {
            mem::swap(&mut *state, &mut unused);
        }
        drop(state);
        drop((group, unused)); // outside of the lock
    }

    /// Returns the groups that are alive. May miss a group that registers at the same time.
    pub(crate) fn live(&self) -> Vec<Arc<T>> {
        let mut groups = Vec::new();
        for shard in &self.0 {
            groups.extend(shard.0.lock().slots.iter().flatten().filter_map(Weak::upgrade));
        }
        groups
    }

    /// Calls `each` with the groups that are alive, with no lock held. Holds the lock of a shard for
    /// a few slots at a time. May miss a group that registers at the same time.
    pub(crate) fn for_each(&self, mut each: impl FnMut(Arc<T>)) {
        for shard in &self.0 {
            let mut next = 0;
            loop {
                let state = shard.0.lock();
                let Some(slots) = state.slots.get(next..).filter(|slots| !slots.is_empty()) else { break };
                let slots = &slots[..slots.len().min(PER_HOLD)];
                next += slots.len();
                let groups: Vec<Arc<T>> = slots.iter().flatten().filter_map(Weak::upgrade).collect();
                drop(state);
                groups.into_iter().for_each(&mut each);
            }
        }
    }

    /// Returns the number of registered groups.
    #[cfg(test)]
    pub(crate) fn len(&self) -> usize {
        self.0.iter().map(|shard| shard.0.lock().slots.iter().flatten().count()).sum()
    }
}

impl<T: ?Sized> Default for State<T> {
    fn default() -> Self {
        Self { slots: Vec::new(), free: Vec::new() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slots_are_reused_and_freed_when_the_shard_is_empty() {
        let registry = GroupRegistry::new();
        let groups: Vec<Arc<usize>> = (0..10 * MAX_KEPT).map(Arc::new).collect();
        let register = |group| registry.register(Arc::downgrade(group), 5);
        let shard = || registry.0[5].0.lock();
        for _ in 0..3 {
            let registrations: Vec<_> = groups.iter().map(register).collect();
            assert_eq!(registry.live(), groups);
            registrations[1..].iter().for_each(|registration| registry.deregister(registration));
            assert_eq!(registry.live(), groups[..1]);
            let again = register(&groups[1]);
            assert_eq!(registry.live(), groups[..2]);
            assert_eq!(shard().slots.len(), groups.len());
            registry.deregister(&again);
            registry.deregister(&registrations[0]);
            assert_eq!(shard().slots.capacity(), 0);
        }
        let few: Vec<_> = groups[..MAX_KEPT].iter().map(register).collect();
        few.iter().for_each(|registration| registry.deregister(registration));
        assert_eq!(shard().slots.len(), MAX_KEPT, "a small shard keeps its slots");
    }

    #[test]
    fn groups_of_all_shards_are_found_and_dead_ones_are_not() {
        let registry = GroupRegistry::new();
        let groups: Vec<Arc<usize>> = (0..100).map(Arc::new).collect();
        let registrations: Vec<_> =
            groups.iter().map(|group| registry.register(Arc::downgrade(group), **group)).collect();
        let dead = registry.register(Arc::downgrade(&Arc::new(1)), 1);
        let mut found = registry.live();
        found.sort_unstable();
        assert_eq!(found, groups);
        registrations.iter().chain([&dead]).for_each(|registration| registry.deregister(registration));
        assert_eq!(registry.live(), []);
    }
}

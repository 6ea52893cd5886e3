//! The unbounded lane of the queue, which is empty most of the time.
//!
//! It consists of shards, so that threads that push many items do not contend for one lock. Each
//! shard is first in, first out, and workers take from the shards in turn. `nonempty` has one bit
//! for each shard that holds items, so that a worker checks all shards by one load.
//!
//! The bit of a shard is set under the shard's lock before any thread can pop the first item. It is
//! cleared under the lock after the last item was popped. Before a thread that has pushed an item
//! looks for sleeping workers, the bit was set by that thread or by an earlier holder of the lock.
//! A worker that has registered and then finds the bit clear has either loaded it before it was
//! set, or after the item was popped. All of these are `SeqCst`.

use std::array;
use std::collections::VecDeque;
use std::mem;

use crate::sync::{AtomicUsize, CachePadded, Mutex, Ordering};

/// The number of shards.
pub(super) const SHARDS: usize = 8;
/// The shortest length at which a shard is searched for stale items.
const MIN_PURGE_LEN: usize = 64;

/// A lane without a limit. It drops items that have become stale.
pub(super) struct UnboundedLane<T> {
    shards: [CachePadded<Shard<T>>; SHARDS],
    /// A bit for each shard that holds items.
    nonempty: CachePadded<AtomicUsize>,
}

struct Shard<T> {
    items: Mutex<Items<T>>,
    /// The number of items. Changed under the lock.
    len: AtomicUsize,
}

/// What the lock of a shard guards.
struct Items<T> {
    queue: VecDeque<T>,
    /// The length at which the shard is searched for stale items: twice the length after the last
    /// search. So searching takes constant time per item.
    next_purge: usize,
}

impl<T> UnboundedLane<T> {
    pub(super) fn new() -> Self {
        Self { shards: array::from_fn(|_| CachePadded(Shard::new())), nonempty: CachePadded::default() }
    }

    /// Pushes the item to the shard `shard % SHARDS`. Returns stale items, which the caller drops
    /// with no lock held.
    #[must_use = "the returned items must be dropped outside of locks"]
    #[inline]
    pub(super) fn push(&self, item: T, shard: usize, is_stale: impl Fn(&T) -> bool) -> Option<Vec<T>> {
        self.change(shard, |items| {
            let stale = (items.queue.len() >= items.next_purge).then(|| items.purge(is_stale));
            items.queue.push_back(item);
            stale
        })
    }

    /// Pops the oldest item of a shard, if there is one. Begins with the shard `next_shard`, and
    /// advances it.
    #[inline]
    pub(super) fn pop(&self, next_shard: &mut usize) -> Option<T> {
        // ORDERING: SeqCst; see the head of this file.
        let nonempty = self.nonempty.0.load(Ordering::SeqCst);
        if nonempty == 0 { None } else { self.pop_from(nonempty, next_shard) }
    }

    fn pop_from(&self, nonempty: usize, next_shard: &mut usize) -> Option<T> {
        let first = *next_shard;
        (0..SHARDS).map(|step| (first + step) % SHARDS).filter(|shard| nonempty & (1 << shard) != 0).find_map(|shard| {
            *next_shard = (shard + 1) % SHARDS;
            self.change(shard, |items| items.queue.pop_front())
        })
    }

    /// Removes the youngest item of a shard, if `matches` returns `true` for it.
    #[inline]
    pub(super) fn unpush(&self, shard: usize, matches: impl FnOnce(&T) -> bool) -> Option<T> {
        self.change(shard, |items| if items.queue.back().is_some_and(matches) { items.queue.pop_back() } else { None })
    }

    /// Returns whether the lane is empty; may be stale when it returns.
    #[inline]
    pub(super) fn is_empty(&self) -> bool {
        // ORDERING: see the head of this file; a worker that has ended its search checks here too.
        self.nonempty.0.load(Ordering::SeqCst) == 0
    }

    /// Returns the number of items; may be stale when it returns.
    pub(super) fn len(&self) -> usize {
        let nonempty = self.nonempty.0.load(Ordering::SeqCst);
        if nonempty == 0 {
            return 0;
        }
        shards_of(nonempty).map(|shard| self.shards[shard].0.len.load(Ordering::Relaxed)).sum()
    }

    /// Changes the items of a shard, and updates its length and its bit.
    #[inline]
    fn change<V>(&self, shard: usize, change: impl FnOnce(&mut Items<T>) -> V) -> V {
        let shard = shard % SHARDS;
        let Shard { items, len } = &self.shards[shard].0;
        let mut items = items.lock();
        let before = items.queue.len();
        let value = change(&mut items);
        let after = items.queue.len();
        len.store(after, Ordering::Relaxed);
        // ORDERING: SeqCst; see the head of this file. No other thread changes this bit meanwhile.
        if before == 0 && after > 0 {
            self.nonempty.0.fetch_add(1 << shard, Ordering::SeqCst);
        } else if before > 0 && after == 0 {
            self.nonempty.0.fetch_sub(1 << shard, Ordering::SeqCst);
        }
        value
    }
}

/// Returns the shards whose bits are set.
fn shards_of(nonempty: usize) -> impl Iterator<Item = usize> {
    (0..SHARDS).filter(move |shard| nonempty & (1 << shard) != 0)
}

impl<T> Shard<T> {
    fn new() -> Self {
        Self {
            items: Mutex::new(Items { queue: VecDeque::new(), next_purge: MIN_PURGE_LEN }),
            len: AtomicUsize::new(0),
        }
    }
}

impl<T> Items<T> {
    /// Removes stale items.
    #[cold]
    fn purge(&mut self, is_stale: impl Fn(&T) -> bool) -> Vec<T> {
        let (stale, fresh): (Vec<T>, _) = mem::take(&mut self.queue).into_iter().partition(is_stale);
        self.queue = fresh.into();
        self.next_purge = MIN_PURGE_LEN.max(2 * self.queue.len());
        stale
    }
}

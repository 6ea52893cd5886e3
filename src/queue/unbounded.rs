//! The lane beside the bounded one, nearly always empty.
//!
//! It has shards, so that threads that bring much do not wait for each other: each shard hands out in the order of arrival, and
//! they take turns. `nonempty` says which shards hold something, in one word that every worker can look at.
//!
//! A shard's bit is set under the shard's lock before the first item is seen by anyone, and cleared under it after the last
//! was taken. So who brings an item and then looks for sleepers has written the bit, or it was written under a hold of
//! the lock that came before; and a worker that has announced its sleep and then finds the bit clear has come before
//! that write, or after the item was taken. [All of these are `SeqCst`.]

use std::array;
use std::collections::VecDeque;
use std::mem;

use crate::defect::defect;
use crate::sync::{AtomicUsize, CachePadded, Mutex, Ordering};

/// How many shards there are.
pub(super) const SHARDS: usize = 8;
/// The shortest length at which stale items of a shard are looked for.
const MIN_PURGE_LEN: usize = 64;

/// A lane that refuses nothing, but forgets what has died in it.
pub(super) struct UnboundedLane<T> {
    shards: [CachePadded<Shard<T>>; SHARDS],
    /// Bit by bit, which shards hold something.
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
    /// The length at which stale items are looked for: twice what the last look left, so that looking costs each item a
    /// constant.
    next_purge: usize,
}

impl<T> UnboundedLane<T> {
    pub(super) fn new() -> Self {
        Self { shards: array::from_fn(|_| CachePadded(Shard::new())), nonempty: CachePadded::default() }
    }

    /// Takes the item in; returns stale ones, to be dropped by the caller, who holds no lock. `shard` is any number.
    #[must_use = "what is returned is to be dropped outside of locks"]
    #[inline]
    pub(super) fn push(&self, item: T, shard: usize, is_stale: impl Fn(&T) -> bool) -> Option<Vec<T>> {
        self.change(shard, |items| {
            let stale = (items.queue.len() >= items.next_purge).then(|| items.purge(is_stale));
            items.queue.push_back(item);
            stale
        })
    }

    /// Hands out the oldest item of some shard, if there is one. `next_shard` is where to look first, and is moved on.
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

    /// Takes back the youngest item of a shard, if it is the one that `is_it` tells.
    #[inline]
    pub(super) fn unpush(&self, shard: usize, is_it: impl FnOnce(&T) -> bool) -> Option<T> {
        self.change(shard, |items| if items.queue.back().is_some_and(is_it) { items.queue.pop_back() } else { None })
    }

    /// Whether it holds nothing; out of date when it arrives.
    #[inline]
    pub(super) fn is_empty(&self) -> bool {
        // ORDERING: see the head of this file; a worker that has ended its search looks here as well.
        self.nonempty.0.load(Ordering::SeqCst) == 0
    }

    /// How many items it holds; out of date when it arrives.
    pub(super) fn len(&self) -> usize {
        let nonempty = self.nonempty.0.load(Ordering::SeqCst);
        shards_of(nonempty).map(|shard| self.shards[shard].0.len.load(Ordering::Relaxed)).sum()
    }

    /// Changes the items of a shard, and says what that makes of it.
    #[inline]
    fn change<V>(&self, shard: usize, change: impl FnOnce(&mut Items<T>) -> V) -> V {
        let shard = shard % SHARDS;
        let Shard { items, len } = &self.shards[shard].0;
        let mut items = items.lock();
        let before = items.queue.len();
        let value = change(&mut items);
        let after = items.queue.len();
        len.store(after, Ordering::Relaxed);
        // ORDERING: SeqCst; see the head of this file. Nobody else changes this bit meanwhile.
        if before == 0 && after > 0 && !defect!("row without a bit") {
            self.nonempty.0.fetch_add(1 << shard, Ordering::SeqCst);
        } else if before > 0 && after == 0 {
            self.nonempty.0.fetch_sub(1 << shard, Ordering::SeqCst);
        }
        value
    }
}

/// The shards whose bits are set.
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
        let (stale, alive): (Vec<T>, _) = mem::take(&mut self.queue).into_iter().partition(is_stale);
        self.queue = alive.into();
        self.next_purge = MIN_PURGE_LEN.max(2 * self.queue.len());
        stale
    }
}

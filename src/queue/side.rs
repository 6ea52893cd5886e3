//! The lane beside the bounded one, nearly always empty.

use std::collections::VecDeque;
use std::mem;

use crate::sync::{AtomicUsize, Mutex, Ordering};

/// The shortest length at which dead items are looked for.
const FIRST_PURGE: usize = 64;

/// A lane that refuses nothing, but forgets what has died in it.
pub(super) struct SideLane<T> {
    inner: Mutex<Inner<T>>,
    /// The number of items. Changed under the lock, right after the change that it counts.
    len: AtomicUsize,
}

/// What the lock guards.
struct Inner<T> {
    items: VecDeque<T>,
    /// The length at which dead items are looked for: twice what the last look left, so that looking costs each item a
    /// constant.
    next_purge: usize,
}

impl<T> SideLane<T> {
    pub(super) fn new() -> Self {
        let inner = Inner { items: VecDeque::new(), next_purge: FIRST_PURGE };
        Self { inner: Mutex::new(inner), len: AtomicUsize::new(0) }
    }

    /// Takes the item in; returns dead ones, to be dropped by the caller, who holds no lock.
    #[must_use = "what is returned is to be dropped outside of locks"]
    #[inline]
    pub(super) fn push(&self, item: T, is_dead: impl Fn(&T) -> bool) -> Option<Vec<T>> {
        let mut inner = self.inner.lock();
        let dead = (inner.items.len() >= inner.next_purge).then(|| inner.purge(is_dead));
        inner.items.push_back(item);
        // ORDERING: SeqCst, before the pusher looks for sleepers; pairs with the load in `pop`, after a worker has
        // announced its sleep.
        self.len.store(inner.items.len(), Ordering::SeqCst);
        dead
    }

    /// Hands out the oldest item, if there is one.
    #[inline]
    pub(super) fn pop(&self) -> Option<T> {
        // ORDERING: see `push`. Empty is read without the lock; a push that is missed here sees the sleeper's
        // announcement.
        if self.len.load(Ordering::SeqCst) == 0 {
            return None;
        }
        let mut inner = self.inner.lock();
        let item = inner.items.pop_front();
        self.len.store(inner.items.len(), Ordering::SeqCst);
        item
    }

    /// Takes back the youngest item, if it is the one that `is_it` tells.
    #[inline]
    pub(super) fn take_back(&self, is_it: impl FnOnce(&T) -> bool) -> Option<T> {
        // ORDERING: as in `pop`.
        if self.len.load(Ordering::SeqCst) == 0 {
            return None;
        }
        let mut inner = self.inner.lock();
        let item = if inner.items.back().is_some_and(is_it) { inner.items.pop_back() } else { None };
        self.len.store(inner.items.len(), Ordering::SeqCst);
        item
    }

    /// How many items it holds; out of date when it arrives.
    pub(super) fn len(&self) -> usize {
        // ORDERING: see `push`; a worker that has ended its search looks here as well.
        self.len.load(Ordering::SeqCst)
    }
}

impl<T> Inner<T> {
    /// Removes dead items.
    #[cold]
    fn purge(&mut self, is_dead: impl Fn(&T) -> bool) -> Vec<T> {
        let (dead, alive): (Vec<T>, _) = mem::take(&mut self.items).into_iter().partition(is_dead);
        self.items = alive.into();
        self.next_purge = FIRST_PURGE.max(2 * self.items.len());
        dead
    }
}

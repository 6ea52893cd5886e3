//! The bounded lane for model checks: a deque behind a lock.
//!
//! It uses only the `sync` facade, so a model checker sees each step. It keeps the contract of
//! bounded lanes because the lock orders two operations: the later one sees all that happened
//! before the earlier one.

use std::collections::VecDeque;

use crate::sync::Mutex;

/// A bounded multi-producer, multi-consumer lane.
pub(super) struct Lane<T> {
    items: Mutex<VecDeque<T>>,
    /// The limit of items.
    capacity: usize,
}

impl<T> Lane<T> {
    pub(super) fn new(capacity: usize) -> Self {
        Self { items: Mutex::default(), capacity }
    }

    /// Pushes the item, or returns it if the lane is full.
    pub(super) fn try_push(&self, item: T) -> Result<(), T> {
        let mut items = self.items.lock();
        if items.len() >= self.capacity {
            return Err(item);
        }
        items.push_back(item);
        Ok(())
    }

    /// Pops the oldest item, if there is one.
    pub(super) fn try_pop(&self) -> Option<T> {
        self.items.lock().pop_front()
    }

    /// Returns the number of items, which never exceeds the capacity; may be stale when it returns.
    pub(super) fn len(&self) -> usize {
        self.items.lock().len()
    }

    pub(super) fn capacity(&self) -> usize {
        self.capacity
    }
}

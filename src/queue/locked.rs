//! The twin for model checks: a ring under one lock.
//!
//! It is built of nothing but the `sync` door, so a model checker sees through it. It keeps the contract of the engines
//! because two operations meet in the lock: the later one sees all that was done before the earlier one.

use std::collections::VecDeque;

use crate::sync::Mutex;

/// A bounded multi-producer, multi-consumer lane.
pub(super) struct Lane<T> {
    items: Mutex<VecDeque<T>>,
    /// The most items it may hold.
    capacity: usize,
}

impl<T> Lane<T> {
    pub(super) fn new(capacity: usize) -> Self {
        Self { items: Mutex::default(), capacity }
    }

    /// Takes the item in, or gives it back if there is no room.
    pub(super) fn try_push(&self, item: T) -> Result<(), T> {
        let mut items = self.items.lock();
        if items.len() >= self.capacity {
            return Err(item);
        }
        items.push_back(item);
        Ok(())
    }

    /// Hands out the oldest item, if there is one.
    pub(super) fn try_pop(&self) -> Option<T> {
        self.items.lock().pop_front()
    }

    /// How many items it holds; out of date when it arrives, but never above the capacity.
    pub(super) fn len(&self) -> usize {
        self.items.lock().len()
    }

    pub(super) fn capacity(&self) -> usize {
        self.capacity
    }
}

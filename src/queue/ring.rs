//! The twin for model checks: a ring under one lock, with one condition for each side.
//!
//! It is built of nothing but the `sync` door, so a model checker sees through it.

use std::collections::VecDeque;

use super::PushError;
use crate::deadline::Deadline;
use crate::sync::{Condvar, Mutex};

/// A bounded multi-producer, multi-consumer queue.
pub(crate) struct Queue<T> {
    /// Items and signals; changed together.
    ring: Mutex<Ring<T>>,
    /// The most items it may hold.
    capacity: usize,
    /// Notified when an item leaves or the queue is closed.
    room: Condvar,
    /// Notified when an item arrives or the queue is stopped.
    items: Condvar,
}

/// What the lock guards.
struct Ring<T> {
    items: VecDeque<T>,
    closed: bool,
    stopped: bool,
}

impl<T> Queue<T> {
    pub(crate) fn new(capacity: usize) -> Self {
        let ring = Ring { items: VecDeque::new(), closed: false, stopped: false };
        Self { ring: Mutex::new(ring), capacity, room: Condvar::new(), items: Condvar::new() }
    }

    /// Takes the item in, or gives it back if there is no room.
    pub(crate) fn try_push(&self, item: T) -> Result<(), T> {
        let mut ring = self.ring.lock();
        if ring.items.len() >= self.capacity {
            return Err(item);
        }
        ring.items.push_back(item);
        drop(ring);
        self.items.notify_one();
        Ok(())
    }

    /// Takes the item in, waiting for room.
    pub(crate) fn push(&self, item: T, deadline: Deadline) -> Result<(), PushError<T>> {
        let mut ring = self.ring.lock();
        loop {
            if ring.items.len() < self.capacity {
                ring.items.push_back(item);
                drop(ring);
                self.items.notify_one();
                return Ok(());
            }
            if ring.closed {
                return Err(PushError::Closed(item));
            }
            if deadline.is_past() {
                return Err(PushError::Timeout(item));
            }
            ring = self.room.wait_until(ring, deadline.instant());
        }
    }

    /// Hands out the oldest item, if there is one.
    pub(crate) fn try_pop(&self) -> Option<T> {
        let item = self.ring.lock().items.pop_front();
        if item.is_some() {
            self.room.notify_one();
        }
        item
    }

    /// Hands out the oldest item, waiting for one; `None` once the queue is stopped.
    pub(crate) fn pop(&self) -> Option<T> {
        let mut ring = self.ring.lock();
        loop {
            if let Some(item) = ring.items.pop_front() {
                drop(ring);
                self.room.notify_one();
                return Some(item);
            }
            if ring.stopped {
                return None;
            }
            ring = self.items.wait_until(ring, None);
        }
    }

    /// Refuses pushes that are blocked, now and later.
    pub(crate) fn close(&self) {
        self.ring.lock().closed = true;
        self.room.notify_all();
    }

    /// Ends pops that are blocked, now and later.
    pub(crate) fn stop(&self) {
        self.ring.lock().stopped = true;
        self.items.notify_all();
    }

    /// How many items it holds; out of date when it arrives, but never above the capacity.
    pub(crate) fn len(&self) -> usize {
        self.ring.lock().items.len()
    }

    pub(crate) fn capacity(&self) -> usize {
        self.capacity
    }
}

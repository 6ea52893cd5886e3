//! The wakers of futures that wait for one thing.
//!
//! They are guarded by the lock of that thing. A notification takes all of them, so a future that
//! is never polled again keeps none from another. Wakers are user code: they are cloned, called and
//! dropped without the lock.

use std::collections::BTreeMap;
use std::mem;
use std::task::Waker;

use crate::nesting;
use crate::sync::IdGenerator;
use crate::unwind;

/// Identifies a future among those that wait for one thing. Never reused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct WakerKey(u64);

impl WakerKey {
    /// Returns a new key.
    pub(crate) fn new() -> Self {
        static KEYS: IdGenerator = IdGenerator::new();
        Self(KEYS.next())
    }
}

/// The last wakers of the futures that wait, the oldest future first.
#[derive(Default)]
pub(crate) struct Wakers(BTreeMap<WakerKey, Waker>);

impl Wakers {
    /// Returns the number of futures that wait.
    pub(crate) fn len(&self) -> usize {
        self.0.len()
    }

    /// Sets the waker of a future. Returns the one that it had, which the caller drops without the
    /// lock.
    #[must_use]
    pub(crate) fn set(&mut self, key: WakerKey, waker: Waker) -> Option<Waker> {
        self.0.insert(key, waker)
    }

    /// Removes the waker of a future that no longer waits. The caller drops it without the lock.
    #[must_use]
    pub(crate) fn remove(&mut self, key: WakerKey) -> Option<Waker> {
        self.0.remove(&key)
    }

    /// Takes the wakers of the `futures` oldest futures, which the caller wakes without the lock.
    #[cfg(feature = "events")]
    pub(crate) fn take_oldest(&mut self, futures: usize) -> Self {
        if futures >= self.len() {
            return self.take();
        }
        Self((0..futures).map_while(|_| self.0.pop_first()).collect())
    }

    /// Takes all wakers, which the caller wakes without the lock.
    pub(crate) fn take(&mut self) -> Self {
        mem::take(self)
    }

    /// Wakes all, and contains their panics.
    pub(crate) fn wake(mut self) {
        while let Some((_, waker)) = self.0.pop_first() {
            nesting::wake(waker);
        }
    }
}

impl Drop for Wakers {
    fn drop(&mut self) {
        while let Some((_, waker)) = self.0.pop_first() {
            unwind::discard(waker);
        }
    }
}

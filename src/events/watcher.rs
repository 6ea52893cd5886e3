//! How mailboxes notify a publisher that waits for room in several of them.

use std::collections::BTreeMap;
use std::mem;

use crate::sync::{Arc, Condvar, Mutex};
use crate::time::deadline::Deadline;

/// A publisher that waits for room in several mailboxes.
#[derive(Default)]
pub(super) struct Watcher {
    /// The mailboxes that have notified the publisher, by their indices among the recipients.
    notified: Mutex<Vec<usize>>,
    /// Notified with each notification of a mailbox.
    changed: Condvar,
}

/// A watcher, and the index of the mailbox that is to notify it. Kept in the mailbox from when that
/// was found full until the notification.
pub(super) struct Watch {
    /// The watcher.
    pub(super) watcher: Arc<Watcher>,
    /// The index of the mailbox among the recipients.
    pub(super) index: usize,
}

/// The watches in one mailbox, in the order in which they were added. Each operation visits a
/// logarithmic number of them.
#[derive(Default)]
pub(super) struct Watches {
    /// The watches by their keys, which increase.
    by_key: BTreeMap<WatchKey, Watch>,
    /// The key of the next watch.
    next: WatchKey,
}

/// Identifies a watch among those of its mailbox. Never reused.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct WatchKey(u64);

impl Watcher {
    /// Blocks until mailboxes have notified this watcher, and returns their indices.
    pub(super) fn wait(&self) -> Vec<usize> {
        self.wait_unless(|| false, Deadline::NEVER)
    }

    /// Like [`wait`](Self::wait), but also returns, with no indices, when the deadline has passed
    /// or `is_over` returns `true` after [`wake`](Self::wake).
    pub(super) fn wait_unless(&self, is_over: impl Fn() -> bool, deadline: Deadline) -> Vec<usize> {
        let is_waiting = |notified: &Vec<usize>| notified.is_empty() && !is_over();
        let mut notified = self.changed.wait_while(self.notified.lock(), deadline, is_waiting);
        mem::take(&mut *notified)
    }

    /// Takes the indices of the mailboxes that have notified this watcher.
    pub(super) fn take_notified(&self) -> Vec<usize> {
        mem::take(&mut *self.notified.lock())
    }

    /// Wakes the publisher, so that it checks its condition again.
    pub(super) fn wake(&self) {
        drop(self.notified.lock()); // the publisher has checked before and sleeps, or checks after
        self.changed.notify_all();
    }
}

impl Watch {
    /// Notifies the watcher. May be called under the lock of a mailbox: the lock of a watcher is
    /// taken last.
    pub(super) fn notify(self) {
        self.watcher.notified.lock().push(self.index);
        self.watcher.changed.notify_one();
    }
}

impl Watches {
    /// Adds a watch. Returns its key, by which it can be removed.
    pub(super) fn add(&mut self, watch: Watch) -> WatchKey {
        let key = self.next;
        self.next.0 += 1;
        self.by_key.insert(key, watch);
        key
    }

    /// Returns the number of watches.
    pub(super) fn len(&self) -> usize {
        self.by_key.len()
    }

    /// Removes a watch, if it was not notified.
    pub(super) fn remove(&mut self, key: WatchKey) {
        self.by_key.remove(&key);
    }

    /// Notifies the oldest watch, if there is one, and removes it.
    pub(super) fn notify_first(&mut self) {
        if let Some((_, watch)) = self.by_key.pop_first() {
            watch.notify();
        }
    }

    /// Notifies and removes all watches.
    pub(super) fn notify_all(self) {
        self.by_key.into_values().for_each(Watch::notify);
    }
}

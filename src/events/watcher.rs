//! A publisher that waits for room in several mailboxes, and how each of them wakes it.

use std::mem;

use crate::sync::{Arc, Condvar, Mutex};
use crate::time::deadline::Deadline;

/// A publisher that waits for room in several mailboxes.
#[derive(Default)]
pub(super) struct Watcher {
    /// The mailboxes that have called, by their places among the recipients.
    notified: Mutex<Vec<usize>>,
    /// Notified with each call.
    changed: Condvar,
}

/// A watcher, and the place of the mailbox that is to call it. It lies in the state of the mailbox from
/// when that was found full until the call.
pub(super) struct Watch {
    pub(super) watcher: Arc<Watcher>,
    pub(super) index: usize,
}

impl Watcher {
    /// Waits until mailboxes have called, and returns which.
    pub(super) fn wait(&self) -> Vec<usize> {
        self.wait_unless(|| false, Deadline::NEVER)
    }

    /// The same, but returns early, with nothing, if `is_over` says so after [`wake`](Self::wake), or at the deadline.
    pub(super) fn wait_unless(&self, is_over: impl Fn() -> bool, deadline: Deadline) -> Vec<usize> {
        let mut notified = self.notified.lock();
        while notified.is_empty() && !is_over() && !deadline.is_past() {
            notified = self.changed.wait_until(notified, deadline.instant());
        }
        mem::take(&mut *notified)
    }

    /// Takes the mailboxes that have called by now.
    pub(super) fn take_notified(&self) -> Vec<usize> {
        mem::take(&mut *self.notified.lock())
    }

    /// Has the publisher look again.
    pub(super) fn wake(&self) {
        drop(self.notified.lock()); // it has looked before, and sleeps, or checks after
        self.changed.notify_all();
    }
}

impl Watch {
    /// Calls the watcher. It may be done under the lock of a mailbox: a watcher takes that under no lock.
    pub(super) fn notify(self) {
        self.watcher.notified.lock().push(self.index);
        self.watcher.changed.notify_one();
    }
}

//! Notifies waiters of a change. Costs one load while there are none.
//!
//! Rule: a waiter *announces* itself, reads the generation, checks its condition, and then sleeps
//! until the generation has changed. A notifier makes its change, checks for announcements, and
//! then increments the generation. The announcement, the change and both checks are either `SeqCst`
//! or under one lock. So the waiter sees the change, or the notifier sees the waiter.

use crate::sync::{AtomicUsize, Condvar, Mutex, Ordering};
use crate::time::deadline::Deadline;

/// Wakes the threads that wait for a change.
#[derive(Default)]
pub(super) struct Notify {
    /// The number of threads that wait, or are about to.
    waiters: AtomicUsize,
    /// The number of notifications.
    generation: Mutex<u64>,
    /// Notified with each change of the generation.
    changed: Condvar,
}

impl Notify {
    /// Notifies the waiters of a change that was just made.
    pub(super) fn notify(&self) {
        // ORDERING: SeqCst, after the change; see the rule.
        if self.waiters.load(Ordering::SeqCst) > 0 {
            *self.generation.lock() += 1;
            self.changed.notify_all();
        }
    }

    /// Calls `check`, with no lock held, until it returns an answer. In between, sleeps until the
    /// next notification or until the deadline that `check` returned.
    pub(super) fn wait_until<T>(&self, mut check: impl FnMut() -> Result<T, Deadline>) -> T {
        // ORDERING: SeqCst, before the check; see the rule.
        self.waiters.fetch_add(1, Ordering::SeqCst);
        let answer = loop {
            let before = *self.generation.lock();
            match check() {
                Ok(answer) => break answer,
                Err(deadline) => self.sleep(before, deadline),
            }
        };
        self.waiters.fetch_sub(1, Ordering::SeqCst);
        answer
    }

    fn sleep(&self, before: u64, deadline: Deadline) {
        drop(self.changed.wait_while(self.generation.lock(), deadline, |generation| *generation == before));
    }
}

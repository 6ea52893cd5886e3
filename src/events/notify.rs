//! Notifies waiters of a change. Costs one load while there are none.
//!
//! Rule: a waiter *announces* itself, reads the generation, checks its condition, and then sleeps
//! until the generation has changed. A notifier makes its change, checks for announcements, and
//! then increments the generation. The announcement, the change and both checks are either `SeqCst`
//! or under one lock. So the waiter sees the change, or the notifier sees the waiter.
//!
//! A future announces itself by its waker, and counts as a waiter until the waker is taken or
//! removed. A notification takes all wakers.

use std::task::Waker;

use crate::sync::{AtomicUsize, Condvar, Mutex, Ordering};
use crate::task::wakers::{WakerKey, Wakers};
use crate::time::deadline::Deadline;
use crate::unwind;

/// Wakes the threads that wait for a change.
#[derive(Default)]
pub(super) struct Notify {
    /// The number of threads and futures that wait, or are about to.
    waiters: AtomicUsize,
    state: Mutex<State>,
    /// Notified with each change of the generation.
    changed: Condvar,
}

/// What the lock guards.
#[derive(Default)]
struct State {
    /// The number of notifications.
    generation: u64,
    /// The futures that wait.
    wakers: Wakers,
}

impl Notify {
    /// Notifies the waiters of a change that was just made. Called without a lock.
    pub(super) fn notify(&self) {
        // ORDERING: SeqCst, after the change; see the rule.
        if self.waiters.load(Ordering::SeqCst) > 0 {
            let mut state = self.state.lock();
            state.generation += 1;
            let wakers = state.wakers.take();
            self.waiters.fetch_sub(wakers.len(), Ordering::SeqCst);
            drop(state);
            self.changed.notify_all();
            wakers.wake();
        }
    }

    /// Announces a future, which checks its condition afterwards.
    pub(super) fn announce(&self, key: WakerKey, waker: &Waker) {
        let waker = waker.clone();
        let mut state = self.state.lock();
        let old = state.wakers.set(key, waker);
        if old.is_none() {
            // ORDERING: SeqCst, before the check; see the rule.
            self.waiters.fetch_add(1, Ordering::SeqCst);
        }
        drop(state);
        unwind::discard(old);
    }

    /// Removes a future that no longer waits.
    pub(super) fn withdraw(&self, key: WakerKey) {
        let mut state = self.state.lock();
        let waker = state.wakers.remove(key);
        self.waiters.fetch_sub(usize::from(waker.is_some()), Ordering::SeqCst);
        drop(state);
        unwind::discard(waker);
    }

    /// Calls `check`, with no lock held, until it returns an answer. In between, sleeps until the
    /// next notification or until the deadline that `check` returned.
    pub(super) fn wait_until<T>(&self, mut check: impl FnMut() -> Result<T, Deadline>) -> T {
        // ORDERING: SeqCst, before the check; see the rule.
        self.waiters.fetch_add(1, Ordering::SeqCst);
        let answer = loop {
            let before = self.state.lock().generation;
            match check() {
                Ok(answer) => break answer,
                Err(deadline) => self.sleep(before, deadline),
            }
        };
        self.waiters.fetch_sub(1, Ordering::SeqCst);
        answer
    }

    fn sleep(&self, before: u64, deadline: Deadline) {
        drop(self.changed.wait_while(self.state.lock(), deadline, |state| state.generation == before));
    }
}

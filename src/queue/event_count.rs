//! An eventcount: threads and futures wait in it until they are notified.
//!
//! Rules:
//! 1. A waiter *registers*, then checks its condition once more, then sleeps. A notifier first
//!    makes the condition true, then looks for registered waiters. Registration and look are
//!    `SeqCst`, and so are the changes of the condition (see the contract of bounded lanes). So at
//!    least one of the two sees the other, and no wake-up is lost.
//! 2. A notifier turns one registration into one *notification*. A thread sleeps until it takes a
//!    notification. So a notifier does nothing while the threads that it has notified have not
//!    woken yet.
//! 3. A thread whose condition is true takes back its registration or, if that has become a
//!    notification, the notification. A thread whose deadline has passed does the same. If it took
//!    a notification, it counts as notified: the notification had a reason, which the thread then
//!    looks for.
//!
//! Registrations and notifications of threads are anonymous: any thread takes any notification.
//!
//! A *call* is for work that only one particular thread can do. It wakes all threads, and each
//! checks its own condition under the lock before it sleeps again. It turns no registration into a
//! notification.
//!
//! A *future* registers with its waker. A notification removes the waker, so a missing waker tells
//! the future that it was notified. A future that was notified and will not check its condition
//! must forward the notification ([`deregister`](EventCount::deregister) returns whether it was
//! notified). A future may never be polled again, so its notification does not replace that of a
//! thread. If there are too few notifications for all threads and futures, every other one also
//! goes to a future. Wakers are user code and are called with no lock held.

use std::collections::BTreeMap;
use std::task::Waker;

use crate::nesting;
use crate::sync::{AtomicUsize, CachePadded, Condvar, Mutex, MutexGuard, Ordering};
use crate::time::deadline::Deadline;
use crate::unwind;

/// An eventcount; see the rules above.
pub(super) struct EventCount {
    /// The number of registered threads and futures. Notifiers read it without the lock.
    registered: CachePadded<AtomicUsize>,
    state: Mutex<State>,
    /// Signalled when there are notifications.
    notified: Condvar,
}

/// What the lock guards.
#[derive(Default)]
struct State {
    /// The threads that sleep, or are about to, and were not notified.
    threads: usize,
    /// The notifications that no thread has taken.
    notifications: usize,
    /// The futures that were not notified, in the order of registration.
    futures: BTreeMap<WaiterId, Waker>,
    /// The id of the next future.
    next_id: WaiterId,
    /// Whether a future is notified before a thread next time.
    futures_first: bool,
}

/// The id of a waiting future; never used twice.
pub(crate) type WaiterId = u64;

/// What ended a wait.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Wakeup {
    /// The check after the registration succeeded. `notified` tells whether a notification came
    /// before that.
    Ready { notified: bool },
    /// A notification.
    Notified,
    /// The deadline, or a call.
    TimedOut,
}

impl EventCount {
    pub(super) fn new() -> Self {
        Self { registered: CachePadded::default(), state: Mutex::default(), notified: Condvar::new() }
    }

    /// Blocks until this thread is notified or the deadline passes, unless `check` returns `true`.
    /// `check` is called once, after the registration, with no lock held.
    pub(super) fn wait(&self, deadline: Deadline, check: impl FnOnce() -> bool) -> Wakeup {
        self.wait_unless(deadline, check, || false)
    }

    /// Like [`wait`](Self::wait), but also returns if `is_called` returns `true`; see
    /// [`call`](Self::call). It is called with the lock held, and takes no lock.
    pub(super) fn wait_unless(
        &self,
        deadline: Deadline,
        check: impl FnOnce() -> bool,
        is_called: impl Fn() -> bool,
    ) -> Wakeup {
        let mut state = self.state.lock();
        let threads = state.threads + 1;
        self.set_threads(&mut state, threads);
        drop(state);
        let ready = check();
        let is_waiting = |state: &State| !ready && state.notifications == 0 && !is_called();
        let mut state = self.notified.wait_while(self.state.lock(), deadline, is_waiting);
        if state.notifications > 0 && !ready {
            state.notifications -= 1;
            return Wakeup::Notified;
        }
        match state.threads.checked_sub(1) {
            Some(threads) => {
                self.set_threads(&mut state, threads);
                if ready { Wakeup::Ready { notified: false } } else { Wakeup::TimedOut }
            }
            None => {
                state.notifications -= 1;
                if ready { Wakeup::Ready { notified: true } } else { Wakeup::Notified }
            }
        }
    }

    /// Returns whether there is a waiter that was not notified.
    #[inline]
    pub(super) fn has_waiters(&self) -> bool {
        // ORDERING: SeqCst, after the change of the condition; rule 1.
        self.registered.0.load(Ordering::SeqCst) > 0
    }

    /// Returns the number of waiters that were not notified. May be stale when it returns.
    pub(super) fn waiters(&self) -> usize {
        self.registered.0.load(Ordering::Relaxed)
    }

    /// Notifies at most `waiters` threads, and at most as many futures. Calls `prepare` with the
    /// number of notified threads before they wake, with the lock held.
    #[inline]
    pub(super) fn notify(&self, waiters: usize, prepare: impl FnOnce(usize)) {
        if self.has_waiters() {
            self.notify_registered(waiters, prepare);
        }
    }

    /// Notifies all waiters. Unlike [`notify`](Self::notify) it does not require that the change
    /// before it is `SeqCst`: it always takes the lock, under which waiters register before they
    /// check.
    pub(super) fn notify_all(&self, prepare: impl FnOnce(usize)) {
        self.notify_registered(usize::MAX, prepare);
    }

    /// Wakes the threads for which `is_called` now returns `true`. Notifies none.
    ///
    /// For work that only one thread can do. A notification is not enough, because any thread can
    /// take it.
    pub(super) fn call(&self) {
        // A waiter has checked before this and sleeps, or checks after it.
        drop(self.state.lock());
        self.notified.notify_all();
    }

    fn notify_registered(&self, waiters: usize, prepare: impl FnOnce(usize)) {
        let mut state = self.state.lock();
        let futures = state.futures_to_notify(waiters);
        let notified = waiters.min(state.threads);
        let mut wakers = Vec::new();
        wakers.extend((0..futures).filter_map(|_| state.futures.pop_first()));
        let threads = state.threads - notified;
        self.set_threads(&mut state, threads);
        prepare(notified);
        state.notifications += notified;
        drop(state);
        for _ in 0..notified {
            self.notified.notify_one();
        }
        wakers.into_iter().for_each(|(_, waker)| nesting::wake(waker));
    }

    /// Registers a future, or replaces its waker. The future checks its condition afterwards.
    pub(super) fn register(&self, id: &mut Option<WaiterId>, waker: Waker) {
        let mut state = self.state.lock();
        let id = *id.get_or_insert(state.next_id);
        state.next_id = state.next_id.max(id + 1);
        let old = state.futures.insert(id, waker);
        let threads = state.threads;
        self.set_threads(&mut state, threads);
        drop(state);
        unwind::discard(old);
    }

    /// Removes the registration of a future; returns whether the future was notified.
    #[must_use = "a future that was notified and does not check must forward the notification"]
    pub(super) fn deregister(&self, id: WaiterId) -> bool {
        let mut state = self.state.lock();
        let waker = state.futures.remove(&id);
        let threads = state.threads;
        self.set_threads(&mut state, threads);
        drop(state);
        let notified = waker.is_none();
        unwind::discard(waker);
        notified
    }

    /// Sets the number of threads, and updates what notifiers see of threads and futures.
    fn set_threads(&self, state: &mut MutexGuard<'_, State>, threads: usize) {
        state.threads = threads;
        // ORDERING: SeqCst, before the waiter's last check; rule 1.
        self.registered.0.store(threads + state.futures.len(), Ordering::SeqCst);
    }
}

impl State {
    /// Returns how many futures are notified by `notifications`: as many as threads leave over, or
    /// every other one if there are too few.
    fn futures_to_notify(&mut self, notifications: usize) -> usize {
        let waiting = self.futures.len();
        if waiting == 0 {
            return 0;
        }
        let left_over = notifications.saturating_sub(self.threads);
        if left_over >= waiting || self.threads == 0 {
            return waiting.min(notifications);
        }
        self.futures_first = !self.futures_first;
        let half = if self.futures_first { notifications.div_ceil(2) } else { notifications / 2 };
        left_over.max(half).min(waiting)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn futures_get_the_notifications_that_threads_leave_over_and_every_other_contested_one() {
        let notified = |threads, futures, notifications: &[usize]| {
            let mut state = State { threads, ..State::default() };
            state.futures.extend((0..futures).map(|id| (id, Waker::noop().clone())));
            notifications.iter().map(|count| state.futures_to_notify(*count)).collect::<Vec<_>>()
        };
        assert_eq!(notified(3, 0, &[1, 9]), [0, 0]);
        assert_eq!(notified(0, 5, &[3, 9]), [3, 5]);
        assert_eq!(notified(1, 2, &[1, 1, 1, 5, 1, 1]), [1, 0, 1, 2, 0, 1], "too few notifications alternate");
        assert_eq!(notified(4, 9, &[4, 4, 5, 5]), [2, 2, 3, 2]);
        assert_eq!(notified(2, 6, &[7, 7]), [5, 5], "each thread takes at most one notification");
    }
}

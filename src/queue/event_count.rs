//! A place to sleep until notified otherwise.
//!
//! Rules:
//! 1. A sleeper *announces* itself, then looks once more at what it waits for, then sleeps. Who changes something first
//!    makes the change, then looks for registered waiters. Announcement and look are `SeqCst`, and so are the changes
//!    (see the contract of the lanes): at least one sees the other, so no wake-up is lost.
//! 2. A waker turns one announcement into one *permit*. A sleeper sleeps until it takes a permit. So a waker does
//!    nothing while those it has notified are still on their way.
//! 3. A sleeper that finds what it waits for takes its announcement back, or, if that has become a permit, the permit.
//!    A sleeper that runs out of time does so too, and counts as notified if it took a permit: the wake-up was for
//!    something, which it then looks for.
//!
//! Announcements and notifications are anonymous: any sleeper takes any permit.
//!
//! A *future* can wait here as well. It announces itself with a waker, which is taken out when it is notified; so it knows
//! by its absence that it was. A future that is notified and will not look must pass the word on
//! ([`deregister`](EventCount::deregister) says so). Since nobody can promise that a future will be polled, telling it takes no
//! wake-up away from threads; where both wait, futures are notified of every other one besides. Wakers are foreign code and
//! are called under no lock.

use std::collections::BTreeMap;
use std::task::Waker;

use crate::defect::defect;
use crate::nesting;
use crate::sync::{AtomicUsize, CachePadded, Condvar, Mutex, MutexGuard, Ordering};
use crate::time::deadline::Deadline;
use crate::unwind;

/// A place to sleep.
pub(super) struct EventCount {
    /// How many threads and futures are registered, for wakers, who look without the lock.
    registered: CachePadded<AtomicUsize>,
    state: Mutex<State>,
    /// Notified when there are notifications.
    notified: Condvar,
}

/// What the lock guards.
#[derive(Default)]
struct State {
    /// Sleepers, and those about to sleep, that nobody has notified.
    registered: usize,
    /// Those that were notified and have not noticed.
    notifications: usize,
    /// Futures that nobody has notified, in the order of arrival.
    futures: BTreeMap<WaiterId, Waker>,
    /// The next id to give out.
    next_id: WaiterId,
    /// Whether a future is notified before a thread next time.
    futures_first: bool,
}

/// The id of a waiting future; never given out twice.
pub(crate) type WaiterId = u64;

/// What ended a stay.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Wakeup {
    /// The look after the announcement found what was waited for; and whether a waker had come before that.
    Ready { notified: bool },
    /// A waker.
    Notified,
    /// The deadline.
    TimedOut,
}

impl EventCount {
    pub(super) fn new() -> Self {
        Self { registered: CachePadded::default(), state: Mutex::default(), notified: Condvar::new() }
    }

    /// Sleeps until notified or until the deadline, unless `found` says there is no need to. `found` is called once, after
    /// the announcement, and under no lock.
    pub(super) fn wait(&self, deadline: Deadline, found: impl FnOnce() -> bool) -> Wakeup {
        let mut found = Some(found);
        let early = if defect!("look before the announcement") { found.take().map(|found| found()) } else { None };
        let mut state = self.state.lock();
        let registered = state.registered + 1;
        self.set_registered(&mut state, registered);
        drop(state);
        let found = found.map_or(early == Some(true), |found| found());
        let mut state = self.state.lock();
        while !found && state.notifications == 0 && !deadline.is_past() {
            state = self.notified.wait_until(state, deadline.instant());
        }
        if state.notifications > 0 && !found {
            state.notifications -= 1;
            if defect!("double decrement") {
                let registered = state.registered.saturating_sub(1);
                self.set_registered(&mut state, registered);
            }
            return Wakeup::Notified;
        }
        match state.registered.checked_sub(1) {
            Some(registered) => {
                self.set_registered(&mut state, registered);
                if found { Wakeup::Ready { notified: false } } else { Wakeup::TimedOut }
            }
            None => {
                state.notifications -= 1;
                if found { Wakeup::Ready { notified: true } } else { Wakeup::Notified }
            }
        }
    }

    /// Whether somebody sleeps, or is about to, whom nobody has notified.
    #[inline]
    pub(super) fn has_waiters(&self) -> bool {
        // ORDERING: SeqCst, after the change the sleeper waits for; rule 1.
        self.registered.0.load(Ordering::SeqCst) > 0
    }

    /// Wakes so many waiters, or as many as there are. `prepare` is notified how many, before they wake; it is called under
    /// the lock.
    #[inline]
    pub(super) fn notify(&self, waiters: usize, prepare: impl FnOnce(usize)) {
        if self.has_waiters() {
            self.notify_registered(waiters, prepare);
        }
    }

    /// Wakes every sleeper. Unlike [`wake`](Self::wake) it needs no `SeqCst` of the change before it: it always takes the
    /// lock, under which waiters announce themselves before they look.
    pub(super) fn notify_all(&self, prepare: impl FnOnce(usize)) {
        self.notify_registered(usize::MAX, prepare);
    }

    fn notify_registered(&self, waiters: usize, prepare: impl FnOnce(usize)) {
        let mut state = self.state.lock();
        let futures = state.futures_to_notify(waiters);
        let notified = waiters.min(state.registered);
        let mut wakers = Vec::new();
        wakers.extend((0..futures).filter_map(|_| state.futures.pop_first()));
        let registered = state.registered - notified;
        self.set_registered(&mut state, registered);
        prepare(notified);
        state.notifications += notified;
        drop(state);
        for _ in 0..if defect!("one is notified at the closing") { notified.min(1) } else { notified } {
            self.notified.notify_one();
        }
        for (_, waker) in wakers {
            nesting::call_back(move || waker.wake());
        }
    }

    /// Announces a future, or has it notified by another waker. What the waker is to be notified of is looked for afterwards.
    pub(super) fn register(&self, id: &mut Option<WaiterId>, waker: Waker) {
        let mut state = self.state.lock();
        let id = *id.get_or_insert(state.next_id);
        state.next_id = state.next_id.max(id + 1);
        let old = state.futures.insert(id, waker);
        let registered = state.registered;
        self.set_registered(&mut state, registered);
        drop(state);
        unwind::discard(old);
    }

    /// Takes the announcement of a future back; returns whether it had been notified.
    #[must_use = "who was notified and does not look passes the word on"]
    pub(super) fn deregister(&self, id: WaiterId) -> bool {
        let mut state = self.state.lock();
        let waker = state.futures.remove(&id);
        let registered = state.registered;
        self.set_registered(&mut state, registered);
        drop(state);
        let notified = waker.is_none();
        unwind::discard(waker);
        notified
    }

    fn set_registered(&self, state: &mut MutexGuard<'_, State>, registered: usize) {
        state.registered = registered;
        // ORDERING: SeqCst, before the sleeper's last look; rule 1.
        self.registered.0.store(registered + state.futures.len(), Ordering::SeqCst);
    }
}

impl State {
    /// How many of so many wake-ups go to futures: those that threads leave over, and every other contested one.
    fn futures_to_notify(&mut self, waiters: usize) -> usize {
        let waiting = self.futures.len();
        if waiting == 0 {
            return 0;
        }
        let left_over = waiters.saturating_sub(self.registered);
        if left_over >= waiting || self.registered == 0 {
            return waiting.min(waiters);
        }
        self.futures_first = !self.futures_first;
        let half = if self.futures_first { waiters.div_ceil(2) } else { waiters / 2 };
        left_over.max(half).min(waiting)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn futures_get_what_threads_leave_over_and_every_other_contested_word() {
        let notified = |threads, futures, words: &[usize]| {
            let mut state = State { registered: threads, ..State::default() };
            state.futures.extend((0..futures).map(|id| (id, Waker::noop().clone())));
            words.iter().map(|words| state.futures_to_notify(*words)).collect::<Vec<_>>()
        };
        assert_eq!(notified(3, 0, &[1, 9]), [0, 0]);
        assert_eq!(notified(0, 5, &[3, 9]), [3, 5]);
        assert_eq!(
            notified(1, 2, &[1, 1, 1, 5, 1, 1]),
            [1, 0, 1, 2, 0, 1],
            "turns are taken where there is not enough"
        );
        assert_eq!(notified(4, 9, &[4, 4, 5, 5]), [2, 2, 3, 2]);
        assert_eq!(notified(2, 6, &[7, 7]), [5, 5], "threads cannot use more than one each");
    }
}

//! A place to sleep until told otherwise.
//!
//! Rules:
//! 1. A sleeper *announces* itself, then looks once more at what it waits for, then sleeps. Who changes something first
//!    makes the change, then looks for announced sleepers. Announcement and look are `SeqCst`, and so are the changes
//!    (see the contract of the lanes): at least one sees the other, so no wake-up is lost.
//! 2. A waker turns one announcement into one *permit*. A sleeper sleeps until it takes a permit. So a waker does
//!    nothing while those it has woken are still on their way.
//! 3. A sleeper that finds what it waits for takes its announcement back, or, if that has become a permit, the permit.
//!    A sleeper that runs out of time does so too, and counts as woken if it took a permit: the wake-up was for
//!    something, which it then looks for.
//!
//! Announcements and permits are anonymous: any sleeper takes any permit.
//!
//! A *future* can wait here as well. It announces itself with a waker, which is taken out when it is told; so it knows
//! by its absence that it was. A future that is told and will not look must pass the word on
//! ([`withdraw`](EventCount::withdraw) says so). Since nobody can promise that a future will be polled, telling it takes no
//! wake-up away from threads; where both wait, futures are told of every other one besides. Wakers are foreign code and
//! are called under no lock.

use std::collections::BTreeMap;
use std::task::Waker;

use crate::nesting;
use crate::sync::{AtomicUsize, CachePadded, Condvar, Mutex, MutexGuard, Ordering};
use crate::time::deadline::Deadline;
use crate::unwind;

/// A place to sleep.
pub(super) struct EventCount {
    /// How many threads and futures are announced, for wakers, who look without the lock.
    announced: CachePadded<AtomicUsize>,
    inner: Mutex<Inner>,
    /// Notified when there are permits.
    permitted: Condvar,
}

/// What the lock guards.
#[derive(Default)]
struct Inner {
    /// Sleepers, and those about to sleep, that nobody has woken.
    announced: usize,
    /// Those that were woken and have not noticed.
    permits: usize,
    /// Futures that nobody has told, in the order of arrival.
    futures: BTreeMap<WaiterId, Waker>,
    /// The next spot to give out.
    next_spot: WaiterId,
    /// Whether a future is told before a thread next time.
    futures_first: bool,
}

/// The spot of a waiting future; never given out twice.
pub(crate) type WaiterId = u64;

/// What ended a stay.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Wakeup {
    /// The look after the announcement found what was waited for; and whether a waker had come before that.
    Ready { told: bool },
    /// A waker.
    Notified,
    /// The deadline.
    TimedOut,
}

impl EventCount {
    pub(super) fn new() -> Self {
        Self { announced: CachePadded::default(), inner: Mutex::default(), permitted: Condvar::new() }
    }

    /// Sleeps until woken or until the deadline, unless `found` says there is no need to. `found` is called once, after
    /// the announcement, and under no lock.
    pub(super) fn park(&self, deadline: Deadline, found: impl FnOnce() -> bool) -> Wakeup {
        let mut inner = self.inner.lock();
        let announced = inner.announced + 1;
        self.announce(&mut inner, announced);
        drop(inner);
        let found = found();
        let mut inner = self.inner.lock();
        while !found && inner.permits == 0 && !deadline.is_past() {
            inner = self.permitted.wait_until(inner, deadline.instant());
        }
        if inner.permits > 0 && !found {
            inner.permits -= 1;
            return Wakeup::Notified;
        }
        match inner.announced.checked_sub(1) {
            Some(announced) => {
                self.announce(&mut inner, announced);
                if found { Wakeup::Ready { told: false } } else { Wakeup::TimedOut }
            }
            None => {
                inner.permits -= 1;
                if found { Wakeup::Ready { told: true } } else { Wakeup::Notified }
            }
        }
    }

    /// Whether somebody sleeps, or is about to, whom nobody has woken.
    #[inline]
    pub(super) fn has_sleepers(&self) -> bool {
        // ORDERING: SeqCst, after the change the sleeper waits for; rule 1.
        self.announced.0.load(Ordering::SeqCst) > 0
    }

    /// Wakes so many sleepers, or as many as there are. `prepare` is told how many, before they wake; it is called under
    /// the lock.
    #[inline]
    pub(super) fn wake(&self, sleepers: usize, prepare: impl FnOnce(usize)) {
        if self.has_sleepers() {
            self.wake_announced(sleepers, prepare);
        }
    }

    /// Wakes every sleeper. Unlike [`wake`](Self::wake) it needs no `SeqCst` of the change before it: it always takes the
    /// lock, under which sleepers announce themselves before they look.
    pub(super) fn wake_all(&self, prepare: impl FnOnce(usize)) {
        self.wake_announced(usize::MAX, prepare);
    }

    fn wake_announced(&self, sleepers: usize, prepare: impl FnOnce(usize)) {
        let mut inner = self.inner.lock();
        let futures = inner.futures_to_wake(sleepers);
        let woken = sleepers.min(inner.announced);
        let mut wakers = Vec::new();
        wakers.extend((0..futures).filter_map(|_| inner.futures.pop_first()));
        let announced = inner.announced - woken;
        self.announce(&mut inner, announced);
        prepare(woken);
        inner.permits += woken;
        drop(inner);
        for _ in 0..woken {
            self.permitted.notify_one();
        }
        for (_, waker) in wakers {
            nesting::call_back(move || waker.wake());
        }
    }

    /// Announces a future, or has it told by another waker. What the waker is to be told of is looked for afterwards.
    pub(super) fn enroll(&self, spot: &mut Option<WaiterId>, waker: Waker) {
        let mut inner = self.inner.lock();
        let spot = *spot.get_or_insert(inner.next_spot);
        inner.next_spot = inner.next_spot.max(spot + 1);
        let old = inner.futures.insert(spot, waker);
        let announced = inner.announced;
        self.announce(&mut inner, announced);
        drop(inner);
        unwind::discard(old);
    }

    /// Takes the announcement of a future back; returns whether it had been told.
    #[must_use = "who was told and does not look passes the word on"]
    pub(super) fn withdraw(&self, spot: WaiterId) -> bool {
        let mut inner = self.inner.lock();
        let waker = inner.futures.remove(&spot);
        let announced = inner.announced;
        self.announce(&mut inner, announced);
        drop(inner);
        let told = waker.is_none();
        unwind::discard(waker);
        told
    }

    fn announce(&self, inner: &mut MutexGuard<'_, Inner>, announced: usize) {
        inner.announced = announced;
        // ORDERING: SeqCst, before the sleeper's last look; rule 1.
        self.announced.0.store(announced + inner.futures.len(), Ordering::SeqCst);
    }
}

impl Inner {
    /// How many of so many wake-ups go to futures: those that threads leave over, and every other contested one.
    fn futures_to_wake(&mut self, sleepers: usize) -> usize {
        let waiting = self.futures.len();
        if waiting == 0 {
            return 0;
        }
        let left_over = sleepers.saturating_sub(self.announced);
        if left_over >= waiting || self.announced == 0 {
            return waiting.min(sleepers);
        }
        self.futures_first = !self.futures_first;
        let half = if self.futures_first { sleepers.div_ceil(2) } else { sleepers / 2 };
        left_over.max(half).min(waiting)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn futures_get_what_threads_leave_over_and_every_other_contested_word() {
        let told = |threads, futures, words: &[usize]| {
            let mut inner = Inner { announced: threads, ..Inner::default() };
            inner.futures.extend((0..futures).map(|spot| (spot, Waker::noop().clone())));
            words.iter().map(|words| inner.futures_to_wake(*words)).collect::<Vec<_>>()
        };
        assert_eq!(told(3, 0, &[1, 9]), [0, 0]);
        assert_eq!(told(0, 5, &[3, 9]), [3, 5]);
        assert_eq!(told(1, 2, &[1, 1, 1, 5, 1, 1]), [1, 0, 1, 2, 0, 1], "turns are taken where there is not enough");
        assert_eq!(told(4, 9, &[4, 4, 5, 5]), [2, 2, 3, 2]);
        assert_eq!(told(2, 6, &[7, 7]), [5, 5], "threads cannot use more than one each");
    }
}

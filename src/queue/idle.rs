//! Where workers look for work before they sleep, and who wakes them.
//!
//! A worker without work *searches* for a few microseconds, if that has paid lately, then sleeps. To wake a sleeper is
//! dear (a system call for the waker, tens of microseconds until the sleeper runs on another CPU), so it is done for one
//! worker at a time, and only when none is searching. This is how the schedulers of Go and tokio do it.
//!
//! Rules:
//! 1. `searching` counts the workers that search, those included that were wakeup and are on their way: the waker counts
//!    them before it wakes them.
//! 2. Who brings an item wakes a worker if none is searching, after the item is there.
//! 3. A worker ends its search before its last look: when it is about to sleep, after its announcement; when it has found
//!    an item, before it looks whether there are more. If it was the last to search and there are more, it does what rule
//!    2 says, in the place of those who brought them.
//!
//! So an item is never left to sleepers: who brought it found nobody searching and woke one, or found somebody
//! searching, whose last look comes later and finds it. [All these steps are `SeqCst`; see also the rules of
//! [`EventCount`].]

use std::time::Duration;

use super::event_count::{EventCount, Wakeup};
use crate::defect::defect;
use crate::sync::adaptive_spin::AdaptiveSpin;
use crate::sync::{AtomicUsize, CachePadded, Ordering, spin_wait};
use crate::time::deadline::Deadline;

/// How long a worker searches before it sleeps.
const SPIN_TIME: Duration = Duration::from_micros(5);

/// Whether it pays for one worker to linger before it sleeps. Where jobs come one by one and far apart it never does,
/// and costs more than the time: who has just slept is let onto a CPU before those who have not, and lingering forfeits
/// that.
pub(super) type IdleSpin = AdaptiveSpin<15>;

/// The workers that have no work.
pub(super) struct Idle {
    sleeping: EventCount,
    /// See rule 1.
    searching: CachePadded<AtomicUsize>,
}

impl Idle {
    pub(super) fn new() -> Self {
        Self { sleeping: EventCount::new(), searching: CachePadded::default() }
    }

    /// There is an item: wakes a worker, if need be. `has_more` tells whether there is an item still.
    #[inline]
    pub(super) fn notify_one(&self, has_more: impl Fn() -> bool) {
        if self.should_notify() {
            self.notify_slow(has_more);
        }
    }

    /// Makes every worker look up from its sleep.
    pub(super) fn notify_all(&self) {
        self.sleeping.notify_all(|wakeup| {
            // ORDERING: SeqCst, before those who are wakeup can end their search.
            self.searching.0.fetch_add(wakeup, Ordering::SeqCst);
        });
    }

    /// Searches with `look`, and sleeps between two searches, until it has found something or `should_stop` says that
    /// there is something else to do. `has_more` tells whether a search would find something. `spinning` is the worker's.
    pub(super) fn wait<T>(
        &self,
        spinning: &mut IdleSpin,
        mut look: impl FnMut() -> Option<T>,
        should_stop: impl Fn() -> bool,
        has_more: impl Fn() -> bool,
    ) -> Option<T> {
        // ORDERING: SeqCst throughout; the rules.
        self.searching.0.fetch_add(1, Ordering::SeqCst);
        loop {
            let mut item = None;
            let mut found = || {
                item = look();
                item.is_some() || should_stop()
            };
            if spinning.should_spin() {
                let paid = spin_wait(SPIN_TIME, &mut found);
                spinning.record(paid);
                if paid {
                    self.end_search(&has_more);
                    return item;
                }
            }
            let wakeup = self.sleeping.wait(Deadline::NEVER, || {
                self.searching.0.fetch_sub(1, Ordering::SeqCst);
                found()
            });
            match wakeup {
                Wakeup::Notified => {
                    if found() {
                        self.end_search(&has_more);
                        return item;
                    }
                }
                // The waker has counted this worker as searching.
                Wakeup::Ready { notified: true } => {
                    self.end_search(&has_more);
                    return item;
                }
                Wakeup::Ready { notified: false } | Wakeup::TimedOut => {
                    self.notify_if_more(&has_more);
                    return item;
                }
            }
        }
    }

    /// Whether a worker searches or sleeps; may be stale when it returns.
    pub(super) fn has_workers(&self) -> bool {
        self.searching.0.load(Ordering::SeqCst) > 0 || self.sleeping.has_waiters()
    }

    #[inline]
    fn should_notify(&self) -> bool {
        // ORDERING: SeqCst, after the item was brought; pairs with the end of a search (rule 3).
        self.searching.0.load(Ordering::SeqCst) == 0 && self.sleeping.has_waiters()
    }

    fn notify_slow(&self, has_more: impl Fn() -> bool) {
        // ORDERING: SeqCst; of several who bring items at the same time, one wakes a worker, and the others find it
        // searching.
        while self.should_notify()
            && self.searching.0.compare_exchange(0, 1, Ordering::SeqCst, Ordering::SeqCst).is_ok()
        {
            let mut none_waited = true;
            self.sleeping.notify(1, |wakeup| none_waited = wakeup == 0);
            // If nobody slept any more, others have meanwhile been deceived by the count, and are stood in for.
            let was_last = none_waited && self.searching.0.fetch_sub(1, Ordering::SeqCst) == 1;
            if !(was_last && has_more()) || defect!("nobody stands in for the deceived") {
                return;
            }
        }
    }

    fn end_search(&self, has_more: impl Fn() -> bool) {
        if self.searching.0.fetch_sub(1, Ordering::SeqCst) == 1 {
            self.notify_if_more(has_more);
        }
    }

    fn notify_if_more(&self, has_more: impl Fn() -> bool) {
        if has_more() {
            self.notify_one(has_more);
        }
    }
}

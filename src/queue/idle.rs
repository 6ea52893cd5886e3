//! The workers without work: how they search for items, sleep and are notified.
//!
//! A worker without work *searches* for a few microseconds, if that has succeeded lately, and then
//! sleeps. A wake-up is expensive: it takes a system call in the notifier, and tens of microseconds
//! until the worker runs on another CPU. So items wake one worker at a time, and only while no
//! worker is searching. The schedulers of Go and tokio work the same way.
//!
//! Rules:
//! 1. `searching` counts the workers that search. It includes workers that were notified and have
//!    not woken yet: the notifier counts them before it notifies them.
//! 2. A thread that has pushed an item notifies a worker if no worker is searching.
//! 3. A worker ends its search before its last check for items. Before it sleeps, that check
//!    follows its registration. When it has found an item, it checks whether there are more. If it
//!    was the last searching worker and there are more items, it notifies a worker by rule 2 on
//!    behalf of their submitters.
//!
//! So no item is left to sleeping workers. Its submitter found no worker searching, and notified
//! one; or it found a searching worker, whose last check comes later and finds the item. All these
//! steps are `SeqCst`; see also the rules of [`EventCount`].

use std::time::Duration;

use super::event_count::{EventCount, Wakeup};
use crate::sync::adaptive_spin::AdaptiveSpin;
use crate::sync::{AtomicUsize, CachePadded, Ordering, spin_wait};
use crate::time::deadline::Deadline;

/// How long a worker searches before it sleeps.
const SPIN_TIME: Duration = Duration::from_micros(5);

/// Decides whether one worker spins before it sleeps. With jobs that come one by one and far apart,
/// spinning never succeeds and costs more than its time: the kernel favours threads that have just
/// slept, and a worker that spins first loses that advantage.
pub(super) type IdleSpin = AdaptiveSpin<15>;

/// The workers without work; see the rules above.
pub(super) struct Idle {
    sleeping: EventCount,
    /// See rule 1.
    searching: CachePadded<AtomicUsize>,
}

impl Idle {
    pub(super) fn new() -> Self {
        Self { sleeping: EventCount::new(), searching: CachePadded::default() }
    }

    /// Notifies a worker of an item, unless one is searching. `has_more` returns whether there
    /// still is an item.
    #[inline]
    pub(super) fn notify_one(&self, has_more: impl Fn() -> bool) {
        if self.should_notify() {
            self.notify_sleeping(has_more);
        }
    }

    /// Notifies all sleeping workers.
    pub(super) fn notify_all(&self) {
        self.sleeping.notify_all(|notified| {
            // ORDERING: SeqCst, before the notified workers can end their search.
            self.searching.0.fetch_add(notified, Ordering::SeqCst);
        });
    }

    /// Wakes the sleeping workers whose `should_stop` now returns `true`.
    pub(super) fn call(&self) {
        self.sleeping.call();
    }

    /// Blocks until `pop` returns an item or `should_stop` returns `true`. The worker calls both
    /// while it searches, and sleeps between two searches. `should_stop` is also called with a lock
    /// held, and takes none. `has_more` returns whether a search would find an item. `spin` belongs
    /// to the worker.
    pub(super) fn wait<T>(
        &self,
        spin: &mut IdleSpin,
        mut pop: impl FnMut() -> Option<T>,
        should_stop: impl Fn() -> bool,
        has_more: impl Fn() -> bool,
    ) -> Option<T> {
        // ORDERING: SeqCst throughout; the rules.
        self.searching.0.fetch_add(1, Ordering::SeqCst);
        loop {
            let mut item = None;
            let mut is_done = || {
                item = pop();
                item.is_some() || should_stop()
            };
            if spin.should_spin() {
                let succeeded = spin_wait(SPIN_TIME, &mut is_done);
                spin.record(succeeded);
                if succeeded {
                    self.end_search(&has_more);
                    return item;
                }
            }
            let check = || {
                self.searching.0.fetch_sub(1, Ordering::SeqCst);
                is_done()
            };
            let wakeup = self.sleeping.wait_unless(Deadline::NEVER, check, &should_stop);
            match wakeup {
                Wakeup::Notified => {
                    if is_done() {
                        self.end_search(&has_more);
                        return item;
                    }
                }
                // The notifier has counted this worker as searching.
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

    /// Returns whether a worker searches or sleeps; may be stale when it returns.
    pub(super) fn has_workers(&self) -> bool {
        self.searching.0.load(Ordering::SeqCst) > 0 || self.sleeping.has_waiters()
    }

    #[inline]
    fn should_notify(&self) -> bool {
        // ORDERING: SeqCst, after the item was pushed; pairs with the end of a search (rule 3).
        self.searching.0.load(Ordering::SeqCst) == 0 && self.sleeping.has_waiters()
    }

    fn notify_sleeping(&self, has_more: impl Fn() -> bool) {
        // ORDERING: SeqCst; of several threads that push items at the same time, one notifies a
        // worker, and the others find it searching.
        while self.should_notify()
            && self.searching.0.compare_exchange(0, 1, Ordering::SeqCst, Ordering::SeqCst).is_ok()
        {
            let mut none_slept = true;
            self.sleeping.notify(1, |notified| none_slept = notified == 0);
            // If no worker slept any more, the count has misled other submitters meanwhile. This
            // thread acts for them.
            let was_last = none_slept && self.searching.0.fetch_sub(1, Ordering::SeqCst) == 1;
            if !(was_last && has_more()) {
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

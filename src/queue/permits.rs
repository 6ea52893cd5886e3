//! How many workers run items of the class `Background` at the same time.
//!
//! A worker takes such an item only with a *permit*. It keeps the permit while it runs the item,
//! and uses it for the next one.
//!
//! | a worker is | meaning | next |
//! |---|---|---|
//! | *free* | holds no permit | *taking*, if the class has items and a permit is left |
//! | *taking* | holds a permit, and pops | *permitted*, with an item; *free*, if another worker was faster |
//! | *permitted* | holds a permit, and runs an item of the class or chooses the next one | *permitted*, with the next item of the class; *free*, when it takes an item of another class, finds none, handles mail or retires |
//!
//! No state is skipped. Rules:
//! 1. At most `limit` workers are taking or permitted.
//! 2. A push to the class notifies no worker if no permit is left. Such a worker could not take the
//!    item.
//! 3. A worker that returns a permit checks after that whether the class has items. If so it takes
//!    one, or notifies a worker.
//!
//! Races:
//! - *Take and take*: the read-modify-write of `taken` decides. `taken` never exceeds the limit.
//! - *Push and return*: the push finds the permit, or the returning worker finds the item (rule 3).
//! - *Push and failed pop*: the worker that was faster holds another permit. The one that has
//!   failed returns its permit, so this is the same race.
//! - *Return and sleep*: a worker that falls asleep has registered before its last look at the
//!   permits. The look finds the permit, or the returning worker finds the registration.
//!
//! All of these steps are `SeqCst`.

use crate::sync::{AtomicUsize, Ordering};

/// The permits of a queue.
pub(super) struct Permits {
    /// `usize::MAX` means no limit.
    limit: usize,
    /// How many workers hold a permit. Zero without a limit.
    taken: AtomicUsize,
}

impl Permits {
    pub(super) fn new(limit: usize) -> Self {
        Self { limit, taken: AtomicUsize::new(0) }
    }

    /// Returns whether there is a limit. Without one, no worker takes or returns permits.
    pub(super) fn is_limited(&self) -> bool {
        self.limit < usize::MAX
    }

    /// Returns how many workers may hold a permit.
    #[cfg(feature = "nats")]
    pub(super) fn limit(&self) -> usize {
        self.limit
    }

    /// Returns whether a permit is left; may be stale when it returns.
    pub(super) fn is_left(&self) -> bool {
        // ORDERING: SeqCst, after the push of an item or the registration of a worker that falls
        // asleep. Pairs with `put_back`; see the races.
        self.taken.load(Ordering::SeqCst) < self.limit
    }

    /// Takes a permit, if one is left.
    pub(super) fn try_take(&self) -> bool {
        // ORDERING: SeqCst; see `is_left`.
        let mut taken = self.taken.load(Ordering::SeqCst);
        while taken < self.limit {
            match self.taken.compare_exchange(taken, taken + 1, Ordering::SeqCst, Ordering::SeqCst) {
                Ok(_) => return true,
                Err(now) => taken = now,
            }
        }
        false
    }

    /// Gives back a permit. The caller then follows rule 3.
    pub(super) fn put_back(&self) {
        // ORDERING: SeqCst, before the caller looks for items; see the races.
        self.taken.fetch_sub(1, Ordering::SeqCst);
    }
}

//! How often a worker reads the clock.

use std::time::Duration;

use crate::sync::{AtomicU64, Ordering};
use crate::time::clock::{Clock, Moment};

/// Tasks that take less do not have the clock read for each.
const SHORT: Duration = Duration::from_micros(1);
/// The most tasks for which the clock is read once.
const LONGEST_STRIDE: u64 = 16;

/// How often a worker reads the clock. Only the worker uses it.
#[derive(Default)]
pub(super) struct Pace {
    /// The word of the last moment that was read; zero if there is none.
    last: AtomicU64,
    /// For how many tasks that reading counts.
    stride: AtomicU64,
    /// How many of them are still to come.
    left: AtomicU64,
}

impl Pace {
    /// The worker has waited for work: the last reading is old.
    pub(super) fn rest(&self) {
        self.left.store(0, Ordering::Relaxed);
    }

    /// A moment that is not later than now, and not long ago.
    #[inline]
    pub(super) fn now(&self, clock: &Clock) -> Moment {
        let left = self.left.load(Ordering::Relaxed);
        let last = Moment::from_word(self.last.load(Ordering::Relaxed));
        if let (Some(last), Some(left)) = (last, left.checked_sub(1)) {
            self.left.store(left, Ordering::Relaxed);
            return last;
        }
        let now = clock.now();
        let stride = self.stride.load(Ordering::Relaxed).max(1);
        let were_short = last.is_some_and(|last| now.since(last) < SHORT * stride as u32);
        let stride = if were_short { LONGEST_STRIDE.min(2 * stride) } else { 1 };
        self.last.store(now.word(), Ordering::Relaxed);
        self.stride.store(stride, Ordering::Relaxed);
        self.left.store(stride - 1, Ordering::Relaxed);
        now
    }
}

//! A clock that a worker with short tasks reads less often than once a task.

use std::time::Duration;

use crate::sync::{AtomicU64, Ordering};
use crate::time::clock::{Epoch, Timestamp};

/// Tasks shorter than this share readings of the clock.
const SHORT_TASK: Duration = Duration::from_micros(1);
/// The limit of tasks that share one reading.
const MAX_STRIDE: u64 = 16;

/// A clock that shares one reading among several short tasks. Used by one worker only.
#[derive(Default)]
pub(super) struct CoarseClock {
    /// The bits of the last timestamp that was read; zero if there is none.
    last: AtomicU64,
    /// The number of tasks that share the last reading.
    stride: AtomicU64,
    /// The number of those tasks that have not started.
    left: AtomicU64,
}

impl CoarseClock {
    /// Forgets the last reading, which is old after the worker has waited for work.
    pub(super) fn invalidate(&self) {
        self.left.store(0, Ordering::Relaxed);
    }

    /// Returns the current time, or a time shortly before it.
    #[inline]
    pub(super) fn now(&self, epoch: &Epoch) -> Timestamp {
        let left = self.left.load(Ordering::Relaxed);
        let last = Timestamp::from_bits(self.last.load(Ordering::Relaxed));
        if let (Some(last), Some(left)) = (last, left.checked_sub(1)) {
            self.left.store(left, Ordering::Relaxed);
            return last;
        }
        let now = epoch.now();
        let stride = self.stride.load(Ordering::Relaxed).max(1);
        let were_short = last.is_some_and(|last| now.since(last) < SHORT_TASK * stride as u32);
        let stride = if were_short { MAX_STRIDE.min(2 * stride) } else { 1 };
        self.last.store(now.to_bits(), Ordering::Relaxed);
        self.stride.store(stride, Ordering::Relaxed);
        self.left.store(stride - 1, Ordering::Relaxed);
        now
    }
}

//! Timestamps of one word each, and the clock that timers and retries use.

use std::num::NonZeroU64;
use std::time::{Duration, Instant};

use crate::sync;
#[cfg(test)]
use crate::sync::{Arc, Mutex};

/// The start of a time scale. Each pool has one; timestamps of different epochs cannot be compared.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Epoch {
    start: Instant,
}

/// The nanoseconds since an epoch, plus one. Lasts for 584 years.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Timestamp(NonZeroU64);

impl Epoch {
    pub(crate) fn new() -> Self {
        Self { start: sync::now() }
    }

    /// Returns the current timestamp. Reads the clock, which takes about 20 ns.
    pub(crate) fn now(&self) -> Timestamp {
        let nanoseconds = u64::try_from(sync::now().duration_since(self.start).as_nanos()).unwrap_or(u64::MAX);
        Timestamp(NonZeroU64::MIN.saturating_add(nanoseconds))
    }

    /// Converts a timestamp of this epoch to an `Instant`.
    pub(crate) fn instant(&self, timestamp: Timestamp) -> Instant {
        self.start + Duration::from_nanos(timestamp.0.get() - 1)
    }
}

impl Timestamp {
    /// Returns the bits for [`from_bits`](Self::from_bits), which are never zero.
    pub(crate) fn to_bits(self) -> u64 {
        self.0.get()
    }

    /// Returns the timestamp with these bits, or `None` if they are zero.
    pub(crate) fn from_bits(bits: u64) -> Option<Self> {
        NonZeroU64::new(bits).map(Self)
    }

    /// Returns the time from `earlier` to this timestamp; zero if `earlier` is later.
    pub(crate) fn since(self, earlier: Self) -> Duration {
        Duration::from_nanos(self.0.get().saturating_sub(earlier.0.get()))
    }
}

/// The clock of timers and retries: that of the system, or one that a test advances.
#[derive(Clone, Default)]
pub(crate) enum Clock {
    /// The monotonic clock of the system.
    #[default]
    System,
    /// A clock that stands still until a test advances it.
    #[cfg(test)]
    Manual(Arc<Mutex<Instant>>),
}

impl Clock {
    /// Creates a clock that stands still.
    #[cfg(test)]
    pub(crate) fn manual() -> Self {
        Self::Manual(Arc::new(Mutex::new(Instant::now())))
    }

    /// Returns the current time.
    pub(crate) fn now(&self) -> Instant {
        match self {
            Self::System => sync::now(),
            #[cfg(test)]
            Self::Manual(now) => *now.lock(),
        }
    }

    /// Returns how long a thread that waits for `instant` should sleep; `None` means until it is
    /// notified.
    pub(crate) fn sleep_until(&self, instant: Option<Instant>) -> Option<Instant> {
        match self {
            Self::System => instant,
            #[cfg(test)]
            Self::Manual(_) => None,
        }
    }

    /// Advances a manual clock. The caller notifies the threads that sleep by it.
    #[cfg(test)]
    pub(crate) fn advance(&self, time: Duration) {
        match self {
            Self::System => unreachable!("only a manual clock can be advanced"),
            Self::Manual(now) => *now.lock() += time,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn timestamps_keep_their_order_and_distance() {
        let epoch = Epoch::new();
        let one = epoch.now();
        let two = epoch.now();
        assert!(one <= two);
        assert_eq!(one.since(two), Duration::ZERO);
        assert_eq!(epoch.instant(two) - epoch.instant(one), two.since(one));
        assert_eq!((Timestamp::from_bits(one.to_bits()), Timestamp::from_bits(0)), (Some(one), None));
    }
}

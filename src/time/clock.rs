//! Moments in the life of a pool, one word each.

use std::num::NonZeroU64;
use std::time::{Duration, Instant};

use crate::sync;
#[cfg(test)]
use crate::sync::{Arc, Mutex};

/// Tells moments apart. Each pool has one; moments of two clocks cannot be compared.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Clock {
    epoch: Instant,
}

/// Nanoseconds since the epoch of a clock, plus one; good for 584 years.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Moment(NonZeroU64);

impl Clock {
    pub(crate) fn new() -> Self {
        Self { epoch: sync::now() }
    }

    /// Reads the clock: some 20 ns.
    pub(crate) fn now(&self) -> Moment {
        let nanoseconds = u64::try_from(sync::now().duration_since(self.epoch).as_nanos()).unwrap_or(u64::MAX);
        Moment(NonZeroU64::MIN.saturating_add(nanoseconds))
    }

    /// The moment as others know it.
    pub(crate) fn instant(&self, moment: Moment) -> Instant {
        self.epoch + Duration::from_nanos(moment.0.get() - 1)
    }
}

impl Moment {
    /// The word for [`from_word`](Self::from_word), never zero.
    pub(crate) fn word(self) -> u64 {
        self.0.get()
    }

    /// The moment of a word, if it is not zero.
    pub(crate) fn from_word(word: u64) -> Option<Self> {
        NonZeroU64::new(word).map(Self)
    }

    /// How long after `earlier` it is; zero, if it is not.
    pub(crate) fn since(self, earlier: Self) -> Duration {
        Duration::from_nanos(self.0.get().saturating_sub(earlier.0.get()))
    }
}

/// The time by which timers and retries go: that of the system, or one that a test sets.
#[derive(Clone, Default)]
pub(crate) enum Watch {
    /// The monotonic clock of the system.
    #[default]
    System,
    /// Stands still until it is moved on.
    #[cfg(test)]
    ByHand(Arc<Mutex<Instant>>),
}

impl Watch {
    /// A watch that stands still.
    #[cfg(test)]
    pub(crate) fn by_hand() -> Self {
        Self::ByHand(Arc::new(Mutex::new(Instant::now())))
    }

    /// What time it is.
    pub(crate) fn now(&self) -> Instant {
        match self {
            Self::System => sync::now(),
            #[cfg(test)]
            Self::ByHand(now) => *now.lock(),
        }
    }

    /// Until when a thread sleeps that waits for `moment`; `None`: until somebody wakes it.
    pub(crate) fn alarm(&self, moment: Option<Instant>) -> Option<Instant> {
        match self {
            Self::System => moment,
            #[cfg(test)]
            Self::ByHand(_) => None,
        }
    }

    /// Moves a watch on that goes by hand; who sleeps by it is to be woken.
    #[cfg(test)]
    pub(crate) fn advance(&self, time: Duration) {
        match self {
            Self::System => unreachable!("the time of the system is not ours to move"),
            Self::ByHand(now) => *now.lock() += time,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn moments_keep_their_order_and_distance() {
        let clock = Clock::new();
        let one = clock.now();
        let two = clock.now();
        assert!(one <= two);
        assert_eq!(one.since(two), Duration::ZERO);
        assert_eq!(clock.instant(two) - clock.instant(one), two.since(one));
        assert_eq!((Moment::from_word(one.word()), Moment::from_word(0)), (Some(one), None));
    }
}

//! A point in time at which something is due or a wait ends, or never.
//!
//! Time is monotonic and saturating: a duration that the clock cannot hold means "never", and
//! nothing panics.

use std::cmp::Ordering;
use std::time::{Duration, Instant};

use crate::sync;

/// A point in time, or never. Never is later than every point in time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Deadline(Option<Instant>);

impl Deadline {
    /// The deadline that never passes.
    pub(crate) const NEVER: Self = Self(None);

    /// Returns the deadline at `instant`.
    pub(crate) fn at(instant: Instant) -> Self {
        Self(Some(instant))
    }

    /// Returns the deadline `timeout` from now, or never if the clock cannot hold it.
    pub(crate) fn after(timeout: Duration) -> Self {
        Self::after_instant(sync::now(), timeout)
    }

    /// Returns the deadline `delay` after `start`, or never if the clock cannot hold it.
    pub(crate) fn after_instant(start: Instant, delay: Duration) -> Self {
        Self(start.checked_add(delay))
    }

    /// Returns the earlier of this deadline and `other`.
    pub(crate) fn earlier(self, other: Option<Instant>) -> Self {
        match (self.0, other) {
            (Some(one), Some(two)) => Self(Some(one.min(two))),
            (one, two) => Self(one.or(two)),
        }
    }

    /// Returns the earlier of this deadline and `timeout` from now.
    pub(crate) fn sooner(self, timeout: Duration) -> Self {
        self.earlier(Self::after(timeout).0)
    }

    /// Returns the point in time; `None` means never.
    pub(crate) fn instant(self) -> Option<Instant> {
        self.0
    }

    /// Returns whether the deadline has passed.
    pub(crate) fn is_past(self) -> bool {
        self.0.is_some_and(|instant| sync::now() >= instant)
    }
}

impl Ord for Deadline {
    fn cmp(&self, other: &Self) -> Ordering {
        match (self.0, other.0) {
            (Some(one), Some(two)) => one.cmp(&two),
            (one, two) => one.is_none().cmp(&two.is_none()),
        }
    }
}

impl PartialOrd for Deadline {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_duration_beyond_the_clock_means_never() {
        assert_eq!(Deadline::after(Duration::MAX), Deadline::NEVER);
        assert!(!Deadline::after(Duration::MAX).is_past());
        assert!(Deadline::after(Duration::ZERO).is_past());
    }

    #[test]
    fn the_earlier_of_two_deadlines_wins_and_never_is_latest() {
        let soon = Instant::now();
        let later = soon + Duration::from_secs(1);
        assert_eq!(Deadline::at(later).earlier(Some(soon)).instant(), Some(soon));
        assert_eq!(Deadline::NEVER.earlier(Some(soon)).instant(), Some(soon));
        assert_eq!(Deadline::at(soon).earlier(None).instant(), Some(soon));
        assert_eq!(Deadline::NEVER.earlier(None), Deadline::NEVER);
        let mut deadlines = [Deadline::NEVER, Deadline::at(later), Deadline::at(soon)];
        deadlines.sort();
        assert_eq!(deadlines, [Deadline::at(soon), Deadline::at(later), Deadline::NEVER]);
    }
}

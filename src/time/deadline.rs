//! A point in time that a wait ends at, or never.
//!
//! Time is monotonic and saturating: a duration too long to be added to the clock means "for ever" and never panics.

use std::time::{Duration, Instant};

use crate::sync;

/// When a wait gives up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Deadline(Option<Instant>);

impl Deadline {
    /// A wait without an end.
    pub(crate) const NEVER: Self = Self(None);

    /// The moment `timeout` from now; never, if the clock cannot hold that moment.
    pub(crate) fn after(timeout: Duration) -> Self {
        Self(sync::now().checked_add(timeout))
    }

    /// The earlier of this deadline and `other`.
    pub(crate) fn earlier(self, other: Option<Instant>) -> Self {
        match (self.0, other) {
            (Some(one), Some(two)) => Self(Some(one.min(two))),
            (one, two) => Self(one.or(two)),
        }
    }

    /// This deadline, or the moment `timeout` from now if that is earlier.
    pub(crate) fn sooner(self, timeout: Duration) -> Self {
        self.earlier(Self::after(timeout).0)
    }

    /// The moment itself; `None` means never.
    pub(crate) fn instant(self) -> Option<Instant> {
        self.0
    }

    /// Whether the moment has come.
    pub(crate) fn is_past(self) -> bool {
        self.0.is_some_and(|instant| sync::now() >= instant)
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
        assert_eq!(Deadline(Some(later)).earlier(Some(soon)).instant(), Some(soon));
        assert_eq!(Deadline::NEVER.earlier(Some(soon)).instant(), Some(soon));
        assert_eq!(Deadline(Some(soon)).earlier(None).instant(), Some(soon));
        assert_eq!(Deadline::NEVER.earlier(None), Deadline::NEVER);
    }
}

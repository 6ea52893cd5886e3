//! The period of a timer as users set it. `schedule` says when later runs are due.

use std::time::{Duration, Instant};

use crate::time::deadline::Deadline;

/// The period of a timer, and when its first run is due.
///
/// A plain [`Duration`] converts into a period whose first run is due after one period.
///
/// # Examples
///
/// ```
/// use std::time::Duration;
/// use workcrew::Period;
///
/// let hourly = Period::new(Duration::from_secs(3_600));
/// assert_eq!(hourly, Period::from(Duration::from_secs(3_600)));
/// assert_ne!(hourly, hourly.at_once());
/// assert_eq!(hourly.at_once(), hourly.first_after(Duration::ZERO));
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[must_use = "a period does nothing by itself"]
pub struct Period {
    /// The distance between two runs.
    distance: Duration,
    /// The time from setting the timer to its first run; one distance if `None`.
    first: Option<Duration>,
}

impl Period {
    /// Returns a period whose first run is due after one period.
    pub const fn new(period: Duration) -> Self {
        Self { distance: period, first: None }
    }

    /// Sets the time from setting the timer to its first run. Zero means [at once](Self::at_once),
    /// and `Duration::MAX` means never. *Default: one period.*
    pub const fn first_after(mut self, delay: Duration) -> Self {
        self.first = Some(delay);
        self
    }

    /// Makes the first run due at once.
    pub const fn at_once(self) -> Self {
        self.first_after(Duration::ZERO)
    }

    /// Returns the distance between two runs.
    pub(crate) fn distance(self) -> Duration {
        self.distance
    }

    /// Returns when the first run is due, for a timer that is set at `now`.
    pub(crate) fn first(self, now: Instant) -> Deadline {
        Deadline::after_instant(now, self.first.unwrap_or(self.distance))
    }
}

impl From<Duration> for Period {
    fn from(period: Duration) -> Self {
        Self::new(period)
    }
}

//! The schedule of a periodic timer.

use std::time::{Duration, Instant};

use crate::time::deadline::Deadline;

/// The distance between two runs of a periodic timer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Schedule {
    /// The time between the starts of two runs. Runs stay on a grid of fixed times.
    FixedRate(Duration),
    /// The time between the end of a run and the start of the next.
    FixedDelay(Duration),
}

impl Schedule {
    /// Returns the distance, from start to start or from end to start.
    pub(crate) fn distance(self) -> Duration {
        let (Self::FixedRate(distance) | Self::FixedDelay(distance)) = self;
        distance
    }

    /// Returns when the next run is due, after a run that was due at `last` and ended at `now`. At
    /// a fixed rate, times of the grid that have passed are skipped.
    pub(crate) fn next(self, last: Deadline, now: Instant) -> Deadline {
        let Some(last) = last.instant() else { return Deadline::NEVER };
        match self {
            Self::FixedDelay(delay) => Deadline::after_instant(now, delay),
            Self::FixedRate(period) => match last.checked_add(period) {
                Some(next) if next > now => Deadline::at(next),
                Some(_) => Deadline::after_instant(now, left_of(period, now - last)),
                None => Deadline::NEVER,
            },
        }
    }
}

/// Returns what is left of the current period, `elapsed` after the start of the first.
fn left_of(period: Duration, elapsed: Duration) -> Duration {
    const SECOND: u128 = 1_000_000_000;
    let into_period = elapsed.as_nanos() % period.as_nanos();
    // `into_period` is less than a period, so its seconds fit into a `u64`.
    period - Duration::new((into_period / SECOND) as u64, (into_period % SECOND) as u32)
}

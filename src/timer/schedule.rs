//! When a periodic timer is due next.

use std::time::{Duration, Instant};

use super::heap::Due;

/// The distance between two runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Schedule {
    /// Between their starts: each run has its place in a fixed row of moments.
    FixedRate(Duration),
    /// Between the end of one and the start of the next.
    FixedDelay(Duration),
}

impl Schedule {
    pub(crate) fn is_zero(self) -> bool {
        let (Self::FixedRate(distance) | Self::FixedDelay(distance)) = self;
        distance.is_zero()
    }

    /// When the first run is due, for a timer that is set at `now`.
    pub(crate) fn first(self, now: Instant) -> Due {
        let (Self::FixedRate(distance) | Self::FixedDelay(distance)) = self;
        Due::after(now, distance)
    }

    /// When the run is due that comes after one that was due at `last` and is over at `now`. Moments of the row that
    /// have passed meanwhile are left out.
    pub(crate) fn next(self, last: Due, now: Instant) -> Due {
        match (self, last) {
            (_, Due::Never) => Due::Never,
            (Self::FixedDelay(pause), _) => Due::after(now, pause),
            (Self::FixedRate(period), Due::At(last)) => match Due::after(last, period) {
                Due::At(next) if next > now => Due::At(next),
                Due::At(_) => Due::after(now, left_of(period, now - last)),
                Due::Never => Due::Never,
            },
        }
    }
}

/// How much is left of the period that is under way `elapsed` after the beginning of the first.
fn left_of(period: Duration, elapsed: Duration) -> Duration {
    const SECOND: u128 = 1_000_000_000;
    let into_period = elapsed.as_nanos() % period.as_nanos();
    // It is less than a period, whose seconds fit.
    period - Duration::new((into_period / SECOND) as u64, (into_period % SECOND) as u32)
}

//! The server's clock, as far as it is known here.
//!
//! A job's age is the server's time less the time at which the server stored the job. This machine's
//! wall clock has no part in it. Each time of the server that arrives here was past already, so the
//! largest difference to this machine's monotonic clock is the nearest to the truth. The clock is
//! never ahead of the server. It may be behind until a first answer of the server has arrived.

use std::time::{Duration, Instant};

use crate::sync::{AtomicBool, AtomicU64, Ordering};

/// A clock that follows the server's.
#[derive(Debug)]
pub(crate) struct ServerClock {
    start: Instant,
    /// The server's time at `start`, in nanoseconds since 1970; zero: not known yet.
    offset: AtomicU64,
    is_known: AtomicBool,
    /// Until when the time that the server said last counts as fresh, in nanoseconds since `start`.
    fresh_until: AtomicU64,
}

/// For how long the server's time is not asked for again.
const FRESH: Duration = Duration::from_secs(1);

/// A time that the server said.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct ServerTime {
    /// In nanoseconds since 1970.
    pub(crate) moment: i64,
    /// Whether that was the time of the answer. Old servers say when the consumer was last active, which may
    /// be long ago.
    pub(crate) is_now: bool,
}

impl ServerClock {
    pub(crate) fn new() -> Self {
        Self {
            start: Instant::now(),
            offset: AtomicU64::new(0),
            is_known: AtomicBool::new(false),
            fresh_until: AtomicU64::new(0),
        }
    }

    /// The server's clock has passed this moment, in nanoseconds since 1970.
    pub(crate) fn has_passed(&self, moment: i64) {
        let offset = u64::try_from(moment).unwrap_or(0).saturating_sub(self.elapsed());
        self.offset.fetch_max(offset, Ordering::Relaxed);
    }

    /// Whether the server has said what time it is, besides by the jobs themselves.
    pub(crate) fn is_known(&self) -> bool {
        self.is_known.load(Ordering::Relaxed)
    }

    /// Whether the server has just said what time it is. A machine that was asleep does not know how long.
    pub(crate) fn is_fresh(&self) -> bool {
        self.elapsed() < self.fresh_until.load(Ordering::Relaxed)
    }

    /// The server says what time it is.
    pub(crate) fn learn(&self, time: ServerTime) {
        self.has_passed(time.moment);
        if time.is_now {
            let fresh_until = self.elapsed().saturating_add(FRESH.as_nanos() as u64);
            self.fresh_until.store(fresh_until, Ordering::Relaxed);
        }
        self.is_known.store(true, Ordering::Relaxed);
    }

    /// How long ago a moment of the server's clock was.
    pub(crate) fn since(&self, moment: i64) -> Duration {
        let now = self.offset.load(Ordering::Relaxed).saturating_add(self.elapsed());
        Duration::from_nanos(now.saturating_sub(u64::try_from(moment).unwrap_or(0)))
    }

    fn elapsed(&self) -> u64 {
        u64::try_from(self.start.elapsed().as_nanos()).unwrap_or(u64::MAX)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DAY: i64 = 86_400_000_000_000;

    /// Fault 206.
    #[test]
    fn an_age_is_by_the_servers_clock_whatever_the_machine_believes() {
        let clock = ServerClock::new();
        // The server is a hundred days in, which this machine's clock is far from.
        clock.has_passed(100 * DAY);
        let age = clock.since(99 * DAY);
        assert!(age >= Duration::from_secs(86_400) && age < Duration::from_secs(86_500), "{age:?}");
        clock.has_passed(98 * DAY);
        assert!(clock.since(99 * DAY) >= Duration::from_secs(86_400), "an older answer changes nothing");
    }

    #[test]
    fn before_the_first_answer_a_job_is_new() {
        assert_eq!(ServerClock::new().since(99 * DAY), Duration::ZERO);
    }
}

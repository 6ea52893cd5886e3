//! An estimate of the server's clock.
//!
//! A job's age is the server's time minus the time at which the server stored the job. This
//! machine's wall clock is not used. Each time that arrives from the server is past already, so the
//! largest difference to this machine's monotonic clock is the most accurate. The estimate is never
//! ahead of the server. It may be behind until the first answer of the server has arrived.

use std::time::{Duration, Instant};

use crate::sync::{AtomicBool, AtomicU64, Ordering};

/// A clock that follows the server's.
#[derive(Debug)]
pub(crate) struct ServerClock {
    start: Instant,
    /// The server's time at `start`, in nanoseconds since 1970; zero if not known yet.
    offset: AtomicU64,
    is_known: AtomicBool,
    /// How long the last answer counts as fresh, in nanoseconds since `start`.
    fresh_until: AtomicU64,
}

/// How long the server is not asked for its time again.
const FRESH: Duration = Duration::from_secs(1);

/// A time from the server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct ServerTime {
    /// In nanoseconds since 1970.
    pub(crate) moment: i64,
    /// Whether it was the time of the answer. Old servers send when the consumer was last active,
    /// which may be long ago.
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

    /// Notes that the server's clock has passed this moment, in nanoseconds since 1970.
    pub(crate) fn has_passed(&self, moment: i64) {
        let offset = u64::try_from(moment).unwrap_or(0).saturating_sub(self.elapsed());
        self.offset.fetch_max(offset, Ordering::Relaxed);
    }

    /// Returns `true` if the server has sent its time, other than with jobs.
    pub(crate) fn is_known(&self) -> bool {
        self.is_known.load(Ordering::Relaxed)
    }

    /// Returns `true` if the server has sent its time recently. A machine that was suspended does
    /// not know for how long.
    pub(crate) fn is_fresh(&self) -> bool {
        self.elapsed() < self.fresh_until.load(Ordering::Relaxed)
    }

    /// Learns the time that the server sent.
    pub(crate) fn learn(&self, time: ServerTime) {
        self.has_passed(time.moment);
        if time.is_now {
            let fresh_until = self.elapsed().saturating_add(FRESH.as_nanos() as u64);
            self.fresh_until.store(fresh_until, Ordering::Relaxed);
        }
        self.is_known.store(true, Ordering::Relaxed);
    }

    /// Returns how long ago a moment of the server's clock was.
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
    fn an_age_is_measured_by_the_servers_clock_alone() {
        let clock = ServerClock::new();
        // The server is a hundred days in, far from this machine's clock.
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

//! Jobs that may not run yet.
//!
//! The delay of a job is stored in a header, in nanoseconds. It counts from the moment at which the
//! server stored the job, by the server's clock. The clocks of publishers and workers have no
//! influence.
//!
//! Rules:
//! 1. A worker that receives a job too early returns it for the rest of its delay, but for at most
//!    [`MAX_PAUSE`]. So a delay of a day costs two deliveries, and one of a year some fifty.
//! 2. The rest is computed again at each delivery. A server that forgot the delay, as after a
//!    restart, delivers the job early, and nothing is lost.
//! 3. A delivery before that moment is never an attempt. All of them are recorded as returns (see
//!    `history`).
//! 4. The clock may be behind the server's and is never ahead. So "due" is always right, and "too
//!    early" is decided only after the server was asked for its time.

use std::time::{Duration, SystemTime};

use async_nats::HeaderMap;

use crate::nats::check::{self, InvalidArgument};
use crate::nats::headers;

/// The delay of a job, in nanoseconds.
pub(crate) const DELAY: &str = "Workcrew-Delay";
/// The longest time for which a job is returned at once. It is shorter than the age at which a
/// message of the history is removed.
const MAX_PAUSE: Duration = Duration::from_secs(7 * 24 * 60 * 60);
/// How long a job is returned while the server's time is not known.
const BLIND_PAUSE: Duration = Duration::from_secs(1);

/// When a new job may run.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Schedule {
    #[default]
    AtOnce,
    /// This long after it was stored.
    After(Duration),
    /// From this moment on, by this machine's clock.
    NotBefore(SystemTime),
}

impl Schedule {
    /// Returns the delay from now on.
    fn delay(self) -> Duration {
        match self {
            Self::AtOnce => Duration::ZERO,
            Self::After(delay) => delay,
            Self::NotBefore(moment) => moment.duration_since(SystemTime::now()).unwrap_or(Duration::ZERO),
        }
    }

    /// Checks the delay and writes it into the headers of a job. `max_age` is that of the queue.
    pub(crate) fn apply(self, headers: &mut HeaderMap, max_age: Option<Duration>) -> Result<(), InvalidArgument> {
        let delay = self.delay();
        check::delay(delay, max_age)?;
        if !delay.is_zero() {
            headers.insert(DELAY, delay.as_nanos().to_string());
        }
        Ok(())
    }
}

/// Returns the delay of a stored job. A header that is not a number counts as none.
pub(crate) fn read(message: &async_nats::Message) -> Duration {
    let text = headers::first(message.headers.as_ref(), DELAY);
    text.and_then(|text| text.parse().ok()).map_or(Duration::ZERO, Duration::from_nanos)
}

/// Returns how long a job is returned if this much of its delay is left.
pub(crate) fn pause(left: Duration, is_time_known: bool) -> Duration {
    left.min(if is_time_known { MAX_PAUSE } else { BLIND_PAUSE })
}

#[cfg(test)]
mod tests {
    use super::*;

    const YEAR: Duration = Duration::from_secs(365 * 24 * 60 * 60);

    fn written(schedule: Schedule) -> Result<Option<u64>, InvalidArgument> {
        let mut headers = HeaderMap::new();
        schedule.apply(&mut headers, None)?;
        Ok(headers.get(DELAY).map(|value| value.as_str().parse().expect("a number")))
    }

    /// Fault 231.
    #[test]
    fn a_delay_is_written_in_nanoseconds_and_a_past_moment_is_none() {
        assert_eq!(written(Schedule::AtOnce), Ok(None));
        assert_eq!(written(Schedule::After(Duration::ZERO)), Ok(None));
        assert_eq!(written(Schedule::After(Duration::from_micros(3))), Ok(Some(3_000)));
        assert_eq!(written(Schedule::After(100 * YEAR)), Ok(Some(3_153_600_000_000_000_000)));
        assert_eq!(written(Schedule::NotBefore(SystemTime::UNIX_EPOCH)), Ok(None));
        let delay = written(Schedule::NotBefore(SystemTime::now() + YEAR)).expect("a moment").expect("a delay");
        assert!(u128::from(delay) <= YEAR.as_nanos() && u128::from(delay) > YEAR.as_nanos() / 2);
        for refused in [Duration::MAX, 300 * YEAR] {
            assert_eq!(written(Schedule::After(refused)).expect_err("too long").field(), "delay");
        }
        // A moment that no duration reaches is refused as well, if the system's clock can hold it.
        if let Some(moment) = SystemTime::now().checked_add(400 * YEAR) {
            assert_eq!(written(Schedule::NotBefore(moment)).expect_err("too long").field(), "delay");
        }
    }

    #[test]
    fn a_job_is_returned_for_at_most_a_week_or_a_second_without_a_clock() {
        assert_eq!(pause(YEAR, true), MAX_PAUSE);
        assert_eq!(pause(Duration::from_secs(60), true), Duration::from_secs(60));
        assert_eq!(pause(YEAR, false), BLIND_PAUSE);
        assert_eq!(pause(Duration::from_millis(1), false), Duration::from_millis(1));
    }
}

//! The metrics of a pool, and the histograms behind two of them.

use std::fmt;
use std::time::Duration;

use crate::sync::{AtomicU64, Ordering};

/// A snapshot of a pool's counters. Returned by
/// [`WorkerPool::metrics`](crate::WorkerPool::metrics).
///
/// The counters are read one after the other while the pool works. If no task starts, ends or is
/// submitted, `submitted = succeeded + failed + panicked + cancelled + queued + running`.
///
/// # Examples
///
/// ```
/// let pool = workcrew::WorkerPool::builder().workers(2).build()?;
/// for _ in 0..10 {
///     pool.execute(|| ())?;
/// }
/// pool.wait_idle();
/// let metrics = pool.metrics();
/// assert_eq!((metrics.tasks_submitted, metrics.tasks_succeeded), (10, 10));
/// assert_eq!(metrics.tasks_queued, 0);
/// println!("{metrics}");
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Metrics {
    /// Tasks accepted since the pool was built.
    pub tasks_submitted: u64,
    /// Tasks that ran and returned.
    pub tasks_succeeded: u64,
    /// Tasks that ended with an error. This applies to tasks of groups and scopes, retried tasks
    /// that gave up, deliveries of events and remote calls.
    pub tasks_failed: u64,
    /// Tasks that ran and panicked.
    pub tasks_panicked: u64,
    /// Tasks that were accepted and cancelled: closures that never ran, retried tasks that had
    /// no further attempt, and futures that were dropped before they were ready.
    pub tasks_cancelled: u64,
    /// Submissions whose closure was returned, closures that a group dropped because the pool was
    /// closed, and events that a subscription refused.
    pub tasks_refused: u64,
    /// Tasks accepted and not started, including tasks that wait for a delay or for another
    /// attempt.
    pub tasks_queued: u64,
    /// Tasks running now, including tasks that wait while their worker runs another task.
    pub tasks_running: u64,
    /// Hooks and observer calls that panicked, and destructors of the values of a
    /// [`WorkerLocal`](crate::WorkerLocal).
    pub hooks_panicked: u64,
    /// Calls of hooks and observers that were skipped because hooks called each other more than 16
    /// deep: on one stack, or by events that the hooks of a bus published.
    pub hooks_skipped: u64,
    /// The number of workers, or the new number while a resize is in progress.
    pub workers: usize,
    /// The capacity of the queue in jobs.
    pub queue_capacity: usize,
    /// Pending timers: delayed tasks, tasks between two attempts (both also count as queued), and
    /// periodic timers between two runs.
    pub timers_pending: usize,
    /// The time from submission to start; only with
    /// [`WorkerPoolBuilder::timing`](crate::WorkerPoolBuilder::timing).
    pub queue_wait: Option<Histogram>,
    /// The time from start to end; only with
    /// [`WorkerPoolBuilder::timing`](crate::WorkerPoolBuilder::timing).
    pub run_time: Option<Histogram>,
}

impl fmt::Display for Metrics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} submitted: {} succeeded, {} failed, {} panicked, {} cancelled, {} queued, {} running; {} refused; \
             workers: {}, queue: {}",
            self.tasks_submitted,
            self.tasks_succeeded,
            self.tasks_failed,
            self.tasks_panicked,
            self.tasks_cancelled,
            self.tasks_queued,
            self.tasks_running,
            self.tasks_refused,
            self.workers,
            self.queue_capacity
        )?;
        for (name, histogram) in [("queue wait", &self.queue_wait), ("run time", &self.run_time)] {
            if let Some(histogram) = histogram {
                write!(f, "; {name} {histogram}")?;
            }
        }
        Ok(())
    }
}

/// The number of buckets: one for each bit of a `u64` of nanoseconds, and one for zero.
const BUCKETS: usize = 65;

/// A histogram of durations, in buckets that double in width.
#[derive(Clone, PartialEq, Eq)]
pub struct Histogram {
    /// Bucket 0 counts zeros, bucket `n` the durations of 2^(n-1) up to 2^n nanoseconds.
    counts: [u64; BUCKETS],
    /// The sum of all durations, in nanoseconds.
    nanoseconds: u64,
}

impl Histogram {
    /// Returns the number of durations.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.counts.iter().sum()
    }

    /// Returns the exact mean of all durations; zero if there are none.
    #[must_use]
    pub fn mean(&self) -> Duration {
        Duration::from_nanos(self.nanoseconds.checked_div(self.count()).unwrap_or(0))
    }

    /// Returns a duration that the fraction `quantile` of all durations does not exceed.
    ///
    /// A `quantile` of 0.5 is the median. The result is the upper end of a bucket, so it is less
    /// than twice the exact value. It is zero if there are no durations.
    #[must_use]
    pub fn quantile(&self, quantile: f64) -> Duration {
        let rank = (quantile.clamp(0.0, 1.0) * self.count() as f64).ceil() as u64;
        let mut seen = 0;
        for (bucket, count) in self.counts.iter().enumerate() {
            seen += count;
            if seen >= rank.max(1) {
                let upper_end = 1u64.checked_shl(bucket as u32).map_or(u64::MAX, |power| power - 1);
                return Duration::from_nanos(upper_end);
            }
        }
        Duration::ZERO
    }
}

impl fmt::Debug for Histogram {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Histogram({self})")
    }
}

impl fmt::Display for Histogram {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (mean, median, tail) = (self.mean(), self.quantile(0.5), self.quantile(0.99));
        write!(f, "mean {mean:?}, half within {median:?}, 99 % within {tail:?}")
    }
}

/// The counters of a [`Histogram`]. They are statistics: relaxed and independent of each other.
pub(crate) struct HistogramCounter {
    counts: [AtomicU64; BUCKETS],
    nanoseconds: AtomicU64,
}

impl HistogramCounter {
    pub(crate) fn new() -> Self {
        Self { counts: std::array::from_fn(|_| AtomicU64::new(0)), nanoseconds: AtomicU64::new(0) }
    }

    pub(crate) fn record(&self, duration: Duration) {
        let nanoseconds = u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX);
        let bucket = (u64::BITS - nanoseconds.leading_zeros()) as usize;
        self.counts[bucket].fetch_add(1, Ordering::Relaxed);
        self.nanoseconds.fetch_add(nanoseconds, Ordering::Relaxed);
    }

    /// Adds the counters to `total`.
    pub(crate) fn add_to(&self, total: &mut Histogram) {
        for (sum, count) in total.counts.iter_mut().zip(&self.counts) {
            *sum += count.load(Ordering::Relaxed);
        }
        total.nanoseconds = total.nanoseconds.wrapping_add(self.nanoseconds.load(Ordering::Relaxed));
    }
}

impl Default for Histogram {
    fn default() -> Self {
        Self { counts: [0; BUCKETS], nanoseconds: 0 }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(durations: &[Duration]) -> Histogram {
        let counter = HistogramCounter::new();
        durations.iter().for_each(|duration| counter.record(*duration));
        let mut histogram = Histogram::default();
        counter.add_to(&mut histogram);
        histogram
    }

    #[test]
    fn a_quantile_is_less_than_twice_the_exact_value() {
        let histogram = of(&(1..=1_000).map(Duration::from_micros).collect::<Vec<_>>());
        for (quantile, exact) in [(0.5, 500), (0.99, 990), (1.0, 1_000)] {
            let found = histogram.quantile(quantile);
            assert!(found >= Duration::from_micros(exact) && found < 2 * Duration::from_micros(exact), "{found:?}");
        }
        assert_eq!(histogram.mean(), Duration::from_nanos(500_500));
    }

    #[test]
    fn the_shortest_and_the_longest_duration_are_counted() {
        assert_eq!(of(&[]).quantile(0.5), Duration::ZERO);
        assert_eq!(of(&[Duration::ZERO]).quantile(1.0), Duration::ZERO);
        assert_eq!(of(&[Duration::MAX]).quantile(0.0), Duration::from_nanos(u64::MAX));
    }
}

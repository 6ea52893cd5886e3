//! A histogram of durations, and the counters behind it.
//!
//! Each power of two of nanoseconds is divided into four buckets of equal width, so a bucket is at
//! most a quarter as wide as its lower end. `HdrHistogram` divides its buckets in the same way.

use std::fmt;
use std::time::Duration;

use crate::sync::{AtomicU64, Ordering};

/// The number of buckets for each power of two.
const PARTS: u64 = 4;
/// The number of buckets: one for each of 0 to 3 ns, and four for each of the 62 powers of two
/// above.
const BUCKETS: usize = 252;

/// A histogram of durations, in buckets whose width is at most a quarter of their lower end.
///
/// A duration of more than 584 years counts as that.
///
/// # Examples
///
/// ```
/// use std::time::Duration;
///
/// let pool = workcrew::WorkerPool::builder().workers(1).timing(true).build()?;
/// pool.spawn(|| std::thread::sleep(Duration::from_millis(2)))?.join()?;
/// let run_time = pool.metrics().run_time.unwrap_or_default();
/// assert_eq!(run_time.count(), 1);
/// assert!(run_time.max() >= Duration::from_millis(2));
/// assert_eq!(run_time.sum(), run_time.max());
/// let (upper_end, count) = run_time.buckets().next().unwrap();
/// assert!(upper_end >= run_time.max() && count == 1);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, PartialEq, Eq)]
pub struct Histogram {
    counts: [u64; BUCKETS],
    /// The sum of all durations, in nanoseconds.
    sum: u64,
    /// The largest duration, in nanoseconds.
    max: u64,
}

impl Histogram {
    /// Returns the number of durations.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.counts.iter().sum()
    }

    /// Returns the exact sum of all durations, up to 584 years. A larger sum wraps around.
    #[must_use]
    pub fn sum(&self) -> Duration {
        Duration::from_nanos(self.sum)
    }

    /// Returns the exact mean of all durations; zero if there are none.
    #[must_use]
    pub fn mean(&self) -> Duration {
        Duration::from_nanos(self.sum.checked_div(self.count()).unwrap_or(0))
    }

    /// Returns the longest duration; zero if there are none.
    #[must_use]
    pub fn max(&self) -> Duration {
        Duration::from_nanos(self.max)
    }

    /// Returns a duration that the fraction `quantile` of all durations does not exceed.
    ///
    /// A `quantile` of 0.5 is the median. The result is at most a quarter larger than the exact
    /// value, and never larger than [`max`](Self::max). It is zero if there are no durations.
    #[must_use]
    pub fn quantile(&self, quantile: f64) -> Duration {
        let rank = (quantile.clamp(0.0, 1.0) * self.count() as f64).ceil() as u64;
        let mut seen = 0;
        for (bucket, count) in self.counts.iter().enumerate() {
            seen += count;
            if seen >= rank.max(1) {
                return Duration::from_nanos(upper_end_of(bucket).min(self.max));
            }
        }
        Duration::ZERO
    }

    /// Returns the buckets that are not empty, the shortest durations first.
    ///
    /// Each has the longest duration that it may hold, and the number of durations in it. A
    /// duration is counted in one bucket only.
    pub fn buckets(&self) -> impl Iterator<Item = (Duration, u64)> + '_ {
        let buckets = self.counts.iter().enumerate().filter(|(_, count)| **count > 0);
        buckets.map(|(bucket, count)| (Duration::from_nanos(upper_end_of(bucket)), *count))
    }

    /// Adds the durations of another histogram, for example that of another pool.
    pub fn merge(&mut self, other: &Self) {
        for (sum, count) in self.counts.iter_mut().zip(other.counts) {
            *sum += count;
        }
        self.sum = self.sum.wrapping_add(other.sum);
        self.max = self.max.max(other.max);
    }
}

/// Returns the bucket of a duration.
fn bucket_of(nanoseconds: u64) -> usize {
    let Some(power) = nanoseconds.checked_ilog2().filter(|power| *power >= 2) else { return nanoseconds as usize };
    // The two bits after the highest one choose the part.
    let part = (nanoseconds >> (power - 2)) & (PARTS - 1);
    ((u64::from(power) - 1) * PARTS + part) as usize
}

/// Returns the largest number of nanoseconds in a bucket.
fn upper_end_of(bucket: usize) -> u64 {
    let bucket = bucket as u64;
    if bucket < PARTS {
        return bucket;
    }
    let shift = bucket / PARTS - 1;
    ((PARTS + bucket % PARTS) << shift) + ((1 << shift) - 1)
}

impl Default for Histogram {
    fn default() -> Self {
        Self { counts: [0; BUCKETS], sum: 0, max: 0 }
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
        write!(f, "mean {mean:?}, half within {median:?}, 99 % within {tail:?}, at most {:?}", self.max())
    }
}

/// The counters of a [`Histogram`]. They are statistics: relaxed and independent of each other.
pub(crate) struct HistogramCounter {
    counts: [AtomicU64; BUCKETS],
    sum: AtomicU64,
    max: AtomicU64,
}

impl HistogramCounter {
    pub(crate) fn new() -> Self {
        let counts = std::array::from_fn(|_| AtomicU64::new(0));
        Self { counts, sum: AtomicU64::new(0), max: AtomicU64::new(0) }
    }

    pub(crate) fn record(&self, duration: Duration) {
        let nanoseconds = u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX);
        self.counts[bucket_of(nanoseconds)].fetch_add(1, Ordering::Relaxed);
        self.sum.fetch_add(nanoseconds, Ordering::Relaxed);
        if nanoseconds > self.max.load(Ordering::Relaxed) {
            self.max.fetch_max(nanoseconds, Ordering::Relaxed);
        }
    }

    /// Adds the counters to `total`.
    pub(crate) fn add_to(&self, total: &mut Histogram) {
        for (sum, count) in total.counts.iter_mut().zip(&self.counts) {
            *sum += count.load(Ordering::Relaxed);
        }
        total.sum = total.sum.wrapping_add(self.sum.load(Ordering::Relaxed));
        total.max = total.max.max(self.max.load(Ordering::Relaxed));
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
    fn each_duration_is_in_the_bucket_whose_ends_enclose_it() {
        let mut lower_end = 0;
        for bucket in 0..BUCKETS {
            let upper_end = upper_end_of(bucket);
            assert_eq!((bucket_of(lower_end), bucket_of(upper_end)), (bucket, bucket));
            assert!(upper_end - lower_end <= lower_end / PARTS);
            lower_end = upper_end.wrapping_add(1);
        }
        assert_eq!(lower_end, 0, "the last bucket ends with the largest number");
    }

    #[test]
    fn a_quantile_is_at_most_a_quarter_larger_than_the_exact_value() {
        let histogram = of(&(1..=1_000).map(Duration::from_micros).collect::<Vec<_>>());
        for (quantile, exact) in [(0.5, 500), (0.99, 990), (1.0, 1_000)] {
            let (found, exact) = (histogram.quantile(quantile), Duration::from_micros(exact));
            assert!(found >= exact && found <= exact * 5 / 4, "{found:?}");
        }
        assert_eq!(histogram.mean(), Duration::from_nanos(500_500));
        assert_eq!(histogram.sum(), Duration::from_micros(500_500));
    }

    #[test]
    fn no_quantile_is_larger_than_the_longest_duration() {
        let histogram = of(&[Duration::from_millis(50)]);
        assert_eq!((histogram.quantile(0.5), histogram.max()), (histogram.max(), Duration::from_millis(50)));
    }

    #[test]
    fn the_shortest_and_the_longest_duration_are_counted() {
        assert_eq!((of(&[]).quantile(0.5), of(&[]).max(), of(&[]).buckets().count()), Default::default());
        assert_eq!(of(&[Duration::ZERO]).quantile(1.0), Duration::ZERO);
        let longest = of(&[Duration::MAX]);
        assert_eq!((longest.quantile(0.0), longest.max()), (longest.sum(), Duration::from_nanos(u64::MAX)));
    }

    #[test]
    fn a_merged_histogram_is_that_of_all_durations() {
        let [some, more] = [[3, 80], [900, 7]].map(|list| list.map(Duration::from_micros));
        let mut merged = of(&some);
        merged.merge(&of(&more));
        assert_eq!(merged, of(&[some, more].concat()));
        assert_eq!(merged.buckets().map(|(_, count)| count).sum::<u64>(), 4);
    }
}

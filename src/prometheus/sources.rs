//! What a collector reads: named sources of snapshots, and the largest counts that were shown of
//! each.
//!
//! A submission that is refused may be counted for a moment. A scrape in that moment would show a
//! counter that shrinks afterwards, and Prometheus would take that for a restart. So a counter
//! never shows less than it has shown before.

use std::fmt;

use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric, MetricEncoder, NoLabelSet};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;
use prometheus_client::registry::Unit;

use super::families::{Family, Numbers};
use crate::observe::histogram::Histogram;
use crate::sync::{Arc, Mutex};

/// The upper ends of the exported buckets, as powers of two of nanoseconds: 2^10 ns is 1.024 µs,
/// 2^36 ns is 69 s.
const EXPONENTS: std::ops::RangeInclusive<u32> = 10..=36;

/// Returns a snapshot, or `None` when its source no longer exists.
type Read<M> = Box<dyn Fn() -> Option<M> + Send + Sync>;

/// The sources of one kind of snapshot.
pub(super) struct Sources<M>(Mutex<Vec<Arc<Source<M>>>>);

struct Source<M> {
    name: String,
    read: Read<M>,
    /// The largest value that was shown of each counter, in the order of the families.
    shown: Mutex<Vec<u64>>,
}

/// What one scrape shows of a source.
struct Scraped<M> {
    source: Arc<Source<M>>,
    metrics: M,
    /// The number of counters that were encoded.
    encoded: usize,
}

impl<M> Sources<M> {
    /// Adds a source. It replaces the one with the same name.
    pub(super) fn add(&self, name: String, read: Read<M>) {
        let source = Arc::new(Source { name, read, shown: Mutex::default() });
        let mut sources = self.0.lock();
        sources.retain(|other| other.name != source.name);
        sources.push(source);
    }

    /// Encodes the families of all sources that still exist, and forgets the others.
    pub(super) fn encode(
        &self,
        label: &'static str,
        families: &[Family<M>],
        encoder: &mut DescriptorEncoder<'_>,
    ) -> fmt::Result {
        let sources = self.0.lock().clone();
        // A snapshot may hold the last reference to its source, so it is taken without the lock.
        let scrape = |source: &Arc<Source<M>>| (Arc::clone(source), (source.read)());
        let (present, gone): (Vec<_>, Vec<_>) = sources.iter().map(scrape).partition(|(_, metrics)| metrics.is_some());
        if !gone.is_empty() {
            self.0.lock().retain(|source| !gone.iter().any(|(gone, _)| Arc::ptr_eq(source, gone)));
        }
        let scraped = |(source, metrics): (_, Option<M>)| Some(Scraped { source, metrics: metrics?, encoded: 0 });
        let mut scraped: Vec<_> = present.into_iter().filter_map(scraped).collect();
        if scraped.is_empty() {
            return Ok(());
        }
        families.iter().try_for_each(|family| family.encode(label, &mut scraped, encoder))
    }

    /// Returns the names of the sources.
    pub(super) fn names(&self) -> Vec<String> {
        self.0.lock().iter().map(|source| source.name.clone()).collect()
    }
}

impl<M> Default for Sources<M> {
    fn default() -> Self {
        Self(Mutex::new(Vec::new()))
    }
}

impl<M> Scraped<M> {
    /// Encodes a counter, which shows at least what it has shown before.
    fn encode_counter(&mut self, value: u64, encoder: MetricEncoder<'_>) -> fmt::Result {
        let mut shown = self.source.shown.lock();
        if shown.len() == self.encoded {
            shown.push(0);
        }
        let largest = &mut shown[self.encoded];
        *largest = value.max(*largest);
        self.encoded += 1;
        ConstCounter::new(*largest).encode(encoder)
    }
}

impl<M> Family<M> {
    fn encode(
        &self,
        label: &'static str,
        scraped: &mut [Scraped<M>],
        encoder: &mut DescriptorEncoder<'_>,
    ) -> fmt::Result {
        let (kind, unit) = match self.numbers {
            Numbers::Counter(_) | Numbers::Outcomes(_) => (MetricType::Counter, None),
            Numbers::Gauge(_) => (MetricType::Gauge, None),
            Numbers::Durations(_) => (MetricType::Histogram, Some(Unit::Seconds)),
        };
        let mut family = encoder.encode_descriptor(self.name, self.help, unit.as_ref(), kind)?;
        for one in scraped {
            let name = one.source.name.clone();
            let labels = [(label, name.as_str())];
            match self.numbers {
                Numbers::Counter(number) => {
                    one.encode_counter(number(&one.metrics), family.encode_family(&labels)?)?;
                }
                Numbers::Outcomes(numbers) => {
                    for (outcome, number) in numbers(&one.metrics) {
                        let labels = [(label, name.as_str()), ("outcome", outcome)];
                        one.encode_counter(number, family.encode_family(&labels)?)?;
                    }
                }
                Numbers::Gauge(number) => {
                    ConstGauge::new(number(&one.metrics)).encode(family.encode_family(&labels)?)?;
                }
                Numbers::Durations(durations) => {
                    if let Some(durations) = durations(&one.metrics) {
                        encode_durations(durations, family.encode_family(&labels)?)?;
                    }
                }
            }
        }
        Ok(())
    }
}

/// Encodes a histogram in seconds.
fn encode_durations(durations: &Histogram, mut encoder: MetricEncoder<'_>) -> fmt::Result {
    let mut buckets: Vec<_> = EXPONENTS.map(|power| ((1_u64 << power) as f64 / 1e9, 0)).collect();
    buckets.push((f64::INFINITY, 0));
    for (longest, count) in durations.buckets() {
        // No bucket of the histogram extends over a power of two.
        let seconds = longest.as_secs_f64();
        let bucket = buckets.iter_mut().find(|(upper_end, _)| seconds <= *upper_end);
        bucket.into_iter().for_each(|(_, total)| *total += count);
    }
    let count = buckets.iter().map(|(_, count)| count).sum();
    encoder.encode_histogram::<NoLabelSet>(durations.sum().as_secs_f64(), count, &buckets, None)
}

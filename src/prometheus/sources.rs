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

/// The unit of durations.
static SECONDS: Unit = Unit::Seconds;

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
pub(super) struct Scraped<M> {
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

    /// Takes snapshots of all sources that still exist, and forgets the others.
    pub(super) fn scrape(&self) -> Vec<Scraped<M>> {
        let sources = self.0.lock().clone();
        // A snapshot may hold the last reference to its source, so it is taken without the lock.
        let scrape = |source: &Arc<Source<M>>| (Arc::clone(source), (source.read)());
        let (present, gone): (Vec<_>, Vec<_>) = sources.iter().map(scrape).partition(|(_, metrics)| metrics.is_some());
        if !gone.is_empty() {
            self.0.lock().retain(|source| !gone.iter().any(|(gone, _)| Arc::ptr_eq(source, gone)));
        }
        let scraped = |(source, metrics): (_, Option<M>)| Some(Scraped { source, metrics: metrics?, encoded: 0 });
        present.into_iter().filter_map(scraped).collect()
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

impl<M> Source<M> {
    /// Returns the value of a counter: at least what was shown before.
    fn at_least_shown(&self, counter: usize, value: u64) -> u64 {
        let mut shown = self.shown.lock();
        if shown.len() == counter {
            shown.push(0);
        }
        shown[counter] = value.max(shown[counter]);
        shown[counter]
    }
}

/// Encodes families of the sources that were scraped, each with its name as the label.
pub(super) fn encode<M>(
    label: &'static str,
    families: &[Family<M>],
    scraped: &mut [Scraped<M>],
    encoder: &mut DescriptorEncoder<'_>,
) -> fmt::Result {
    if scraped.is_empty() {
        return Ok(());
    }
    for family in families {
        let mut described = family.describe(encoder)?;
        for Scraped { source, metrics, encoded } in &mut *scraped {
            let mut adjust = |value| {
                *encoded += 1;
                source.at_least_shown(*encoded - 1, value)
            };
            family.numbers.encode(metrics, &[(label, source.name.as_str())], &mut adjust, &mut described)?;
        }
    }
    Ok(())
}

/// Encodes families of the parts of the sources that were scraped. Each part has two labels: the
/// name of its source, and its own. Its counters never shrink.
#[cfg(feature = "events")]
pub(super) fn encode_parts<'s, M, P>(
    [label, part_label]: [&'static str; 2],
    families: &[Family<P>],
    scraped: &'s [Scraped<M>],
    parts: fn(&M) -> &[P],
    name: fn(&P) -> &str,
    encoder: &mut DescriptorEncoder<'_>,
) -> fmt::Result {
    let parts = || {
        let of = move |one: &'s Scraped<M>| parts(&one.metrics).iter().map(move |part| (&*one.source.name, part));
        scraped.iter().flat_map(of)
    };
    if parts().next().is_none() {
        return Ok(());
    }
    for family in families {
        let mut described = family.describe(encoder)?;
        for (source, part) in parts() {
            let labels = [(label, source), (part_label, name(part))];
            family.numbers.encode(part, &labels, &mut |value| value, &mut described)?;
        }
    }
    Ok(())
}

impl<M> Family<M> {
    fn describe<'e>(&self, encoder: &'e mut DescriptorEncoder<'_>) -> Result<MetricEncoder<'e>, fmt::Error> {
        let (kind, unit) = match self.numbers {
            Numbers::Counter(_) | Numbers::Counters(..) => (MetricType::Counter, None),
            Numbers::Gauge(_) | Numbers::Gauges(..) => (MetricType::Gauge, None),
            Numbers::Durations(_) => (MetricType::Histogram, Some(&SECONDS)),
        };
        encoder.encode_descriptor(self.name, self.help, unit, kind)
    }
}

impl<M> Numbers<M> {
    /// Encodes the numbers of one snapshot. `adjust` is called with the value of each counter, in
    /// order, and returns what is shown.
    fn encode(
        &self,
        metrics: &M,
        labels: &[(&'static str, &str)],
        adjust: &mut dyn FnMut(u64) -> u64,
        encoder: &mut MetricEncoder<'_>,
    ) -> fmt::Result {
        let with = |label, value| [labels, &[(label, value)]].concat();
        match self {
            Self::Counter(number) => ConstCounter::new(adjust(number(metrics))).encode(encoder.encode_family(&labels)?),
            Self::Counters(label, numbers) => numbers(metrics).iter().try_for_each(|(value, number)| {
                ConstCounter::new(adjust(*number)).encode(encoder.encode_family(&with(*label, *value))?)
            }),
            Self::Gauge(number) => ConstGauge::new(number(metrics)).encode(encoder.encode_family(&labels)?),
            Self::Gauges(label, numbers) => numbers(metrics).iter().try_for_each(|(value, number)| {
                ConstGauge::new(*number).encode(encoder.encode_family(&with(*label, *value))?)
            }),
            Self::Durations(durations) => match durations(metrics) {
                Some(durations) => encode_durations(durations, encoder.encode_family(&labels)?),
                None => Ok(()),
            },
        }
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

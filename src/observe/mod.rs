//! Reports of what a pool does: the observer's calls, counters and histograms.

pub(crate) mod coarse_clock;
pub(crate) mod metrics;
pub(crate) mod observer;
pub(crate) mod worker_counters;

//! Instructions of a job with a span, from its submission until its end; with the feature `tracing`.
//!
//! The subscriber numbers the spans and keeps nothing. A real one adds the cost of what it keeps.

use std::sync::atomic::{AtomicU64, Ordering};

use tracing::span::{Attributes, Id, Record};
use tracing::{Event, Metadata, Subscriber};
use workcrew::WorkerPool;

use super::instructions::{count, on_busy_pool_of};
use super::{Counted, job};
use crate::probe::Probe;

pub(super) const PROBES: [Probe; 2] = [("span", span), ("span_unseen", span_unseen)];

pub(super) fn counts() -> impl Iterator<Item = Counted> {
    [
        count("instructions_span_and_run", "span", &[], 2_700.0),
        count("instructions_unseen_span_and_run", "span_unseen", &[], 2_250.0),
    ]
    .into_iter()
}

/// A subscriber that is interested in everything.
struct Numbers(AtomicU64);

impl Subscriber for Numbers {
    fn enabled(&self, _: &Metadata<'_>) -> bool {
        true
    }

    fn new_span(&self, _: &Attributes<'_>) -> Id {
        Id::from_u64(self.0.fetch_add(1, Ordering::Relaxed))
    }

    fn record(&self, _: &Id, _: &Record<'_>) {}
    fn record_follows_from(&self, _: &Id, _: &Id) {}
    fn event(&self, _: &Event<'_>) {}
    fn enter(&self, _: &Id) {}
    fn exit(&self, _: &Id) {}
}

/// `execute` in a pool with spans.
fn span(operations: usize) -> u64 {
    tracing::subscriber::set_global_default(Numbers(AtomicU64::new(1))).expect("it is the first one");
    span_unseen(operations)
}

/// The same, without a subscriber.
fn span_unseen(operations: usize) -> u64 {
    on_busy_pool_of(WorkerPool::builder().tracing(true), operations, |pool, number| {
        pool.execute(job::<3>(number)).expect("the pool is open");
    })
}

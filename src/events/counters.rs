//! The counters of a bus and of its subscriptions. They are statistics: relaxed, each on its own.

use super::metrics::DeliveryCounts;
use super::progress::DeliveryOutcome;
use crate::error::CancelReason;
use crate::sync::{AtomicU64, AtomicUsize, Ordering};

/// The counters of a bus.
#[derive(Default)]
pub(super) struct EventCounters {
    /// The number of events whose deliveries have not all ended. No statistic: it decides whether
    /// the bus is idle.
    pub(super) pending: AtomicUsize,
    /// The number of events that were published, or are being published.
    published: AtomicU64,
    /// The number of them that no subscription has accepted.
    unhandled: AtomicU64,
    /// The number of events that `try_publish` has returned.
    refused: AtomicU64,
}

impl EventCounters {
    pub(super) fn count_published(&self) {
        self.published.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn count_unhandled(&self) {
        self.unhandled.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn count_refused(&self) {
        self.refused.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn published(&self) -> u64 {
        self.published.load(Ordering::Relaxed)
    }

    pub(super) fn unhandled(&self) -> u64 {
        self.unhandled.load(Ordering::Relaxed)
    }

    pub(super) fn refused(&self) -> u64 {
        self.refused.load(Ordering::Relaxed)
    }
}

/// The counters of a subscription. The list of a bus has a reference to them, so reading them needs
/// no reference to the mailbox.
#[derive(Default)]
pub(super) struct DeliveryCounters {
    handled: AtomicU64,
    failed: AtomicU64,
    discarded: AtomicU64,
    cancelled: AtomicU64,
    refused: AtomicU64,
    attempts_failed: AtomicU64,
    retries: AtomicU64,
}

impl DeliveryCounters {
    /// Counts the end of a delivery. Called before the delivery is complete, so a thread that has
    /// waited for its receipt finds it counted.
    pub(super) fn count(&self, outcome: &DeliveryOutcome) {
        let counter = match outcome {
            DeliveryOutcome::Handled => &self.handled,
            DeliveryOutcome::Failed(_) => &self.failed,
            DeliveryOutcome::Cancelled(CancelReason::Discarded) => &self.discarded,
            DeliveryOutcome::Cancelled(_) => &self.cancelled,
            DeliveryOutcome::Refused => &self.refused,
            DeliveryOutcome::LeftBehind => return, // it has not ended
        };
        counter.fetch_add(1, Ordering::Relaxed);
    }

    /// Counts an attempt that has failed.
    pub(super) fn count_failed_attempt(&self) {
        self.attempts_failed.fetch_add(1, Ordering::Relaxed);
    }

    /// Counts attempts that begin and are not the first of their deliveries.
    pub(super) fn count_retries(&self, attempts: usize) {
        if attempts > 0 {
            self.retries.fetch_add(attempts as u64, Ordering::Relaxed);
        }
    }

    pub(super) fn read(&self) -> DeliveryCounts {
        DeliveryCounts {
            handled: self.handled.load(Ordering::Relaxed),
            failed: self.failed.load(Ordering::Relaxed),
            discarded: self.discarded.load(Ordering::Relaxed),
            cancelled: self.cancelled.load(Ordering::Relaxed),
            refused: self.refused.load(Ordering::Relaxed),
            attempts_failed: self.attempts_failed.load(Ordering::Relaxed),
            retries: self.retries.load(Ordering::Relaxed),
        }
    }
}

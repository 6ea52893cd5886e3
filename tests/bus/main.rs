//! The event bus on real pools.
#![cfg(feature = "events")]
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod batches;
#[path = "../bus_conformance/mod.rs"]
mod bus_conformance;
#[path = "../common/mod.rs"]
mod common;
mod conformance;
mod keys;
mod letters;
mod mailbox;
mod metrics;
mod shutdown;
mod subscriptions;
mod wait;

use std::sync::Arc;
use std::thread;
use std::time::Duration;

use common::{Mutex, with_watchdog};
use workcrew::WorkerPool;
use workcrew::events::{DeadLetter, DeliveryOutcome, EventBus, Receipt};

/// Longer than any test takes.
pub(crate) const LONG: Duration = Duration::from_secs(86_400);

/// Creates a bus, and the list of its dead letters.
pub(crate) fn bus_with_letters(pool: &WorkerPool) -> (EventBus, Arc<Mutex<Vec<DeadLetter>>>) {
    let letters: Arc<Mutex<Vec<DeadLetter>>> = Arc::default();
    let kept = Arc::clone(&letters);
    let bus = EventBus::builder(pool).on_dead_letter(move |letter| kept.lock().unwrap().push(letter)).build();
    (bus, letters)
}

pub(crate) fn wait_until(done: impl Fn() -> bool) {
    with_watchdog(|| {
        while !done() {
            thread::yield_now();
        }
    });
}

pub(crate) fn outcomes(receipt: &Receipt) -> Vec<String> {
    let of = |outcome: DeliveryOutcome| match outcome {
        DeliveryOutcome::Handled => "handled".to_owned(),
        DeliveryOutcome::Failed(error) => format!("failed after {}", error.attempts()),
        DeliveryOutcome::Cancelled(reason) => reason.to_string(),
        DeliveryOutcome::Refused => "refused".to_owned(),
        other => unreachable!("{other:?}"),
    };
    receipt.wait().unwrap().into_iter().map(|delivery| of(delivery.outcome)).collect()
}

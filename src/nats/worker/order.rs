//! How a worker orders its jobs: the function that returns the key of a job.

use std::hash::{BuildHasher, Hash, RandomState};

use super::job::Job;
use super::key_queues::Key;
use crate::nats::check::InvalidArgument;
use crate::sync::{Arc, AtomicBool, Ordering};
use crate::unwind;

/// How many jobs may wait for their key by default, if there are few slots.
const MIN_LOOKAHEAD: usize = 64;
/// How many jobs may wait for their key by default, for each slot.
const LOOKAHEAD_PER_SLOT: usize = 4;

/// Returns the hash of a job's key. User code.
type KeyFunction = Box<dyn Fn(&Job) -> Key + Send + Sync>;

/// The order of a worker's jobs.
pub(crate) struct Order {
    key_of: KeyFunction,
    /// How many jobs in hand may wait for an earlier one of their key; `None` for the default.
    lookahead: Option<usize>,
    /// Whether a run is in progress. Guards only itself.
    is_running: AtomicBool,
}

/// The right to run a worker with an order, until it is dropped.
pub(crate) struct OrderGuard(Arc<Order>);

impl Order {
    pub(crate) fn new<K: Hash>(key_of: impl Fn(&Job) -> K + Send + Sync + 'static) -> Self {
        let hasher = RandomState::new();
        let key_of = Box::new(move |job: &Job| hasher.hash_one(key_of(job)));
        Self { key_of, lookahead: None, is_running: AtomicBool::new(false) }
    }

    pub(crate) fn with_lookahead(self, lookahead: Option<usize>) -> Self {
        Self { lookahead, ..self }
    }

    /// Returns the key of a job, or the message of a panic. Calls user code.
    pub(crate) fn key_of(&self, job: &Job) -> Result<Key, String> {
        unwind::catch(|| (self.key_of)(job)).map_err(|payload| {
            let message = unwind::message(&payload).map_or_else(String::new, |message| format!(": {message}"));
            unwind::discard(payload);
            format!("the key function panicked{message}")
        })
    }

    /// Returns how many jobs may wait.
    pub(crate) fn lookahead(&self, slots: usize) -> usize {
        self.lookahead.unwrap_or_else(|| slots.saturating_mul(LOOKAHEAD_PER_SLOT).max(MIN_LOOKAHEAD))
    }

    /// Begins a run. The order holds within one run, so there is one at a time.
    pub(crate) fn begin_run(self: &Arc<Self>) -> Result<OrderGuard, InvalidArgument> {
        if self.is_running.swap(true, Ordering::Relaxed) {
            return Err(InvalidArgument::new(
                "ordered_by",
                "the worker is running already, and its order holds in one run",
            ));
        }
        Ok(OrderGuard(Arc::clone(self)))
    }
}

impl Drop for OrderGuard {
    fn drop(&mut self) {
        self.0.is_running.store(false, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Fault 645.
    #[test]
    fn four_jobs_for_each_slot_may_wait_for_their_key_and_at_least_64_unless_a_number_is_set() {
        let order = || Order::new(|_: &Job| 0);
        assert_eq!([1, 16, 17, 100].map(|slots| order().lookahead(slots)), [64, 64, 68, 400]);
        assert_eq!(order().lookahead(usize::MAX), usize::MAX);
        assert_eq!(order().with_lookahead(Some(3)).lookahead(100), 3);
    }
}

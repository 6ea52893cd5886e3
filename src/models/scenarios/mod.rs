//! Scenarios for shuttle: whole pools with several threads around them, in many random schedules.

mod bus;
mod ends;
mod helping;
mod keyed;

use crate::pool::worker_pool::WorkerPool;
use crate::sync::{Arc, AtomicUsize, Ordering};

/// Builds a pool with `workers` workers.
fn pool(workers: usize, queue_capacity: usize) -> Arc<WorkerPool> {
    let builder = WorkerPool::builder().workers(workers).queue_capacity(queue_capacity);
    Arc::new(builder.build().expect("the model has room for its threads"))
}

/// A counter, to be read after all threads that count were joined.
#[derive(Clone, Default)]
struct Count(Arc<AtomicUsize>);

impl Count {
    fn add(&self) {
        self.0.fetch_add(1, Ordering::SeqCst);
    }

    fn get(&self) -> usize {
        self.0.load(Ordering::SeqCst)
    }

    /// Returns a closure that counts its call.
    fn adder(&self) -> impl FnOnce() + Send + use<> {
        let count = self.clone();
        move || count.add()
    }
}

/// Asserts that every task of a pool that has ended has exactly one outcome.
fn assert_balanced(pool: &WorkerPool) {
    let metrics = pool.metrics();
    let ended = metrics.tasks_succeeded + metrics.tasks_failed + metrics.tasks_panicked + metrics.tasks_cancelled;
    assert_eq!((metrics.tasks_submitted, metrics.tasks_queued, metrics.tasks_running), (ended, 0, 0));
}

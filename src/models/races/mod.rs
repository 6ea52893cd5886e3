//! Models for loom: each is a race of two or three operations, run in every schedule.

mod futures;
mod group;
mod keyed;
mod pool;
mod queue;
mod task;
mod token;

use std::task::{Wake, Waker};

use crate::pool::worker_pool::WorkerPool;
use crate::sync::{Arc, AtomicUsize, Condvar, Mutex, Ordering};

/// A waker that a thread can wait for, as an async executor does.
#[derive(Default)]
struct Bell {
    rung: Mutex<bool>,
    changed: Condvar,
}

impl Bell {
    fn waker(self: &Arc<Self>) -> Waker {
        Waker::from(Arc::clone(self))
    }

    /// Blocks until the waker was called since the last wait.
    fn wait(&self) {
        let mut rung = self.rung.lock();
        while !*rung {
            rung = self.changed.wait_until(rung, None);
        }
        *rung = false;
    }
}

impl Wake for Bell {
    fn wake(self: Arc<Self>) {
        *self.rung.lock() = true;
        self.changed.notify_all();
    }
}

/// A counter of its drops, which is relaxed: a checker shows a stale count if nothing has made the
/// drop visible.
struct Dropped(Arc<AtomicUsize>);

impl Drop for Dropped {
    fn drop(&mut self) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }
}

/// Returns a counter for relaxed accesses.
fn counter() -> Arc<AtomicUsize> {
    Arc::default()
}

/// Builds a pool with `workers` workers.
fn workers(workers: usize, queue_capacity: usize) -> WorkerPool {
    let builder = WorkerPool::builder().workers(workers).queue_capacity(queue_capacity);
    builder.build().expect("the model has room for its threads")
}

/// Builds a pool with one worker.
fn one_worker(queue_capacity: usize) -> WorkerPool {
    workers(1, queue_capacity)
}

//! Waits for the jobs of pools that have no such wait.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Barrier, Condvar, Mutex};

use crate::pools::Job;

/// Waits until all jobs that were submitted before have run. The queue of the pool must be first
/// in, first out: when every worker has arrived at the barrier, all earlier jobs have ended. So the
/// jobs themselves can be empty.
pub(crate) fn wait_for_workers(workers: usize, execute: impl Fn(Job)) {
    let barrier = Arc::new(Barrier::new(workers + 1));
    for _ in 0..workers {
        let barrier = Arc::clone(&barrier);
        execute(Box::new(move || {
            barrier.wait();
        }));
    }
    barrier.wait();
}

/// Wakes one waiter when a number of jobs have run. As a static it is the cheapest way to count
/// jobs: a counter behind an `Arc` would cost two more atomic steps for each job.
pub(crate) struct Countdown {
    /// Jobs that have not run. Acquire and release order the jobs before the last arrival, as in
    /// `Arc`; the lock orders the rest.
    left: AtomicUsize,
    is_done: Mutex<bool>,
    done: Condvar,
}

impl Countdown {
    pub(crate) const fn new() -> Self {
        Self { left: AtomicUsize::new(0), is_done: Mutex::new(false), done: Condvar::new() }
    }

    /// Sets the number of jobs to wait for.
    pub(crate) fn expect_arrivals(&self, jobs: usize) {
        *self.is_done.lock().expect("no holder of the lock panics") = false;
        self.left.store(jobs, Ordering::Relaxed);
    }

    pub(crate) fn arrive(&self) {
        if self.left.fetch_sub(1, Ordering::AcqRel) == 1 {
            *self.is_done.lock().expect("no holder of the lock panics") = true;
            self.done.notify_one();
        }
    }

    pub(crate) fn wait(&self) {
        let is_done = self.is_done.lock().expect("no holder of the lock panics");
        drop(self.done.wait_while(is_done, |is_done| !*is_done).expect("no holder of the lock panics"));
    }
}

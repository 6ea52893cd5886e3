//! How to wait for jobs of pools that cannot be waited for.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Barrier, Condvar, Mutex};

use crate::pools::Job;

/// Waits until everything has run that was submitted before, for a pool whose queue is first in, first out and whose
/// workers run one job at a time: when every worker has arrived at the barrier, all earlier jobs are over. The jobs
/// themselves can stay empty.
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

/// Tells one waiter that a number of jobs have run. As a static it is the cheapest way for jobs to be counted:
/// references to a shared counter would be counted themselves, two atomic steps for each job.
pub(crate) struct Countdown {
    /// Jobs that have not run. The lock orders what matters; the last arrival is found with acquire and release, as
    /// in `Arc`.
    left: AtomicUsize,
    is_done: Mutex<bool>,
    done: Condvar,
}

impl Countdown {
    pub(crate) const fn new() -> Self {
        Self { left: AtomicUsize::new(0), is_done: Mutex::new(false), done: Condvar::new() }
    }

    /// Begins anew.
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

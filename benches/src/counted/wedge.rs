//! Blocks all workers of a pool, so that jobs stay in the queue.

use std::sync::{Arc, Barrier};

use workcrew::WorkerPool;

use crate::pools::Job;

/// Blocks the workers until it is dropped.
pub(super) struct BlockedWorkers {
    leave: Arc<Barrier>,
}

impl BlockedWorkers {
    /// Gives each worker a job that blocks, and waits until all have begun.
    pub(super) fn new(workers: usize, execute: impl Fn(Job)) -> Self {
        let [begun, leave] = [(); 2].map(|()| Arc::new(Barrier::new(workers + 1)));
        for _ in 0..workers {
            let [begun, leave] = [Arc::clone(&begun), Arc::clone(&leave)];
            execute(Box::new(move || {
                begun.wait();
                leave.wait();
            }));
        }
        begun.wait();
        Self { leave }
    }

    pub(super) fn of(pool: &WorkerPool) -> Self {
        Self::new(pool.workers(), |job| pool.execute(job).expect("the pool is open"))
    }
}

impl Drop for BlockedWorkers {
    fn drop(&mut self) {
        self.leave.wait();
    }
}

//! The worker on which the calling thread runs.

use std::fmt;

use super::worker_context;
use super::worker_pool::{WeakWorkerPool, WorkerPool};

/// The worker on which the caller runs. Returned by [`current_worker`].
#[derive(Clone)]
pub struct CurrentWorker {
    index: usize,
    pool: WeakWorkerPool,
}

/// Returns the worker on which the caller runs, and `None` on any other thread.
///
/// A thread is a worker from its start hook to its stop hook, both included. A task need not run on
/// a worker of its pool:
///
/// - Under [`Overflow::CallerRuns`](crate::Overflow::CallerRuns) a full queue makes the submitter
///   run the task. On an external thread this function then returns `None`. On a worker of another
///   pool it returns that worker.
/// - A worker that waits runs what its wait needs. Those tasks see that same worker.
///
/// The timer thread and the I/O thread are not workers. Neither is a thread whose locals are being
/// destroyed.
///
/// # Examples
///
/// ```
/// use workcrew::{WorkerPool, current_worker};
///
/// let pool = WorkerPool::builder().workers(1).build()?;
/// assert!(current_worker().is_none());
/// let index = pool.spawn(|| current_worker().map(|worker| worker.index()))?;
/// assert_eq!(index.join()?, Some(0));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[must_use]
pub fn current_worker() -> Option<CurrentWorker> {
    let worker = worker_context::worker()?;
    let inner = worker.pool.upgrade()?;
    Some(CurrentWorker { index: worker.index, pool: WeakWorkerPool::of(&inner) })
}

impl CurrentWorker {
    /// Returns the index of the worker, which [`RunningTask`](crate::RunningTask) and the hooks of
    /// workers use too.
    ///
    /// At any time it is unique among the workers of the pool. It is smaller than the largest
    /// number of workers that the pool has ever had at once. A worker that starts after another one
    /// has left takes over its index.
    #[must_use]
    pub fn index(&self) -> usize {
        self.index
    }

    /// Returns a weak handle to the pool of the worker.
    ///
    /// There is no handle to the pool before [`build`](crate::WorkerPoolBuilder::build) has
    /// returned. A start hook that calls this earlier gets an empty handle, whose
    /// [`upgrade`](WeakWorkerPool::upgrade) always returns `None`.
    #[must_use = "a weak handle has no effect by itself"]
    pub fn pool(&self) -> &WeakWorkerPool {
        &self.pool
    }

    /// Returns `true` if this is a worker of `pool`.
    ///
    /// # Examples
    ///
    /// ```
    /// use workcrew::{WorkerPool, current_worker};
    ///
    /// let (pool, other) = (WorkerPool::new()?, WorkerPool::new()?);
    /// let own = pool.clone();
    /// let task = pool.spawn(move || {
    ///     let worker = current_worker().expect("a task runs on a worker while there is room");
    ///     (worker.is_of(&own), worker.is_of(&other))
    /// })?;
    /// assert_eq!(task.join()?, (true, false));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[must_use]
    pub fn is_of(&self, pool: &WorkerPool) -> bool {
        self.pool.is_of(pool)
    }
}

impl fmt::Debug for CurrentWorker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CurrentWorker").field("index", &self.index).finish_non_exhaustive()
    }
}

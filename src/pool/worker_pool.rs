//! The pool as users see it: submitting, watching, dropping. The ways to end it are in `ending`.
//!
//! What is built on a pool (groups, scopes, maps) adds its own method to [`WorkerPool`] in its own
//! file.

use std::fmt;
use std::panic::{RefUnwindSafe, UnwindSafe};
use std::time::Duration;

use super::inner::PoolInner;
use super::shutdown::{self, OnDrop};
use super::worker::{self, WorkerSettings};
use crate::error::BuildError;
use crate::observe::metrics::Metrics;
use crate::observe::observer::RunningTask;
use crate::sync::Arc;
use crate::task::context;
use crate::task::idle;
use crate::time::deadline::Deadline;

/// Worker threads behind one bounded queue.
///
/// A pool is shared by reference, in an [`Arc`] or as a `static`; all methods take `&self`. A
/// `static` is never dropped, and what is queued when `main` returns is lost: call
/// [`wait_idle`](Self::wait_idle) or [`shutdown`](Self::shutdown) at the end. Dropping a pool runs
/// what is queued and joins the workers, unless
/// [`WorkerPoolBuilder::on_drop`](crate::WorkerPoolBuilder::on_drop) says otherwise or an earlier
/// [report](crate::ShutdownReport) has ended the waiting. Dropped on one of its own workers the
/// pool does not wait, and ends after that worker's task.
///
/// Workers are reused and their thread locals are not reset: what a task leaves there, the next
/// task on that worker finds.
///
/// # Examples
///
/// ```
/// use workcrew::WorkerPool;
///
/// let pool = WorkerPool::new()?; // one worker for each CPU, a queue of 1,024
/// pool.execute(|| println!("somewhere else"))?; // fire and forget
/// let handle = pool.spawn(|| 1 + 1)?; // or wait for the result
/// assert_eq!(handle.join()?, 2);
/// pool.shutdown(); // runs what is queued; so does dropping the pool
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub struct WorkerPool {
    inner: Arc<PoolInner>,
    settings: PoolSettings,
}

/// What a pool remembers of its builder.
pub(crate) struct PoolSettings {
    pub(crate) workers: WorkerSettings,
    pub(crate) on_drop: OnDrop,
}

/// # Watching
impl WorkerPool {
    /// Blocks until no task is queued or running; a delayed task, or one that is tried again,
    /// counts as queued while it waits. New tasks may come at any time, so this may be out of date
    /// when it returns, unless nobody else submits.
    ///
    /// # Panics
    ///
    /// If called by a task of this pool, or by one that a task of this pool waits for: it would
    /// wait for itself.
    #[track_caller]
    pub fn wait_idle(&self) {
        assert!(!context::is_inside(self.inner.id()), "a task cannot wait for its own pool to be idle");
        let waited = idle::wait_idle(&self.inner.executor, Deadline::NEVER);
        assert!(waited.is_ok(), "a task cannot wait for a pool that waits for that task");
    }

    /// Like [`wait_idle`](Self::wait_idle), but blocks at most `timeout`; returns whether the pool
    /// was idle. A task of this pool gets `false` at once.
    #[must_use]
    pub fn wait_idle_timeout(&self, timeout: Duration) -> bool {
        let wait = || idle::wait_idle(&self.inner.executor, Deadline::after(timeout)).unwrap_or(false);
        !context::is_inside(self.inner.id()) && wait()
    }

    /// Whether the pool refuses new work, by [`close`](Self::close) or any other way to end it.
    /// Once it does, it does for ever.
    #[must_use]
    pub fn is_shut_down(&self) -> bool {
        self.inner.executor.tracker.is_closed()
    }

    /// How many workers the pool has, or is about to have after a [`resize`](Self::resize).
    #[must_use]
    pub fn workers(&self) -> usize {
        self.inner.workers.target()
    }

    /// How many jobs the queue can hold.
    #[must_use]
    pub fn queue_capacity(&self) -> usize {
        self.inner.queue_capacity()
    }

    /// How many places of the queue are taken, at most its capacity; out of date when it arrives. A
    /// cancelled task keeps its place until a worker comes to it; the tasks of groups take none.
    #[must_use]
    pub fn queue_len(&self) -> usize {
        self.inner.queue_len()
    }

    /// A snapshot of the pool's counters. Costs a read of a few cache lines for each worker.
    #[must_use]
    pub fn metrics(&self) -> Metrics {
        self.inner.metrics()
    }

    /// What each busy worker is doing, submitted where and since when: the first question when a
    /// pool seems stuck.
    ///
    /// # Examples
    ///
    /// ```
    /// use std::sync::mpsc::channel;
    ///
    /// let pool = workcrew::WorkerPool::builder().workers(1).build()?;
    /// let (started, start) = channel();
    /// let (open, gate) = channel::<()>();
    /// pool.execute(move || { started.send(()).unwrap(); gate.recv().unwrap() })?;
    /// start.recv()?;
    /// for task in pool.running() {
    ///     println!("{task}"); // worker 0: task 0 from src/main.rs:6:6, for 0.000 s
    /// }
    /// assert_eq!(pool.running().len(), 1);
    /// open.send(())?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[must_use]
    pub fn running(&self) -> Vec<RunningTask> {
        self.inner.executor.tracker.running()
    }

    /// Changes the number of workers. New ones are there when this returns; surplus ones leave when
    /// they have finished what they are doing, and this does not wait for them.
    ///
    /// # Errors
    ///
    /// [`BuildError`], if the number is zero or too large, if a thread could not be started (the
    /// pool then has its former size as its target), or if the pool is shut down.
    pub fn resize(&self, workers: usize) -> Result<(), BuildError> {
        check_workers(workers)?;
        let one_at_a_time = self.inner.workers.lock_resize();
        if self.is_shut_down() {
            return Err(BuildError::ShutDown);
        }
        let before = self.workers();
        let change = self.inner.workers.set_target(workers);
        let started = worker::start(&self.inner, &self.settings.workers, change.missing);
        let surplus = match &started {
            Ok(()) => change.surplus,
            Err(_) => self.inner.workers.set_target(before).surplus,
        };
        if surplus > 0 {
            self.inner.wake_workers();
        }
        // Letting go of a group may drop what its tasks left behind, which is foreign code.
        drop(one_at_a_time);
        self.inner.send_missing_tickets();
        started
    }
}

/// The seams for what is built on a pool.
impl WorkerPool {
    pub(crate) fn assemble(inner: Arc<PoolInner>, settings: PoolSettings) -> Self {
        Self { inner, settings }
    }

    pub(crate) fn inner(&self) -> &Arc<PoolInner> {
        &self.inner
    }

    /// What its threads are named after.
    pub(crate) fn thread_name(&self) -> &str {
        &self.settings.workers.thread_name
    }
}

// A panic never happens under a lock of this crate, so nothing that is broken can be seen through a
// reference.
impl UnwindSafe for WorkerPool {}
impl RefUnwindSafe for WorkerPool {}

impl Drop for WorkerPool {
    fn drop(&mut self) {
        shutdown::on_drop(&self.inner, self.settings.on_drop);
    }
}

impl fmt::Debug for WorkerPool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("WorkerPool")
            .field("workers", &self.workers())
            .field("queue_len", &self.queue_len())
            .field("queue_capacity", &self.queue_capacity())
            .field("is_shut_down", &self.is_shut_down())
            .finish_non_exhaustive()
    }
}

/// The most workers a pool may have.
const MAX_WORKERS: usize = 1 << 16;

/// Checks a number of workers.
pub(crate) fn check_workers(workers: usize) -> Result<(), BuildError> {
    match workers {
        0 => Err(BuildError::ZeroWorkers),
        1..=MAX_WORKERS => Ok(()),
        requested => Err(BuildError::TooManyWorkers { requested, limit: MAX_WORKERS }),
    }
}

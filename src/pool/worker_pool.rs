//! The pool as users see it: its type, and the methods that observe and resize it.
//!
//! `submit` has the methods that submit, and `ending` those that end the pool. Everything else that
//! is built on a pool (groups, scopes, maps, timers) adds its own methods to [`WorkerPool`] in its
//! own file.

use std::fmt;
use std::time::Duration;

use super::inner::PoolInner;
use super::shutdown::{self, OnDrop};
use super::stuck::StuckGuard;
use super::worker::{self, WorkerSettings};
use super::worker_start::StartReport;
use crate::error::BuildError;
use crate::observe::metrics::Metrics;
use crate::observe::task_info::RunningTask;
use crate::priority::Priority;
use crate::sync::thread_name::thread_name;
use crate::sync::{Arc, Weak};
use crate::task::context;
use crate::task::idle;
use crate::task::waits::Refused;
use crate::time::deadline::Deadline;
use crate::unwind;

/// A pool of worker threads with one bounded queue.
///
/// A `WorkerPool` is a handle. Its clones are handles to the same pool. A clone costs two
/// increments of reference counts. All methods take `&self`.
///
/// # When it ends
///
/// Any handle can [end](Self::shutdown) the pool for all of them. Otherwise the drop of the last
/// handle ends it. That drop runs what is queued and joins the workers, with three exceptions:
/// - [`WorkerPoolBuilder::on_drop`](crate::WorkerPoolBuilder::on_drop) has set another policy.
/// - [`shutdown_timeout`](Self::shutdown_timeout) has returned, or
///   [`shutdown_now`](Self::shutdown_now) while a task was running. Then the drop does not wait.
/// - One of the pool's own tasks drops the last handle. Then the drop does not wait, and the pool
///   ends after that task.
///
/// Only `WorkerPool`s are handles in this sense. Groups, join handles, timers, event buses, drivers
/// and clients use a pool and do not keep it open.
///
/// Be careful with tasks that own a clone:
/// - A task may drop the last handle, and then no thread waits for the pool. If such
///   tasks must run before the process ends, call [`shutdown`](Self::shutdown) or
///   [`wait_idle`](Self::wait_idle) at the end of `main`. The same holds for a pool in a `static`,
///   which is never dropped.
/// - A timer or an observer of the pool that owns a clone keeps the pool open until the timer is
///   cancelled or the pool is shut down. Give it a [weak handle](Self::downgrade) instead.
///
/// # Thread locals
///
/// Workers are reused and their thread locals are not reset. A task finds there what the previous
/// task on that worker has left. The values of a [`WorkerLocal`](crate::WorkerLocal) are dropped
/// with their worker or after the last handle, and a second use on one stack is an error.
///
/// # Examples
///
/// ```
/// use workcrew::WorkerPool;
///
/// let pool = WorkerPool::new()?; // one worker for each CPU, a queue of 1,024
/// pool.execute(|| println!("somewhere else"))?; // without a result
/// let handle = pool.spawn(|| 1 + 1)?; // or wait for the result
/// assert_eq!(handle.join()?, 2);
///
/// let own = pool.clone(); // for a task that submits tasks
/// let nested = pool.spawn(move || own.spawn(|| 3).map(|handle| handle.join()))?;
/// assert_eq!(nested.join()?.unwrap()?, 3);
/// pool.shutdown(); // runs what is queued; so does dropping the last handle
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone)]
pub struct WorkerPool {
    /// What the handles share. Dropped before `inner`.
    owner: Arc<Owner>,
    /// The inside of the pool, once more, so that a submission follows one reference only.
    inner: Arc<PoolInner>,
}

/// What all handles of a pool share. Its drop ends the pool.
struct Owner {
    inner: Arc<PoolInner>,
    settings: PoolSettings,
}

/// The settings of the builder that a pool keeps.
pub(crate) struct PoolSettings {
    pub(crate) workers: WorkerSettings,
    pub(crate) on_drop: OnDrop,
    /// Ends the thread of `on_stuck`.
    pub(crate) _stuck: Option<StuckGuard>,
}

/// # Observing
impl WorkerPool {
    /// Blocks until no task is queued or running. A delayed task, and a task that waits for a
    /// retry, count as queued.
    ///
    /// If other threads submit tasks, the pool may be busy again when this returns. It does not
    /// wait for a [`spawn_async`](Self::spawn_async), or a `publish_async` of a bus, that waits for
    /// room.
    ///
    /// This method also waits for tasks that a [timed shutdown](Self::shutdown_timeout) left
    /// behind, so after one it may block forever. For a limit, call
    /// [`wait_idle_timeout`](Self::wait_idle_timeout). The waits of an [event
    /// bus](crate::events::EventBus::wait_idle) differ: they do not wait for such tasks.
    ///
    /// # Panics
    ///
    /// If a task of this pool calls it, or a task that a task of this pool waits for, because it
    /// would wait for itself.
    #[track_caller]
    pub fn wait_idle(&self) {
        assert!(!context::is_inside(self.inner.id()), "a task cannot wait for its own pool to be idle");
        let waited = idle::wait_idle(&self.inner.executor, Deadline::NEVER, || false);
        if let Err(Refused(cycle)) = waited {
            panic!("a task cannot wait for a pool that waits for that task{}", cycle.suffix());
        }
    }

    /// Like [`wait_idle`](Self::wait_idle), but blocks at most for `timeout`. Returns `true` if the
    /// pool was idle. In a task of this pool it returns `false` at once.
    #[must_use]
    pub fn wait_idle_timeout(&self, timeout: Duration) -> bool {
        let wait = || idle::wait_idle(&self.inner.executor, Deadline::after(timeout), || false).unwrap_or(false);
        !context::is_inside(self.inner.id()) && wait()
    }

    /// Returns `true` if the pool refuses new tasks, because [`close`](Self::close) or another
    /// method has ended it. `true` is final.
    #[must_use]
    pub fn is_shut_down(&self) -> bool {
        self.inner.executor.tracker.is_closed()
    }

    /// Returns the number of workers. After a [`resize`](Self::resize) to fewer workers, surplus
    /// workers may still be running.
    #[must_use]
    pub fn workers(&self) -> usize {
        self.inner.workers.target()
    }

    /// Returns the capacity of the queue, which is that of the class `Normal`.
    #[must_use]
    pub fn queue_capacity(&self) -> usize {
        self.inner.queue_capacity(Priority::Normal)
    }

    /// Returns how many places of the queue of the class `Normal` are taken, at most its capacity.
    /// May be stale when it returns.
    ///
    /// A cancelled task keeps its place until a worker reaches it. Some tasks take no places, and
    /// are not counted:
    ///
    /// - timers that are due, and attempts after the first;
    /// - the tasks of groups, scopes, keyed executors, subscriptions, drivers and NATS workers,
    ///   which have bounds of their own;
    /// - jobs that a task submits to a full queue, if it can neither wait nor run them.
    ///
    /// [`Metrics::tasks_queued`] counts all tasks that have not started. The
    /// [queues of a snapshot](crate::snapshot::QueueSnapshot) tell how many entries each class has beside its
    /// places.
    #[must_use]
    pub fn queue_len(&self) -> usize {
        self.inner.queue_len(Priority::Normal)
    }

    /// Returns the capacity of the queue of one [class](Priority).
    #[must_use]
    pub fn queue_capacity_of(&self, priority: Priority) -> usize {
        self.inner.queue_capacity(priority)
    }

    /// Returns how many places of the queue of one [class](Priority) are taken, at most its
    /// capacity. Counts the same as [`queue_len`](Self::queue_len).
    #[must_use]
    pub fn queue_len_of(&self, priority: Priority) -> usize {
        self.inner.queue_len(priority)
    }

    /// Returns a snapshot of the pool's counters. This reads a few cache lines for each worker.
    #[must_use]
    pub fn metrics(&self) -> Metrics {
        self.inner.metrics()
    }

    /// Returns what each busy worker is running, where it was submitted, and since when it runs.
    /// Use it to find out why a pool seems stuck.
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

    /// Changes the number of workers.
    ///
    /// New workers have been started when this returns. Surplus workers end after their current
    /// task; this method does not wait for them. If the pool has a hook of
    /// [`try_on_thread_start`](crate::WorkerPoolBuilder::try_on_thread_start), it blocks until the
    /// hook has returned on the new workers. New workers cost time for each group, keyed executor and
    /// subscription of the pool, because any of them may have work for one more worker.
    ///
    /// # Errors
    ///
    /// [`BuildError`], if:
    ///
    /// - the number is zero or too large, or the pool is shut down;
    /// - a thread could not be started, or the start hook of a worker has failed;
    /// - the call is in a callback, where [too many waits](crate::CancellationToken::cancel) are
    ///   nested.
    ///
    /// In the second case the target is the former number of workers again, unless another resize
    /// came in between. The worker whose hook failed has run no task.
    ///
    /// # Examples
    ///
    /// ```
    /// let pool = workcrew::WorkerPool::builder().workers(2).build()?;
    /// pool.resize(4)?; // for the night
    /// assert_eq!(pool.workers(), 4);
    /// # Ok::<(), workcrew::BuildError>(())
    /// ```
    pub fn resize(&self, workers: usize) -> Result<(), BuildError> {
        check_workers(workers)?;
        let one_at_a_time = self.inner.workers.lock_resize();
        if self.is_shut_down() {
            return Err(BuildError::ShutDown);
        }
        let before = self.workers();
        let resize = self.inner.workers.set_target(workers);
        let report = StartReport::new(self.inner.id());
        let started = worker::start(&self.inner, &self.owner.settings.workers, resize.missing, &report);
        let surplus = match &started {
            Ok(()) => resize.surplus,
            Err(_) => self.inner.workers.undo_resize(&resize, before),
        };
        self.retire_surplus(surplus);
        // User code may run from here on. Sending tickets may drop the last reference to a group and
        // the values of its tasks; start hooks may resize the pool.
        drop(one_at_a_time);
        let started = started.map_err(|failed| failed.remove(&self.inner));
        self.inner.send_missing_tickets();
        let started = started.and(report.wait());
        if started.is_err() {
            self.retire_surplus(self.inner.workers.undo_resize(&resize, before));
        }
        started
    }

    /// Wakes workers if some of them must retire.
    fn retire_surplus(&self, surplus: usize) {
        if surplus > 0 {
            self.inner.wake_workers();
        }
    }
}

/// # Handles
impl WorkerPool {
    /// Returns a weak handle, which does not keep the pool open.
    ///
    /// # Examples
    ///
    /// A timer that owned a clone would keep its own pool open forever.
    ///
    /// ```
    /// use std::time::Duration;
    /// use workcrew::WorkerPool;
    ///
    /// let pool = WorkerPool::builder().workers(1).build()?;
    /// let weak = pool.downgrade();
    /// pool.execute_every(Duration::from_secs(60), move || {
    ///     if let Some(pool) = weak.upgrade() {
    ///         println!("{}", pool.metrics());
    ///     }
    /// })?;
    /// let weak = pool.downgrade();
    /// assert!(weak.upgrade().is_some());
    /// drop(pool); // the last handle
    /// assert!(weak.upgrade().is_none());
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[must_use = "a weak handle has no effect by itself"]
    pub fn downgrade(&self) -> WeakWorkerPool {
        WeakWorkerPool(Arc::downgrade(&self.owner))
    }
}

/// A weak handle to a pool. Returned by [`WorkerPool::downgrade`].
///
/// It keeps neither the pool open nor its threads alive.
#[derive(Clone)]
pub struct WeakWorkerPool(Weak<Owner>);

impl WeakWorkerPool {
    /// Returns a weak handle to the pool. The handle is empty before `build` has returned.
    pub(super) fn of(inner: &PoolInner) -> Self {
        let own = inner.weak_handle.get().and_then(|handle| handle.downcast_ref::<Self>());
        own.cloned().unwrap_or(Self(Weak::new()))
    }

    /// Returns `true` if this is a weak handle to `pool`.
    pub(super) fn is_of(&self, pool: &WorkerPool) -> bool {
        std::ptr::eq(self.0.as_ptr(), Arc::as_ptr(&pool.owner))
    }

    /// Returns a handle to the pool, or `None` if the last handle was dropped.
    ///
    /// `None` is final. A pool that was shut down, and has a handle left, is still returned.
    #[must_use]
    pub fn upgrade(&self) -> Option<WorkerPool> {
        self.0.upgrade().map(|owner| WorkerPool { inner: Arc::clone(&owner.inner), owner })
    }

    /// Returns the number of handles to the pool. May be stale when it returns, except for zero.
    #[must_use]
    pub fn strong_count(&self) -> usize {
        self.0.strong_count()
    }
}

/// Methods for the types that are built on a pool.
impl WorkerPool {
    /// Creates a pool from its inside.
    pub(crate) fn assemble(inner: Arc<PoolInner>, settings: PoolSettings) -> Self {
        inner.timers.set_name(thread_name(&settings.workers.thread_name, "timer"));
        let pool = Self { owner: Arc::new(Owner { inner: Arc::clone(&inner), settings }), inner };
        assert!(pool.inner.weak_handle.set(Box::new(pool.downgrade())).is_ok(), "a pool is assembled once");
        pool
    }

    /// Returns the inside of the pool.
    pub(crate) fn inner(&self) -> &Arc<PoolInner> {
        &self.inner
    }

    /// Returns the first part of the names of the pool's threads.
    pub(crate) fn thread_name(&self) -> &str {
        &self.owner.settings.workers.thread_name
    }
}

unwind::safe!(WorkerPool);
unwind::safe!(WeakWorkerPool);

impl Drop for Owner {
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

impl fmt::Debug for WeakWorkerPool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("WeakWorkerPool").field("strong_count", &self.strong_count()).finish()
    }
}

/// The largest number of workers of a pool.
const MAX_WORKERS: usize = 1 << 16;

/// Checks that a pool may have this number of workers.
pub(crate) fn check_workers(workers: usize) -> Result<(), BuildError> {
    match workers {
        0 => Err(BuildError::ZeroWorkers),
        1..=MAX_WORKERS => Ok(()),
        requested => Err(BuildError::TooManyWorkers { requested, limit: MAX_WORKERS }),
    }
}

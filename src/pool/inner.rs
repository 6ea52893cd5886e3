//! The inside of a pool, which the pool, its workers and its groups share.
//!
//! It joins the executor, the queue, the workers and the timers. How jobs get into the queue is the
//! subject of `submit`; how the pool ends is that of `shutdown`.

use std::any::Any;

use super::group_registry::{GroupRegistry, Registration};
use super::overflow::Overflow;
#[cfg(feature = "driver")]
use super::sources::Sources;
use super::worker_set::{WorkerParts, WorkerSet};
use crate::cancel::token::CancellationToken;
use crate::error::CancelReason;
use crate::observe::metrics::Metrics;
use crate::priority::Priority;
use crate::queue::{FIFO_SHARD, PopCursor, Queue, QueueSettings};
#[cfg(feature = "driver")]
use crate::sync::Mutex;
use crate::sync::{Arc, OnceLock, Weak};
use crate::task::context::PoolId;
use crate::task::executor::{Executor, Hooks};
use crate::task::job::{Job, TicketHolder};
use crate::timer::thread::TimerThread;

/// The inside of one pool. Owned by the pool, its workers and its groups, never by a job in its
/// queue.
///
/// Aligned, so that its reference count, which every group changes, is not on the cache line of the
/// fields that every task reads.
#[repr(align(128))]
pub(crate) struct PoolInner {
    /// Runs the tasks.
    pub(crate) executor: Arc<Executor>,
    /// The worker threads.
    pub(crate) workers: WorkerSet,
    /// The tasks that wait for their time.
    pub(crate) timers: Arc<TimerThread>,
    /// The jobs that wait for a worker.
    pub(super) queue: Arc<Queue<Job>>,
    /// The policy for a full queue.
    pub(super) overflow: Overflow,
    /// The groups and subscriptions that may have tasks.
    pub(crate) groups: GroupRegistry<dyn TicketHolder>,
    /// The `WeakWorkerPool` of this pool; empty until `build` returns.
    pub(super) weak_handle: OnceLock<Box<dyn Any + Send + Sync>>,
    /// Cancelled when the pool is closed: notifies waiters without a thread.
    pub(crate) shutdown_token: CancellationToken,
    /// Cancelled when a report has left something behind: notifies waits that sleep with locks of
    /// their own.
    pub(crate) left_behind: CancellationToken,
    /// What all drivers of the pool share. The drivers own it.
    #[cfg(feature = "driver")]
    pub(crate) io: Mutex<Option<Weak<dyn Any + Send + Sync>>>,
    /// What is in flight beside the workers, for snapshots.
    #[cfg(feature = "driver")]
    pub(crate) sources: Sources,
}

impl PoolInner {
    pub(crate) fn new(queue: QueueSettings, overflow: Overflow, hooks: Hooks, timing: bool) -> Self {
        let executor = Arc::new(Executor::new(hooks, timing));
        let queue = Arc::new(Queue::with_settings(queue));
        let weak_queue = Arc::downgrade(&queue);
        executor.tracker.on_drained(move || {
            if let Some(queue) = weak_queue.upgrade() {
                queue.wake_workers();
            }
        });
        let timers = Arc::new(TimerThread::new(&queue));
        let workers = WorkerSet::new(executor.pool_id);
        Self {
            executor,
            workers,
            timers,
            queue,
            overflow,
            groups: GroupRegistry::new(),
            weak_handle: OnceLock::new(),
            shutdown_token: CancellationToken::new(),
            left_behind: CancellationToken::new(),
            #[cfg(feature = "driver")]
            io: Mutex::default(),
            #[cfg(feature = "driver")]
            sources: Sources::default(),
        }
    }

    /// Returns the id of the pool.
    pub(crate) fn id(&self) -> PoolId {
        self.executor.pool_id
    }
}

/// # Jobs
impl PoolInner {
    /// Returns the next job for a worker, blocking until there is one. Returns `None` if the pool
    /// is drained, workers must retire or the worker has mail, and may also do so spuriously.
    #[inline]
    pub(crate) fn next_job(&self, cursor: &mut PopCursor, worker: &WorkerParts) -> Option<Job> {
        if let Some(job) = self.queue.try_pop(cursor) {
            return Some(job);
        }
        self.wait_for_job(cursor, worker)
    }

    /// Returns the next job for a worker of a pool that has seen several classes, like
    /// [`next_job`](Self::next_job).
    pub(crate) fn next_job_by_class(&self, cursor: &mut PopCursor, worker: &WorkerParts) -> Option<Job> {
        self.queue.try_pop_by_class(cursor).or_else(|| self.wait_for_job(cursor, worker))
    }

    /// Returns the permit of a worker that is about to do something else than to take a job.
    pub(crate) fn put_permit_back(&self, cursor: &mut PopCursor) {
        self.queue.put_permit_back(cursor);
    }

    /// Blocks until there is a job for a worker that has found none.
    fn wait_for_job(&self, cursor: &mut PopCursor, worker: &WorkerParts) -> Option<Job> {
        self.executor.tracker.check_idle();
        let should_stop =
            || self.executor.tracker.is_drained() || self.workers.has_surplus() || worker.inbox.has_mail();
        let job = self.queue.pop(cursor, should_stop);
        worker.counters.invalidate_clock();
        // A timer may have been queued after the last look and before the closing that this worker
        // has seen.
        job.or_else(|| if self.executor.tracker.is_drained() { self.queue.try_pop_any(cursor) } else { None })
    }

    /// Runs a dequeued job, or cancels it if the pool is being cancelled.
    #[inline]
    pub(crate) fn run(&self, current: &mut Option<Job>) {
        if self.executor.tracker.is_cancelling() {
            self.cancel_current(current, CancelReason::ShutDown);
        } else if let Some(job) = current {
            job.run(&self.executor);
        }
    }

    /// Cancels a dequeued job, unless it was started.
    pub(crate) fn cancel_current(&self, current: &mut Option<Job>, reason: CancelReason) {
        if let Some(job) = current.take()
            && !job.is_consumed()
        {
            job.cancel(reason, &self.executor);
        }
    }

    /// Pushes a job into the unbounded lane of a class. Never refuses it, never waits.
    pub(crate) fn push_unbounded(&self, job: Job, class: Priority) {
        self.use_class(class);
        self.queue.push_unbounded(job, class, FIFO_SHARD, Job::is_stale);
    }

    /// Has the workers look for tasks of a class from now on, and makes its lanes. Called before
    /// the first push to the class, with no lock held.
    #[inline]
    pub(crate) fn use_class(&self, class: Priority) {
        if class != Priority::Normal {
            self.workers.use_classes();
            self.queue.lanes(class);
        }
    }

    /// Returns how many workers may run jobs of a class at the same time.
    #[cfg(feature = "nats")]
    pub(crate) fn workers_for(&self, class: Priority) -> usize {
        self.workers.target().min(self.queue.worker_limit(class))
    }

    /// Returns `true` if a worker is idle and may take jobs of a class. May be stale when it
    /// returns.
    pub(crate) fn has_idle_worker(&self, class: Priority) -> bool {
        self.queue.has_idle_worker(class)
    }

    /// Returns the number of queued jobs, tickets included. May be stale when it returns.
    pub(crate) fn queued(&self) -> usize {
        self.queue.total_len()
    }

    /// Wakes the sleeping workers that have mail.
    pub(crate) fn wake_for_mail(&self) {
        self.queue.call_workers();
    }

    /// Wakes every sleeping worker, so that it checks whether it must retire.
    pub(crate) fn wake_workers(&self) {
        self.queue.wake_workers();
    }
}

/// # Tickets
impl PoolInner {
    /// Queues a ticket behind all others. Never refuses it, never waits.
    pub(crate) fn send_ticket(&self, group: Weak<dyn TicketHolder>, class: Priority) {
        self.push_unbounded(Job::Ticket(group), class);
    }

    /// Queues the first ticket of a group that has become ready. Uses the shard of its
    /// registration, so that threads that create groups do not contend with each other.
    pub(crate) fn send_first_ticket(
        &self,
        group: Weak<dyn TicketHolder>,
        registration: &Registration,
        class: Priority,
    ) {
        self.use_class(class);
        self.queue.push_unbounded(Job::Ticket(group), class, registration.shard, Job::is_stale);
    }

    /// Takes back the last ticket of the registration's shard, if it is one of this group. Returns
    /// `true` if it was.
    ///
    /// A useless ticket need not be in the queue, where it would keep the memory of its group.
    #[inline]
    pub(crate) fn unpush_ticket<G>(&self, group: &Arc<G>, registration: &Registration, class: Priority) -> bool {
        self.queue.unpush(class, registration.shard, |job| job.is_ticket_of(group)).is_some()
    }

    /// Has every group send the tickets that additional workers can run.
    ///
    /// May miss a group that is being created. That group sees the new number of workers when it
    /// gets its next task, if not before.
    pub(crate) fn send_missing_tickets(&self) {
        for group in self.groups.live() {
            group.send_tickets();
        }
    }
}

/// # Closing
impl PoolInner {
    /// Refuses new tasks. Submitters that wait for room get their closures back, and tasks that
    /// wait for their time are cancelled.
    pub(crate) fn close(&self) {
        // First, so that no timer is queued in a pool whose workers have left.
        let waiting = self.timers.close();
        self.executor.tracker.close();
        self.queue.close();
        self.shutdown_token.cancel_with(CancelReason::ShutDown);
        for task in waiting {
            task.cancel(CancelReason::ShutDown, &self.executor);
        }
    }

    /// Closes the pool, cancels every task that has not started, and the tokens of running tasks.
    pub(crate) fn cancel_queued(&self) {
        self.executor.tracker.start_cancelling();
        self.close();
        // First: a callback of a group's token may join a task, and so run it on this stack.
        self.executor.cancelling.cancel_with(CancelReason::ShutDown);
        for group in self.groups.live() {
            group.cancel(CancelReason::ShutDown);
        }
        let mut cursor = PopCursor::default();
        while let Some(job) = self.queue.try_pop_any(&mut cursor) {
            job.cancel(CancelReason::ShutDown, &self.executor);
        }
        self.cancel_shares();
    }

    /// Cancels the shares of broadcasts that have not started.
    pub(super) fn cancel_shares(&self) {
        for share in self.workers.take_shares() {
            share.cancel(CancelReason::ShutDown, &self.executor);
        }
    }
}

/// # Metrics
impl PoolInner {
    /// Returns the number of jobs in the bounded lane of a class. May be stale when it returns.
    pub(crate) fn queue_len(&self, class: Priority) -> usize {
        self.queue.bounded_len(class)
    }

    /// Returns the capacity of the bounded lane of a class.
    pub(crate) fn queue_capacity(&self, class: Priority) -> usize {
        self.queue.capacity(class)
    }

    /// Returns a snapshot of the pool's metrics.
    pub(crate) fn metrics(&self) -> Metrics {
        Metrics {
            workers: self.workers.target(),
            queue_capacity: self.queue_capacity(Priority::Normal),
            queue_len: self.queue_len(Priority::Normal),
            queue_len_high: self.queue_len(Priority::High),
            queue_len_background: self.queue_len(Priority::Background),
            timers_pending: self.timers.len(),
            ..self.executor.tracker.snapshot()
        }
    }
}

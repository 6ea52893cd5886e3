//! How a pool ends.
//!
//! Every way to end a pool combines the same steps:
//! 1. *Close* it: refuse new tasks, and cancel those that wait for their time.
//! 2. In some ways, *cancel* the tasks that have not started, and the tokens of running tasks.
//! 3. *Wait* until every task is done and every worker has left.
//! 4. *Join* the threads.
//!
//! A thread that is inside the pool (a worker, or an external thread that runs one of its tasks)
//! takes the first steps and never waits. The pool ends after it. The same holds for a task of
//! another pool if a task of this pool waits for it, or a worker that is leaving.
//!
//! A *report* ends the waiting for good: no drop and no other end waits for what it leaves
//! behind. [`Reported`] says what the reports have said, and which waits that ends.

use std::fmt;
use std::task::Waker;
use std::time::Duration;

use super::end_wait;
use super::inner::PoolInner;
use crate::error::CancelReason;
use crate::sync::{Arc, thread};
use crate::task::idle;
use crate::task::report::Reported;
use crate::task::waits::Refused;
use crate::task::wakers::WakerKey;
use crate::time::deadline::Deadline;

/// How often a report checks whether the last queued tasks have been cancelled or started. It
/// yields to other threads in between.
const MAX_CHECKS: usize = 1_000;

/// The policy for the drop of a pool's last handle.
///
/// After [`shutdown_timeout`](crate::WorkerPool::shutdown_timeout) the drop does not block under
/// any policy, because the limit was for the whole end. The same holds after a
/// [`shutdown_now`](crate::WorkerPool::shutdown_now) that left a task running. Otherwise a task
/// that never ends makes `Drain` and `Cancel` block forever. A program with such tasks calls
/// `shutdown_timeout` first, or chooses `Detach`.
///
/// In async code, the drop of the last handle blocks the runtime's thread under `Drain` and
/// `Cancel`. Choose `Detach` there, or await
/// [`shutdown_async`](crate::WorkerPool::shutdown_async) first: then the drop does not block.
///
/// # Examples
///
/// ```
/// use workcrew::{CancelReason, JoinError, OnDrop, WorkerPool};
///
/// let pool = WorkerPool::builder().workers(1).on_drop(OnDrop::Cancel).build()?;
/// let (started, has_started) = std::sync::mpsc::channel();
/// let running = pool.task().spawn(move |token| {
///     let _ = started.send(());
///     token.wait();
/// })?;
/// let queued = pool.spawn(|| unreachable!())?;
/// has_started.recv()?;
/// drop(pool);
/// assert!(running.join().is_ok()); // its token was cancelled
/// assert!(matches!(queued.join(), Err(JoinError::Cancelled(CancelReason::ShutDown))));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum OnDrop {
    /// Run what is queued, then join the workers. Blocks.
    #[default]
    Drain,
    /// Cancel queued tasks and the tokens of running tasks, wait for the running tasks, then join
    /// the workers. Blocks. See [what a shutdown
    /// cancels](crate::WorkerPool#what-a-shutdown-cancels).
    Cancel,
    /// Refuse new tasks and return. The workers run what is queued and then end by themselves, or
    /// end with the process. Does not block.
    Detach,
}

/// A report of what was left when a shutdown returned.
///
/// Tasks that it counts as running are left behind for good; see
/// [`shutdown_timeout`](crate::WorkerPool::shutdown_timeout).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct ShutdownReport {
    /// Whether no task was left and this call cancelled none. Tasks that an earlier call cancelled
    /// are in the report of that call.
    pub drained: bool,
    /// The tasks that were cancelled before they started, since this call began.
    pub tasks_cancelled: usize,
    /// The tasks that were running when the call returned.
    pub tasks_running: usize,
}

impl fmt::Display for ShutdownReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { drained, tasks_cancelled, tasks_running } = self;
        let state = if *drained { "drained" } else { "not drained" };
        write!(f, "{state} (tasks cancelled: {tasks_cancelled}, still running: {tasks_running})")
    }
}

/// Refuses new tasks. Does not wait.
pub(crate) fn close(pool: &PoolInner) {
    pool.close();
}

/// Drains the pool and joins its workers.
pub(crate) fn shutdown(pool: &Arc<PoolInner>) {
    pool.close();
    let is_left_behind = || pool.executor.tracker.has_reported(Reported::LeftRunning);
    if pool.workers.may_wait() && idle::may_wait_for_end(&pool.executor, is_left_behind) {
        // Wait for a resize that began before the pool was closed. None begins afterwards.
        drop(pool.workers.lock_resize());
        if end_wait::wait_for_workers(pool, is_left_behind) && !is_left_behind() {
            pool.workers.join_threads();
            pool.timers.join();
        }
    }
}

/// The result of a poll of the end of a pool.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum PollShutdown {
    /// The pool has ended, or the calling thread must not wait for it.
    Ended,
    /// The waker was stored.
    Pending,
}

/// Closes the pool, and checks whether every worker has left. After that, no drop waits. Otherwise
/// stores the waker, unless this thread is inside the pool.
pub(crate) fn poll_shutdown(pool: &PoolInner, key: WakerKey, waker: &Waker) -> PollShutdown {
    pool.close();
    if !pool.workers.may_wait() {
        return PollShutdown::Ended;
    }
    let has_left = pool.workers.poll_empty(key, waker);
    // Only now that the waker is stored: a report is raised first and then wakes.
    if pool.executor.tracker.has_reported(Reported::LeftRunning) {
        return PollShutdown::Ended;
    }
    if has_left {
        // As after a `shutdown_timeout` that has drained the pool. Joining the threads would block
        // on destructors of their thread locals.
        record(pool, Reported::InTime);
        return PollShutdown::Ended;
    }
    PollShutdown::Pending
}

/// Drains the pool, but cancels its tasks when `timeout` has passed.
pub(crate) fn shutdown_timeout(pool: &PoolInner, timeout: Duration) -> ShutdownReport {
    let deadline = Deadline::after(timeout);
    let before = pool.executor.tracker.snapshot().tasks_cancelled;
    pool.close();
    let is_left_behind = || pool.executor.tracker.has_reported(Reported::LeftBehind);
    if pool.workers.may_wait() && !is_left_behind() {
        match idle::wait_idle(&pool.executor, deadline, is_left_behind) {
            Ok(true) => {}
            Ok(false) => pool.cancel_queued(),
            Err(Refused(_)) => return report(pool, before),
        }
        // The threads are not joined: there is no limit for what they do after they have left the
        // pool.
        let has_ended = pool.workers.wait_empty(deadline, is_left_behind);
        record(pool, if has_ended { Reported::InTime } else { Reported::LeftBehind });
    }
    report(pool, before)
}

/// Cancels the tasks. Does not wait.
pub(crate) fn shutdown_now(pool: &PoolInner) -> ShutdownReport {
    let before = pool.executor.tracker.snapshot().tasks_cancelled;
    pool.cancel_queued();
    let report = report(pool, before);
    let is_idle = report.tasks_running == 0 && pool.executor.tracker.is_idle();
    record(pool, if is_idle { Reported::Idle } else { Reported::LeftRunning });
    report
}

/// Ends a pool that is being dropped.
pub(crate) fn on_drop(pool: &Arc<PoolInner>, policy: OnDrop) {
    match policy {
        _ if pool.executor.tracker.has_reported(Reported::InTime) => {}
        OnDrop::Drain => shutdown(pool),
        OnDrop::Cancel => {
            pool.cancel_queued();
            shutdown(pool);
        }
        OnDrop::Detach => pool.close(),
    }
}

/// Records what the caller is about to report.
fn record(pool: &PoolInner, reported: Reported) {
    pool.executor.tracker.report(reported);
    if reported >= Reported::LeftRunning {
        pool.workers.give_up();
    }
    pool.executor.tracker.wake_waiters();
    if reported == Reported::LeftBehind {
        pool.left_behind.cancel_with(CancelReason::ShutDown);
    }
}

/// Returns the report of a call, before which `before` tasks had been cancelled.
fn report(pool: &PoolInner, before: u64) -> ShutdownReport {
    let tracker = &pool.executor.tracker;
    let mut metrics = tracker.snapshot();
    let mut cancelled = metrics.tasks_cancelled;
    if tracker.is_cancelling() {
        // Queued tasks have been cancelled, except a few that workers have just dequeued. Those are
        // about to be cancelled, or to start if the worker dequeued them just before the shutdown.
        for _ in 0..MAX_CHECKS {
            if metrics.tasks_queued == 0 {
                break;
            }
            thread::yield_now();
            metrics = tracker.snapshot();
        }
        cancelled = metrics.tasks_cancelled + metrics.tasks_queued;
    }
    let count = |tasks: u64| usize::try_from(tasks).unwrap_or(usize::MAX);
    ShutdownReport {
        drained: tracker.is_idle() && cancelled <= before,
        tasks_cancelled: count(cancelled.saturating_sub(before)),
        tasks_running: count(metrics.tasks_running),
    }
}

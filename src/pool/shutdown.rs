//! How a pool ends.
//!
//! Every way is made of the same steps: *close* (nothing new, and what waits for its time is cancelled), *cancel* what
//! has not started (some ways), *wait* until the books are quiet and the workers gone, *join* their threads. A thread
//! that is inside the pool, a worker or an outside thread that runs one of its tasks, takes the first steps and never
//! waits: the pool ends after it. So does a task of another pool, if a task of this pool waits for it.
//!
//! A *report* ends the waiting for good: no drop and no end without a limit waits for what it leaves behind. What the
//! reports have said so far, and which waits that ends, stands at [`Reported`].

use std::fmt;
use std::time::Duration;

use super::inner::PoolInner;
use crate::sync::thread;
use crate::task::idle;
use crate::task::tracker::Reported;
use crate::task::waits::Refused;
use crate::time::deadline::Deadline;

/// How often a report looks whether the last queued tasks have met their fate, letting other threads run in between.
const LOOKS: usize = 1_000;

/// What dropping a pool does.
///
/// After [`shutdown_timeout`](crate::WorkerPool::shutdown_timeout) the drop does not block, whatever the policy: the
/// limit was for the whole end. The same holds after a [`shutdown_now`](crate::WorkerPool::shutdown_now) that left a
/// task running. Otherwise a task that never ends makes `Drain` and `Cancel` block forever, so a program with such
/// tasks calls `shutdown_timeout` first, or chooses `Detach`.
///
/// In async code the drop of the last reference blocks the executor's thread under `Drain` and `Cancel`. Choose
/// `Detach` there, or end the pool on a thread that may block before.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum OnDrop {
    /// Run what is queued, then join the workers. Blocks.
    #[default]
    Drain,
    /// Cancel what is queued, wait for what runs, then join the workers. Blocks.
    Cancel,
    /// Accept nothing new and let go: the workers run what is queued and end by themselves, or with the process. Does
    /// not block.
    Detach,
}

/// What was left when a shutdown returned. What it counts as running is left behind for good; see
/// [`shutdown_timeout`](crate::WorkerPool::shutdown_timeout).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct ShutdownReport {
    /// Whether nothing was left, and this call cancelled nothing. (What an earlier call cancelled is in its own report.)
    pub drained: bool,
    /// Tasks that were cancelled before they started, since this call began.
    pub tasks_cancelled: usize,
    /// Tasks that were running when the call returned.
    pub tasks_running: usize,
}

impl fmt::Display for ShutdownReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { drained, tasks_cancelled, tasks_running } = self;
        let state = if *drained { "drained" } else { "not drained" };
        write!(f, "{state} (tasks cancelled: {tasks_cancelled}, still running: {tasks_running})")
    }
}

/// Refuses new work. Does not wait.
pub(crate) fn close(pool: &PoolInner) {
    pool.close();
}

/// Drains the pool and joins its workers.
pub(crate) fn shutdown(pool: &PoolInner) {
    pool.close();
    let is_left_behind = || pool.executor.tracker.has_reported(Reported::LeftBehind);
    if pool.workers.may_wait() && idle::may_wait_for_end(&pool.executor, is_left_behind) {
        // A change of the number of workers that began before the closing comes to its end; none begins after it.
        drop(pool.workers.lock_resize());
        if pool.workers.wait_empty(Deadline::NEVER, is_left_behind) && !is_left_behind() {
            pool.workers.join_threads();
            pool.timers.join();
        }
    }
}

/// Drains the pool, but cancels what has not started when `timeout` has passed.
pub(crate) fn shutdown_timeout(pool: &PoolInner, timeout: Duration) -> ShutdownReport {
    let deadline = Deadline::after(timeout);
    let before = pool.executor.tracker.snapshot().tasks_cancelled;
    pool.close();
    if pool.workers.may_wait() {
        match idle::wait_idle(&pool.executor, deadline) {
            Ok(true) => {}
            Ok(false) => pool.cancel_queued(),
            Err(Refused) => return report(pool, before),
        }
        // The threads are not joined: no limit can be put to what they do after they have left the pool.
        let has_ended = pool.workers.wait_empty(deadline, || false);
        note(pool, if has_ended { Reported::InTime } else { Reported::LeftBehind });
    }
    report(pool, before)
}

/// Cancels what has not started. Does not wait.
pub(crate) fn shutdown_now(pool: &PoolInner) -> ShutdownReport {
    let before = pool.executor.tracker.snapshot().tasks_cancelled;
    pool.cancel_queued();
    let report = report(pool, before);
    let is_quiet = report.tasks_running == 0 && pool.executor.tracker.is_idle();
    note(pool, if is_quiet { Reported::Idle } else { Reported::LeftBehind });
    report
}

/// Ends a pool that is being dropped.
pub(crate) fn on_drop(pool: &PoolInner, policy: OnDrop) {
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

/// Notes what the caller is about to report.
fn note(pool: &PoolInner, reported: Reported) {
    pool.executor.tracker.report(reported);
    if reported == Reported::LeftBehind {
        pool.workers.give_up();
        pool.executor.tracker.wake_waiters();
    }
}

/// What is left, where `before` tasks had been cancelled when the call began.
fn report(pool: &PoolInner, before: u64) -> ShutdownReport {
    let tracker = &pool.executor.tracker;
    let mut metrics = tracker.snapshot();
    let mut cancelled = metrics.tasks_cancelled;
    if tracker.is_cancelling() {
        // What was queued is cancelled, but for the few that workers have just taken in their hands: those are about to
        // be cancelled or, if the worker came just before the shutdown, to start.
        for _ in 0..LOOKS {
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

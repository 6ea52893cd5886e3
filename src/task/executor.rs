//! Runs the tasks of a pool: catches panics, counts, and calls hooks and observers.
//!
//! Every task gets its outcome here. The order of the steps is fixed: counters, panic hook,
//! observers, then (by the caller) handle or group, and last [`task_done`](Executor::task_done). So
//! a thread that has joined a task finds it in the metrics, and a thread that has seen the pool
//! idle finds every handle finished.
//!
//! The executor has no reference to the queue, so jobs in the queue may own it without a cycle.

use std::panic::Location;

use super::context::{self, GroupId, PoolId};
use super::tracker::TaskTracker;
use crate::cancel::token::{CancelGuard, CancellationToken};
use crate::error::CancelReason;
use crate::error::panic::TaskPanic;
use crate::failpoint::{self, Failpoint};
use crate::nesting;
use crate::observe::observer::Observer;
use crate::observe::task_info::{TaskId, TaskInfo, TaskOutcome};
use crate::observe::task_origin::TaskOrigin;
#[cfg(feature = "retry")]
use crate::observe::worker_counters::Started;
use crate::observe::worker_counters::WorkerCounters;
use crate::sync::Arc;
use crate::time::clock::Timestamp;
use crate::unwind;

/// A hook that is called with each panic of a task.
pub(crate) type PanicHook = Box<dyn Fn(&TaskPanic) + Send + Sync>;

/// The user's hooks of a pool.
#[derive(Default)]
pub(crate) struct Hooks {
    /// Called with each panic of a task, on the thread where it happened.
    pub(crate) on_panic: Option<PanicHook>,
    /// Called at each step of each task, in this order.
    pub(crate) observers: Vec<Box<dyn Observer>>,
}

/// What the executor needs to know of a task.
#[derive(Clone, Copy)]
pub(crate) struct TaskMeta<'a> {
    /// What observers see.
    pub(crate) origin: TaskOrigin<'a>,
    /// The time of submission, if durations are recorded.
    pub(crate) queued_at: Option<Timestamp>,
}

impl<'a> TaskMeta<'a> {
    /// Returns the metadata of a task without a group.
    pub(crate) fn single(id: TaskId, location: &'static Location<'static>, queued_at: Option<Timestamp>) -> Self {
        Self { origin: TaskOrigin { id, location, label: None }, queued_at }
    }
}

/// Runs the tasks of one pool.
pub(crate) struct Executor {
    /// The pool.
    pub(crate) pool_id: PoolId,
    /// The task counts and the phase of the pool.
    pub(crate) tracker: TaskTracker,
    /// Cancelled when tasks that have not started are cancelled. Tells running tasks to stop.
    pub(crate) cancelling: CancellationToken,
    hooks: Hooks,
}

impl Executor {
    pub(crate) fn new(hooks: Hooks, timing: bool) -> Self {
        let cancelling = CancellationToken::new();
        Self { pool_id: PoolId::new(), tracker: TaskTracker::new(timing), cancelling, hooks }
    }

    /// Cancels the token of a running task when the pool cancels its tasks, until the guard is
    /// dropped. Cancels it at once if the pool has cancelled its tasks already.
    ///
    /// User values may depend on the token, so the guard is dropped where a panic is contained.
    pub(crate) fn cancel_with_pool(&self, token: &CancellationToken) -> CancelGuard {
        let token = token.clone();
        self.cancelling.on_cancel(move || token.cancel_with(CancelReason::ShutDown))
    }

    /// Returns the time, if durations are recorded.
    #[inline]
    pub(crate) fn now_if_timing(&self) -> Option<Timestamp> {
        self.tracker.now_if_timing()
    }

    /// Admits a task; `None` if the pool is closed.
    #[inline]
    pub(crate) fn admit(&self, location: &'static Location<'static>, label: Option<&Arc<str>>) -> Option<TaskId> {
        let id = self.tracker.admit();
        match id {
            Some(id) => {
                self.observe(move |observer| {
                    observer.task_submitted(&TaskInfo::of(&TaskOrigin { id, location, label }))
                });
            }
            // The admission may have been withdrawn, which can be the last thing that a drain waits
            // for.
            None => self.tracker.check_idle(),
        }
        id
    }

    /// Refuses a task that was admitted but found no room. Its closure goes back to the submitter.
    pub(crate) fn refuse(&self, origin: &TaskOrigin<'_>) {
        self.observe(move |observer| observer.task_refused(&TaskInfo::of(origin)));
        self.tracker.withdraw();
        self.tracker.check_idle();
    }

    /// Withdraws a task while its future waits for room, so that nothing waits for a future that
    /// may never be polled again.
    pub(crate) fn suspend(&self) {
        self.tracker.suspend();
        self.tracker.check_idle();
    }

    /// Admits a suspended task again. Returns `false` if the pool is closed; it stays suspended.
    pub(crate) fn readmit(&self) -> bool {
        let is_open = self.tracker.readmit();
        if !is_open {
            self.tracker.check_idle(); // as in `admit`
        }
        is_open
    }

    /// Refuses a suspended task. Its closure goes back to the submitter.
    pub(crate) fn refuse_suspended(&self, origin: &TaskOrigin<'_>) {
        self.observe(move |observer| observer.task_refused(&TaskInfo::of(origin)));
        self.tracker.refuse_suspended();
    }

    /// Calls `f` with a task of `group` on this thread's stack, inside the pool. Passes the
    /// counters that this thread uses.
    ///
    /// A thread that runs or cancels a task is in here from before the closure is called or dropped
    /// until the task is done. So user code on the way never waits for a task below it.
    #[inline]
    pub(crate) fn enter<T>(&self, group: GroupId, f: impl FnOnce(&WorkerCounters) -> T) -> T {
        context::with_frame(self.pool_id, group, |counters, is_nested| {
            let saved = counters.filter(|_| is_nested).map(|counters| (counters, counters.save_task()));
            let value = f(counters.unwrap_or(self.tracker.external()));
            if let Some((counters, saved)) = saved {
                counters.restore_task(saved);
            }
            value
        })
    }

    /// Calls `f` as the body of a task. `outcome_of` maps its value to the outcome.
    ///
    /// The caller hands the result over and then calls [`task_done`](Self::task_done).
    #[inline]
    pub(crate) fn run<R>(
        &self,
        counters: &WorkerCounters,
        task: &TaskMeta<'_>,
        f: impl FnOnce() -> R,
        outcome_of: impl FnOnce(&R) -> TaskOutcome,
    ) -> Result<R, TaskPanic> {
        let started = counters.start(&task.origin, task.queued_at);
        let at = started.at;
        self.observe(move |observer| observer.task_started(&self.started(task, at)));
        let body = || {
            failpoint::hit(Failpoint::Starting);
            f()
        };
        let result = unwind::catch(body).map_err(|payload| TaskPanic::new(payload, task.origin.to_failed()));
        let outcome = result.as_ref().map_or(TaskOutcome::Panicked, outcome_of);
        let ended = counters.end(started, outcome);
        if let Err(panic) = &result
            && let Some(on_panic) = &self.hooks.on_panic
        {
            self.call_hook(|| on_panic(panic));
        }
        self.observe(move |observer| observer.task_ended(&self.ended(task, at, ended), outcome));
        result
    }

    /// Calls `f` as one attempt of a task. The caller decides what the result means and then calls
    /// [`finish_attempt`](Self::finish_attempt).
    #[cfg(feature = "retry")]
    pub(crate) fn run_attempt<R>(
        &self,
        counters: &WorkerCounters,
        task: &TaskMeta<'_>,
        f: impl FnOnce() -> R,
    ) -> (Started, Result<R, TaskPanic>) {
        let started = counters.start(&task.origin, task.queued_at);
        self.observe(move |observer| observer.task_started(&self.started(task, started.at)));
        (started, unwind::catch(f).map_err(|payload| TaskPanic::new(payload, task.origin.to_failed())))
    }

    /// Counts the end of an attempt, and the end of the task if there is an `outcome`. Without an
    /// outcome the task counts as queued again.
    #[cfg(feature = "retry")]
    pub(crate) fn finish_attempt(
        &self,
        counters: &WorkerCounters,
        task: &TaskMeta<'_>,
        started: Started,
        panic: Option<&TaskPanic>,
        outcome: Option<TaskOutcome>,
    ) {
        let at = started.at;
        let ended = match outcome {
            Some(outcome) => counters.end(started, outcome),
            None => counters.suspend(started),
        };
        if let (Some(panic), Some(on_panic)) = (panic, &self.hooks.on_panic) {
            self.call_hook(|| on_panic(panic));
        }
        self.observe(move |observer| {
            let info = self.ended(task, at, ended);
            match outcome {
                Some(outcome) => observer.task_ended(&info, outcome),
                None => observer.attempt_failed(&info),
            }
        });
    }

    /// Counts a task as cancelled. Its closure has been dropped.
    ///
    /// The caller hands the outcome over and then calls [`task_done`](Self::task_done).
    pub(crate) fn cancelled(&self, counters: &WorkerCounters, origin: &TaskOrigin<'_>, reason: CancelReason) {
        counters.count_cancelled(reason, 1);
        self.observe(move |observer| observer.task_ended(&TaskInfo::of(origin), TaskOutcome::Cancelled(reason)));
    }

    /// Counts `tasks` tasks as done: their outcomes have been handed over. The last step of a task.
    #[inline]
    pub(crate) fn task_done(&self, counters: &WorkerCounters, tasks: u64) {
        self.tracker.task_done(counters, tasks);
    }

    /// Calls a hook inside the pool, and contains and counts its panic.
    ///
    /// Where too many hooks are nested, it is skipped and counted; see rule 1 of `nesting`.
    pub(crate) fn call_hook(&self, hook: impl FnOnce()) {
        let called = nesting::hook(|| {
            self.enter(GroupId::NONE, |_| {
                if let Err(payload) = unwind::catch(hook) {
                    unwind::discard(payload);
                    self.tracker.count_hook_panic();
                }
            });
        });
        if called.is_none() {
            self.skip_hook();
        }
    }

    /// Counts a hook that is not called because too many are nested.
    pub(crate) fn skip_hook(&self) {
        self.tracker.count_skipped_hook();
    }

    /// Returns what observers see of a task that has started.
    fn started<'a>(&self, task: &TaskMeta<'a>, at: Option<Timestamp>) -> TaskInfo<'a> {
        let queue_wait = at.zip(task.queued_at).map(|(at, queued_at)| at.since(queued_at));
        TaskInfo { queue_wait, started_at: at.map(|at| self.tracker.instant(at)), ..TaskInfo::of(&task.origin) }
    }

    /// Returns what observers see of a task that has ended, or an attempt of it.
    fn ended<'a>(&self, task: &TaskMeta<'a>, at: Option<Timestamp>, ended: Option<Timestamp>) -> TaskInfo<'a> {
        TaskInfo { run_time: ended.zip(at).map(|(ended, at)| ended.since(at)), ..self.started(task, at) }
    }

    /// Calls the observers, if there are any.
    #[inline]
    fn observe(&self, call: impl Fn(&dyn Observer)) {
        if !self.hooks.observers.is_empty() {
            self.call_observers(call);
        }
    }

    /// Calls the observers. The panic of one does not keep the others from being called.
    #[cold]
    #[inline(never)]
    fn call_observers(&self, call: impl Fn(&dyn Observer)) {
        for observer in &self.hooks.observers {
            self.call_hook(|| call(&**observer));
        }
    }
}

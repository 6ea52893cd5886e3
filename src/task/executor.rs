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
#[cfg(feature = "retry")]
use super::propagation::Part;
use super::propagation::Propagation;
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
    /// What follows each task. One pointer for all of it, so that a pool without it pays one test.
    pub(crate) of_tasks: Option<Box<TaskHooks>>,
}

/// The hooks that follow each task.
#[derive(Default)]
pub(crate) struct TaskHooks {
    /// Called at each step of each task, in this order.
    pub(crate) observers: Vec<Box<dyn Observer>>,
    /// Carries the context of the submitter to the task.
    pub(crate) propagation: Propagation,
}

impl Hooks {
    /// Returns the hooks that follow each task, if there is an observer among them.
    fn with_observers(&self) -> Option<&TaskHooks> {
        self.of_tasks.as_deref().filter(|hooks| !hooks.observers.is_empty())
    }
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
    pub(super) hooks: Hooks,
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
                if let Some(hooks) = &self.hooks.of_tasks {
                    self.submitted(hooks, &TaskOrigin { id, location, label });
                }
            }
            // The admission may have been withdrawn, which can be the last thing that a drain waits
            // for.
            None => self.tracker.check_idle(),
        }
        id
    }

    /// Refuses a task that was admitted but found no room. Its closure goes back to the submitter.
    pub(crate) fn refuse(&self, origin: &TaskOrigin<'_>) {
        self.refused(origin);
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
        self.refused(origin);
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
        let body = || {
            failpoint::hit(Failpoint::Starting);
            f()
        };
        if let Some(hooks) = &self.hooks.of_tasks {
            return self.run_followed(hooks, counters, task, body, outcome_of);
        }
        let started = counters.start(&task.origin, task.queued_at);
        let result = unwind::catch(body).map_err(|payload| TaskPanic::new(payload, task.origin.to_failed()));
        let outcome = result.as_ref().map_or(TaskOutcome::Panicked, outcome_of);
        counters.end(started, outcome);
        if let Err(panic) = &result {
            self.report(panic);
        }
        result
    }

    /// Does what [`run`](Self::run) does, with hooks. They are called in the context of the task.
    #[cold]
    #[inline(never)]
    fn run_followed<R>(
        &self,
        hooks: &TaskHooks,
        counters: &WorkerCounters,
        task: &TaskMeta<'_>,
        body: impl FnOnce() -> R,
        outcome_of: impl FnOnce(&R) -> TaskOutcome,
    ) -> Result<R, TaskPanic> {
        let started = self.start_followed(counters, task);
        // The task ends below, so the slot of its context is not needed any more.
        let mut carried = hooks.propagation.remove(task.origin.id);
        let (result, outcome) = self.within_carried(carried.as_mut(), || {
            self.call_observers(hooks, |observer| observer.task_started(&self.started(task, started.at)));
            let result = unwind::catch(body).map_err(|payload| TaskPanic::new(payload, task.origin.to_failed()));
            let outcome = result.as_ref().map_or(TaskOutcome::Panicked, outcome_of);
            self.end_followed(hooks, (counters, started), task, result.as_ref().err(), outcome);
            (result, outcome)
        });
        if let Some(carried) = carried {
            carried.end(Some(outcome));
        }
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
        let result = match &self.hooks.of_tasks {
            None => unwind::catch(f),
            Some(hooks) => self.within(hooks, task.origin.id, Part::Attempt, || {
                self.call_observers(hooks, |observer| observer.task_started(&self.started(task, started.at)));
                unwind::catch(f)
            }),
        };
        (started, result.map_err(|payload| TaskPanic::new(payload, task.origin.to_failed())))
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
        self.finish_attempt_only(counters, task, started, panic, outcome);
        if let Some(outcome) = outcome {
            self.end_context(task.origin.id, outcome);
        }
    }

    /// Like [`finish_attempt`](Self::finish_attempt), but leaves it to the caller to
    /// [end the context](Self::end_context) of a task that has ended.
    #[cfg(feature = "retry")]
    pub(crate) fn finish_attempt_only(
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
        let id = Some(task.origin.id);
        if let Some(panic) = panic.filter(|_| self.hooks.on_panic.is_some()) {
            self.in_context(id, Part::Hooks, || self.report(panic));
        }
        if let Some(hooks) = self.hooks.with_observers() {
            let info = self.ended(task, at, ended);
            self.in_context(id, Part::Hooks, || {
                self.call_observers(hooks, |observer| match outcome {
                    Some(outcome) => observer.task_ended(&info, outcome),
                    None => observer.attempt_failed(&info),
                });
            });
        }
    }

    /// Counts a task as cancelled. Its closure has been dropped.
    ///
    /// The caller hands the outcome over and then calls [`task_done`](Self::task_done).
    pub(crate) fn cancelled(&self, counters: &WorkerCounters, origin: &TaskOrigin<'_>, reason: CancelReason) {
        self.cancelled_only(counters, origin, reason);
        self.end_context(origin.id, TaskOutcome::Cancelled(reason));
    }

    /// Like [`cancelled`](Self::cancelled), but leaves it to the caller to
    /// [end the context](Self::end_context) of the task.
    pub(crate) fn cancelled_only(&self, counters: &WorkerCounters, origin: &TaskOrigin<'_>, reason: CancelReason) {
        counters.count_cancelled(reason, 1);
        if let Some(hooks) = self.hooks.with_observers() {
            let (info, outcome) = (TaskInfo::of(origin), TaskOutcome::Cancelled(reason));
            self.call_observers(hooks, |observer| observer.task_ended(&info, outcome));
        }
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
    pub(super) fn started<'a>(&self, task: &TaskMeta<'a>, at: Option<Timestamp>) -> TaskInfo<'a> {
        let queue_wait = at.zip(task.queued_at).map(|(at, queued_at)| at.since(queued_at));
        TaskInfo { queue_wait, started_at: at.map(|at| self.tracker.instant(at)), ..TaskInfo::of(&task.origin) }
    }

    /// Returns what observers see of a task that has ended, or an attempt of it.
    pub(super) fn ended<'a>(
        &self,
        task: &TaskMeta<'a>,
        at: Option<Timestamp>,
        ended: Option<Timestamp>,
    ) -> TaskInfo<'a> {
        TaskInfo { run_time: ended.zip(at).map(|(ended, at)| ended.since(at)), ..self.started(task, at) }
    }

    /// Calls the panic hook, if there is one.
    #[cold]
    pub(super) fn report(&self, panic: &TaskPanic) {
        if let Some(on_panic) = &self.hooks.on_panic {
            self.call_hook(|| on_panic(panic));
        }
    }

    /// Calls the observers. The panic of one does not keep the others from being called.
    pub(super) fn call_observers(&self, hooks: &TaskHooks, call: impl Fn(&dyn Observer)) {
        for observer in &hooks.observers {
            self.call_hook(|| call(&**observer));
        }
    }
}

//! Runs tasks: catches, counts, tells hooks and observer.
//!
//! This is the one transition in which a task meets its fate. The order never changes: the books, the panic hook, the
//! observer, then (by the caller) handle or group, and at last [`task_done`](Executor::task_done). So who has joined a task
//! finds it in the metrics, and who has seen the pool idle finds every handle finished.
//!
//! The supervisor has no way to the queue; what lies in the queue may therefore own it without a cycle.

use std::panic::Location;

use super::context::{self, Name};
use super::ledger::Ledger;
use super::lifecycle::Lifecycle;
use crate::error::CancelReason;
use crate::error::panic::TaskPanic;
use crate::failpoint::{self, Place};
use crate::nesting;
use crate::observe::observer::{Observer, TaskId, TaskInfo, TaskOutcome};
#[cfg(feature = "retry")]
use crate::observe::worker_counters::Started;
use crate::observe::worker_counters::WorkerCounters;
use crate::sync::Arc;
use crate::time::clock::Moment;
use crate::unwind;

/// A hook that is told of every panic of a task.
pub(crate) type PanicHook = Box<dyn Fn(&TaskPanic) + Send + Sync>;

/// What users have hung into the pool.
#[derive(Default)]
pub(crate) struct Hooks {
    /// Called with each panic of a task, on the thread where it happened.
    pub(crate) on_panic: Option<PanicHook>,
    /// Told of each step of each task.
    pub(crate) observer: Option<Box<dyn Observer>>,
}

/// A task as the supervisor needs to know it.
#[derive(Clone, Copy)]
pub(crate) struct TaskMeta<'a> {
    /// What observers see.
    pub(crate) info: TaskInfo<'a>,
    /// When it was submitted, if times are taken.
    pub(crate) queued_at: Option<Moment>,
}

impl<'a> TaskMeta<'a> {
    /// The brief of a task without a group.
    pub(crate) fn single(id: TaskId, location: &'static Location<'static>, queued_at: Option<Moment>) -> Self {
        Self { info: TaskInfo { id, location, label: None }, queued_at }
    }
}

/// Runs the tasks of one pool.
pub(crate) struct Executor {
    /// Names the pool.
    pub(crate) pool_id: Name,
    /// The phases and the books.
    pub(crate) lifecycle: Lifecycle,
    hooks: Hooks,
}

impl Executor {
    pub(crate) fn new(hooks: Hooks, timing: bool) -> Self {
        Self { pool_id: context::new_name(), lifecycle: Lifecycle::new(Ledger::new(timing)), hooks }
    }

    /// The time of submission, if times are taken.
    #[inline]
    pub(crate) fn now_if_timing(&self) -> Option<Moment> {
        self.lifecycle.ledger.now_if_timing()
    }

    /// Calls `f` while this thread counts as being inside the pool, with a task of `group` (zero: of none) on its
    /// stack; passes on the record that this thread counts on. Whoever runs or cancels a task is in here from before
    /// the closure is called or dropped until the task is settled, so foreign code on the way never waits for what is
    /// below it.
    #[inline]
    pub(crate) fn enter<T>(&self, group: Name, f: impl FnOnce(&WorkerCounters) -> T) -> T {
        context::with_frame(self.pool_id, group, |record, is_nested| {
            let lent = record.filter(|_| is_nested).map(|record| (record, record.lend()));
            let value = f(record.unwrap_or(self.lifecycle.ledger.outside()));
            if let Some((record, lent)) = lent {
                record.take_back(lent);
            }
            value
        })
    }

    /// Calls `f` as the body of a task. `outcome_of` tells what its value means. The caller hands the result on and
    /// then calls [`task_done`](Self::task_done).
    #[inline]
    pub(crate) fn run<R>(
        &self,
        record: &WorkerCounters,
        task: &TaskMeta<'_>,
        f: impl FnOnce() -> R,
        outcome_of: impl FnOnce(&R) -> TaskOutcome,
    ) -> Result<R, TaskPanic> {
        let started = record.start(&task.info, task.queued_at);
        self.observe(|observer| observer.task_started(&task.info));
        let body = || {
            failpoint::at(Place::Starting);
            f()
        };
        let result = unwind::catch(body).map_err(|payload| TaskPanic::new(payload, task.info.location));
        let outcome = result.as_ref().map_or(TaskOutcome::Panicked, outcome_of);
        record.end(started, outcome);
        if let Err(panic) = &result
            && let Some(on_panic) = &self.hooks.on_panic
        {
            self.call_hook(|| on_panic(panic));
        }
        self.observe(|observer| observer.task_ended(&task.info, outcome));
        result
    }

    /// Like [`run`](Self::run), for a task that may be tried again: what that means is decided by the caller, who
    /// calls [`finish_attempt`](Self::finish_attempt) next.
    #[cfg(feature = "retry")]
    pub(crate) fn run_attempt<R>(
        &self,
        record: &WorkerCounters,
        task: &TaskMeta<'_>,
        f: impl FnOnce() -> R,
    ) -> (Started, Result<R, TaskPanic>) {
        let started = record.start(&task.info, task.queued_at);
        self.observe(|observer| observer.task_started(&task.info));
        (started, unwind::catch(f).map_err(|payload| TaskPanic::new(payload, task.info.location)))
    }

    /// Books an attempt, and the end of the task with `outcome`; without one the task is queued again.
    #[cfg(feature = "retry")]
    pub(crate) fn finish_attempt(
        &self,
        record: &WorkerCounters,
        task: &TaskMeta<'_>,
        started: Started,
        panic: Option<&TaskPanic>,
        outcome: Option<TaskOutcome>,
    ) {
        match outcome {
            Some(outcome) => record.end(started, outcome),
            None => record.suspend(started),
        }
        if let (Some(panic), Some(on_panic)) = (panic, &self.hooks.on_panic) {
            self.call_hook(|| on_panic(panic));
        }
        if let Some(outcome) = outcome {
            self.observe(|observer| observer.task_ended(&task.info, outcome));
        }
    }

    /// Books a task as cancelled; its closure has been dropped. The caller tells the owner and then calls
    /// [`task_done`](Self::task_done).
    pub(crate) fn cancelled(&self, record: &WorkerCounters, info: &TaskInfo<'_>, reason: CancelReason) {
        record.count_cancelled(reason, 1);
        self.observe(|observer| observer.task_ended(info, TaskOutcome::Cancelled(reason)));
    }

    /// The owners of so many tasks have been told; the last step of each.
    #[inline]
    pub(crate) fn task_done(&self, record: &WorkerCounters, tasks: u64) {
        record.settle(tasks);
        // A worker checks before it parks.
        if !record.is_of_worker() {
            self.lifecycle.check();
        }
    }

    /// A submission was admitted but found no room; its closure goes back.
    pub(crate) fn refuse(&self, info: &TaskInfo<'_>) {
        self.observe(|observer| observer.task_refused(info));
        self.lifecycle.ledger.withdraw();
        self.lifecycle.check();
    }

    /// Admits a task, unless the pool is closed.
    #[inline]
    pub(crate) fn admit(&self, location: &'static Location<'static>, label: Option<&Arc<str>>) -> Option<TaskId> {
        let id = self.lifecycle.ledger.admit();
        match id {
            Some(id) => self.observe(|observer| observer.task_submitted(&TaskInfo { id, location, label })),
            // Admission may have been withdrawn, which can be the last thing a drain waits for.
            None => self.lifecycle.check(),
        }
        id
    }

    /// Tells the observer, if there is one.
    #[inline]
    fn observe(&self, call: impl FnOnce(&dyn Observer)) {
        if let Some(observer) = &self.hooks.observer {
            self.call_hook(|| call(&**observer));
        }
    }

    /// Calls a hook and counts its panic, if it has one. The hook counts as being inside the pool.
    /// Where hooks are nested too deep it is skipped, and that is counted; rule 1 of `nesting`.
    pub(crate) fn call_hook(&self, hook: impl FnOnce()) {
        let called = nesting::hook(|| {
            self.enter(0, |_| {
                if let Err(payload) = unwind::catch(hook) {
                    unwind::discard(payload);
                    self.lifecycle.ledger.count_hook_panic();
                }
            });
        });
        if called.is_none() {
            self.skip_hook();
        }
    }

    /// Counts a hook that is not called, since it would have brought itself about again too often.
    pub(crate) fn skip_hook(&self) {
        self.lifecycle.ledger.count_skipped_hook();
    }
}

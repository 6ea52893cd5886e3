//! A task in the queue of a key, and how it is run or cancelled.

use std::panic::Location;

use crate::error::CancelReason;
use crate::nesting;
use crate::observe::task_info::{TaskId, TaskInfo, TaskOutcome};
use crate::observe::worker_counters::WorkerCounters;
use crate::sync::Arc;
use crate::task::closure::Closure;
use crate::task::executor::{Executor, TaskMeta};
use crate::time::clock::Timestamp;

/// A task that has not started.
pub(super) struct PendingTask {
    /// Called or dropped once.
    pub(super) body: Body,
    /// The identity that observers see.
    pub(super) id: TaskId,
    /// Where the task was submitted.
    pub(super) location: &'static Location<'static>,
    /// When the task was submitted, if the pool takes times.
    pub(super) queued_at: Option<Timestamp>,
}

/// What a task runs.
pub(super) enum Body {
    /// A closure without a handle.
    Closure(Closure<'static, ()>),
    /// A task with a handle.
    Task(Arc<dyn KeyedRun>),
}

/// A task with a handle, as its turn sees it.
pub(super) trait KeyedRun: Send + Sync {
    /// Runs the task and hands its outcome over. Returns `false` if the handle has cancelled it.
    fn run_turn(&self, meta: &TaskMeta<'_>, counters: &WorkerCounters, executor: &Executor) -> bool;

    /// Cancels the task and hands its outcome over. Returns `false` if the handle has cancelled it.
    fn cancel_turn(
        &self,
        info: &TaskInfo<'_>,
        reason: CancelReason,
        counters: &WorkerCounters,
        executor: &Executor,
    ) -> bool;
}

impl PendingTask {
    /// Runs the task, and drops what is left of it. Returns `false` if it was cancelled before. The
    /// caller counts it as done.
    pub(super) fn run(self, label: Option<&Arc<str>>, counters: &WorkerCounters, executor: &Executor) -> bool {
        let info = TaskInfo { id: self.id, location: self.location, label };
        let meta = TaskMeta { info, queued_at: self.queued_at };
        match self.body {
            Body::Task(task) => task.run_turn(&meta, counters, executor),
            Body::Closure(mut closure) => {
                let result = executor.run(counters, &meta, || closure.call(), |()| TaskOutcome::Succeeded);
                drop(result); // a panic, which drops its payload safely
                true
            }
        }
    }

    /// Drops the closure of the task, and counts it as cancelled. Returns `false` if it was cancelled
    /// before. The caller counts it as done.
    pub(super) fn cancel(
        self,
        label: Option<&Arc<str>>,
        reason: CancelReason,
        counters: &WorkerCounters,
        executor: &Executor,
    ) -> bool {
        let info = TaskInfo { id: self.id, location: self.location, label };
        match self.body {
            Body::Task(task) => task.cancel_turn(&info, reason, counters, executor),
            Body::Closure(closure) => {
                nesting::discard(closure);
                executor.cancelled(counters, &info, reason);
                true
            }
        }
    }
}

//! A task in the queue of a key, and how it is run or cancelled.

use std::panic::Location;

use super::body::Later;
use crate::error::CancelReason;
use crate::nesting;
use crate::observe::task_info::{TaskId, TaskOutcome};
use crate::observe::task_origin::TaskOrigin;
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

/// The result of a turn, or of an attempt.
#[must_use = "a task that ran must be counted as done"]
pub(super) enum Ran<T> {
    /// The task has ended, and its outcome was handed over.
    Ended,
    /// Its handle has cancelled the task, and counts it.
    Cancelled,
    /// The task makes another attempt.
    #[cfg_attr(not(feature = "retry"), allow(dead_code, reason = "for the feature `retry`"))]
    Again(T, Later),
}

/// A task with a handle, as its turn sees it.
pub(super) trait KeyedRun: Send + Sync {
    /// Runs the task, and hands its outcome over if it has ended.
    fn run_turn(&self, meta: &TaskMeta<'_>, counters: &WorkerCounters, executor: &Executor) -> Ran<()>;

    /// Returns `true` if the task has an outcome.
    #[cfg(feature = "retry")]
    fn has_ended(&self) -> bool;

    /// Cancels the task and hands its outcome over. Returns `false` if the handle has cancelled it.
    fn cancel_turn(
        &self,
        origin: &TaskOrigin<'_>,
        reason: CancelReason,
        counters: &WorkerCounters,
        executor: &Executor,
    ) -> bool;
}

impl PendingTask {
    /// Runs the task, and drops what is left of it. The caller counts a task that has ended as
    /// done.
    pub(super) fn run(self, label: Option<&Arc<str>>, counters: &WorkerCounters, executor: &Executor) -> Ran<Self> {
        let origin = TaskOrigin { id: self.id, location: self.location, label };
        let meta = TaskMeta { origin, queued_at: self.queued_at };
        match self.body {
            Body::Task(task) => match task.run_turn(&meta, counters, executor) {
                Ran::Ended => Ran::Ended,
                Ran::Cancelled => Ran::Cancelled,
                // Only the first attempt records how long the task was queued.
                Ran::Again((), later) => Ran::Again(Self { body: Body::Task(task), queued_at: None, ..self }, later),
            },
            Body::Closure(mut closure) => {
                let result = executor.run(counters, &meta, || closure.call(), |()| TaskOutcome::Succeeded);
                drop(result); // a panic, which drops its payload safely
                Ran::Ended
            }
        }
    }

    /// Returns `true` if its handle has cancelled the task.
    #[cfg(feature = "retry")]
    pub(super) fn has_ended(&self) -> bool {
        matches!(&self.body, Body::Task(task) if task.has_ended())
    }

    /// Drops the closure of the task, and counts it as cancelled. Returns `false` if it was
    /// cancelled before. The caller counts it as done.
    pub(super) fn cancel(
        self,
        label: Option<&Arc<str>>,
        reason: CancelReason,
        counters: &WorkerCounters,
        executor: &Executor,
    ) -> bool {
        let origin = TaskOrigin { id: self.id, location: self.location, label };
        match self.body {
            Body::Task(task) => task.cancel_turn(&origin, reason, counters, executor),
            Body::Closure(closure) => {
                nesting::discard(closure);
                executor.cancelled(counters, &origin, reason);
                true
            }
        }
    }
}

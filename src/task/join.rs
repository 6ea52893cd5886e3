//! The interface between a task and its handle.

use std::task::{Context, Poll};
use std::time::Instant;

use super::context::AwaitedId;
use super::executor::Executor;
use super::job::Task;
use super::sleepers::List;
use super::waits::{Needs, Wait};
use crate::error::{CycleTarget, JoinError};
use crate::observe::task_info::TaskId;
use crate::time::deadline::Deadline;

/// The interface between a task and its handle, independent of the closure's type.
///
/// Implemented for every task with a cell, in `cell_task`.
pub(crate) trait JoinTarget<T>: Task + Watched {
    /// Returns the id of the task.
    fn id(&self) -> TaskId;

    /// Returns `true` if the task has an outcome.
    fn is_done(&self) -> bool;

    /// Returns the status of the task as a joining thread sees it.
    fn join_status(&self) -> JoinStatus;

    /// Blocks until the task has an outcome or the deadline has passed. Returns `true` if it has an
    /// outcome. Calls `list` before it sleeps.
    fn wait(&self, deadline: Deadline, list: List<'_>) -> bool;

    /// Spins for a short time until the task has an outcome. Returns `true` if it has one.
    fn spin_wait(&self) -> bool;

    /// Returns `true` if no worker will run the task, because its pool cancels it.
    fn is_abandoned(&self, executor: &Executor) -> bool;

    /// Returns `false` if the outcome must come from this very thread.
    fn may_sleep(&self) -> bool;

    /// Blocks until the task has an outcome, `wait` is called, or `until` has passed. Returns
    /// `true` if the task has an outcome.
    fn sleep(&self, wait: &Wait, until: Option<Instant>) -> bool;

    /// Takes the outcome; `None` if there is none yet or it has been taken.
    fn take(&self) -> Option<Result<T, JoinError>>;

    /// Takes the outcome, or registers the waker of `context`.
    fn poll_take(&self, context: &Context<'_>) -> Poll<Result<T, JoinError>>;

    /// Drops the outcome if there is one, or has it dropped as soon as the task completes.
    fn detach(&self);
}

/// The interface between a task and the registry of waits, independent of the task's types.
///
/// Implemented for every task with a cell, in `cell_task`.
pub(crate) trait Watched: Send + Sync {
    /// Returns the id under which the task is found on stacks and among the things waited for.
    fn awaited_id(&self) -> AwaitedId;

    /// Returns the ids of other things whose end the task may need; see
    /// [`Awaited::related_ids`](crate::task::waits::Awaited::related_ids).
    fn related_ids(&self) -> Vec<AwaitedId>;

    /// Adds what the task needs to complete; see
    /// [`Awaited::report_needs`](crate::task::waits::Awaited::report_needs).
    fn report_needs(&self, needs: &mut Needs);

    /// Returns what the error of a wait in a cycle says of the task.
    fn describe(&self) -> CycleTarget;

    /// Makes progress with the task on a worker that waits for it.
    fn help(&self, executor: &Executor);

    /// Wakes the threads that wait for the task, so that they check whether they were called.
    fn wake_waiters(&self);
}

/// The status of a task as a joining thread sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use = "the status says whether blocking is safe"]
pub(crate) enum JoinStatus {
    /// The task has not started; a worker can claim it.
    Queued,
    /// Another thread runs the task, or it is done.
    InProgress,
    /// The task is on the stack of the calling thread.
    OnThisStack,
}

//! A task with a token of its own, which a time limit or another token cancels.
//!
//! The cell is that of a plain task. A task whose token is cancelled before it starts never starts.
//! The callback of the token cancels it at once, or the worker that dequeues it does. That worker
//! also cancels a task whose time to start has passed. A task that runs gets the token, and
//! continues until it returns.
//!
//! Races:
//! - *Cancelled token and start*: the cell decides which thread gets the closure. If it was
//!   started, its token is cancelled.
//! - *Cancelled token and submission*: the callback is registered when the task was accepted. So a
//!   refused task still has its closure, and a token that is cancelled before that cancels the task
//!   then.

use std::panic::Location;
use std::time::Duration;

use super::cell::TaskCell;
use super::cell_task::CellTask;
use super::context::GroupId;
use super::executor::{Executor, TaskMeta};
use super::job::Task;
use crate::cancel::token::{CancelGuard, CancellationToken};
use crate::error::CancelReason;
use crate::observe::task_info::TaskId;
use crate::observe::task_origin::TaskOrigin;
use crate::sync::{Arc, OnceLock};
use crate::time::clock::Timestamp;
use crate::time::deadline::Deadline;

/// A task with a token.
pub(crate) struct LimitedTask<F, T> {
    cell: TaskCell<F, T>,
    limits: TaskLimits,
    /// Registers the callback of the token, if that may be cancelled before the task starts.
    guard: OnceLock<CancelGuard>,
}

/// The token and the label of a task.
pub(crate) struct TaskLimits {
    /// Cancels the task before it starts. The parent of the token that the closure gets.
    pub(crate) token: CancellationToken,
    /// The time from the start of the task to the cancellation of its token.
    pub(crate) timeout: Option<Duration>,
    /// When the task must have started. It never starts later.
    pub(crate) start_by: Deadline,
    /// What observers see.
    pub(crate) label: Option<Arc<str>>,
}

impl<F, T> LimitedTask<F, T> {
    /// Creates a task that is about to be submitted.
    pub(crate) fn new(
        f: F,
        limits: TaskLimits,
        (id, location, queued_at): (TaskId, &'static Location<'static>, Option<Timestamp>),
    ) -> Self {
        Self { cell: TaskCell::new(f, id, location, queued_at), limits, guard: OnceLock::new() }
    }

    /// Takes the closure back out of a task whose submission was refused.
    pub(crate) fn withdraw(&self) -> F {
        self.cell.withdraw()
    }

    fn meta(&self) -> TaskMeta<'_> {
        let TaskMeta { origin, queued_at } = self.cell.meta();
        TaskMeta { origin: TaskOrigin { label: self.limits.label.as_ref(), ..origin }, queued_at }
    }
}

impl<F, T> LimitedTask<F, T>
where
    F: FnOnce(&CancellationToken) -> T + Send + 'static,
    T: Send + 'static,
{
    /// Cancels the task with its token from now on. Called once, when the task was accepted.
    pub(crate) fn watch_token(self: &Arc<Self>, executor: &Arc<Executor>) {
        let (weak, executor) = (Arc::downgrade(self), Arc::clone(executor));
        let guard = self.limits.token.on_cancel(move || {
            if let Some(task) = weak.upgrade() {
                task.cancel(task.limits.token.reason().unwrap_or(CancelReason::Requested), &executor);
            }
        });
        let first = self.guard.set(guard).is_ok();
        assert!(first, "a token is watched once");
    }
}

impl<F, T> Task for LimitedTask<F, T>
where
    F: FnOnce(&CancellationToken) -> T + Send + 'static,
    T: Send + 'static,
{
    fn run(&self, executor: &Executor) {
        let expired = || self.limits.start_by.is_past().then_some(CancelReason::Expired);
        if let Some(reason) = self.limits.token.reason().or_else(expired) {
            self.cancel(reason, executor);
            return;
        }
        executor.enter(self.cell.group_id(), |counters| {
            let Some(f) = self.cell.claim() else { return };
            let TaskLimits { token, timeout, .. } = &self.limits;
            let token = timeout.map_or_else(|| token.clone(), |timeout| token.child_with_timeout(timeout));
            let body = move || {
                let _guard = executor.cancel_with_pool(&token);
                f(&token)
            };
            self.cell.run_claimed(body, &self.meta(), counters, executor);
        });
    }

    fn cancel(&self, reason: CancelReason, executor: &Executor) -> bool {
        executor.enter(GroupId::NONE, |counters| {
            let Some(closure) = self.cell.claim() else {
                // Any other caller has found an entry that the task has left in the queue.
                if reason == CancelReason::Requested {
                    self.limits.token.cancel_with(reason);
                }
                return false;
            };
            self.cell.cancel_claimed(closure, &self.meta().origin, reason, counters, executor);
            true
        })
    }

    fn is_finished(&self) -> bool {
        self.cell.is_done()
    }
}

impl<F, T> CellTask for LimitedTask<F, T>
where
    F: FnOnce(&CancellationToken) -> T + Send + 'static,
    T: Send + 'static,
{
    type Closure = F;
    type Output = T;

    fn cell(&self) -> &TaskCell<F, T> {
        &self.cell
    }

    fn label(&self) -> Option<&Arc<str>> {
        self.limits.label.as_ref()
    }
}

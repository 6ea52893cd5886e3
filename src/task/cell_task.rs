//! What tasks with a cell have in common, and where they differ: how they are joined, and what a
//! wait for them needs.

use std::task::{Context, Poll};
use std::time::Instant;

use super::cell::{SPIN_TIME, TaskCell};
use super::context::AwaitedId;
use super::executor::Executor;
use super::job::Task;
use super::join::{JoinStatus, JoinTarget, Watched};
use super::sleepers::List;
use super::waits::{Needs, Wait};
use crate::error::{CycleTarget, JoinError};
use crate::observe::task_info::TaskId;
use crate::sync::{Arc, spin_wait};
use crate::time::deadline::Deadline;

/// A task whose closure and outcome are in a [`TaskCell`].
///
/// The methods after [`cell`](Self::cell) are for tasks that differ from a plain one.
pub(crate) trait CellTask: Task {
    /// What a thread claims in order to run the task.
    type Closure: Send;
    /// The value of the task.
    type Output: Send + 'static;

    /// Returns the cell of the task.
    fn cell(&self) -> &TaskCell<Self::Closure, Self::Output>;

    /// Returns `true` if the task waits for its time. The end of its pool cancels it.
    fn is_timed(&self) -> bool {
        false
    }

    /// Returns `true` if a worker that joins the task may run it now. Until then, the task counts
    /// as in progress.
    fn may_start(&self) -> bool {
        !self.is_timed()
    }

    /// See [`JoinTarget::join_status`].
    fn join_status(&self) -> JoinStatus {
        match self.cell().join_status() {
            JoinStatus::Queued if !self.may_start() => JoinStatus::InProgress,
            status => status,
        }
    }

    /// See [`JoinTarget::wait`].
    fn wait(&self, deadline: Deadline, list: List<'_>) -> bool {
        self.cell().wait(deadline, list)
    }

    /// See [`JoinTarget::may_sleep`].
    fn may_sleep(&self) -> bool {
        true
    }

    /// Returns the label that observers see.
    fn label(&self) -> Option<&Arc<str>> {
        None
    }

    /// See [`Watched::related_ids`].
    fn related_ids(&self) -> Vec<AwaitedId> {
        Vec::new()
    }

    /// See [`Watched::report_needs`].
    fn report_needs(&self, needs: &mut Needs) {
        self.cell().report_needs(needs, |needs| needs.worker = true);
    }

    /// See [`Watched::help`].
    fn help(&self, executor: &Executor) {
        if self.may_start() {
            self.run(executor);
        }
    }
}

impl<C: CellTask> JoinTarget<C::Output> for C {
    fn id(&self) -> TaskId {
        self.cell().id
    }

    fn is_done(&self) -> bool {
        self.cell().is_done()
    }

    fn join_status(&self) -> JoinStatus {
        CellTask::join_status(self)
    }

    fn wait(&self, deadline: Deadline, list: List<'_>) -> bool {
        CellTask::wait(self, deadline, list)
    }

    fn spin_wait(&self) -> bool {
        spin_wait(SPIN_TIME, || self.cell().is_done())
    }

    fn is_abandoned(&self, executor: &Executor) -> bool {
        let is_unclaimed = self.cell().join_status() == JoinStatus::Queued;
        is_unclaimed && (executor.tracker.is_cancelling() || self.is_timed() && executor.tracker.is_closed())
    }

    fn may_sleep(&self) -> bool {
        CellTask::may_sleep(self)
    }

    fn sleep(&self, wait: &Wait, until: Option<Instant>) -> bool {
        self.cell().sleep(wait, until)
    }

    fn take(&self) -> Option<Result<C::Output, JoinError>> {
        self.cell().take()
    }

    fn poll_take(&self, context: &Context<'_>) -> Poll<Result<C::Output, JoinError>> {
        self.cell().poll_take(context)
    }

    fn detach(&self) {
        self.cell().detach();
    }
}

impl<C: CellTask> Watched for C {
    fn awaited_id(&self) -> AwaitedId {
        self.cell().group_id().into()
    }

    fn related_ids(&self) -> Vec<AwaitedId> {
        CellTask::related_ids(self)
    }

    fn report_needs(&self, needs: &mut Needs) {
        CellTask::report_needs(self, needs);
    }

    fn describe(&self) -> CycleTarget {
        CycleTarget::task(self.cell().id, self.label(), self.cell().location)
    }

    fn help(&self, executor: &Executor) {
        CellTask::help(self, executor);
    }

    fn wake_waiters(&self) {
        self.cell().wake_waiters();
    }
}

impl<F, T> CellTask for TaskCell<F, T>
where
    F: FnOnce() -> T + Send + 'static,
    T: Send + 'static,
{
    type Closure = F;
    type Output = T;

    fn cell(&self) -> &Self {
        self
    }
}

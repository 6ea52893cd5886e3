//! A task of a key that has a handle.
//!
//! The cell is that of a plain task. A worker that joins the task does not claim it from the cell: it
//! takes turns of the key until the task has ended. So the tasks before it run first.

use std::panic::Location;

use super::name::KeyName;
use super::pending::KeyedRun;
use super::state::{KeyedInner, Phase};
use crate::error::{CancelReason, JoinError};
use crate::nesting;
use crate::observe::task_info::{TaskId, TaskInfo, TaskOutcome};
use crate::observe::worker_counters::WorkerCounters;
use crate::sync::Arc;
use crate::task::cell::{CellTask, TaskCell};
use crate::task::context::{self, AwaitedId, GroupId};
use crate::task::executor::{Executor, TaskMeta};
use crate::task::job::Task;
use crate::task::join::{JoinStatus, JoinTarget};
use crate::task::waits::Needs;
use crate::time::clock::Timestamp;

/// A task of a key that has a handle.
pub(super) struct KeyedTask<K, F, T> {
    cell: TaskCell<F, T>,
    /// Where the task was submitted.
    location: &'static Location<'static>,
    /// The key.
    name: Arc<KeyName<K>>,
    inner: Arc<KeyedInner<K>>,
}

impl<K, F, T> KeyedTask<K, F, T> {
    /// Creates a task that is about to be added.
    pub(super) fn new(
        f: F,
        (id, location, queued_at): (TaskId, &'static Location<'static>, Option<Timestamp>),
        name: &Arc<KeyName<K>>,
        inner: &Arc<KeyedInner<K>>,
    ) -> Self {
        let cell = TaskCell::new(f, id, location, queued_at);
        Self { cell, location, name: Arc::clone(name), inner: Arc::clone(inner) }
    }
}

impl<K, F, T> KeyedRun for KeyedTask<K, F, T>
where
    K: Send + Sync + 'static,
    F: FnOnce() -> T + Send + 'static,
    T: Send + 'static,
{
    fn run_turn(&self, meta: &TaskMeta<'_>, counters: &WorkerCounters, executor: &Executor) -> bool {
        let Some(f) = self.cell.claim() else { return false };
        let result = executor.run(counters, meta, f, |_| TaskOutcome::Succeeded);
        self.cell.complete(result.map_err(JoinError::Panicked));
        true
    }

    fn cancel_turn(
        &self,
        info: &TaskInfo<'_>,
        reason: CancelReason,
        counters: &WorkerCounters,
        executor: &Executor,
    ) -> bool {
        let Some(f) = self.cell.claim() else { return false };
        nesting::discard(f);
        executor.cancelled(counters, info, reason);
        self.cell.complete(Err(JoinError::Cancelled(reason)));
        true
    }
}

impl<K, F, T> Task for KeyedTask<K, F, T>
where
    K: Send + Sync + 'static,
    F: FnOnce() -> T + Send + 'static,
    T: Send + 'static,
{
    /// Takes turns of the key until the task has ended or another thread has a turn.
    fn run(&self, _: &Executor) {
        while !self.cell.is_done() && self.inner.help(Some(self.name.id())) {}
    }

    fn cancel(&self, reason: CancelReason, executor: &Executor) -> bool {
        executor.enter(GroupId::NONE, |counters| {
            let info = self.inner.info(self.id(), self.location);
            let cancelled = self.cancel_turn(&info, reason, counters, executor);
            if cancelled {
                self.inner.count_cancelled();
                executor.task_done(counters, 1);
            }
            cancelled
        })
    }

    fn is_finished(&self) -> bool {
        self.cell.is_done()
    }
}

impl<K, F, T> CellTask for KeyedTask<K, F, T>
where
    K: Send + Sync + 'static,
    F: FnOnce() -> T + Send + 'static,
    T: Send + 'static,
{
    type Closure = F;
    type Output = T;

    fn cell(&self) -> &TaskCell<F, T> {
        &self.cell
    }

    /// A task of a key that is on this stack cannot start before that stack is gone.
    fn join_status(&self) -> JoinStatus {
        match self.cell.join_status() {
            JoinStatus::Queued if context::is_member_of(self.name.group()) => JoinStatus::OnThisStack,
            status => status,
        }
    }

    fn related_ids(&self) -> Vec<AwaitedId> {
        vec![self.name.group().into()]
    }

    fn report_needs(&self, needs: &mut Needs) {
        let mut state = self.inner.state.lock();
        let Some(queue) = state.keys.get_mut(&self.name.id()) else { return };
        let is_queued = match self.cell.join_status() {
            _ if self.cell.is_done() => return,
            JoinStatus::Queued => true,
            JoinStatus::InProgress | JoinStatus::OnThisStack => false,
        };
        match queue.phase {
            Phase::Ready(_) => needs.worker = is_queued,
            Phase::Running(task) if is_queued || task == self.id() => {
                queue.is_awaited |= is_queued;
                needs.end_of(self.name.group());
            }
            Phase::Running(_) => {} // its handle is cancelling it on another thread
        }
    }
}

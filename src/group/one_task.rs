//! What the handle of one task of a group does to it: runs it out of turn, cancels it, or leaves a
//! panic to the group.
//!
//! Such a task has no value in the group. Its outcome belongs to the handle, so neither its panic
//! nor its cancellation by the handle is an error of the group.

use super::result::TaskResult;
use super::state::{GroupInner, State};
use crate::error::panic::TaskPanic;
use crate::error::{CancelReason, TaskError};
use crate::sync::Arc;
use crate::task::context::{self, Position};
use crate::unwind;

/// What came of running a task out of turn.
#[derive(Clone, Copy, PartialEq, Eq)]
#[must_use = "only a task that ran is done"]
pub(super) enum Turn {
    /// This thread has run the task.
    Ran,
    /// The task has started before, or was cancelled.
    Started,
    /// As many tasks run as the group's limit allows.
    AtLimit,
    /// The stack of this thread is too deep.
    TooDeep,
}

impl<R: TaskResult> GroupInner<R> {
    /// Returns the position of this thread with respect to the group.
    pub(super) fn position(&self) -> Position {
        context::position(self.pool.id(), self.id())
    }

    /// Runs a task that has not started on this worker. A member does not count as one more runner,
    /// because the task below it waits.
    pub(super) fn run_out_of_turn(self: &Arc<Self>, index: usize, position: &Position) -> Turn {
        let mut state = self.state.lock();
        if !state.is_unstarted(index) {
            return Turn::Started;
        }
        if position.depth >= context::MAX_HELP_DEPTH {
            return Turn::TooDeep;
        }
        if !position.is_member && state.tickets.runners() >= self.settings.limit {
            return Turn::AtLimit;
        }
        let Some(task) = state.unstarted.take(index) else { return Turn::Started };
        state.running.push_back(index);
        if !position.is_member {
            state.tickets.start_runner();
        }
        self.notify_room(&mut state);
        drop(state);
        self.run_inline(task, !position.is_member);
        if !position.is_member {
            let mut state = self.state.lock();
            state.pausing -= 1;
            drop(self.stop_runner(state));
        }
        Turn::Ran
    }

    /// Cancels a task that has not started, without an error of the group. Returns `true` if it
    /// did.
    pub(super) fn cancel_task(&self, index: usize) -> bool {
        let mut state = self.state.lock();
        let Some(task) = state.unstarted.take(index) else { return false };
        self.notify_room(&mut state);
        drop(state);
        self.as_closer(1, |counters| {
            let origin = self.origin(task.id, task.location);
            unwind::discard(task.body); // at once: it may borrow
            self.pool.executor.cancelled(counters, &origin, CancelReason::Requested);
            self.count_done(&mut self.state.lock(), 1);
            self.pool.executor.task_done(counters, 1);
        });
        true
    }

    /// Records the panic of a task that is done and whose handle is gone.
    pub(super) fn record_late(&self, index: usize, panic: TaskPanic) {
        let outcome = Err(TaskError::Panicked(panic));
        self.as_closer(0, |counters| {
            drop(self.record_decisive(counters, index, outcome, self.state.lock()));
        });
    }

    /// Returns why the group was closed, if it is.
    pub(super) fn close_reason(&self) -> Option<CancelReason> {
        self.state.lock().closed
    }

    /// Returns `true` if a task has not started and may start now.
    pub(super) fn may_start(&self, state: &State<R>, index: usize) -> bool {
        state.tickets.runners() < self.settings.limit && state.is_unstarted(index)
    }
}

impl<R: TaskResult> State<R> {
    /// Returns `true` if the task has not started.
    pub(super) fn is_unstarted(&self, index: usize) -> bool {
        self.unstarted.contains(index)
    }
}

//! How a group is waited for, and what the waiter gets.

use super::core::{Ended, GroupCore, State, WouldDeadlock};
use super::result::TaskResult;
use super::running::Stint;
use super::settings::Policy;
use crate::deadline::Deadline;
use crate::error::{CancelReason, GroupError};
use crate::local;
use crate::sync::Arc;

/// What wakes a waiter.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Watch {
    /// The end of the last task.
    End,
    /// The end of any task.
    Changes,
}

impl<R: TaskResult> GroupCore<R> {
    /// Waits until all tasks are done, and closes the group then; returns whether that came before the deadline. Helps,
    /// if `deadline` is never and this thread is a worker of the pool.
    pub(crate) fn wait_all_done(self: &Arc<Self>, deadline: Deadline) -> Result<bool, WouldDeadlock> {
        self.wait_until(deadline, Watch::End, |state| {
            if state.all_done() {
                state.closed.get_or_insert(CancelReason::Requested);
            }
            state.all_done()
        })
    }

    /// Waits until a task has succeeded or all are done.
    pub(crate) fn wait_any_success(self: &Arc<Self>) -> Result<bool, WouldDeadlock> {
        self.wait_until(Deadline::NEVER, Watch::Changes, |state| state.outcomes.has_success() || state.all_done())
    }

    /// Hands out the next task that has ended, waiting for one; `None` when all were handed out.
    pub(crate) fn next_ended(self: &Arc<Self>) -> Result<Option<(usize, Ended<R>)>, WouldDeadlock> {
        self.keep_order();
        self.wait_until(Deadline::NEVER, Watch::Changes, |state| state.outcomes.has_ended() || state.all_done())?;
        Ok(self.state.lock().outcomes.next_ended())
    }

    /// What came of a group that has been waited for: the values in spawn order, or the first trouble.
    pub(crate) fn finish(&self) -> Result<Vec<R::Value>, GroupError<R::Error>> {
        let mut state = self.state.lock();
        if state.impossible {
            return Err(GroupError::WouldDeadlock);
        }
        if self.settings.policy == Policy::FirstSuccess && state.outcomes.has_success() {
            return Ok(state.outcomes.take_values());
        }
        match state.outcomes.take_trouble() {
            Some(trouble) => Err(trouble.into()),
            None => Ok(state.outcomes.take_values()),
        }
    }

    /// What came of a group that has been waited for: the first value, or the first trouble.
    pub(crate) fn finish_any(&self) -> Result<R::Value, GroupError<R::Error>> {
        let mut state = self.state.lock();
        if let Some(value) = state.outcomes.take_success() {
            return Ok(value);
        }
        match state.outcomes.take_trouble().filter(|_| !state.impossible) {
            Some(trouble) => Err(trouble.into()),
            // No task, or none that could start: a success would be waited for in vain.
            None => Err(GroupError::WouldDeadlock),
        }
    }

    /// What came of a group that has been waited for: every outcome, in spawn order.
    pub(crate) fn finish_all(&self) -> Vec<Ended<R>> {
        let mut state = self.state.lock();
        let total = state.total;
        (0..total).filter_map(|index| state.outcomes.take(index)).collect()
    }

    /// Drops every outcome, containing their destructors' panics.
    pub(crate) fn discard_outcomes(&self) {
        let outcomes = self.state.lock().outcomes.take_all();
        drop(outcomes);
    }

    /// From now on keeps the order in which tasks end.
    fn keep_order(&self) {
        let mut state = self.state.lock();
        // While tasks are being dropped they are in none of the lists. That ends soon, and is announced.
        while !state.outcomes.keeps_order() && state.total - state.done != state.unstarted.len() + state.running.len() {
            state.wait_for_change += 1;
            state = self.changed.wait_until(state, None);
            state.wait_for_change -= 1;
        }
        let State { outcomes, unstarted, running, total, .. } = &mut *state;
        let is_pending =
            |index: &usize| running.contains(index) || unstarted.binary_search_by_key(index, |task| task.index).is_ok();
        if !outcomes.keeps_order() {
            outcomes.keep_order((0..*total).filter(|index| !is_pending(index)));
        }
    }

    /// Waits until `enough`, or the deadline. Helps, if there is no deadline and this thread is a worker of the pool.
    fn wait_until(
        self: &Arc<Self>,
        deadline: Deadline,
        watch: Watch,
        enough: impl Fn(&mut State<R>) -> bool,
    ) -> Result<bool, WouldDeadlock> {
        if local::is_member_of(self.name) {
            return Err(WouldDeadlock);
        }
        let helps = usize::from(deadline == Deadline::NEVER && local::is_worker_of(self.engine.pool()));
        let watches = usize::from(watch == Watch::Changes);
        loop {
            self.close_if_told();
            let mut state = self.state.lock();
            if enough(&mut state) {
                return Ok(true);
            }
            if deadline.is_past() {
                return Ok(false);
            }
            if helps > 0 && !state.unstarted.is_empty() && state.runners < self.settings.limit {
                if local::depth() >= local::HELP_DEPTH {
                    return Err(WouldDeadlock);
                }
                state.runners += 1;
                drop(state);
                self.run_unstarted(Stint::Whole, |state| watch == Watch::Changes && state.outcomes.has_ended());
                continue;
            }
            let until = if state.closed.is_some() { deadline } else { deadline.earlier(self.token.deadline()) };
            state.wait_for_change += watches;
            state.helpers += helps;
            let mut state = self.changed.wait_until(state, until.instant());
            state.wait_for_change -= watches;
            state.helpers -= helps;
        }
    }
}

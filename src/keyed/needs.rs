//! What a wait needs of a key, as the registry of waits asks.

use super::name::KeyId;
use super::state::{Busy, KeyedInner, State};
use crate::observe::task_info::TaskId;
use crate::task::context::GroupId;
use crate::task::waits::Needs;

impl<K> KeyedInner<K> {
    /// Reports what a task of a key needs: `Ok` for one that has not started, otherwise the ids of
    /// the task.
    pub(super) fn report_turn(
        &self,
        state: &mut State<K>,
        key: KeyId,
        unstarted: Result<(), (TaskId, GroupId)>,
        needs: &mut Needs,
    ) {
        let Some(queue) = state.turns.get_mut(key) else {
            return needs.end_of(unstarted.map_or_else(|(_, task)| task, |()| self.closing_group()));
        };
        queue.state.is_awaited |= unstarted.is_ok();
        state.are_keys_awaited |= unstarted.is_ok();
        match (queue.state.busy, unstarted) {
            (Some(Busy::Running(_)), Ok(())) => needs.end_of(queue.name.group()),
            (Some(Busy::Running(running)), Err((task, _))) if running == task => needs.end_of(queue.name.group()),
            (None, Ok(())) => needs.worker = true,
            #[cfg(feature = "retry")]
            (Some(Busy::Delayed(due)), Ok(())) => self.report_due(due, needs),
            (_, Err((_, task))) => needs.end_of(task), // a thread is cancelling it
        }
    }

    /// Stands for the thread that cancels the tasks of a closed executor.
    pub(super) fn closing_group(&self) -> GroupId {
        GroupId::of(&self.settings)
    }

    /// Reports that any turn is needed.
    pub(super) fn report_any_turn(&self, state: &mut State<K>, needs: &mut Needs) {
        state.is_awaited = true;
        needs.worker |= state.turns.ready() > 0;
        #[cfg(feature = "retry")]
        if let Some((due, _)) = state.delayed.first() {
            self.report_due(*due, needs);
        }
    }
}

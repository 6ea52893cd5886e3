//! What a wait needs of a key, as the registry of waits asks.

use super::name::KeyId;
use super::state::{KeyedInner, Phase, State};
use crate::observe::task_info::TaskId;
use crate::task::waits::Needs;

impl<K> KeyedInner<K> {
    /// Reports what a task of a key needs: `Ok` for one that has not started, otherwise the id of
    /// the task.
    pub(super) fn report_turn(
        &self,
        state: &mut State<K>,
        key: KeyId,
        unstarted: Result<(), TaskId>,
        needs: &mut Needs,
    ) {
        let Some(queue) = state.keys.get_mut(&key) else { return };
        queue.is_awaited |= unstarted.is_ok();
        match (queue.phase, unstarted) {
            (Phase::Running(_), Ok(())) => needs.end_of(queue.name.group()),
            (Phase::Running(running), Err(task)) if running == task => needs.end_of(queue.name.group()),
            (Phase::Ready(_), Ok(())) => needs.worker = true,
            #[cfg(feature = "retry")]
            (Phase::Delayed(due), Ok(())) => self.report_due(due, needs),
            (_, Err(_)) => {} // its handle is cancelling it on another thread
        }
    }

    /// Reports that any turn is needed.
    pub(super) fn report_any_turn(&self, state: &mut State<K>, needs: &mut Needs) {
        state.is_awaited = true;
        needs.worker |= !state.ready.is_empty();
        #[cfg(feature = "retry")]
        if let Some((due, _)) = state.delayed.first() {
            self.report_due(*due, needs);
        }
    }
}

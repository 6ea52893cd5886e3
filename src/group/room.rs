//! The wait for room in a group, as the registry of waits sees it. Only tasks on threads that are
//! not members wait in this way.

use super::result::TaskResult;
use super::state::{GroupInner, State};
use crate::error::{CycleKind, CycleTarget};
use crate::sync::Arc;
use crate::task::context::{AwaitedId, PoolId};
use crate::task::waits::{Awaited, Needs};

/// Room for one more task of a group, as something that is waited for.
///
/// Room comes when a task starts. At the limit, a task starts only when one of the started tasks
/// ends.
pub(super) struct GroupRoom<R: TaskResult>(pub(super) Arc<GroupInner<R>>);

impl<R: TaskResult> GroupRoom<R> {
    /// Returns `true` if the group is open and full.
    pub(super) fn is_full(&self, state: &State<R>) -> bool {
        state.closed.is_none() && state.unstarted.len() >= self.0.settings.capacity
    }
}

impl<R: TaskResult> Awaited for GroupRoom<R> {
    fn awaited_id(&self) -> AwaitedId {
        AwaitedId::of(self)
    }

    fn related_ids(&self) -> Vec<AwaitedId> {
        vec![self.0.id().into()]
    }

    fn pool(&self) -> PoolId {
        self.0.pool.id()
    }

    fn report_needs(&self, needs: &mut Needs) {
        let state = self.0.state.lock();
        if self.is_full(&state) {
            needs.worker = self.0.can_run(&state);
            if !needs.worker {
                self.0.report_limit(&state, needs);
            }
        }
    }

    fn describe(&self) -> CycleTarget {
        CycleTarget::new(CycleKind::GroupRoom).label(self.0.settings.label.as_ref())
    }

    fn help(self: Arc<Self>) {
        Arc::clone(&self.0).help();
    }

    fn wake_waiters(&self) {
        self.0.wake_waiters();
    }
}

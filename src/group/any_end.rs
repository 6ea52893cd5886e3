//! The end of any task of a group, as something that is waited for.
//!
//! | the group has | the wait |
//! |---|---|
//! | a task that a worker can start, or a delayed task | may end |
//! | unstarted tasks at the limit, and a runner between two tasks | may end |
//! | unstarted tasks at the limit | needs the end of a started task; the next outcome may also be a cancellation |
//! | no unstarted task, and a reference that may add one | may end |
//! | only started tasks | needs the end of one of them |
//!
//! A task that is being dropped counts as started. The thread that drops tasks has a frame for all
//! of them, and so blocks them all if it waits: the destructor of one may wait for the waiter.

use super::result::TaskResult;
use super::state::{GroupInner, State};
use crate::error::{CycleKind, CycleTarget};
use crate::sync::{Arc, Ordering};
use crate::task::context::{AwaitedId, PoolId};
use crate::task::waits::{Awaited, Needs};

/// The event that wakes a waiter.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum WaitFor {
    /// The end of the last task.
    All,
    /// The end of any task whose outcome was not yielded.
    Next,
    /// The first success, or the end of the last task.
    First,
}

impl WaitFor {
    /// Returns `true` if the event has happened. Not asked for `All`.
    pub(super) fn has_ended<R: TaskResult>(self, state: &State<R>) -> bool {
        match self {
            Self::All => state.all_done(),
            Self::Next => state.outcomes.has_completion(),
            Self::First => state.outcomes.has_success(),
        }
    }
}

/// The wait for the next task that ends, or for the first success.
pub(super) struct AnyEnd<R: TaskResult> {
    pub(super) group: Arc<GroupInner<R>>,
    pub(super) wait_for: WaitFor,
}

impl<R: TaskResult> AnyEnd<R> {
    /// Returns `true` if no thread may end the wait but those that run started tasks.
    fn needs_started(&self, state: &State<R>) -> bool {
        let group = &self.group;
        if state.delayed() > 0 || group.can_run(state) {
            return false;
        }
        if state.unstarted.is_empty() {
            // A task that is added to a closed group is cancelled, which is no success.
            return !group.may_grow() || self.wait_for == WaitFor::First && state.closed.is_some();
        }
        // A cancellation ends unstarted tasks, which is no success.
        state.pausing == 0 && (self.wait_for == WaitFor::First || !group.may_grow() && group.token.get().is_none())
    }
}

impl<R: TaskResult> GroupInner<R> {
    /// Returns `true` if tasks may be added without the owner.
    pub(super) fn may_grow(&self) -> bool {
        // ORDERING: Relaxed. A reference adds tasks under the lock that the caller holds, and is
        // dropped after that.
        self.adders.load(Ordering::Relaxed) > 0
    }

    /// Reports that a started task must end before another can start, because the limit is reached.
    pub(super) fn report_limit(&self, state: &State<R>, needs: &mut Needs) {
        if state.pausing == 0 {
            needs.end_of_any(self.id(), state.started());
        } else {
            needs.possible_end_of(self.id());
        }
    }
}

impl<R: TaskResult> State<R> {
    /// Returns how many tasks have started, or are being dropped, and are not done.
    fn started(&self) -> usize {
        self.total - self.done - self.unstarted.len() - self.delayed()
    }
}

impl<R: TaskResult> Awaited for AnyEnd<R> {
    fn awaited_id(&self) -> AwaitedId {
        self.group.id().into()
    }

    fn pool(&self) -> PoolId {
        self.group.pool.id()
    }

    fn report_needs(&self, needs: &mut Needs) {
        let state = self.group.state.lock();
        if state.all_done() || self.wait_for.has_ended(&state) {
            return;
        }
        needs.worker = self.group.can_run(&state);
        #[cfg(feature = "retry")]
        self.group.report_delayed(&state, needs);
        if self.needs_started(&state) {
            needs.end_of_any(self.group.id(), state.started());
        } else {
            needs.possible_end_of(self.group.id());
        }
    }

    fn describe(&self) -> CycleTarget {
        CycleTarget::new(CycleKind::AnyTask).label(self.group.settings.label.as_ref())
    }

    fn help(self: Arc<Self>) {
        Arc::clone(&self.group).help();
    }

    fn wake_waiters(&self) {
        self.group.wake_waiters();
    }
}

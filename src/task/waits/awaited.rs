//! Things that are waited for, and what they need to end.

use std::time::Instant;

use crate::error::CycleTarget;
use crate::sync::Arc;
use crate::task::context::{AwaitedId, GroupId, PoolId, ThreadId};

/// Something that is waited for, as the registry of waits sees it.
pub(crate) trait Awaited: Send + Sync {
    /// Returns the id under which it is found among the frames of a stack and among what is waited
    /// for.
    fn awaited_id(&self) -> AwaitedId;

    /// Returns the ids of other things whose end it may need. A worker that could help is notified
    /// when one of them begins to wait. Does not change.
    fn related_ids(&self) -> Vec<AwaitedId> {
        Vec::new()
    }

    /// Returns the pool whose workers can help with it.
    fn pool(&self) -> PoolId;

    /// Reports what it needs to end. Called under the registry's lock: takes no lock but its own,
    /// and drops nothing.
    fn report_needs(&self, needs: &mut Needs);

    /// Returns what the error of a wait in a cycle says of it, without the name of its pool. Called
    /// under the registry's lock: takes no lock.
    fn describe(&self) -> CycleTarget;

    /// Makes one step of progress with it on a worker of its pool. Never waits for it.
    fn help(self: Arc<Self>);

    /// Wakes the threads that sleep in a wait for it, so that they check whether they were
    /// notified.
    fn wake_waiters(&self);
}

/// What something that is waited for needs to end; empty once it has ended.
#[derive(Default)]
pub(crate) struct Needs {
    /// Whether a worker of its pool can help with it now.
    pub(crate) worker: bool,
    /// The time from which a worker of its pool can help with it.
    pub(crate) worker_at: Option<Instant>,
    /// The only worker of its pool that can help with it now.
    pub(crate) worker_thread: Option<ThreadId>,
    /// The ids of the tasks, groups and threads that it needs or may need. Help follows all.
    pub(super) ids: Vec<AwaitedId>,
    /// What must happen, or it never ends; see `knot`.
    pub(super) conditions: Vec<Condition>,
    /// What must happen if all places of a driver are taken for good; for suspicions only.
    pub(super) places: Vec<Condition>,
}

/// Something that must happen: the end of one of these alternatives. Never empty.
pub(super) type Condition = Vec<Alternative>;

/// The end of some of what has one id.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Alternative {
    /// The end of everything with the id.
    All(AwaitedId),
    /// The end of any of this number of tasks with the id, which all have started.
    AnyOf(AwaitedId, usize),
}

impl Alternative {
    pub(super) fn id(self) -> AwaitedId {
        match self {
            Self::All(id) | Self::AnyOf(id, _) => id,
        }
    }
}

impl Needs {
    /// Adds something that must end first.
    pub(crate) fn end_of(&mut self, id: impl Into<AwaitedId>) {
        let id = id.into();
        self.ids.push(id);
        self.conditions.push(vec![Alternative::All(id)]);
    }

    /// Adds `tasks` tasks with one id, which have started. One of them must end first.
    pub(crate) fn end_of_any(&mut self, id: impl Into<AwaitedId>, tasks: usize) {
        let id = id.into();
        self.ids.push(id);
        if tasks > 0 {
            self.conditions.push(vec![Alternative::AnyOf(id, tasks)]);
        }
    }

    /// Adds a place that one of `tasks` tasks with one id must give back, as a suspicion only.
    #[cfg(feature = "driver")]
    pub(crate) fn place_at(&mut self, id: AwaitedId, tasks: usize) {
        self.places.push(vec![Alternative::AnyOf(id, tasks)]);
    }

    /// Adds several things. One of them must end first.
    pub(crate) fn end_of_one(&mut self, ids: impl IntoIterator<Item = GroupId>) {
        let ids: Vec<AwaitedId> = ids.into_iter().map(AwaitedId::from).collect();
        if !ids.is_empty() {
            self.conditions.push(ids.iter().copied().map(Alternative::All).collect());
        }
        self.ids.extend(ids);
    }

    /// Adds something that may have to end first.
    pub(crate) fn possible_end_of(&mut self, id: impl Into<AwaitedId>) {
        self.ids.push(id.into());
    }
}

/// The kind of a wait.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// Ends only with its target; can be refused. The target may have several ways to end.
    Certain,
    /// As `Certain`, and its waiter can go on without its target. So it is refused before any
    /// other.
    Yielding,
    /// Ends only with its target, and must not be refused.
    Unrefusable,
    /// May end in another way.
    Open,
}

impl Kind {
    /// Returns `true` if the wait can be refused.
    pub(super) fn is_refusable(self) -> bool {
        matches!(self, Self::Certain | Self::Yielding)
    }
}

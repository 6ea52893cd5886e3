//! What a wait waits for, and what that needs to end.

use std::time::Instant;

use crate::sync::Arc;
use crate::task::context::{AwaitedId, PoolId};

/// Something that is waited for.
pub(crate) trait Awaited: Send + Sync {
    /// Names it among the frames of a stack and among what is waited for.
    fn awaited_id(&self) -> AwaitedId;

    /// Returns the names of what else it may need the end of, if a worker is to be called when that begins to wait.
    /// Does not change.
    fn related_ids(&self) -> Vec<AwaitedId> {
        Vec::new()
    }

    /// The pool whose workers can bring it on.
    fn pool(&self) -> PoolId;

    /// Says what it needs to end. Called under the registry's lock: it takes no lock but its own, and drops nothing.
    fn report_needs(&self, needs: &mut Needs);

    /// Brings it one step further, on a worker of its pool; never waits for it.
    fn help(self: Arc<Self>);

    /// Wakes the threads that sleep in a wait for it, to look at their notified.
    fn wake_waiters(&self);
}

/// Names everything: for [`Awaited::also`], where the needs are not known beforehand.
pub(crate) const ANYTHING: AwaitedId = AwaitedId::ANYTHING;

/// What an awaited thing needs to end; empty once it has ended.
#[derive(Default)]
pub(crate) struct Needs {
    /// A worker of its pool can bring it on now.
    pub(crate) worker: bool,
    /// A worker of its pool can bring it on from that moment.
    pub(crate) worker_at: Option<Instant>,
    /// It needs what runs under these names; with whether it cannot end without.
    pub(super) ids: Vec<(AwaitedId, bool)>,
}

impl Needs {
    /// It ends no sooner than what runs under this name.
    pub(crate) fn end_of(&mut self, name: impl Into<AwaitedId>) {
        self.ids.push((name.into(), true));
    }

    /// It may have to wait for what runs under this name.
    #[cfg(feature = "events")]
    pub(crate) fn possible_end_of(&mut self, name: impl Into<AwaitedId>) {
        self.ids.push((name.into(), false));
    }
}

/// What kind of wait it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// Ends with its target only; can be refused.
    Certain,
    /// Ends with its target only, and must not be refused.
    Unrefusable,
    /// May end in another way.
    Open,
}

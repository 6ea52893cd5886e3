//! What can be chosen about a group, and how far it is.

use std::fmt;
use std::time::Instant;

use crate::cancel::token::CancellationToken;
use crate::pool::inner::PoolInner;
use crate::sync::Arc;

/// When a group cancels the tasks that are left.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum GroupPolicy {
    /// The first failure or panic cancels the rest.
    #[default]
    FailFast,
    /// Failures cancel nothing; all tasks run.
    CollectAll,
    /// The first success cancels the rest; failures cancel nothing.
    FirstSuccess,
}

/// How far a group has got.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub struct Progress {
    /// Tasks that have met their fate.
    pub done: usize,
    /// Tasks spawned so far.
    pub total: usize,
}

impl fmt::Display for Progress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} of {} done", self.done, self.total)
    }
}

/// The settings of a group, final once it has started.
#[derive(Clone)]
pub(crate) struct GroupSettings {
    /// The most tasks running at once.
    pub(crate) limit: usize,
    /// The most unstarted tasks. A group that runs nothing holds nothing.
    pub(crate) capacity: usize,
    pub(crate) policy: GroupPolicy,
    pub(crate) deadline: Option<Instant>,
    pub(crate) parent: Option<CancellationToken>,
    pub(crate) label: Option<Arc<str>>,
}

impl GroupSettings {
    pub(crate) fn new(pool: &PoolInner) -> Self {
        Self {
            limit: usize::MAX,
            capacity: pool.queue_capacity(),
            policy: GroupPolicy::default(),
            deadline: None,
            parent: None,
            label: None,
        }
    }

    /// The token of the group, if others can cancel it from the beginning: they or the clock.
    pub(super) fn token(&self) -> Option<CancellationToken> {
        let parent = || self.parent.clone().unwrap_or_default();
        match self.deadline {
            Some(deadline) => Some(parent().child_with_deadline(deadline)),
            None => self.parent.as_ref().map(CancellationToken::child_token),
        }
    }
}

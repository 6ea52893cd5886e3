//! The settings and the progress of a group.

use std::fmt;
use std::time::Instant;

use crate::cancel::token::CancellationToken;
use crate::pool::inner::PoolInner;
use crate::priority::Priority;
use crate::sync::Arc;
use crate::time::deadline::Deadline;

/// The policy that says when a group cancels its remaining tasks.
///
/// # Examples
///
/// ```
/// use workcrew::GroupPolicy;
///
/// let pool = workcrew::WorkerPool::builder().workers(1).build()?;
/// let parse = |policy| {
///     let group = pool.group().policy(policy).limit(1);
///     group.spawn_all(["1", "x", "3"].map(|text| move || text.parse::<u32>()));
///     group.wait_partial()
/// };
/// let (values, error) = parse(GroupPolicy::FailFast);
/// assert!(values == [1] && error.is_err()); // the third task never runs
/// let (values, error) = parse(GroupPolicy::CollectAll);
/// assert!(values == [1, 3] && error.is_err());
/// let (values, error) = parse(GroupPolicy::FirstSuccess);
/// assert!(values == [1] && error.is_ok()); // the others never run
/// # Ok::<(), workcrew::BuildError>(())
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum GroupPolicy {
    /// The first failure or panic cancels the rest.
    #[default]
    FailFast,
    /// Failures cancel nothing, and all tasks run.
    CollectAll,
    /// The first success cancels the rest, and failures cancel nothing.
    FirstSuccess,
}

/// The progress of a group.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub struct Progress {
    /// How many tasks are done: run to the end, or cancelled.
    pub done: usize,
    /// How many tasks were spawned so far.
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
    /// How many runners may be at work at once; zero counts as one.
    pub(crate) limit: usize,
    /// How many unstarted tasks the group may hold; zero counts as one.
    pub(crate) capacity: usize,
    /// When the group cancels its remaining tasks.
    pub(crate) policy: GroupPolicy,
    /// When the clock cancels the group; `None` for never.
    pub(crate) deadline: Option<Instant>,
    /// A token whose cancellation cancels the group.
    pub(crate) parent: Option<CancellationToken>,
    /// What observers see of the group's tasks.
    pub(crate) label: Option<Arc<str>>,
    /// The class of the group's tickets.
    pub(crate) priority: Priority,
}

impl GroupSettings {
    /// Returns the defaults for a group of this pool.
    pub(crate) fn new(pool: &PoolInner) -> Self {
        Self {
            limit: usize::MAX,
            capacity: pool.queue_capacity(Priority::Normal),
            policy: GroupPolicy::default(),
            deadline: None,
            parent: None,
            label: None,
            priority: Priority::Normal,
        }
    }

    /// Has the clock cancel the group at `deadline`, unless it does so earlier.
    pub(super) fn end_by(&mut self, deadline: Deadline) {
        self.deadline = deadline.earlier(self.deadline).instant();
    }

    /// Makes the token of the group, if a parent or a deadline can cancel the group from the start.
    pub(super) fn token(&self) -> Option<CancellationToken> {
        let parent = || self.parent.clone().unwrap_or_default();
        match self.deadline {
            Some(deadline) => Some(parent().child_with_deadline(deadline)),
            None => self.parent.as_ref().map(CancellationToken::child_token),
        }
    }
}

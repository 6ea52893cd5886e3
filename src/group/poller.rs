//! The record of a future that waits for a group.

use std::task::Waker;

/// A future that waits for the group; see rule 12 of `state`.
pub(super) struct Poller {
    /// The waker of its last poll.
    pub(super) waker: Waker,
    /// Whether it waits for the end of any task, not only of the last.
    pub(super) wants_any: bool,
    /// Whether that poll was on a worker of the pool, within a task. It may be the only worker that
    /// can run an unstarted task.
    pub(super) helps: bool,
    /// Whether it must be woken.
    pub(super) is_due: bool,
}

impl Poller {
    /// Marks it as due if it waits for what has just happened: a task is done.
    pub(super) fn note_done(&mut self, all_done: bool) {
        self.is_due |= all_done || self.wants_any;
    }
}

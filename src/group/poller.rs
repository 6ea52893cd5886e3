//! The records of futures that wait for a group or for room in it.

use std::task::Waker;

use crate::nesting;
use crate::task::wakers::Wakers;

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
    /// Marks it as due if it waits for what has just happened: a task is done. Returns `true` if it
    /// is due.
    pub(super) fn note_done(&mut self, all_done: bool) -> bool {
        self.is_due |= all_done || self.wants_any;
        self.is_due
    }
}

/// The futures that wait for room; see rule 13 of `state`.
#[derive(Default)]
pub(super) struct RoomPollers {
    /// The wakers of their last polls. Not empty.
    pub(super) wakers: Wakers,
    /// Whether they must be woken.
    pub(super) is_due: bool,
}

/// The wakers that a thread calls once it has released the lock of the group and left its frame.
pub(super) struct DueWakers {
    pub(super) poller: Option<Waker>,
    pub(super) room: Option<Wakers>,
}

impl DueWakers {
    pub(super) fn wake(self) {
        self.poller.into_iter().for_each(nesting::wake);
        self.room.into_iter().for_each(Wakers::wake);
    }
}

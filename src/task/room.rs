//! How threads wait for room in a bounded queue that a lock guards.
//!
//! A submitter first waits for the *low-water mark*: half of the capacity must be free. So
//! submitters and runners work in long turns instead of waking each other for each task. A
//! submitter that has waited for a millisecond takes any room.
//!
//! Room is made, and waited for, under the lock of the queue's owner. So a thread that finds no
//! room sleeps before room can be made, and is notified.

use std::time::Duration;

use super::sleepers::List;
use crate::sync::{Condvar, MutexGuard};
use crate::time::deadline::Deadline;

/// How long a submitter waits for the low-water mark.
const LOW_WATER_WAIT: Duration = Duration::from_millis(1);

/// Where threads sleep until there is room.
pub(crate) struct Room {
    /// Notified when there is any room, or the queue is closed.
    any: Condvar,
    /// Notified when the low-water mark is reached, or the queue is closed.
    low_water: Condvar,
}

/// How many threads wait for room. Guarded by the lock of the queue.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct RoomWaiters {
    /// The waiters for any room.
    any: usize,
    /// The waiters for the low-water mark; each for a short time.
    low_water: usize,
}

/// The wait of one submitter, which may sleep more than once.
#[derive(Clone, Copy, Debug)]
pub(crate) struct RoomWait {
    /// Until when it waits for the low-water mark.
    low_water_until: Deadline,
}

impl Room {
    pub(crate) fn new() -> Self {
        Self { any: Condvar::new(), low_water: Condvar::new() }
    }

    /// Sleeps until there is room, the queue is closed, or the deadline has passed. May wake early,
    /// so the caller checks again. A thread that has waited for long is listed meanwhile by `list`,
    /// which is `None` for a wait in the registry of waits.
    pub(crate) fn sleep<'a, S>(
        &self,
        mut state: MutexGuard<'a, S>,
        wait: RoomWait,
        deadline: Deadline,
        list: Option<List<'_>>,
        waiters: impl Fn(&mut S) -> &mut RoomWaiters,
    ) -> MutexGuard<'a, S> {
        let _listed = list.filter(|_| wait.low_water_until.is_past()).map(|list| list());
        if wait.low_water_until.is_past() {
            waiters(&mut state).any += 1;
            state = self.any.wait_until(state, deadline.instant());
            waiters(&mut state).any -= 1;
        } else {
            waiters(&mut state).low_water += 1;
            state = self.low_water.wait_until(state, wait.low_water_until.earlier(deadline.instant()).instant());
            waiters(&mut state).low_water -= 1;
        }
        state
    }

    /// Notifies one waiter that there is room for one more, and all that wait for the low-water
    /// mark if it is reached.
    pub(crate) fn notify_one(&self, waiters: RoomWaiters, is_low: impl FnOnce() -> bool) {
        if waiters.any > 0 {
            self.any.notify_one();
        }
        self.notify_low_water(waiters, is_low);
    }

    /// Notifies all waiters that there is some room, which not each of them can take, and those
    /// that wait for the low-water mark if it is reached.
    pub(crate) fn notify_each(&self, waiters: RoomWaiters, is_low: impl FnOnce() -> bool) {
        if waiters.any > 0 {
            self.any.notify_all();
        }
        self.notify_low_water(waiters, is_low);
    }

    fn notify_low_water(&self, waiters: RoomWaiters, is_low: impl FnOnce() -> bool) {
        if waiters.low_water > 0 && is_low() {
            self.low_water.notify_all();
        }
    }

    /// Wakes all waiters, so that they check again.
    pub(crate) fn wake_all(&self) {
        self.any.notify_all();
        self.low_water.notify_all();
    }
}

impl RoomWaiters {
    /// Returns `true` if there are any.
    #[inline]
    pub(crate) fn are_any(self) -> bool {
        self.any + self.low_water > 0
    }

    /// Returns how many there are.
    pub(crate) fn count(self) -> usize {
        self.any + self.low_water
    }

    /// Counts the futures that wait for room as one more waiter for any room.
    pub(crate) fn add_futures(&mut self) {
        self.any += 1;
    }

    /// Counts the futures no longer.
    pub(crate) fn remove_futures(&mut self) {
        self.any -= 1;
    }
}

impl RoomWait {
    /// Begins a wait.
    pub(crate) fn begin() -> Self {
        Self { low_water_until: Deadline::after(LOW_WATER_WAIT) }
    }

    /// Begins a wait for any room.
    #[cfg(test)]
    pub(crate) fn for_any_room() -> Self {
        Self { low_water_until: Deadline::after(Duration::ZERO) }
    }
}

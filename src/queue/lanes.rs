//! The two lanes of one class, and the pushers that wait for room in them.

use std::task::Waker;
use std::time::Duration;

#[cfg(not(workcrew_model))]
use super::channel::Lane;
use super::event_count::{EventCount, WaiterId, Wakeup};
#[cfg(workcrew_model)]
use super::locked::Lane;
use super::unbounded::UnboundedLane;
use crate::sync::thread;
use crate::time::deadline::Deadline;

/// How often a blocked pusher yields to poppers before it sleeps.
const YIELDS: u32 = 2;
/// How long a blocked pusher waits for the bounded lane to be half empty before it takes any room.
const LOW_WATER_WAIT: Duration = Duration::from_millis(1);

/// The lanes of one class; see the contract of the queue.
pub(crate) struct Lanes<T> {
    pub(super) bounded: Lane<T>,
    pub(super) unbounded: UnboundedLane<T>,
    /// Pushers that wait until the bounded lane is half empty.
    low_water: EventCount,
    /// Pushers that wait for any room.
    pub(super) room: EventCount,
}

/// The error of a `push`, with the item.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum PushError<T> {
    /// There was no room in time.
    Timeout(T),
    /// The queue was closed while the push waited.
    Closed(T),
}

/// Which lane and which shard of one class a worker looks at first.
#[derive(Debug, Default)]
pub(super) struct LaneCursor {
    /// Which lane comes first. It alternates, so that neither lane starves.
    pub(super) unbounded_first: bool,
    /// The shard of the unbounded lane that comes first.
    pub(super) next_shard: usize,
}

/// What the lanes of a class hold.
pub(crate) struct QueueState {
    /// The items of the bounded lane.
    pub(crate) len: usize,
    /// The capacity of the bounded lane.
    pub(crate) capacity: usize,
    /// The items of the unbounded lane.
    pub(crate) unbounded: usize,
    /// The threads and futures that wait for room.
    pub(crate) pushers: usize,
}

impl<T> Lanes<T> {
    pub(super) fn new(capacity: usize) -> Self {
        Self {
            bounded: Lane::new(capacity),
            unbounded: UnboundedLane::new(),
            low_water: EventCount::new(),
            room: EventCount::new(),
        }
    }

    /// Pushes the item to the bounded lane, and blocks until there is room, the deadline passes, or
    /// one of the two closures returns `true`. The caller then notifies a worker. Keeps the value of
    /// `list` while the wait is longer than the short ones.
    pub(super) fn push_unless<L>(
        &self,
        item: T,
        deadline: Deadline,
        is_closed: impl Fn() -> bool,
        should_stop: impl Fn() -> bool,
        list: impl FnOnce() -> L,
    ) -> Result<(), PushError<T>> {
        let mut item = Some(item);
        // The first two waits are short and let poppers work. The last one has no limit but the
        // deadline.
        for _ in 0..YIELDS {
            if is_closed() || self.is_half_empty() || deadline.is_past() {
                break;
            }
            thread::yield_now();
        }
        let until = deadline.sooner(LOW_WATER_WAIT);
        let mut wakeup = self.wait_for_room(&self.low_water, until, &mut item, &is_closed, &should_stop);
        let goes_on = |wakeup| wakeup == Wakeup::Notified || (wakeup == Wakeup::TimedOut && !deadline.is_past());
        let _listed = goes_on(wakeup).then(list);
        while goes_on(wakeup) {
            wakeup = self.wait_for_room(&self.room, deadline, &mut item, &is_closed, &should_stop);
        }
        match item {
            None => Ok(()),
            Some(refused) if matches!(wakeup, Wakeup::Ready { .. }) && is_closed() => Err(PushError::Closed(refused)),
            Some(refused) => Err(PushError::Timeout(refused)),
        }
    }

    /// Blocks until the item was pushed, the queue is closed, `should_stop` returns `true`, a
    /// popper notifies `event_count`, or the deadline passes. Keeps an item that was not pushed.
    fn wait_for_room(
        &self,
        event_count: &EventCount,
        deadline: Deadline,
        item: &mut Option<T>,
        is_closed: impl Fn() -> bool,
        should_stop: impl Fn() -> bool,
    ) -> Wakeup {
        event_count.wait(deadline, || {
            let closed = is_closed();
            let tried = self.bounded.try_push(item.take().expect("the item is kept until it is pushed"));
            *item = tried.err();
            item.is_none() || closed || should_stop()
        })
    }

    /// Pushes the item to the bounded lane, or returns it and registers the waker. The caller
    /// notifies a worker if the item was pushed.
    pub(super) fn push_or_register(&self, item: T, id: &mut Option<WaiterId>, waker: Waker) -> Result<(), T> {
        let Err(item) = self.bounded.try_push(item) else { return Ok(()) };
        self.room.register(id, waker);
        self.bounded.try_push(item)
    }

    /// Removes the registration of a future. Forwards a notification that it received, unless it
    /// has taken the room.
    pub(super) fn deregister(&self, id: WaiterId, took_room: bool) {
        if self.room.deregister(id) && !took_room {
            self.room.notify(1, |_| ());
        }
    }

    /// Pops the oldest item of the bounded lane, if there is one.
    #[inline]
    pub(super) fn try_pop_bounded(&self) -> Option<T> {
        let item = self.bounded.try_pop();
        if item.is_some() {
            self.room.notify(1, |_| ());
            if self.low_water.has_waiters() && self.is_half_empty() {
                self.low_water.notify(self.bounded.capacity() - self.bounded.len(), |_| ());
            }
        }
        item
    }

    /// Pops the next item, if there is one.
    #[inline]
    pub(super) fn pop(&self, cursor: &mut LaneCursor) -> Option<T> {
        cursor.unbounded_first = !cursor.unbounded_first;
        if cursor.unbounded_first
            && let Some(item) = self.unbounded.pop(&mut cursor.next_shard)
        {
            return Some(item);
        }
        self.try_pop_bounded().or_else(|| self.unbounded.pop(&mut cursor.next_shard))
    }

    /// Wakes all blocked pushers, which then check again.
    pub(super) fn wake_pushers(&self) {
        self.low_water.notify_all(|_| ());
        self.room.notify_all(|_| ());
    }

    /// Returns the state of the lanes; may be stale when it returns.
    pub(super) fn state(&self) -> QueueState {
        QueueState {
            len: self.bounded.len(),
            capacity: self.bounded.capacity(),
            unbounded: self.unbounded.len(),
            pushers: self.room.waiters() + self.low_water.waiters(),
        }
    }

    #[inline]
    fn is_half_empty(&self) -> bool {
        self.bounded.len() <= self.bounded.capacity() / 2
    }

    /// Returns the number of items in both lanes; may be stale when it returns.
    #[inline]
    pub(super) fn len(&self) -> usize {
        self.bounded.len() + self.unbounded.len()
    }

    /// Returns whether both lanes are empty; may be stale when it returns.
    #[inline]
    pub(super) fn is_empty(&self) -> bool {
        self.bounded.len() == 0 && self.unbounded.is_empty()
    }
}

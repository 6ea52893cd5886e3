//! The queue between submitters and workers, in which both may block.
//!
//! It has two lanes. The *bounded* lane takes submitted jobs and refuses them when it is full. The
//! *unbounded* lane takes items that must not be refused and whose submitters may not wait, such as
//! the tickets of groups. It has no limit of its own, so its items must be bounded by other means.
//! It consists of *shards*, so that threads do not contend for one lock. Items that must come out
//! in one common order go into the [`FIFO_SHARD`].
//!
//! The contract:
//!
//! 1. The bounded lane never holds more than its capacity. It is first in, first out, and so is
//!    each shard of the unbounded lane. A worker takes from the two lanes alternately, and from the
//!    shards in turn. So the oldest item of the bounded lane waits for at most one other item.
//!    With `r` shards, the oldest item of a shard waits for at most `2r - 1` others. (This holds
//!    for each worker, and the crate's docs promise it to users.)
//! 2. A refused item is returned. An accepted item is popped exactly once.
//! 3. A blocked `push` ends when there is room, when its deadline passes, or when the queue is
//!    closed. Closing refuses only blocked pushes. `try_push` does not check it, because a
//!    submission is admitted before its push. A blocked `push` first waits until the lane is half
//!    empty. So pushers and poppers work in long runs, and do not wake each other for each item.
//!    After [`LOW_WATER_WAIT`] it takes the first room.
//! 4. A blocked `pop` ends when there is an item, or when it is woken and `should_stop` returns
//!    `true`. While a lane holds an item and a worker sleeps, another worker is on its way to the
//!    item (see [`idle`]).
//!
//! The bounded lane has two implementations: [`channel`], a crossbeam channel, in production, and
//! `locked`, a deque behind a lock, for model checks. Their contract: no operation blocks, and of
//! the following two threads at least one sees the other:
//! - a thread whose operation succeeds and that then makes a `SeqCst` load;
//! - a thread that makes a `SeqCst` write to the same location and whose opposite operation then
//!   fails, because the lane is full or empty.
//!
//! This module alone selects the implementation. The queue knows nothing of jobs.

#[cfg_attr(workcrew_model, allow(dead_code))]
mod channel;
mod idle;
mod event_count;
#[cfg(any(test, workcrew_model))]
#[cfg_attr(not(workcrew_model), allow(dead_code))]
mod locked;
mod unbounded;

#[cfg(not(workcrew_model))]
use self::channel::Lane;
pub(crate) use self::event_count::WaiterId;
use self::event_count::{EventCount, Wakeup};
use self::idle::{Idle, IdleSpin};
#[cfg(workcrew_model)]
use self::locked::Lane;
use self::unbounded::UnboundedLane;
use std::task::Waker;
use std::time::Duration;

use crate::failpoint::{self, Failpoint};
use crate::sync::{AtomicBool, Ordering, thread};
use crate::time::deadline::Deadline;

/// How often a blocked pusher yields to poppers before it sleeps.
const YIELDS: u32 = 2;
/// The shard of the unbounded lane for items of all threads that must come out in the order of
/// their arrival.
pub(crate) const FIFO_SHARD: usize = 0;
/// How long a blocked pusher waits for the bounded lane to be half empty before it takes any room.
const LOW_WATER_WAIT: Duration = Duration::from_millis(1);

/// The queue; see the contract above.
pub(crate) struct Queue<T> {
    bounded: Lane<T>,
    unbounded: UnboundedLane<T>,
    /// The workers without work.
    idle: Idle,
    /// Pushers that wait until the bounded lane is half empty.
    low_water: EventCount,
    /// Pushers that wait for any room.
    room: EventCount,
    /// Whether blocked pushes are refused.
    closed: AtomicBool,
}

/// The error of a `push`, with the item.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum PushError<T> {
    /// There was no room in time.
    Timeout(T),
    /// The queue was closed while the push waited.
    Closed(T),
}

/// The state of a worker between two pops.
#[derive(Debug, Default)]
pub(crate) struct PopCursor {
    /// Which lane comes first. It alternates, so that neither lane starves.
    unbounded_first: bool,
    /// The shard of the unbounded lane that comes first.
    next_shard: usize,
    /// Whether the worker spins before it sleeps.
    spin: IdleSpin,
}

impl<T> Queue<T> {
    pub(crate) fn new(capacity: usize) -> Self {
        Self {
            bounded: Lane::new(capacity),
            unbounded: UnboundedLane::new(),
            idle: Idle::new(),
            low_water: EventCount::new(),
            room: EventCount::new(),
            closed: AtomicBool::new(false),
        }
    }

    /// Pushes the item to the bounded lane, or returns it if there is no room.
    #[inline]
    pub(crate) fn try_push(&self, item: T) -> Result<(), T> {
        self.bounded.try_push(item)?;
        failpoint::hit(Failpoint::Queued);
        self.notify_worker();
        Ok(())
    }

    /// Pushes the item to the bounded lane, and blocks until there is room.
    pub(crate) fn push(&self, item: T, deadline: Deadline) -> Result<(), PushError<T>> {
        self.push_unless(item, deadline, || false)
    }

    /// Like [`push`](Self::push), but ends early with a timeout when `should_stop` returns `true`.
    /// A thread that changes its result must call [`wake_pushers`](Self::wake_pushers) afterwards.
    pub(crate) fn push_unless(
        &self,
        item: T,
        deadline: Deadline,
        should_stop: impl Fn() -> bool,
    ) -> Result<(), PushError<T>> {
        let mut item = Some(item);
        // The first two waits are short and let poppers work. The last one has no limit but the
        // deadline.
        for _ in 0..YIELDS {
            if self.is_closed() || self.is_half_empty() || deadline.is_past() {
                break;
            }
            thread::yield_now();
        }
        let should_stop = &should_stop;
        let mut wakeup = self.wait_for_room(&self.low_water, deadline.sooner(LOW_WATER_WAIT), &mut item, should_stop);
        while wakeup == Wakeup::Notified || (wakeup == Wakeup::TimedOut && !deadline.is_past()) {
            wakeup = self.wait_for_room(&self.room, deadline, &mut item, should_stop);
        }
        match item {
            None => {
                self.notify_worker();
                Ok(())
            }
            Some(refused) if matches!(wakeup, Wakeup::Ready { .. }) && self.is_closed() => {
                Err(PushError::Closed(refused))
            }
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
        should_stop: impl Fn() -> bool,
    ) -> Wakeup {
        event_count.wait(deadline, || {
            let closed = self.is_closed();
            let tried = self.bounded.try_push(item.take().expect("the item is kept until it is pushed"));
            *item = tried.err();
            item.is_none() || closed || should_stop()
        })
    }

    /// Pushes the item to the bounded lane, or returns it and registers the waker to be called when
    /// there may be room.
    ///
    /// The caller then tries again with the same id, or calls [`deregister`](Self::deregister).
    /// Unlike `push`, this method takes the first room and ignores closing: a future is notified of
    /// closing by other means.
    pub(crate) fn push_or_register(&self, item: T, id: &mut Option<WaiterId>, waker: Waker) -> Result<(), T> {
        let Err(item) = self.bounded.try_push(item) else {
            self.notify_worker();
            return Ok(());
        };
        self.room.register(id, waker);
        self.try_push(item)
    }

    /// Removes the registration of a future. `took_room` tells whether the future has pushed its
    /// item. If it has not, a notification that it received is forwarded.
    pub(crate) fn deregister(&self, id: WaiterId, took_room: bool) {
        if self.room.deregister(id) && !took_room {
            self.room.notify(1, |_| ());
        }
    }

    /// Pushes the item to a shard of the unbounded lane; any number is valid. Items there for which
    /// `is_stale` returns `true` may be dropped.
    pub(crate) fn push_unbounded(&self, item: T, shard: usize, is_stale: impl Fn(&T) -> bool) {
        let stale = self.unbounded.push(item, shard, is_stale);
        self.notify_worker();
        drop(stale);
    }

    /// Removes the last item that was pushed to a shard of the unbounded lane, if `matches` returns
    /// `true` for it. A worker that was notified of the item finds nothing.
    #[inline]
    pub(crate) fn unpush(&self, shard: usize, matches: impl FnOnce(&T) -> bool) -> Option<T> {
        self.unbounded.unpush(shard, matches)
    }

    /// Pops the oldest item of the bounded lane, if there is one.
    #[inline]
    pub(crate) fn try_pop_bounded(&self) -> Option<T> {
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
    pub(crate) fn try_pop(&self, cursor: &mut PopCursor) -> Option<T> {
        cursor.unbounded_first = !cursor.unbounded_first;
        if cursor.unbounded_first
            && let Some(item) = self.unbounded.pop(&mut cursor.next_shard)
        {
            return Some(item);
        }
        self.try_pop_bounded().or_else(|| self.unbounded.pop(&mut cursor.next_shard))
    }

    /// Pops the next item, and blocks until there is one.
    ///
    /// Returns `None` if `should_stop` returns `true`, or spuriously. A thread that changes the
    /// result of `should_stop` must call [`wake_workers`](Self::wake_workers) afterwards, or
    /// [`call_workers`](Self::call_workers). It is also called with a lock held, and takes none.
    pub(crate) fn pop(&self, cursor: &mut PopCursor, should_stop: impl Fn() -> bool) -> Option<T> {
        let mut spin = cursor.spin;
        let item = self.idle.wait(&mut spin, || self.try_pop(cursor), should_stop, || !self.is_empty());
        cursor.spin = spin;
        item
    }

    /// Returns whether a worker is idle; may be stale when it returns.
    pub(crate) fn has_idle_worker(&self) -> bool {
        self.idle.has_workers()
    }

    /// Wakes all sleeping workers, which then check `should_stop`.
    pub(crate) fn wake_workers(&self) {
        self.idle.notify_all();
    }

    /// Wakes the sleeping workers whose `should_stop` now returns `true`. Use it when only
    /// particular workers have a reason to stop.
    pub(crate) fn call_workers(&self) {
        self.idle.call();
    }

    /// Closes the queue: blocked pushes are refused, now and later.
    pub(crate) fn close(&self) {
        // ORDERING: SeqCst, before the notification; pairs with `is_closed`.
        self.closed.store(true, Ordering::SeqCst);
        self.low_water.notify_all(|_| ());
        self.room.notify_all(|_| ());
    }

    /// Wakes all blocked pushers, which then check `should_stop`.
    pub(crate) fn wake_pushers(&self) {
        self.low_water.notify_all(|_| ());
        self.room.notify_all(|_| ());
    }

    /// Notifies a worker that there is an item.
    #[inline]
    fn notify_worker(&self) {
        self.idle.notify_one(|| !self.is_empty());
    }

    fn is_closed(&self) -> bool {
        // ORDERING: SeqCst, like the registration of a waiter before it; `close` writes the flag
        // before it notifies.
        self.closed.load(Ordering::SeqCst)
    }

    #[inline]
    fn is_half_empty(&self) -> bool {
        self.bounded.len() <= self.bounded.capacity() / 2
    }

    /// Returns the number of items in the bounded lane, which never exceeds the capacity; may be
    /// stale when it returns.
    pub(crate) fn bounded_len(&self) -> usize {
        self.bounded.len()
    }

    pub(crate) fn capacity(&self) -> usize {
        self.bounded.capacity()
    }

    /// Returns the number of items in the unbounded lane; may be stale when it returns.
    pub(crate) fn unbounded_len(&self) -> usize {
        self.unbounded.len()
    }

    /// Returns the number of items in both lanes; may be stale when it returns.
    pub(crate) fn total_len(&self) -> usize {
        self.bounded.len() + self.unbounded.len()
    }

    /// Returns whether both lanes are empty; may be stale when it returns.
    pub(crate) fn is_empty(&self) -> bool {
        self.bounded.len() == 0 && self.unbounded.is_empty()
    }
}

#[cfg(test)]
mod tests;

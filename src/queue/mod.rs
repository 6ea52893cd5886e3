//! The bounded queue between those who submit and the workers, and where both sleep.
//!
//! It has two lanes. The *bounded* lane takes what is submitted and refuses it when full. The *side* lane takes what
//! must not be refused and may not wait, such as the tickets of groups; it has no bound of its own, so only what is
//! bounded otherwise may go there. It has *rows*, for threads that would else wait for each other; what shall
//! have its turn among all others goes into the [`FIFO_SHARD`].
//!
//! The contract:
//!
//! 1. The bounded lane never holds more than its capacity. It and each shard of the side lane hand out in the order of
//!    arrival. A worker takes from the lanes by turns, and from the rows of the side lane by turns. So with `r` rows the
//!    oldest item of the bounded lane waits for one other item at most, the oldest of a shard for `2r - 1`. (This holds
//!    for each worker, and users are told so in the crate's docs.)
//! 2. An item that is not taken in comes back; an item that is taken in comes out once.
//! 3. A blocked `push` ends when there is room, when its deadline passes, or when the queue is closed. Closing refuses
//!    blocked pushes only: `try_push` asks no one, because admission is decided before (see `ledger`). It is *patient*
//!    first: it lets the lane drain to the half, so that pushers and poppers work in long turns instead of waking each
//!    other for each item; but not longer than [`LOW_WATER_WAIT`], and from then on it takes the first room there is.
//! 4. A blocked `pop` ends when there is an item, or when it is told to look up from its sleep. While an item lies in
//!    either lane and a worker sleeps, another worker is on its way to the item (see [`idle`]).
//!
//! Two engines can be the bounded lane: `channel`, a crossbeam channel, in the product, and `ring`, its twin for model
//! checks. Their contract: neither operation blocks; and of a successful operation followed by a `SeqCst` load, and a
//! `SeqCst` write to the same place followed by the opposite operation failing for fullness or emptiness, at least one
//! sees the other. Which engine is used is decided here and nowhere else. The queue knows nothing of jobs.

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

use crate::defect::defect;
use crate::failpoint::{self, Failpoint};
use crate::sync::{AtomicBool, Ordering, thread};
use crate::time::deadline::Deadline;

/// How often a blocked pusher lets poppers run before it sleeps.
const YIELDS: u32 = 2;
/// The shard of the side lane for what is to come out in the order of its arrival, whoever brought it.
pub(crate) const FIFO_SHARD: usize = 0;
/// How long a blocked pusher lets poppers work before it wants the first room there is.
const LOW_WATER_WAIT: Duration = Duration::from_millis(1);

/// The queue; see the contract above.
pub(crate) struct Queue<T> {
    bounded: Lane<T>,
    unbounded: UnboundedLane<T>,
    /// Where workers search and sleep.
    idle: Idle,
    /// Where patient pushers wait for half of the room.
    low_water: EventCount,
    /// Where other pushers wait for any room.
    room: EventCount,
    /// Blocked pushes are refused.
    closed: AtomicBool,
}

/// Why a `push` gave the item back.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum PushError<T> {
    /// There was no room in time.
    Timeout(T),
    /// The queue was closed while the push waited.
    Closed(T),
}

/// What a worker remembers from one item to the next.
#[derive(Debug, Default)]
pub(crate) struct PopCursor {
    /// Which lane it looks into first; that alternates, so that neither starves.
    unbounded_first: bool,
    /// The shard of the side lane that it looks into first.
    next_shard: usize,
    /// Whether it lingers before it sleeps.
    spinning: IdleSpin,
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

    /// Takes the item in, or gives it back if there is no room.
    #[inline]
    pub(crate) fn try_push(&self, item: T) -> Result<(), T> {
        self.bounded.try_push(item)?;
        failpoint::hit(Failpoint::Queued);
        self.notify_worker();
        Ok(())
    }

    /// Takes the item in, waiting for room.
    pub(crate) fn push(&self, item: T, deadline: Deadline) -> Result<(), PushError<T>> {
        self.push_unless(item, deadline, || false)
    }

    /// The same, but gives up early if `should_stop` says so. What makes it say so must call
    /// [`wake_pushers`](Self::wake_pushers) afterwards.
    pub(crate) fn push_unless(
        &self,
        item: T,
        deadline: Deadline,
        should_stop: impl Fn() -> bool,
    ) -> Result<(), PushError<T>> {
        let mut item = Some(item);
        // The first two waits are short and let poppers work; the last is as long as need be.
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

    /// Waits in `event_count` until the item has been taken in, the queue is closed (wakeup early, item kept), somebody says
    /// that there is room, or the deadline has passed.
    fn wait_for_room(
        &self,
        event_count: &EventCount,
        deadline: Deadline,
        item: &mut Option<T>,
        should_stop: impl Fn() -> bool,
    ) -> Wakeup {
        event_count.wait(deadline, || {
            let closed = self.is_closed();
            let tried = self.bounded.try_push(item.take().expect("the item is here until it is taken in"));
            *item = tried.err();
            item.is_none() || closed || should_stop()
        })
    }

    /// Takes the item in, or gives it back and has the waker called when there may be room. To be tried again then, with
    /// the same id, or [`deregister`](Self::deregister) is to be called. Neither patient nor closed: who waits as a future is
    /// told of the closing by others.
    pub(crate) fn push_or_register(&self, item: T, id: &mut Option<WaiterId>, waker: Waker) -> Result<(), T> {
        let Err(item) = self.bounded.try_push(item) else {
            self.notify_worker();
            return Ok(());
        };
        self.room.register(id, waker);
        self.try_push(item)
    }

    /// A future that had a id waits no longer. `took_room` tells whether it has pushed what it waited to push.
    pub(crate) fn deregister(&self, id: WaiterId, took_room: bool) {
        if self.room.deregister(id) && !took_room && !defect!("wake-up not passed on") {
            self.room.notify(1, |_| ());
        }
    }

    /// Takes the item into a shard of the side lane; any number is a shard. `is_stale` tells which items there need not be kept.
    pub(crate) fn push_unbounded(&self, item: T, shard: usize, is_stale: impl Fn(&T) -> bool) {
        let stale = self.unbounded.push(item, shard, is_stale);
        self.notify_worker();
        drop(stale);
    }

    /// Takes back what was brought to a shard of the side lane last, if `is_it` tells that one. A worker that was called for
    /// it looks in vain.
    #[inline]
    pub(crate) fn unpush(&self, shard: usize, is_it: impl FnOnce(&T) -> bool) -> Option<T> {
        self.unbounded.unpush(shard, is_it)
    }

    /// Hands out an item of the bounded lane.
    #[inline]
    pub(crate) fn try_pop_bounded(&self) -> Option<T> {
        let item = self.bounded.try_pop();
        if item.is_some() && !defect!("pop without a word of room") {
            self.room.notify(1, |_| ());
            if self.low_water.has_waiters() && self.is_half_empty() {
                self.low_water.notify(self.bounded.capacity() - self.bounded.len(), |_| ());
            }
        }
        item
    }

    /// Hands out the next item, if there is one.
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

    /// Hands out the next item, waiting for one; `None` if `should_stop` says so, or for no reason. What makes `should_stop`
    /// change its mind must call [`wake_workers`](Self::wake_workers) afterwards.
    pub(crate) fn pop(&self, cursor: &mut PopCursor, should_stop: impl Fn() -> bool) -> Option<T> {
        let mut spinning = cursor.spinning;
        let item = self.idle.wait(&mut spinning, || self.try_pop(cursor), should_stop, || !self.is_empty());
        cursor.spinning = spinning;
        item
    }

    /// Whether a worker has nothing to do; may be stale when it returns.
    pub(crate) fn has_idle_worker(&self) -> bool {
        self.idle.has_workers()
    }

    /// Makes every sleeping worker look up.
    pub(crate) fn wake_workers(&self) {
        self.idle.notify_all();
    }

    /// Refuses pushes that are blocked, now and later.
    pub(crate) fn close(&self) {
        // ORDERING: SeqCst, before the wake-up; see `push`.
        self.closed.store(true, Ordering::SeqCst);
        if !defect!("closing without a word to the patient") {
            self.low_water.notify_all(|_| ());
        }
        self.room.notify_all(|_| ());
    }

    /// Makes every push that waits look up.
    pub(crate) fn wake_pushers(&self) {
        self.low_water.notify_all(|_| ());
        self.room.notify_all(|_| ());
    }

    /// There is an item for a worker.
    #[inline]
    fn notify_worker(&self) {
        self.idle.notify_one(|| !self.is_empty());
    }

    fn is_closed(&self) -> bool {
        // ORDERING: SeqCst, like the announcement of a sleeper before it; `close` writes the flag before it wakes.
        self.closed.load(Ordering::SeqCst)
    }

    #[inline]
    fn is_half_empty(&self) -> bool {
        self.bounded.len() <= self.bounded.capacity() / 2
    }

    /// How many items the bounded lane holds; out of date when it arrives, but never above the capacity.
    pub(crate) fn len(&self) -> usize {
        self.bounded.len()
    }

    pub(crate) fn capacity(&self) -> usize {
        self.bounded.capacity()
    }

    /// How many items the side lane holds; out of date when it arrives.
    pub(crate) fn unbounded_len(&self) -> usize {
        self.unbounded.len()
    }

    /// How many items both lanes hold; out of date when it arrives.
    pub(crate) fn total_len(&self) -> usize {
        self.bounded.len() + self.unbounded.len()
    }

    /// Whether neither lane holds anything; out of date when it arrives.
    pub(crate) fn is_empty(&self) -> bool {
        self.bounded.len() == 0 && self.unbounded.is_empty()
    }
}

#[cfg(test)]
mod tests;

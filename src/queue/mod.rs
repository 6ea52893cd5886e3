//! The bounded queue between those who submit and the workers, and where both sleep.
//!
//! It has two lanes. The *bounded* lane takes what is submitted and refuses it when full. The *side* lane takes what
//! must not be refused and may not wait, such as the tickets of groups; it has no bound of its own, so only what is
//! bounded otherwise may go there. It has *rows*, for threads that would else wait for each other; what shall
//! have its turn among all others goes into the [`FIFO_SHARD`].
//!
//! The contract:
//!
//! 1. The bounded lane never holds more than its capacity. It and each row of the side lane hand out in the order of
//!    arrival. A worker takes from the lanes by turns, and from the rows of the side lane by turns. So with `r` rows the
//!    oldest item of the bounded lane waits for one other item at most, the oldest of a row for `2r - 1`. (This holds
//!    for each worker, and users are told so in the crate's docs.)
//! 2. An item that is not taken in comes back; an item that is taken in comes out once.
//! 3. A blocked `push` ends when there is room, when its deadline passes, or when the queue is closed. Closing refuses
//!    blocked pushes only: `try_push` asks no one, because admission is decided before (see `ledger`). It is *patient*
//!    first: it lets the lane drain to the half, so that pushers and poppers work in long turns instead of waking each
//!    other for each item; but not longer than [`PATIENCE`], and from then on it takes the first room there is.
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

use crate::failpoint::{self, Place};
use crate::sync::{AtomicBool, Ordering, thread};
use crate::time::deadline::Deadline;

/// How often a blocked pusher lets poppers run before it sleeps.
const YIELDS: u32 = 2;
/// The row of the side lane for what is to come out in the order of its arrival, whoever brought it.
pub(crate) const FIFO_SHARD: usize = 0;
/// How long a blocked pusher lets poppers work before it wants the first room there is.
const PATIENCE: Duration = Duration::from_millis(1);

/// The queue; see the contract above.
pub(crate) struct Queue<T> {
    bounded: Lane<T>,
    side: UnboundedLane<T>,
    /// Where workers search and sleep.
    idle: Idle,
    /// Where patient pushers wait for half of the room.
    half_room: EventCount,
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
pub(crate) struct Turn {
    /// Which lane it looks into first; that alternates, so that neither starves.
    side_first: bool,
    /// The row of the side lane that it looks into first.
    next_row: usize,
    /// Whether it lingers before it sleeps.
    hope: IdleSpin,
}

impl<T> Queue<T> {
    pub(crate) fn new(capacity: usize) -> Self {
        Self {
            bounded: Lane::new(capacity),
            side: UnboundedLane::new(),
            idle: Idle::new(),
            half_room: EventCount::new(),
            room: EventCount::new(),
            closed: AtomicBool::new(false),
        }
    }

    /// Takes the item in, or gives it back if there is no room.
    #[inline]
    pub(crate) fn try_push(&self, item: T) -> Result<(), T> {
        self.bounded.try_push(item)?;
        failpoint::at(Place::Queued);
        self.call_worker();
        Ok(())
    }

    /// Takes the item in, waiting for room.
    pub(crate) fn push(&self, item: T, deadline: Deadline) -> Result<(), PushError<T>> {
        self.push_unless(item, deadline, || false)
    }

    /// The same, but gives up early if `is_called` says so. What makes it say so must call
    /// [`wake_pushers`](Self::wake_pushers) afterwards.
    pub(crate) fn push_unless(
        &self,
        item: T,
        deadline: Deadline,
        is_called: impl Fn() -> bool,
    ) -> Result<(), PushError<T>> {
        let mut item = Some(item);
        // The first two waits are short and let poppers work; the last is as long as need be.
        for _ in 0..YIELDS {
            if self.is_closed() || self.is_half_empty() || deadline.is_past() {
                break;
            }
            thread::yield_now();
        }
        let is_called = &is_called;
        let mut woken = self.wait_for_room(&self.half_room, deadline.sooner(PATIENCE), &mut item, is_called);
        while woken == Wakeup::Notified || (woken == Wakeup::TimedOut && !deadline.is_past()) {
            woken = self.wait_for_room(&self.room, deadline, &mut item, is_called);
        }
        match item {
            None => {
                self.call_worker();
                Ok(())
            }
            Some(refused) if matches!(woken, Wakeup::Ready { .. }) && self.is_closed() => {
                Err(PushError::Closed(refused))
            }
            Some(refused) => Err(PushError::Timeout(refused)),
        }
    }

    /// Waits in `parking` until the item has been taken in, the queue is closed (woken early, item kept), somebody says
    /// that there is room, or the deadline has passed.
    fn wait_for_room(
        &self,
        parking: &EventCount,
        deadline: Deadline,
        item: &mut Option<T>,
        is_called: impl Fn() -> bool,
    ) -> Wakeup {
        parking.park(deadline, || {
            let closed = self.is_closed();
            let tried = self.bounded.try_push(item.take().expect("the item is here until it is taken in"));
            *item = tried.err();
            item.is_none() || closed || is_called()
        })
    }

    /// Takes the item in, or gives it back and has the waker called when there may be room. To be tried again then, with
    /// the same spot, or [`leave`](Self::leave) is to be called. Neither patient nor closed: who waits as a future is
    /// told of the closing by others.
    pub(crate) fn push_or_enroll(&self, item: T, spot: &mut Option<WaiterId>, waker: Waker) -> Result<(), T> {
        let Err(item) = self.bounded.try_push(item) else {
            self.call_worker();
            return Ok(());
        };
        self.room.enroll(spot, waker);
        self.try_push(item)
    }

    /// A future that had a spot waits no longer. `took_room` tells whether it has pushed what it waited to push.
    pub(crate) fn leave(&self, spot: WaiterId, took_room: bool) {
        if self.room.withdraw(spot) && !took_room {
            self.room.wake(1, |_| ());
        }
    }

    /// Takes the item into a row of the side lane; any number is a row. `is_dead` tells which items there need not be kept.
    pub(crate) fn push_unbounded(&self, item: T, row: usize, is_dead: impl Fn(&T) -> bool) {
        let dead = self.side.push(item, row, is_dead);
        self.call_worker();
        drop(dead);
    }

    /// Takes back what was brought to a row of the side lane last, if `is_it` tells that one. A worker that was called for
    /// it looks in vain.
    #[inline]
    pub(crate) fn unpush(&self, row: usize, is_it: impl FnOnce(&T) -> bool) -> Option<T> {
        self.side.take_back(row, is_it)
    }

    /// Hands out an item of the bounded lane.
    #[inline]
    pub(crate) fn try_pop_bounded(&self) -> Option<T> {
        let item = self.bounded.try_pop();
        if item.is_some() {
            self.room.wake(1, |_| ());
            if self.half_room.has_sleepers() && self.is_half_empty() {
                self.half_room.wake(self.bounded.capacity() - self.bounded.len(), |_| ());
            }
        }
        item
    }

    /// Hands out the next item, if there is one.
    #[inline]
    pub(crate) fn try_pop(&self, turn: &mut Turn) -> Option<T> {
        turn.side_first = !turn.side_first;
        if turn.side_first
            && let Some(item) = self.side.pop(&mut turn.next_row)
        {
            return Some(item);
        }
        self.try_pop_bounded().or_else(|| self.side.pop(&mut turn.next_row))
    }

    /// Hands out the next item, waiting for one; `None` if `look_up` says so, or for no reason. What makes `look_up`
    /// change its mind must call [`wake_all`](Self::wake_all) afterwards.
    pub(crate) fn pop(&self, turn: &mut Turn, look_up: impl Fn() -> bool) -> Option<T> {
        let mut hope = turn.hope;
        let item = self.idle.search(&mut hope, || self.try_pop(turn), look_up, || !self.seems_empty());
        turn.hope = hope;
        item
    }

    /// Whether a worker has nothing to do; may be stale when it returns.
    pub(crate) fn has_idle_worker(&self) -> bool {
        self.idle.is_any()
    }

    /// Makes every sleeping worker look up.
    pub(crate) fn wake_all(&self) {
        self.idle.call_all();
    }

    /// Refuses pushes that are blocked, now and later.
    pub(crate) fn close(&self) {
        // ORDERING: SeqCst, before the wake-up; see `push`.
        self.closed.store(true, Ordering::SeqCst);
        self.half_room.wake_all(|_| ());
        self.room.wake_all(|_| ());
    }

    /// Makes every push that waits look up.
    pub(crate) fn wake_pushers(&self) {
        self.half_room.wake_all(|_| ());
        self.room.wake_all(|_| ());
    }

    /// There is an item for a worker.
    #[inline]
    fn call_worker(&self) {
        self.idle.call_one(|| !self.seems_empty());
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
    pub(crate) fn side_len(&self) -> usize {
        self.side.len()
    }

    /// How many items both lanes hold; out of date when it arrives.
    pub(crate) fn len_of_both(&self) -> usize {
        self.bounded.len() + self.side.len()
    }

    /// Whether neither lane holds anything; out of date when it arrives.
    pub(crate) fn seems_empty(&self) -> bool {
        self.bounded.len() == 0 && self.side.is_empty()
    }
}

#[cfg(test)]
mod tests;

//! The queue between submitters and workers, in which both may block.
//!
//! Each [class](Priority) has two lanes. The *bounded* lane takes submitted jobs and refuses them
//! when it is full. The *unbounded* lane takes items that must not be refused and whose submitters
//! may not wait, such as the tickets of groups. It has no limit of its own, so its items must be
//! bounded by other means. It consists of *shards*, so that threads do not contend for one lock.
//! Items that must come out in one common order go into the [`FIFO_SHARD`].
//!
//! The contract:
//!
//! 1. A bounded lane never holds more than its capacity. It is first in, first out, and so is each
//!    shard of the unbounded lane. A worker takes from the two lanes of a class alternately, and
//!    from the shards in turn. So the oldest item of the bounded lane waits for at most one other
//!    item of its class. With `r` shards, the oldest item of a shard waits for at most `2r - 1`
//!    others. (This holds for each worker, and the crate's docs promise it to users.)
//! 2. A worker chooses between the classes as [`class_picker`] says. At most as many workers as set
//!    run items of `Background` that they popped; see [`permits`].
//! 3. A refused item is returned. An accepted item is popped exactly once.
//! 4. A blocked `push` ends when there is room, when its deadline passes, or when the queue is
//!    closed. Closing refuses only blocked pushes. `try_push` does not check it, because a
//!    submission is admitted before its push. A blocked `push` first waits until the lane is half
//!    empty. So pushers and poppers work in long runs, and do not wake each other for each item.
//!    After a millisecond it takes the first room. It waits for its own class alone.
//! 5. A blocked `pop` ends when there is an item that it may take, or when it is woken and
//!    `should_stop` returns `true`. While a worker sleeps, and a lane holds an item that a worker
//!    may take, another worker is on its way to the item (see [`idle`]).
//! 6. The classes other than `Normal` cost nothing until they are used. [`try_pop`](Queue::try_pop)
//!    looks at `Normal` alone. The owner of the queue has its workers call
//!    [`try_pop_by_class`](Queue::try_pop_by_class) instead, from before the first push to another
//!    class. A worker without work looks at all classes before it sleeps.
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
mod classes;
mod idle;
mod event_count;
mod lanes;
#[cfg(any(test, workcrew_model))]
#[cfg_attr(not(workcrew_model), allow(dead_code))]
mod locked;
mod permits;
mod class_picker;
mod unbounded;

use std::task::Waker;

use self::class_picker::{ClassPicker, Popped};
pub(crate) use self::classes::QueueSettings;
use self::classes::{ClassCursor, Classes};
pub(crate) use self::event_count::WaiterId;
use self::idle::{Idle, IdleSpin};
use self::lanes::{LaneCursor, Lanes};
pub(crate) use self::lanes::{PushError, QueueState};
use crate::failpoint::{self, Failpoint};
use crate::priority::Priority;
use crate::sync::{AtomicBool, Ordering};
use crate::time::deadline::Deadline;

/// The shard of the unbounded lane for items of all threads that must come out in the order of
/// their arrival.
pub(crate) const FIFO_SHARD: usize = 0;

/// The queue; see the contract above.
pub(crate) struct Queue<T> {
    /// The lanes of `Normal`.
    normal: Lanes<T>,
    /// The lanes of the other classes.
    classes: Classes<T>,
    /// The workers without work.
    idle: Idle,
    /// Whether blocked pushes are refused.
    closed: AtomicBool,
}

/// The state of a worker between two pops.
#[derive(Debug, Default)]
pub(crate) struct PopCursor {
    normal: LaneCursor,
    classes: ClassCursor,
    picker: ClassPicker,
    /// Whether the worker spins before it sleeps.
    spin: IdleSpin,
}

/// # Pushing
impl<T> Queue<T> {
    /// Creates a queue with one capacity for all classes.
    #[cfg(test)]
    pub(crate) fn new(capacity: usize) -> Self {
        Self::with_settings(QueueSettings::new(capacity))
    }

    pub(crate) fn with_settings(settings: QueueSettings) -> Self {
        Self {
            normal: Lanes::new(settings.normal),
            classes: Classes::new(settings),
            idle: Idle::new(),
            closed: AtomicBool::new(false),
        }
    }

    /// Returns the lanes of a class. Makes them if necessary.
    #[inline]
    pub(crate) fn lanes(&self, class: Priority) -> &Lanes<T> {
        match class {
            Priority::Normal => &self.normal,
            Priority::High => self.classes.high(),
            Priority::Background => self.classes.background(),
        }
    }

    /// Pushes the item to the bounded lane of a class, or returns it if there is no room.
    #[inline]
    pub(crate) fn try_push(&self, item: T, class: Priority) -> Result<(), T> {
        self.lanes(class).bounded.try_push(item)?;
        failpoint::hit(Failpoint::Queued);
        self.notify_worker(class);
        Ok(())
    }

    /// Pushes the item to the bounded lane of `Normal`, and blocks until there is room.
    #[cfg(test)]
    pub(crate) fn push(&self, item: T, deadline: Deadline) -> Result<(), PushError<T>> {
        self.push_unless(item, Priority::Normal, deadline, || false)
    }

    /// Pushes the item to the bounded lane of a class, and blocks until there is room. Ends early
    /// with a timeout when `should_stop` returns `true`. A thread that changes its result must call
    /// [`wake_pushers`](Self::wake_pushers) afterwards.
    pub(crate) fn push_unless(
        &self,
        item: T,
        class: Priority,
        deadline: Deadline,
        should_stop: impl Fn() -> bool,
    ) -> Result<(), PushError<T>> {
        self.lanes(class).push_unless(item, deadline, || self.is_closed(), should_stop, || ())?;
        self.notify_worker(class);
        Ok(())
    }

    /// Pushes the item to the bounded lane of a class, and blocks until there is room. Keeps the
    /// value of `list` during a wait of more than a millisecond.
    pub(crate) fn push_listed<L>(
        &self,
        item: T,
        class: Priority,
        deadline: Deadline,
        list: impl FnOnce() -> L,
    ) -> Result<(), PushError<T>> {
        self.lanes(class).push_unless(item, deadline, || self.is_closed(), || false, list)?;
        self.notify_worker(class);
        Ok(())
    }

    /// Pushes the item to the bounded lane of a class, or returns it and registers the waker to be
    /// called when there may be room.
    ///
    /// The caller then tries again with the same id, or calls [`deregister`](Self::deregister).
    /// Unlike `push`, this method takes the first room and ignores closing: a future is notified of
    /// closing by other means.
    pub(crate) fn push_or_register(
        &self,
        item: T,
        class: Priority,
        id: &mut Option<WaiterId>,
        waker: Waker,
    ) -> Result<(), T> {
        self.lanes(class).push_or_register(item, id, waker)?;
        self.notify_worker(class);
        Ok(())
    }

    /// Removes the registration of a future. `took_room` tells whether the future has pushed its
    /// item. If it has not, a notification that it received is forwarded.
    pub(crate) fn deregister(&self, id: WaiterId, class: Priority, took_room: bool) {
        self.lanes(class).deregister(id, took_room);
    }

    /// Pushes the item to a shard of the unbounded lane of a class; any number is valid. Items
    /// there for which `is_stale` returns `true` may be dropped.
    pub(crate) fn push_unbounded(&self, item: T, class: Priority, shard: usize, is_stale: impl Fn(&T) -> bool) {
        let stale = self.lanes(class).unbounded.push(item, shard, is_stale);
        self.notify_worker(class);
        drop(stale);
    }

    /// Removes the last item that was pushed to a shard of the unbounded lane of a class, if
    /// `matches` returns `true` for it. A worker that was notified of the item finds nothing.
    #[inline]
    pub(crate) fn unpush(&self, class: Priority, shard: usize, matches: impl FnOnce(&T) -> bool) -> Option<T> {
        self.lanes(class).unbounded.unpush(shard, matches)
    }

    /// Notifies a worker that there is an item of a class.
    #[inline]
    fn notify_worker(&self, class: Priority) {
        // Without a permit no worker could take it; see the rules of `permits`.
        if class != Priority::Background || self.classes.has_permits() {
            self.idle.notify_one(|| self.has_work());
        }
    }
}

/// # Popping
impl<T> Queue<T> {
    /// Pops the oldest item of the bounded lane of a class, if there is one. Needs no permit.
    pub(crate) fn try_pop_bounded(&self, class: Priority) -> Option<T> {
        self.lanes(class).try_pop_bounded()
    }

    /// Pops the next item of `Normal`, if there is one.
    #[inline]
    pub(crate) fn try_pop(&self, cursor: &mut PopCursor) -> Option<T> {
        self.normal.pop(&mut cursor.normal)
    }

    /// Pops the next item that the worker may take, if there is one.
    pub(crate) fn try_pop_by_class(&self, cursor: &mut PopCursor) -> Option<T> {
        if !self.classes.is_used() {
            return self.try_pop(cursor);
        }
        loop {
            let PopCursor { normal, classes, picker, .. } = cursor;
            let taken = picker.take(|class| match class {
                Priority::High => self.classes.pop_high(classes),
                Priority::Normal => self.normal.pop(normal).map_or(Popped::Empty, Popped::Item),
                Priority::Background => self.classes.pop_background(classes),
            });
            match taken {
                Some((Priority::Background, item)) => return Some(item),
                Some((_, item)) => {
                    self.put_permit_back(cursor);
                    return Some(item);
                }
                // An item that was pushed before the permit was returned is left to this worker.
                None if self.classes.put_permit_back(classes) && self.classes.has_background() => {}
                None => return None,
            }
        }
    }

    /// Pops an item of any class, if there is one. Needs no permit, so only the end of a pool calls
    /// it.
    pub(crate) fn try_pop_any(&self, cursor: &mut PopCursor) -> Option<T> {
        self.try_pop(cursor).or_else(|| self.classes.pop_any(&mut cursor.classes))
    }

    /// Returns the permit of a worker that is about to do something else than to pop an item.
    pub(crate) fn put_permit_back(&self, cursor: &mut PopCursor) {
        if self.classes.put_permit_back(&mut cursor.classes) && self.classes.has_background() {
            self.notify_worker(Priority::Background);
        }
    }

    /// Pops the next item that the worker may take, and blocks until there is one.
    ///
    /// Returns `None` if `should_stop` returns `true`, or spuriously. A thread that changes the
    /// result of `should_stop` must call [`wake_workers`](Self::wake_workers) afterwards, or
    /// [`call_workers`](Self::call_workers). It is also called with a lock held, and takes none.
    pub(crate) fn pop(&self, cursor: &mut PopCursor, should_stop: impl Fn() -> bool) -> Option<T> {
        let mut spin = cursor.spin;
        let item = self.idle.wait(&mut spin, || self.try_pop_by_class(cursor), should_stop, || self.has_work());
        cursor.spin = spin;
        item
    }

    /// Returns whether a worker is idle and may take items of a class; may be stale when it
    /// returns.
    pub(crate) fn has_idle_worker(&self, class: Priority) -> bool {
        self.idle.has_workers() && (class != Priority::Background || self.classes.has_permits())
    }

    /// Returns how many workers may run items of a class at the same time; `usize::MAX` means no
    /// limit.
    #[cfg(feature = "nats")]
    pub(crate) fn worker_limit(&self, class: Priority) -> usize {
        if class == Priority::Background { self.classes.background_workers() } else { usize::MAX }
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
}

/// # Closing
impl<T> Queue<T> {
    /// Closes the queue: blocked pushes are refused, now and later.
    pub(crate) fn close(&self) {
        // ORDERING: SeqCst, before the notification; pairs with `is_closed`. A pusher whose lanes
        // are not found here makes them later, and then finds the flag.
        self.closed.store(true, Ordering::SeqCst);
        self.wake_pushers();
    }

    /// Wakes all blocked pushers, which then check `should_stop`.
    pub(crate) fn wake_pushers(&self) {
        self.normal.wake_pushers();
        self.classes.made().for_each(Lanes::wake_pushers);
    }

    fn is_closed(&self) -> bool {
        // ORDERING: SeqCst, like the registration of a waiter before it; `close` writes the flag
        // before it notifies.
        self.closed.load(Ordering::SeqCst)
    }
}

/// # Lengths
///
/// All of them may be stale when they return.
impl<T> Queue<T> {
    /// Returns the number of items in the bounded lane of a class, which never exceeds its
    /// capacity.
    pub(crate) fn bounded_len(&self, class: Priority) -> usize {
        match class {
            Priority::Normal => self.normal.bounded.len(),
            _ => self.classes.lanes_if_made(class).map_or(0, |lanes| lanes.bounded.len()),
        }
    }

    /// Returns what a class holds, and what waits for room in it; `None` if it was never used.
    pub(crate) fn state_of(&self, class: Priority) -> Option<QueueState> {
        let lanes = match class {
            Priority::Normal => Some(&self.normal),
            _ => self.classes.lanes_if_made(class),
        };
        lanes.map(Lanes::state)
    }

    /// Returns the capacity of a class.
    pub(crate) fn capacity(&self, class: Priority) -> usize {
        self.classes.settings().capacity(class)
    }

    /// Returns the number of items in the unbounded lanes.
    pub(crate) fn unbounded_len(&self) -> usize {
        let others = self.classes.made().map(|lanes| lanes.unbounded.len()).sum::<usize>();
        self.normal.unbounded.len() + others
    }

    /// Returns the number of items in all lanes.
    pub(crate) fn total_len(&self) -> usize {
        let normal = self.normal.len();
        if self.classes.is_used() { normal + self.classes.made().map(Lanes::len).sum::<usize>() } else { normal }
    }

    /// Returns whether all lanes are empty.
    #[cfg(test)]
    pub(crate) fn is_empty(&self) -> bool {
        self.normal.is_empty() && self.classes.made().all(Lanes::is_empty)
    }

    /// Returns whether there is an item that a worker may take.
    fn has_work(&self) -> bool {
        !self.normal.is_empty() || self.classes.has_work()
    }
}

#[cfg(test)]
mod tests;

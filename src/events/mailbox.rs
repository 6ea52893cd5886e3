//! The protocol of a subscription: its state and its rules.
//!
//! Its sides are in `post`, `deliver`, `turn`, `batch`, `delay`, `complete`, `close` and the files
//! of the waits.
//!
//! | a delivery is | meaning | next |
//! |---|---|---|
//! | *waiting* | in the mailbox | *running*; cancelled, by the overflow policy or the end of the subscription |
//! | *running* | its handler is on a thread's stack, or is about to be called | handled; failed; *delayed*, by the retry policy; cancelled, if the subscription is closed before the handler is called |
//! | *delayed* | in the timer heap until its next attempt | *waiting*, first in line; failed, by the end of the subscription or of the pool |
//!
//! | a subscription is | meaning | next |
//! |---|---|---|
//! | *open* | accepts events | *exhausted*; *closed* |
//! | *exhausted* | a `once` subscription that has accepted its event | *closed* |
//! | *closed* | accepts no events and starts no deliveries; its handler is dropped | none |
//!
//! - A *ticket* is an entry in the pool's queue that asks a worker to make deliveries of the
//!   subscription.
//! - A *runner* is a thread that makes deliveries: a worker with a ticket, a worker that requeues a
//!   delayed delivery, or a worker that helps.
//! - A *member* is a thread with a delivery of the subscription on its stack.
//!
//! Rules:
//! 1. All changes of the state are made under its lock. Handlers, events, hooks and observers are
//!    called and dropped outside of it.
//! 2. While a delivery can be taken, there is a ticket on its way or a runner at work, by the rules
//!    of `task::tickets`. At most as many runners are at work as the limit allows, and as the
//!    pool has workers.
//! 3. Runners never exceed the limit. An ordered subscription has a limit of one; while one of its
//!    deliveries is delayed, none can be taken, so later deliveries wait. In other subscriptions a
//!    delayed delivery frees its runner.
//! 4. Waiting and delayed deliveries and reserved places together exceed the capacity by at most
//!    the limit. No delivery is put in beyond the capacity, but a running delivery may become
//!    delayed. A place is reserved while `try_publish` looks for room in the other mailboxes, and
//!    no user code runs meanwhile.
//! 5. A delivery is taken under the lock that finds the subscription open. As its last step before
//!    the handler, the runner checks again, and cancels the delivery if the subscription was closed
//!    meanwhile. So when `close` has returned, the handler is not called any more. `close` does not
//!    wait for a handler that is running.
//! 6. A publisher waits for room only outside of the pool's workers. A worker makes deliveries
//!    until there is room, if one more runner is allowed; otherwise the event is refused. So
//!    workers never wait for workers. Every other mailbox has the event before the publisher waits
//!    or helps.
//!    A future that waits for room takes no notification from a thread or from another future. As
//!    many futures are woken as there are free places, and all of them when half of the capacity is
//!    free. So one that is never polled again keeps no room from the others: the deliveries that
//!    are still in the mailbox wake the rest.
//! 7. A delivery has ended when its outcome is recorded in the envelope. After that, its task
//!    counts as done.
//! 8. A subscription that is ordered by a key has a queue for each key. Keys take turns by the
//!    rules 3 and 4 of `keyed::state`, and a delayed delivery holds its key. The publisher finds
//!    the key of an event when the delivery is admitted, and the key has an entry until its last
//!    delivery has ended. So no key is hashed, compared or dropped under the lock.
//! 9. If user code panics on the way to a key, the delivery has a key that is equal to no other.
//!    It passes through the mailbox like others. The runner fails it with that panic instead of
//!    calling the handler, and there is no further attempt.
//! 10. A key has at most `capacity_per_key` waiting and delayed deliveries and reserved places, and
//!     one more if its running delivery becomes delayed. If that bound counts, each notification
//!     goes to all publishers, because room for one key is none for another.
//!
//! Races:
//! - *Publish and close*: the delivery is among those that `close` takes, or it finds the
//!   subscription closed.
//! - *Publish and publish to a `once` subscription*: the first under the lock exhausts it.
//! - *Take and close*, *call and close*: see rule 5.
//! - *Delay and close*: the delayed delivery is among those that `close` takes, or it is not
//!   delayed.
//! - *Requeue and close*: the thread that takes the delivery out of its cell (see `delay`) ends it.
//! - *End of a turn and wait for an event of that key*: the waiter finds the key ready, or the end
//!   of the turn notifies it.
//! - *Room and a publisher that checks for it*: the publisher checks and registers under the lock
//!   under which room is made. So it finds the room or is notified.

use std::collections::BTreeMap;
use std::mem;
use std::time::Duration;

use super::batch_handler::BatchHandler;
use super::counters::DeliveryCounters;
use super::delivery::PendingDelivery;
use super::erased::AnyMailbox;
use super::handler::{BoxError, Handler};
use super::inner::BusInner;
use super::key::KeyOf;
use super::queue::Queue;
use super::watcher::Watches;
use crate::error::CancelReason;
use crate::observe::task_origin::TaskOrigin;
use crate::observe::worker_counters::WorkerCounters;
use crate::pool::group_registry::Registration;
use crate::pool::overflow::Overflow;
use crate::priority::Priority;
use crate::retry::RetryPolicy;
use crate::snapshot::{TimerKind, TimerSnapshot};
use crate::sync::{Arc, AtomicBool, Condvar, Mutex, MutexGuard, Ordering, Weak};
use crate::task::context::{self, GroupId};
use crate::task::room::{Room, RoomWaiters};
use crate::task::tickets::Tickets;
use crate::task::wakers::Wakers;
use crate::time::deadline::Deadline;
use crate::timer::end_timer::EndTimer;
use crate::timer::heap::TimerKey;

/// A mailbox: one subscription with its deliveries.
pub(super) struct Mailbox<E> {
    /// Identifies its deliveries among the frames of a stack.
    pub(super) group: GroupId,
    /// Its entry in the registry of the pool's groups.
    pub(super) registration: Registration,
    /// Never change.
    pub(super) settings: Settings,
    /// The counters of its deliveries.
    pub(super) counters: Arc<DeliveryCounters>,
    /// What all mailboxes of the bus share.
    pub(super) inner: Arc<BusInner>,
    /// Everything that changes; see rule 1.
    pub(super) state: Mutex<State<E>>,
    /// Whether it accepts events: a copy for publishers that do not hold the lock. May stay `true`
    /// for a moment too long.
    pub(super) open: AtomicBool,
    /// Whether it is closed: a copy for runners that are about to call the handler.
    pub(super) closed: AtomicBool,
    /// Where publishers sleep until there is room, or the subscription is closed.
    pub(super) room: Room,
    /// Notified when a closed subscription has no runner any more.
    pub(super) stopped: Condvar,
}

/// The settings of a subscription.
pub(super) struct Settings {
    /// The name in receipts and dead letters, and the label of its tasks.
    pub(super) name: Arc<str>,
    /// The topic; `None` for events with any topic or none.
    pub(super) topic: Option<Arc<str>>,
    /// Whether it accepts only one event.
    pub(super) once: bool,
    /// The order and number of deliveries at a time.
    pub(super) mode: Mode,
    /// The batches, if the handler gets batches; then the mode is ordered.
    pub(super) batch: Option<Batch>,
    /// The maximum number of waiting and delayed deliveries; not zero.
    pub(super) capacity: usize,
    /// The maximum number of them for one key; not zero. Only for events with keys.
    pub(super) capacity_per_key: usize,
    /// The policy for a full mailbox.
    pub(super) overflow: Overflow,
    /// The class of the deliveries.
    pub(super) class: Priority,
    /// The retry policy; `None` for a single attempt.
    pub(super) policy: Option<RetryPolicy<BoxError>>,
}

/// The settings of batches.
#[derive(Clone, Copy, Debug)]
pub(super) struct Batch {
    /// The maximum number of events; not zero.
    pub(super) max: usize,
    /// How long the oldest event of a batch waits for others.
    pub(super) linger: Duration,
}

/// The order and number of deliveries that are made at a time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Mode {
    /// One at a time, in the order of publishing.
    Ordered,
    /// One at a time for each key, in the order of publishing.
    OrderedBy,
    /// At most that many at a time; not zero.
    Concurrent(usize),
    /// On the publisher's thread, before `publish` returns.
    Synchronous,
}

/// What the lock guards.
pub(super) struct State<E> {
    /// The waiting deliveries.
    pub(super) queue: Queue<E>,
    /// The delayed deliveries, ordered by their due times, and their keys in the timer heap.
    pub(super) delayed: BTreeMap<DelayKey, (Arc<Delayed<E>>, TimerKey)>,
    /// The number of the next delayed delivery.
    pub(super) next_delay: u64,
    /// How many deliveries have left the mailbox with its end, and are being cancelled.
    pub(super) ending: usize,
    /// The handler; `None` if the subscription is closed, or its handler gets batches.
    pub(super) handler: Option<Arc<Handler<E>>>,
    /// The handler that gets batches; `None` if the subscription is closed, or its handler gets
    /// single events.
    pub(super) batch_handler: Option<Arc<BatchHandler<E>>>,
    /// The linger of the next batch; see `batch`.
    pub(super) linger: Option<Linger>,
    /// Whether a `once` subscription has accepted its event. It stays open for that event.
    pub(super) exhausted: bool,
    /// Why no more deliveries are started; `None` while the subscription is open.
    pub(super) closed: Option<CancelReason>,
    /// The tickets, and the threads that make deliveries.
    pub(super) tickets: Tickets,
    /// The publishers that wait for room.
    pub(super) room_waiters: RoomWaiters,
    /// The watches of publishers that wait for room here and possibly in other mailboxes. Each is
    /// notified once.
    pub(super) watches: Watches,
    /// The futures that wait for room here and possibly in other mailboxes.
    pub(super) futures: Wakers,
    /// How many places are reserved; see rule 4.
    pub(super) reserved: usize,
}

/// The linger of a batch.
pub(super) struct Linger {
    /// When it is over.
    pub(super) due: Deadline,
    /// The timer, and its key in the heap. It may have fired.
    pub(super) timer: Arc<dyn EndTimer>,
    pub(super) key: TimerKey,
}

/// The handler of a subscription, and the function that returns the keys of its events.
pub(super) struct Handlers<E> {
    /// The handler of single events.
    pub(super) one: Option<Arc<Handler<E>>>,
    /// The handler of batches.
    pub(super) batch: Option<Arc<BatchHandler<E>>>,
    /// The function, if events have keys.
    pub(super) key_of: Option<Arc<KeyOf<E>>>,
}

/// What a mailbox holds.
pub(super) struct Lengths {
    /// The events that wait for the handler, with the places that are reserved.
    pub(super) waiting: usize,
    /// The events that wait for the next attempt of the handler.
    pub(super) delayed: usize,
    /// The threads that run the handler.
    pub(super) running: usize,
}

/// The key of a delayed delivery: its due time, and a number that distinguishes equal times.
pub(super) type DelayKey = (Deadline, u64);

/// A delivery, and the mailbox that it is for.
type DeliveryOf<E> = (PendingDelivery<E>, Arc<Mailbox<E>>);

/// The cell of a delayed delivery.
pub(super) struct Delayed<E> {
    /// Its key in the mailbox.
    pub(super) key: DelayKey,
    /// The class of the subscription.
    pub(super) class: Priority,
    /// What snapshots show of its timer.
    pub(super) shown: TimerSnapshot,
    /// The delivery, and the mailbox to which it returns, until a thread takes them.
    delivery: Mutex<Option<DeliveryOf<E>>>,
    /// Whether a thread has taken them: a copy for readers that take no lock.
    taken: AtomicBool,
}

impl<E> Delayed<E> {
    pub(super) fn new(key: DelayKey, mailbox: Arc<Mailbox<E>>, delivery: PendingDelivery<E>) -> Arc<Self> {
        let class = mailbox.settings.class;
        let label = Some(&mailbox.settings.name);
        let shown = TimerSnapshot::of_task(TimerKind::Retry, delivery.id, label, delivery.location);
        let (delivery, taken) = (Mutex::new(Some((delivery, mailbox))), AtomicBool::new(false));
        Arc::new(Self { key, class, shown, delivery, taken })
    }

    /// Takes the delivery out. The caller decides about it.
    pub(super) fn take(&self) -> Option<(PendingDelivery<E>, Arc<Mailbox<E>>)> {
        let delivery = self.delivery.lock().take();
        self.taken.store(true, Ordering::Relaxed);
        delivery
    }

    /// Returns `true` if a thread has taken the delivery.
    pub(super) fn is_taken(&self) -> bool {
        self.taken.load(Ordering::Relaxed)
    }
}

/// How long a runner goes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Budget {
    /// For a quantum if the pool's queue holds other jobs, otherwise until none can be taken.
    Quantum,
    /// For at most that many deliveries.
    Deliveries(usize),
}

impl<E> Mailbox<E> {
    /// Returns the topic of the subscription.
    pub(super) fn topic(&self) -> Option<&Arc<str>> {
        self.settings.topic.as_ref()
    }
}

impl<E: Send + Sync + 'static> Mailbox<E> {
    pub(super) fn new(settings: Settings, handlers: Handlers<E>, inner: Arc<BusInner>) -> Arc<Self> {
        let group = GroupId::new();
        let removes_oldest = settings.overflow == Overflow::DiscardOldest;
        let (bus, counters) = (Arc::clone(&inner), Arc::default());
        let made = Arc::new_cyclic(|weak: &Weak<Self>| Self {
            group,
            registration: inner.pool.groups.register(weak.clone(), context::shard()),
            settings,
            counters,
            inner,
            state: Mutex::new(State::new(handlers, removes_oldest)),
            open: AtomicBool::new(true),
            closed: AtomicBool::new(false),
            room: Room::new(),
            stopped: Condvar::new(),
        });
        let member: Arc<dyn AnyMailbox> = Arc::clone(&made) as _;
        bus.members.lock().add(group, &made.settings.name, Arc::downgrade(&member), Arc::clone(&made.counters));
        made
    }

    /// Calls `f` as a member. Passes the counters that this thread uses.
    pub(super) fn as_member<T>(&self, f: impl FnOnce(&WorkerCounters) -> T) -> T {
        self.inner.pool.executor.enter(self.group, f)
    }

    /// Calls `f` as a member that calls no handler. `ending` deliveries end only with it.
    pub(super) fn as_closer<T>(&self, ending: usize, f: impl FnOnce(&WorkerCounters) -> T) -> T {
        self.as_member(|counters| {
            context::set_no_task(ending);
            f(counters)
        })
    }

    /// Returns what observers see of a delivery.
    pub(super) fn origin(&self, delivery: &PendingDelivery<E>) -> TaskOrigin<'_> {
        TaskOrigin { id: delivery.id, location: delivery.location, label: Some(&self.settings.name) }
    }

    /// Keeps rule 2 after a change that may have broken it. Returns `true` if it sent a ticket.
    pub(super) fn send_ticket_if_needed(self: &Arc<Self>, mut state: MutexGuard<'_, State<E>>) -> bool {
        let most = self.limit().min(self.inner.pool.workers.target());
        let takeable = self.takeable(&state);
        let needed = state.tickets.count_if_needed(takeable, most);
        drop(state);
        if needed {
            let weak: Weak<Self> = Arc::downgrade(self);
            self.inner.pool.send_ticket(weak, self.settings.class);
        }
        needed
    }

    /// Returns the maximum number of runners.
    pub(super) fn limit(&self) -> usize {
        match self.settings.mode {
            Mode::Ordered => 1,
            Mode::Concurrent(limit) => limit,
            Mode::OrderedBy | Mode::Synchronous => usize::MAX,
        }
    }

    /// Returns how many deliveries could be taken if there were runners.
    pub(super) fn takeable(&self, state: &State<E>) -> usize {
        let is_held = self.settings.mode == Mode::Ordered && !state.delayed.is_empty();
        match self.settings.batch {
            _ if is_held => 0,
            None => state.queue.takeable(),
            Some(_) => self.takeable_batch(state),
        }
    }

    /// Returns `true` if one more runner is allowed and would find a delivery to take.
    pub(super) fn can_run(&self, state: &State<E>) -> bool {
        state.tickets.runners() < self.limit() && self.takeable(state) > 0
    }

    /// Notifies publishers after a delivery has left the mailbox. Returns the futures among them,
    /// which the caller wakes without the lock.
    #[must_use]
    pub(super) fn notify_publishers(&self, state: &mut State<E>) -> Option<Wakers> {
        if self.settings.capacity_per_key < self.settings.capacity {
            return self.notify_all_publishers(state);
        }
        state.watches.notify_first();
        let is_low = state.occupied() <= self.settings.capacity / 2;
        self.room.notify_one(state.room_waiters, || is_low);
        if state.futures.len() == 0 {
            return None;
        }
        let free = self.settings.capacity.saturating_sub(state.occupied());
        Some(state.futures.take_oldest(if is_low { usize::MAX } else { free }))
    }

    /// Notifies all publishers; see rule 10.
    fn notify_all_publishers(&self, state: &mut State<E>) -> Option<Wakers> {
        mem::take(&mut state.watches).notify_all();
        self.room.notify_each(state.room_waiters, || true);
        (state.futures.len() > 0).then(|| state.futures.take())
    }
}

impl<E> State<E> {
    fn new(Handlers { one, batch, key_of }: Handlers<E>, removes_oldest: bool) -> Self {
        Self {
            queue: Queue::new(key_of, removes_oldest),
            delayed: BTreeMap::new(),
            next_delay: 0,
            ending: 0,
            handler: one,
            batch_handler: batch,
            linger: None,
            exhausted: false,
            closed: None,
            tickets: Tickets::default(),
            room_waiters: RoomWaiters::default(),
            watches: Watches::default(),
            futures: Wakers::default(),
            reserved: 0,
        }
    }

    /// Returns how much of the capacity is in use.
    pub(super) fn occupied(&self) -> usize {
        let Lengths { waiting, delayed, .. } = self.lengths();
        waiting + delayed
    }

    /// Returns what the mailbox holds.
    pub(super) fn lengths(&self) -> Lengths {
        let (waiting, delayed) = (self.queue.len() + self.reserved, self.delayed.len());
        Lengths { waiting, delayed, running: self.tickets.runners() }
    }

    /// Returns `true` if the mailbox accepts events.
    pub(super) fn accepts_events(&self) -> bool {
        self.closed.is_none() && !self.exhausted
    }
}

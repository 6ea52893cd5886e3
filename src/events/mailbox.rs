//! The protocol of a subscription: its state. Posting, running, delays, helping and ending have files of their own.
//!
//! | a delivery is | meaning | next |
//! |---|---|---|
//! | *waiting* | in the mailbox | *running*; cancelled, by the overflow policy or the end of the subscription |
//! | *running* | its handler is on a thread's stack, or about to be | handled; failed; *delayed*, by the retry policy; cancelled, by the end of the subscription before the handler is called |
//! | *delayed* | waits for its next attempt, in the timekeeper's agenda | *waiting*, first in line; failed, by the end of the subscription or of the pool |
//!
//! | a subscription is | meaning | next |
//! |---|---|---|
//! | *open* | takes events in | *exhausted*; *closed* |
//! | *exhausted* | one that listens once, and has taken its event in | *closed* |
//! | *closed* | takes nothing in, starts nothing, and its handler is let go | none |
//!
//! A *ticket* is an entry in the pool's queue that asks a worker to make deliveries of this subscription. A *runner* is a
//! thread that does: a worker with a ticket, one that brings back a delayed delivery, or one that helps.
//!
//! Rules:
//! 1. All changes of the state are made under its lock. Handlers, events, hooks and observers are called and dropped
//!    outside of it.
//! 2. While there is a delivery that can be taken, there is a ticket on its way or a runner at work; more of them, as long
//!    as there are fewer than could be at work (the limit or the workers, whichever is less).
//! 3. Runners never exceed the limit. An ordered subscription has a limit of one, and while it has a delayed delivery,
//!    nothing can be taken: what comes later waits for it. Elsewhere a delayed delivery gives its runner back.
//! 4. Waiting and delayed deliveries together never exceed the capacity by more than the limit: nothing is put in beyond
//!    the capacity, but what is running may become delayed.
//! 5. A delivery is taken under the lock that finds the subscription open. What was taken and is not in the handler yet visits
//!    once more, as the last step before the handler, and is cancelled if the subscription was closed meanwhile. So when a
//!    closing has returned, the handler is not called any more; if it is running, that is not waited for.
//! 6. A publisher that finds no room waits for it only outside of the pool's workers. A worker makes deliveries until there
//!    is room, if there is a free runner; else it is refused. So workers never wait for workers. Either waits only when
//!    every other mailbox has the event.
//! 7. A delivery has ended when its outcome has landed in the envelope; it is settled after that.
//!
//! Meetings: *publish and close*: the delivery is in what the closing takes, or finds it closed. *Publish and publish to
//! one that listens once*: the first under the lock spends it. *Take and close*, *call and close*: rule 5. *Delay and close*: the delayed
//! delivery is in what the closing takes, or it is not begun. *Brought back and closed*: whoever takes the delivery out of
//! its cell (see `delay`) ends it. *AwaitedRoom and a publisher that visits for it*: it visits, and registers, under the lock under
//! which room is made, so it finds the room or is called.

use std::collections::{BTreeMap, VecDeque};
use std::panic::Location;
use std::time::Instant;

use super::envelope::Envelope;
use super::erased::AnyMailbox;
use super::handler::{BoxError, Handler};
use super::inner::BusInner;
use super::watcher::Watch;
use crate::error::CancelReason;
use crate::observe::task_info::{TaskId, TaskInfo};
use crate::observe::worker_counters::WorkerCounters;
use crate::pool::group_registry::Registration;
use crate::pool::overflow::Overflow;
use crate::retry::{AttemptErrors, GiveUpReason, RetryError, RetryPolicy, RetryState};
use crate::sync::{Arc, AtomicBool, Condvar, Mutex, MutexGuard, Weak};
use crate::task::context::{self, GroupId};
use crate::time::clock::Timestamp;
use crate::time::deadline::Deadline;
use crate::timer::heap::TimerKey;

/// One subscription.
pub(super) struct Mailbox<E> {
    /// Names it among the frames of a stack.
    pub(super) group: GroupId,
    /// Its own among the groups of the pool.
    pub(super) registration: Registration,
    pub(super) settings: Settings,
    pub(super) inner: Arc<BusInner>,
    pub(super) state: Mutex<State<E>>,
    /// Whether it is open; a copy for publishers without the lock, who may find it open too long.
    pub(super) open: AtomicBool,
    /// Whether it is closed; a copy for runners that are about to call the handler.
    pub(super) closed: AtomicBool,
    /// Notified when there is room, or the subscription is closed.
    pub(super) room: Condvar,
    /// Notified when half of the room is there, or the subscription is closed.
    pub(super) low_water: Condvar,
    /// Notified when a closed subscription has no runner any more.
    pub(super) stopped: Condvar,
}

/// What can be chosen about a subscription.
pub(super) struct Settings {
    pub(super) name: Arc<str>,
    pub(super) topic: Option<Arc<str>>,
    pub(super) once: bool,
    pub(super) mode: Mode,
    /// The most deliveries that wait or are delayed; not zero.
    pub(super) capacity: usize,
    pub(super) overflow: Overflow,
    pub(super) policy: Option<RetryPolicy<BoxError>>,
}

/// How deliveries follow each other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Mode {
    /// One at a time, in the order of publishing.
    Ordered,
    /// So many at a time; not zero.
    Concurrent(usize),
    /// On the publisher's thread, before `publish` returns.
    Synchronous,
}

/// What the lock guards.
pub(super) struct State<E> {
    pub(super) waiting: VecDeque<PendingDelivery<E>>,
    /// Delayed deliveries in the order in which they are due, and their places in the agenda.
    pub(super) delayed: BTreeMap<DelayKey, (Arc<Delayed<E>>, TimerKey)>,
    /// The next number of a delayed delivery.
    pub(super) next_delay: u64,
    /// `None`: closed, or about to be dropped.
    pub(super) handler: Option<Arc<Handler<E>>>,
    /// Takes no event in, though it may be open for what it has taken in.
    pub(super) exhausted: bool,
    /// Why nothing is started any more.
    pub(super) closed: Option<CancelReason>,
    /// Tickets on their way.
    pub(super) tickets: usize,
    /// Threads that make deliveries.
    pub(super) runners: usize,
    /// Publishers that wait for any room.
    pub(super) room_waiters: usize,
    /// Publishers that wait, for a short while, until half of the room is there.
    pub(super) low_water_waiters: usize,
    /// Publishers that wait for room here and in other mailboxes; each is called once.
    pub(super) watches: VecDeque<Watch>,
}

/// When a delayed delivery is due, and its number, which tells apart what is due at the same moment.
pub(super) type DelayKey = (Deadline, u64);

/// One delivery.
pub(super) struct PendingDelivery<E> {
    pub(super) envelope: Arc<Envelope<E>>,
    /// The place of this subscription among the recipients.
    pub(super) index: usize,
    pub(super) id: TaskId,
    pub(super) location: &'static Location<'static>,
    /// When it was published, for the pool's histograms and for the policy's deadline.
    pub(super) queued_at: Option<Timestamp>,
    pub(super) published_at: Option<Instant>,
    /// After the first failure: the attempts and their errors.
    pub(super) retry: Option<Box<RetryProgress>>,
}

/// The attempts of a delivery that has failed.
pub(super) struct RetryProgress {
    pub(super) attempts: RetryState<BoxError>,
    pub(super) errors: AttemptErrors<BoxError>,
}

impl RetryProgress {
    pub(super) fn new(policy: RetryPolicy<BoxError>, begun: Instant) -> Self {
        Self { attempts: RetryState::new(policy, begun), errors: AttemptErrors::new() }
    }

    /// What is told of it in the end; `None`, if it was never tried.
    pub(super) fn give_up(self, reason: GiveUpReason) -> Option<RetryError<BoxError>> {
        self.errors.give_up(reason, self.attempts.made())
    }
}

/// The cell of a delayed delivery.
pub(super) struct Delayed<E> {
    /// Where it lies in the mailbox.
    pub(super) key: DelayKey,
    pub(super) mailbox: Arc<Mailbox<E>>,
    pub(super) delivery: Mutex<Option<PendingDelivery<E>>>,
}

impl<E> Delayed<E> {
    /// Takes the delivery out; the caller decides what becomes of it.
    pub(super) fn take(&self) -> Option<PendingDelivery<E>> {
        self.delivery.lock().take()
    }
}

/// How long a runner goes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Budget {
    /// For a turn, if jobs wait.
    Quantum,
    /// For so many deliveries.
    Deliveries(usize),
}

impl<E> Mailbox<E> {
    pub(super) fn topic(&self) -> Option<&Arc<str>> {
        self.settings.topic.as_ref()
    }
}

impl<E: Send + Sync + 'static> Mailbox<E> {
    pub(super) fn new(settings: Settings, handler: Arc<Handler<E>>, inner: Arc<BusInner>) -> Arc<Self> {
        let group = GroupId::new();
        let mailboxes = Arc::clone(&inner);
        let made = Arc::new_cyclic(|weak: &Weak<Self>| Self {
            group,
            registration: inner.pool.groups.register(weak.clone(), context::shard()),
            settings,
            inner,
            state: Mutex::new(State::new(handler)),
            open: AtomicBool::new(true),
            closed: AtomicBool::new(false),
            room: Condvar::new(),
            low_water: Condvar::new(),
            stopped: Condvar::new(),
        });
        let member: Arc<dyn AnyMailbox> = Arc::clone(&made) as _;
        mailboxes.mailboxes.lock().insert(group, Arc::downgrade(&member));
        made
    }

    /// Calls `f` while this thread is a member; passes on the counters that it counts on.
    pub(super) fn as_member<T>(&self, f: impl FnOnce(&WorkerCounters) -> T) -> T {
        self.inner.pool.executor.enter(self.group, f)
    }

    pub(super) fn info(&self, delivery: &PendingDelivery<E>) -> TaskInfo<'_> {
        TaskInfo { id: delivery.id, location: delivery.location, label: Some(&self.settings.name) }
    }

    /// Keeps rule 2 after a change that may have broken it; returns whether it sent a ticket.
    pub(super) fn send_ticket_if_needed(self: &Arc<Self>, mut state: MutexGuard<'_, State<E>>) -> bool {
        let useful = self.limit().min(self.inner.pool.workers.target());
        let under_way = state.tickets + state.runners;
        let needed = under_way < useful && under_way < state.runners + self.takeable(&state);
        if needed {
            state.tickets += 1;
        }
        drop(state);
        if needed {
            let weak: Weak<Self> = Arc::downgrade(self);
            self.inner.pool.send_ticket(weak);
        }
        needed
    }

    /// The most runners.
    pub(super) fn limit(&self) -> usize {
        match self.settings.mode {
            Mode::Ordered => 1,
            Mode::Concurrent(limit) => limit,
            Mode::Synchronous => usize::MAX,
        }
    }

    /// How many deliveries could be taken, if there were runners.
    pub(super) fn takeable(&self, state: &State<E>) -> usize {
        let is_held = self.settings.mode == Mode::Ordered && !state.delayed.is_empty();
        if is_held { 0 } else { state.waiting.len() }
    }

    /// Whether one more runner may begin, and finds something to do.
    pub(super) fn can_run(&self, state: &State<E>) -> bool {
        state.runners < self.limit() && self.takeable(state) > 0
    }

    /// Wakes publishers, after a delivery has left the mailbox.
    pub(super) fn notify_publishers(&self, state: &mut State<E>) {
        if let Some(watch) = state.watches.pop_front() {
            watch.notify();
        }
        if state.room_waiters > 0 {
            self.room.notify_one();
        }
        if state.low_water_waiters > 0 && state.occupied() <= self.settings.capacity / 2 {
            self.low_water.notify_all();
        }
    }
}

impl<E> State<E> {
    fn new(handler: Arc<Handler<E>>) -> Self {
        Self {
            waiting: VecDeque::new(),
            delayed: BTreeMap::new(),
            next_delay: 0,
            handler: Some(handler),
            exhausted: false,
            closed: None,
            tickets: 0,
            runners: 0,
            room_waiters: 0,
            low_water_waiters: 0,
            watches: VecDeque::new(),
        }
    }

    /// Places taken.
    pub(super) fn occupied(&self) -> usize {
        self.waiting.len() + self.delayed.len()
    }

    pub(super) fn takes_events_in(&self) -> bool {
        self.closed.is_none() && !self.exhausted
    }
}

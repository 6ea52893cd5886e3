//! The protocol of a subscription: its state, how events come in. Running, delays, helping and ending have files of their
//! own.
//!
//! | a delivery is | meaning | next |
//! |---|---|---|
//! | *waiting* | in the mailbox | *running*; cancelled, by the overflow policy or the end of the subscription |
//! | *running* | its handler is on a thread's stack, or about to be | handled; failed; *delayed*, by the retry policy; cancelled, by the end of the subscription before the handler is called |
//! | *delayed* | waits for its next attempt, in the timekeeper's agenda | *waiting*, first in line; failed, by the end of the subscription or of the pool |
//!
//! | a subscription is | meaning | next |
//! |---|---|---|
//! | *open* | takes events in | *spent*; *closed* |
//! | *spent* | one that listens once, and has taken its event in | *closed* |
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
//! 5. A delivery is taken under the lock that finds the subscription open. What was taken and is not in the handler yet looks
//!    once more, as the last step before the handler, and is cancelled if the subscription was closed meanwhile. So when a
//!    closing has returned, the handler is not called any more; if it is running, that is not waited for.
//! 6. A publisher that finds no room waits for it only outside of the pool's workers. A worker makes deliveries until there
//!    is room, if there is a free runner; else it is refused. So workers never wait for workers.
//! 7. A delivery has ended when its outcome has landed in the envelope; it is settled after that.
//!
//! Meetings: *publish and close*: the delivery is in what the closing takes, or finds it closed. *Publish and publish to
//! one that listens once*: the first under the lock spends it. *Take and close*, *call and close*: rule 5. *Delay and close*: the delayed
//! delivery is in what the closing takes, or it is not begun. *Brought back and closed*: whoever takes the delivery out of
//! its cell (see `delay`) ends it.

use std::collections::{BTreeMap, VecDeque};
use std::mem;
use std::panic::Location;
use std::time::{Duration, Instant};

use super::delay::{Delayed, Retrying};
use super::envelope::Envelope;
use super::handler::{BoxError, Handler};
use super::receipt::DeliveryOutcome;
use super::running::Stint;
use super::shared::Shared;
use crate::agenda::Place;
use crate::clock::Moment;
use crate::deadline::Deadline;
use crate::engine::Overflow;
use crate::error::CancelReason;
use crate::local::{self, Name};
use crate::observer::{TaskId, TaskInfo};
use crate::record::Record;
use crate::retry::RetryPolicy;
use crate::seats::Seat;
use crate::sync::{Arc, AtomicBool, Condvar, Mutex, MutexGuard, Ordering, Weak};

/// How long a publisher waits for half of the room before it wants the first there is.
const PATIENCE: Duration = Duration::from_millis(1);

/// One subscription.
pub(super) struct Mailbox<E> {
    /// Names it among the frames of a stack.
    pub(super) group: Name,
    /// Its own among the groups of the pool.
    pub(super) seat: Seat,
    pub(super) settings: Settings,
    pub(super) shared: Arc<Shared>,
    pub(super) state: Mutex<State<E>>,
    /// Whether it is open; a copy for publishers without the lock, who may find it open too long.
    pub(super) open: AtomicBool,
    /// Whether it is closed; a copy for runners that are about to call the handler.
    pub(super) closed: AtomicBool,
    /// Notified when there is room, or the subscription is closed.
    pub(super) room: Condvar,
    /// Notified when half of the room is there, or the subscription is closed.
    pub(super) half_room: Condvar,
    /// Notified when a closed subscription has no runner any more.
    pub(super) quiet: Condvar,
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
    pub(super) waiting: VecDeque<Item<E>>,
    /// Delayed deliveries by number, and their places in the agenda.
    pub(super) delayed: BTreeMap<u64, (Arc<Delayed<E>>, Place)>,
    /// The next number of a delayed delivery.
    pub(super) next_delay: u64,
    /// `None`: closed, or about to be dropped.
    pub(super) handler: Option<Arc<Handler<E>>>,
    /// Takes no event in, though it may be open for what it has taken in.
    spent: bool,
    /// Why nothing is started any more.
    pub(super) closed: Option<CancelReason>,
    /// Tickets on their way.
    pub(super) tickets: usize,
    /// Threads that make deliveries.
    pub(super) runners: usize,
    /// Publishers that wait for any room.
    wait_for_room: usize,
    /// Publishers that wait, for a short while, until half of the room is there.
    wait_for_half: usize,
}

/// One delivery.
pub(super) struct Item<E> {
    pub(super) envelope: Arc<Envelope<E>>,
    /// The place of this subscription among the recipients.
    pub(super) index: usize,
    pub(super) id: TaskId,
    pub(super) location: &'static Location<'static>,
    /// When it was published, for the pool's histograms and for the policy's deadline.
    pub(super) queued_at: Option<Moment>,
    pub(super) published_at: Option<Instant>,
    /// After the first failure: the attempts and their errors.
    pub(super) retrying: Option<Box<Retrying>>,
}

/// What became of an event that was posted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub(super) enum Posted {
    /// It has a delivery, which has ended or will.
    Taken,
    /// The same, and the subscription listens no more.
    Spent,
    /// The subscription had ended, or was spent.
    NotWanted,
}

impl<E> Mailbox<E> {
    pub(super) fn topic(&self) -> Option<&Arc<str>> {
        self.settings.topic.as_ref()
    }
}

impl<E: Send + Sync + 'static> Mailbox<E> {
    pub(super) fn new(settings: Settings, handler: Arc<Handler<E>>, shared: Arc<Shared>) -> Arc<Self> {
        Arc::new_cyclic(|weak: &Weak<Self>| Self {
            group: local::new_name(),
            seat: shared.engine.groups.enter(weak.clone(), local::row()),
            settings,
            shared,
            state: Mutex::new(State::new(handler)),
            open: AtomicBool::new(true),
            closed: AtomicBool::new(false),
            room: Condvar::new(),
            half_room: Condvar::new(),
            quiet: Condvar::new(),
        })
    }

    /// Takes an event in.
    pub(super) fn post(
        self: &Arc<Self>,
        envelope: &Arc<Envelope<E>>,
        index: usize,
        location: &'static Location<'static>,
    ) -> Posted {
        // ORDERING: Acquire pairs with the Release of `spend` and `close`; the lock decides.
        if !self.open.load(Ordering::Acquire) {
            let ended_with_pool = self.state.lock().closed == Some(CancelReason::ShutDown);
            let outcome = ended_with_pool.then_some(DeliveryOutcome::Cancelled(CancelReason::ShutDown));
            let posted = if ended_with_pool { Posted::Taken } else { Posted::NotWanted };
            envelope.land(&self.shared, index, outcome);
            return posted;
        }
        let supervisor = &self.shared.engine.supervisor;
        let Some(id) = supervisor.admit(location, Some(&self.settings.name)) else {
            envelope.land(&self.shared, index, Some(DeliveryOutcome::Cancelled(CancelReason::ShutDown)));
            return Posted::Taken;
        };
        let has_deadline = self.settings.policy.as_ref().is_some_and(RetryPolicy::has_deadline);
        let item = Item {
            envelope: Arc::clone(envelope),
            index,
            id,
            location,
            queued_at: supervisor.now_if_timing(),
            published_at: has_deadline.then(|| self.shared.engine.timekeeper.watch().now()),
            retrying: None,
        };
        match self.settings.mode {
            Mode::Synchronous => self.deliver_here(item),
            Mode::Ordered | Mode::Concurrent(_) => self.put(item),
        }
    }

    /// Puts a delivery into the mailbox, or does with it what the overflow policy says.
    fn put(self: &Arc<Self>, item: Item<E>) -> Posted {
        let mut patient = true;
        let mut state = self.state.lock();
        while state.takes_events_in() {
            if state.occupied() < self.settings.capacity {
                return self.put_locked(state, item);
            }
            match self.settings.overflow {
                Overflow::DiscardNewest => {
                    drop(state);
                    self.cancel_items([item], CancelReason::Discarded);
                    return Posted::Taken;
                }
                Overflow::DiscardOldest => {
                    let Some(oldest) = state.waiting.pop_front() else {
                        // All are delayed: there is none to give up but the new one.
                        drop(state);
                        self.cancel_items([item], CancelReason::Discarded);
                        return Posted::Taken;
                    };
                    let posted = self.put_locked(state, item);
                    self.cancel_items([oldest], CancelReason::Discarded);
                    return posted;
                }
                Overflow::Block | Overflow::CallerRuns => match self.make_room(state, mem::take(&mut patient)) {
                    Some(relocked) => state = relocked,
                    None => return self.refuse(item, Some(DeliveryOutcome::Refused)),
                },
            }
        }
        drop(state);
        self.refuse(item, None)
    }

    fn put_locked(self: &Arc<Self>, mut state: MutexGuard<'_, State<E>>, item: Item<E>) -> Posted {
        state.waiting.push_back(item);
        let posted = self.spend_if_once(&mut state);
        self.send_ticket_if_needed(state);
        posted
    }

    /// Waits until there may be room, or makes room; `None`, if this thread can do neither. See rule 6.
    fn make_room<'a>(
        self: &'a Arc<Self>,
        mut state: MutexGuard<'a, State<E>>,
        patient: bool,
    ) -> Option<MutexGuard<'a, State<E>>> {
        if local::is_worker_of(self.shared.engine.pool()) {
            if local::depth() >= local::INLINE_DEPTH || !self.can_run(&state) {
                return None;
            }
            state.runners += 1;
            drop(state);
            self.run(Stint::Deliveries(1));
            return Some(self.state.lock());
        }
        if patient {
            // Publisher and handler work in long turns, rather than wake each other for each event.
            state.wait_for_half += 1;
            state = self.half_room.wait_until(state, Deadline::after(PATIENCE).instant());
            state.wait_for_half -= 1;
        } else {
            state.wait_for_room += 1;
            state = self.room.wait_until(state, None);
            state.wait_for_room -= 1;
        }
        Some(state)
    }

    /// Takes a delivery back whose event was not taken in.
    pub(super) fn refuse(&self, item: Item<E>, outcome: Option<DeliveryOutcome>) -> Posted {
        let posted = if outcome.is_some() { Posted::Taken } else { Posted::NotWanted };
        self.shared.engine.supervisor.withdrawn(&self.info(&item));
        let Item { envelope, index, .. } = item;
        envelope.land(&self.shared, index, outcome);
        posted
    }

    /// A subscription that listens once takes nothing more in.
    pub(super) fn spend_if_once(&self, state: &mut State<E>) -> Posted {
        if !self.settings.once {
            return Posted::Taken;
        }
        state.spent = true;
        // ORDERING: Release pairs with the Acquire of `post`.
        self.open.store(false, Ordering::Release);
        Posted::Spent
    }

    /// Calls `f` while this thread is a member; passes on the record that it counts on.
    pub(super) fn enter<T>(&self, f: impl FnOnce(&Record) -> T) -> T {
        self.shared.engine.supervisor.enter(self.group, f)
    }

    pub(super) fn info(&self, item: &Item<E>) -> TaskInfo<'_> {
        TaskInfo { id: item.id, location: item.location, label: Some(&self.settings.name) }
    }

    /// Keeps rule 2 after a change that may have broken it; returns whether it sent a ticket.
    pub(super) fn send_ticket_if_needed(self: &Arc<Self>, mut state: MutexGuard<'_, State<E>>) -> bool {
        let useful = self.limit().min(self.shared.engine.roster.target());
        let under_way = state.tickets + state.runners;
        let needed = under_way < useful && under_way < state.runners + self.takeable(&state);
        if needed {
            state.tickets += 1;
        }
        drop(state);
        if needed {
            let weak: Weak<Self> = Arc::downgrade(self);
            self.shared.engine.send_ticket(weak);
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
    pub(super) fn call_for_events(&self, state: &State<E>) {
        if state.wait_for_room > 0 {
            self.room.notify_one();
        }
        if state.wait_for_half > 0 && state.occupied() <= self.settings.capacity / 2 {
            self.half_room.notify_all();
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
            spent: false,
            closed: None,
            tickets: 0,
            runners: 0,
            wait_for_room: 0,
            wait_for_half: 0,
        }
    }

    /// Places taken.
    pub(super) fn occupied(&self) -> usize {
        self.waiting.len() + self.delayed.len()
    }

    pub(super) fn takes_events_in(&self) -> bool {
        self.closed.is_none() && !self.spent
    }
}

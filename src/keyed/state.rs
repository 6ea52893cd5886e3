//! The protocol of a keyed executor: its state, its rules, and how it asks the pool for workers.
//!
//! Its operations are in `submit`, `spawn_async`, `run`, `task`, `delay` and `idle`; `lookup` finds
//! keys.
//!
//! | a key is | meaning | changed by | next |
//! |---|---|---|---|
//! | *absent* | has no entry and takes no memory | a submitter, which adds its first task | *ready* |
//! | *ready* | has unstarted tasks, and none that runs; has one place in the ready queue | a runner at the front of the ready queue, a helper anywhere in it; the end of the pool | *running*; *absent*, if its tasks were cancelled |
//! | *running* | one of its tasks is on the stack of one thread; has no place in the ready queue | that thread, when the task has ended | *ready*, at the back of the ready queue; *absent*, if it has no more tasks; *delayed*, if the task makes another attempt later |
//! | *delayed* | its oldest task waits for its next attempt, and holds the key | the first thread that finds the attempt due, or cancels the task | *ready*, at the back of the ready queue; *running*, while the task is cancelled; *absent*, if the pool cancels all tasks |
//!
//! No state is skipped. A *turn* is one task of one key.
//!
//! - A *ticket* is an entry in the pool's queue that asks a worker to take turns.
//! - A *runner* is a worker with a ticket. It takes turns of any keys, one after the other.
//! - A *helper* is a worker that takes turns while it waits. A worker that joins a task takes turns
//!   of its key, and one that waits for an idle executor takes any. Rule 6 covers waits for room.
//! - A *member* is a thread with a task of the executor on its stack.
//!
//! Rules:
//! 1. All changes of the state are made under its lock. Closures, outcomes and keys are called,
//!    hashed, compared and dropped outside of it.
//! 2. While a key is ready, there is a ticket on its way or a runner at work, by the rules of
//!    `task::tickets`. One task of each ready key can be taken.
//! 3. Tasks of a key start in the order in which they were added, one at a time. A thread takes the
//!    oldest task of a ready key, and the key is running from then on. The key is ready again only
//!    when nothing of that task is left: its closure is consumed and its outcome handed over.
//! 4. Keys take turns: a key that is ready again goes to the back of the ready queue. So while a
//!    key waits in the ready queue, no other key gets two turns, except from helpers.
//! 5. A runner yields its worker after a quantum.
//! 6. At most `capacity` tasks wait to start, and at most `capacity_per_key` of one key. A worker
//!    of the pool never blocks for room, because it might block the task that makes it. It helps:
//!    with the key that is full, or with the ready key whose turn is next. If it can do neither, it
//!    adds the task beyond the bounds. So does another thread whose wait would never end.
//! 7. A task that its handle cancels is finished at once. What is left of it stays in the queue of
//!    its key, and takes room, until its turn comes.
//! 8. A key has an entry only while it is not absent. The table of entries, the ready queue and
//!    the queue of each key release memory when most of it is unused.
//! 9. The executor owns itself while it has an entry, so its tasks run although all handles were
//!    dropped.
//! 10. A waiter in the registry of waits says under the lock that it needs a turn. The thread that
//!     makes the key ready finds that under the lock, and notifies the waiter without it.
//! 11. When the pool cancels what is queued, the executor is *closed*. All entries are taken in one
//!     step, except those of running keys, which only lose their unstarted tasks. A closed executor
//!     accepts no task.
//! 12. No user code runs between the take of a turn and the frame of its key: no waker, and not the
//!     destructor of another key. It might wait for a task of the key, which no thread can run.
//!
//! Races:
//! - *Add and add*: the first under the lock is the first in the queue of the key.
//! - *Add and empty*: the task is added before the last turn of the entry ends, and the key becomes
//!   ready. Or the entry is gone, and the task makes a new one.
//! - *Add and close*: the task is among those that the close takes, or it is refused.
//! - *Help and take*: the first under the lock takes the turn; the other finds the key running.
//! - *Cancel of a handle and take*: the cell decides. A turn whose task was cancelled does nothing.
//! - *Room and a submitter that checks for it*: the submitter checks under the lock under which
//!   room is made. It releases that lock only to sleep.
//! - *Room and a future that checks for it*: the future stores its waker under the lock under which
//!   it found no room. A turn takes all wakers under the lock under which it makes room.
//! - *Registered wait for room and move*: a wait that was registered before a task was added or
//!   taken may need other tasks now. So the submitter does not sleep, and registers again.

#[cfg(feature = "retry")]
use std::collections::BTreeSet;
use std::hash::RandomState;
use std::mem;
use std::panic::Location;

use super::name::{KeyId, KeyName};
use super::pending::PendingTask;
use super::serial_queues::{KeyQueue, KeyState, SerialQueues, TakenEntry};
use crate::observe::task_info::TaskId;
use crate::observe::task_origin::TaskOrigin;
use crate::pool::group_registry::Registration;
use crate::pool::inner::PoolInner;
use crate::priority::Priority;
use crate::sync::{Arc, Condvar, Mutex, Weak};
use crate::task::context::{self, GroupId};
use crate::task::job::TicketHolder;
use crate::task::room::{Room, RoomWaiters};
use crate::task::tickets::Tickets;
use crate::task::wakers::Wakers;
#[cfg(feature = "retry")]
use crate::{time::deadline::Deadline, timer::end_timer::EndTimer, timer::heap::TimerKey};

/// The state that the handles of an executor, its runners and its joined tasks share. Tickets refer
/// to it weakly.
pub(crate) struct KeyedInner<K> {
    /// Its entry in the registry of the pool's groups.
    pub(super) registration: Registration,
    /// The pool whose workers run the tasks.
    pub(super) pool: Arc<PoolInner>,
    /// Never change.
    pub(super) settings: KeyedSettings,
    /// Returns the label of a key, if keys have labels.
    pub(super) label_of: Option<Arc<LabelOf<K>>>,
    /// Hashes keys; random, so that no input can choose the hashes.
    pub(super) hasher: RandomState,
    /// Everything that changes; see rule 1.
    pub(super) state: Mutex<State<K>>,
    /// Where submitters sleep until there is room, or the executor or the pool is closed.
    pub(super) room: Room,
    /// Notified when every task is finished.
    pub(super) idle: Condvar,
}

/// Returns the label of a key.
pub(super) type LabelOf<K> = dyn Fn(&K) -> Arc<str> + Send + Sync;

/// The settings of an executor.
pub(super) struct KeyedSettings {
    /// How many unstarted tasks it may hold; not zero.
    pub(super) capacity: usize,
    /// How many unstarted tasks one key may have; not zero and at most `capacity`.
    pub(super) capacity_per_key: usize,
    /// What observers see of its tasks, unless keys have labels.
    pub(super) label: Option<Arc<str>>,
    /// The class of the executor's tickets.
    pub(super) priority: Priority,
}

/// What the lock guards.
pub(super) struct State<K> {
    /// The keys that are not absent, and the ready queue.
    pub(super) turns: SerialQueues<K, PendingTask, KeyPhase>,
    /// The keys that are running; at most as many as there are threads.
    pub(super) running: Vec<KeyId>,
    /// The delayed keys, by the times at which they are due.
    #[cfg(feature = "retry")]
    pub(super) delayed: BTreeSet<(Deadline, KeyId)>,
    /// How often a task was added to a queue or taken by a turn. A waiter for room compares it.
    pub(super) moves: u64,
    /// How many tasks have no outcome yet.
    pub(super) unfinished: usize,
    /// The tickets, and the workers with a ticket that are at work.
    pub(super) tickets: Tickets,
    /// Whether the pool has cancelled what was queued; see rule 11.
    pub(super) closed: bool,
    /// The threads that wait for room.
    pub(super) room_waiters: RoomWaiters,
    /// How many threads wait for every task to be finished.
    pub(super) idle_waiters: usize,
    /// The futures that wait for room. A turn takes all of them.
    pub(super) room_futures: Wakers,
    /// The futures that wait for every task to be finished.
    pub(super) idle_futures: Wakers,
    /// Whether a waiter in the registry of waits may need a turn of any key; see rule 10.
    pub(super) is_awaited: bool,
    /// Whether a waiter may need a turn of a certain key. Set until there is no entry.
    pub(super) are_keys_awaited: bool,
    /// See rule 9.
    kept: Option<Arc<KeyedInner<K>>>,
}

/// What an executor knows of a key.
#[derive(Default)]
pub(super) struct KeyPhase {
    /// What the key is busy with; `None` if it is ready.
    pub(super) busy: Option<Busy>,
    /// The task that waits for its next attempt, if the key is delayed.
    #[cfg(feature = "retry")]
    pub(super) delayed: Option<Box<KeyDelay>>,
    /// Whether a waiter in the registry of waits may need a turn of this key; see rule 10.
    pub(super) is_awaited: bool,
}

/// The oldest task of a key that waits for its next attempt.
#[cfg(feature = "retry")]
pub(super) struct KeyDelay {
    pub(super) task: PendingTask,
    /// The timer, and its key in the heap. It may have fired.
    pub(super) timer: Arc<dyn EndTimer>,
    pub(super) timer_key: TimerKey,
}

/// What a key is busy with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Busy {
    /// Running the task with this id.
    Running(TaskId),
    /// Delayed until then.
    #[cfg(feature = "retry")]
    Delayed(Deadline),
}

impl KeyState for KeyPhase {
    fn is_busy(&self) -> bool {
        self.busy.is_some()
    }
}

/// The right and the duty to run one task of a key.
#[must_use = "a key whose turn is not ended never runs again"]
pub(super) struct Turn<K> {
    /// The key.
    pub(super) name: Arc<KeyName<K>>,
    /// Its oldest task.
    pub(super) task: PendingTask,
    /// The futures that wait for the room that the turn makes.
    pub(super) futures: Option<Wakers>,
}

/// What is left to be dropped without the lock.
pub(super) struct Leftover<K> {
    /// The entry of a key that has become absent.
    _entry: Option<KeyQueue<K, PendingTask, KeyPhase>>,
    /// See rule 9.
    _kept: Option<Arc<KeyedInner<K>>>,
}

/// The notifications that follow a change; see the rules 2 and 10.
#[derive(Clone, Copy)]
#[must_use = "a counted ticket must be sent"]
pub(super) struct Notifications {
    /// Whether a ticket was counted.
    pub(super) ticket: bool,
    /// The key that a waiter needs and that is ready.
    pub(super) key: Option<GroupId>,
    /// Whether a waiter needs any key, and one is ready.
    pub(super) any: bool,
}

impl<K> KeyedInner<K> {
    /// Returns the label of a key's tasks.
    pub(super) fn label<'a>(&'a self, name: &'a KeyName<K>) -> Option<&'a Arc<str>> {
        name.label.as_ref().or(self.settings.label.as_ref())
    }

    /// Returns what observers see of a task.
    pub(super) fn origin<'a>(
        &'a self,
        name: &'a KeyName<K>,
        id: TaskId,
        location: &'static Location<'static>,
    ) -> TaskOrigin<'a> {
        TaskOrigin { id, location, label: self.label(name) }
    }

    /// Wakes the threads and futures that wait for room, and the threads that wait for an idle
    /// executor, so that they check again.
    pub(super) fn wake_waiters(&self) {
        // A waiter has checked before and sleeps, or checks after.
        let futures = self.state.lock().room_futures.take();
        self.room.wake_all();
        self.idle.notify_all();
        futures.wake();
    }

    /// Notifies the submitters that wait for room, after a task has left the queue of a key.
    pub(super) fn notify_room(&self, state: &State<K>, key: KeyId) {
        let KeyedSettings { capacity, capacity_per_key, .. } = self.settings;
        let key_is_low = || capacity_per_key < capacity && state.tasks_of(key) <= capacity_per_key / 2;
        self.room.notify_each(state.room_waiters, || key_is_low() || state.turns.queued() <= capacity / 2);
    }

    /// Counts tasks that have got their outcome. Returns the futures that wait for an idle
    /// executor, which the caller wakes without the lock.
    #[must_use]
    pub(super) fn count_finished(&self, state: &mut State<K>, tasks: usize) -> Option<Wakers> {
        state.unfinished -= tasks;
        if state.unfinished > 0 {
            return None;
        }
        if state.idle_waiters > 0 {
            self.idle.notify_all();
        }
        if state.idle_futures.len() == 0 { None } else { Some(state.idle_futures.take()) }
    }

    /// Counts a ticket if rule 2 needs one after a change. Returns `true` if it did; the caller
    /// then sends the ticket, without the lock.
    pub(super) fn count_ticket_if_needed(&self, state: &mut State<K>) -> bool {
        state.tickets.count_if_needed(state.turns.ready(), self.pool.workers.target())
    }

    /// Collects the notifications that follow a change of this key, and counts a ticket.
    pub(super) fn notifications(&self, state: &mut State<K>, key: KeyId) -> Notifications {
        let ticket = self.count_ticket_if_needed(state);
        let any = state.turns.ready() > 0 && mem::take(&mut state.is_awaited);
        if !state.are_keys_awaited {
            return Notifications { ticket, key: None, any };
        }
        let queue = state.turns.get_mut(key).filter(|queue| queue.state.is_awaited && queue.is_ready());
        let key = queue.map(|queue| {
            queue.state.is_awaited = false;
            queue.name.group()
        });
        Notifications { ticket, key, any }
    }
}

impl<K: Send + Sync + 'static> KeyedInner<K>
where
    Self: TicketHolder,
{
    /// Makes an executor and registers it with the pool.
    pub(super) fn new(pool: &Arc<PoolInner>, settings: KeyedSettings, label_of: Option<Arc<LabelOf<K>>>) -> Arc<Self> {
        let capacity = settings.capacity.max(1);
        let capacity_per_key = settings.capacity_per_key.clamp(1, capacity);
        Arc::new_cyclic(|weak: &Weak<Self>| Self {
            registration: pool.groups.register(weak.clone(), context::shard()),
            pool: Arc::clone(pool),
            settings: KeyedSettings { capacity, capacity_per_key, ..settings },
            label_of,
            hasher: RandomState::new(),
            state: Mutex::new(State::new()),
            room: Room::new(),
            idle: Condvar::new(),
        })
    }
}

impl<K> Drop for KeyedInner<K> {
    fn drop(&mut self) {
        self.pool.groups.deregister(&self.registration);
    }
}

impl<K> State<K> {
    fn new() -> Self {
        Self {
            turns: SerialQueues::new(),
            running: Vec::new(),
            #[cfg(feature = "retry")]
            delayed: BTreeSet::new(),
            moves: 0,
            unfinished: 0,
            tickets: Tickets::default(),
            closed: false,
            room_waiters: RoomWaiters::default(),
            idle_waiters: 0,
            room_futures: Wakers::default(),
            idle_futures: Wakers::default(),
            is_awaited: false,
            are_keys_awaited: false,
            kept: None,
        }
    }

    /// Adds a task to the queue of a key, which becomes ready if it was absent.
    pub(super) fn add(&mut self, name: &Arc<KeyName<K>>, task: PendingTask, inner: &Arc<KeyedInner<K>>) {
        self.moves += 1;
        self.unfinished += 1;
        self.kept.get_or_insert_with(|| Arc::clone(inner));
        self.turns.push_back(name, task);
    }

    /// Takes the next turn of the ready queue.
    pub(super) fn next_turn(&mut self) -> Option<Turn<K>> {
        let first = self.turns.first()?;
        self.turn_of(first)
    }

    /// Takes a turn of a key, if it is ready.
    pub(super) fn turn_of(&mut self, key: KeyId) -> Option<Turn<K>> {
        let (queue, task) = self.turns.take(key)?;
        queue.state.busy = Some(Busy::Running(task.id));
        let name = Arc::clone(&queue.name);
        self.running.push(key);
        self.moves += 1;
        let futures = if self.room_futures.len() == 0 { None } else { Some(self.room_futures.take()) };
        Some(Turn { name, task, futures })
    }

    /// Ends the turn of a key, by rule 3.
    pub(super) fn end_turn(&mut self, key: KeyId) -> Leftover<K> {
        self.running.retain(|running| *running != key);
        if let Some(queue) = self.turns.get_mut(key) {
            queue.state.busy = None;
        }
        let entry = self.turns.settle(key);
        Leftover { _entry: entry, _kept: self.release_if_empty() }
    }

    /// Closes the executor, by rule 11. Returns the entries with unstarted tasks.
    pub(super) fn close(&mut self) -> (Vec<TakenEntry<K, PendingTask, KeyPhase>>, Leftover<K>) {
        self.closed = true;
        #[cfg(feature = "retry")]
        self.delayed.clear();
        let taken = self.turns.take_items(|state| matches!(state.busy, Some(Busy::Running(_))));
        (taken, Leftover { _entry: None, _kept: self.release_if_empty() })
    }

    /// Has the executor no longer own itself if it has no entry; see rule 9.
    fn release_if_empty(&mut self) -> Option<Arc<KeyedInner<K>>> {
        if self.turns.keys() > 0 {
            return None;
        }
        self.are_keys_awaited = false;
        self.kept.take()
    }

    /// Returns how many unstarted tasks a key has.
    pub(super) fn tasks_of(&self, key: KeyId) -> usize {
        self.turns.get(key).map_or(0, KeyQueue::len)
    }

    /// Returns `true` if a task of the executor is on the stack of this thread.
    pub(super) fn is_member(&self) -> bool {
        self.running_groups().any(context::is_member_of)
    }

    /// Returns the groups of the running keys.
    pub(super) fn running_groups(&self) -> impl Iterator<Item = GroupId> {
        self.running.iter().filter_map(|key| self.turns.get(*key)).map(|queue| queue.name.group())
    }
}

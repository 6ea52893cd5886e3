//! The protocol of a group: its state, its rules, and how it asks the pool for workers.
//!
//! Its sides are in `spawn`, `run`, `wait` and `close`.
//!
//! - A task is *unstarted* (in the group's own queue), *running*, or *done*. A cancelled task goes
//!   from unstarted to done. A task that is retried may also be *delayed*; see `delayed`.
//! - A *ticket* is an entry in the pool's queue that asks a worker to run tasks of the group.
//! - A *runner* is a thread that runs tasks of the group: a worker with a ticket, or a worker that
//!   waits for the group.
//! - A *member* is a thread with a task of the group on its stack.
//! - A *helper* is a worker that sleeps in a wait for the group and would run tasks if there were
//!   any.
//! - A *poller* is a future that waits for the group. There is at most one: it owns the group, or
//!   borrows it exclusively.
//!
//! Rules:
//! 1. All changes of the state are made under the group's lock. Closures and outcomes are called
//!    and dropped outside of it.
//! 2. While the group has unstarted tasks, it has a ticket on its way or a runner at work, by the
//!    rules of `task::tickets`. At most as many runners are at work as the limit allows, and as the
//!    pool has workers.
//! 3. Runners never exceed the limit. A ticket that a worker takes when they have reached it is
//!    void: by rule 2 it is not needed.
//! 4. A runner with a ticket yields its worker after a quantum.
//! 5. A task counts as done when nothing of it is left: its closure is consumed or dropped, its
//!    outcome is recorded, and the cancellation that it caused is finished. So a thread that finds
//!    all tasks done finds no borrow alive. (`scope` is sound because of this rule.) Until then the
//!    task's frame is on the stack, so user code that runs meanwhile (destructors, callbacks) is
//!    known to come from a member.
//! 6. The group is *closed* when it is cancelled, has failed, or has been waited for. In the last
//!    case it is closed under the same hold of the lock that found all tasks done. A closed group
//!    has no unstarted tasks, and a task that is added to it is dropped unrun.
//! 7. A cancelled token closes the group: by its callback, or through the first thread that looks
//!    at the token. A group without a parent and without a deadline makes its token on demand,
//!    under the lock. Until then only the group itself can cancel it. A group that is already
//!    cancelled makes a token that is cancelled.
//! 8. A member cannot wait for its group. A member that adds a task to a full group runs it inline,
//!    without counting as another runner. If its stack is already deep, it adds the task beyond the
//!    capacity instead. So does another worker whose stack is too deep to help.
//! 9. A worker that sleeps in a wait for the group or for room in it is woken when a runner leaves
//!    tasks behind. A helper is also woken when a task is added. It may be the only worker that can
//!    run the task.
//! 10. A submitter that waits for room first waits for the low-water mark; see `task::room`.
//! 11. Tickets that no worker has taken when the group ends are taken back, as far as they are the
//!     last of their shard. Otherwise they would keep the group's memory until a worker takes them.
//!     A ticket that remains is without effect.
//! 12. A poller is woken by the changes that wake a thread in the same wait. It is marked under the
//!     lock, and woken by the same thread once that has released the lock and left the frame of its
//!     task. So the woken code is not taken for a member.
//! 13. Futures that wait for room are woken by each task that leaves the queue, and by what wakes
//!     threads that wait for room. They count as one waiter for room. A runner wakes them as in
//!     rule 12, and before it runs the task: it holds the task meanwhile, outside of any frame. All
//!     of them are woken, so a future that is never polled again does not hold up others.
//!
//! Races:
//! - *Failure and failure*: the first under the lock is the first error, and closes the group.
//! - *Cancel and start*: the queue is taken whole under the lock, so a task was either started or
//!   is dropped.
//! - *Add and close*: the task is in the queue that the close takes, or it finds the group closed.
//! - *Last task and waiter*: `done` changes under the lock that the waiter sleeps with.
//! - *Cancel and the making of the token*: both happen under the lock, and the later one cancels
//!   the token.

#[cfg(feature = "retry")]
use std::collections::BTreeMap;
use std::ops::Range;
use std::panic::Location;

use super::body::Recorded;
use super::outcomes::Outcomes;
use super::poller::{Poller, RoomPollers};
use super::result::TaskResult;
use super::settings::{GroupSettings, Progress};
use super::small_deque::SmallDeque;
#[cfg(feature = "retry")]
use super::task_queue::PendingTask;
use super::task_queue::TaskQueue;
use crate::cancel::token::{CancelGuard, CancellationToken};
use crate::error::{CancelReason, Cycle, GroupError, TaskFailure};
use crate::observe::task_info::TaskId;
use crate::observe::task_origin::TaskOrigin;
use crate::observe::worker_counters::WorkerCounters;
use crate::pool::group_registry::Registration;
use crate::pool::inner::PoolInner;
use crate::sync::{Arc, AtomicBool, AtomicUsize, Condvar, Mutex, OnceLock, Ordering, Padded, Weak};
use crate::task::context::{self, GroupId};
use crate::task::room::{Room, RoomWaiters};
use crate::task::tickets::Tickets;
use crate::task::waits::Refused;
#[cfg(feature = "retry")]
use crate::{time::deadline::Deadline, timer::heap::TimerKey};

/// The state that a group's owner, spawners and runners share. Tickets refer to it weakly.
pub(crate) struct GroupInner<R: TaskResult> {
    /// The group's entry in the registry of its pool.
    pub(super) registration: Registration,
    /// The pool whose workers run the tasks.
    pub(super) pool: Arc<PoolInner>,
    /// Never change.
    pub(super) settings: GroupSettings,
    /// Cancelled with the group, and cancels it. Set once; see rule 7.
    pub(super) token: OnceLock<CancellationToken>,
    /// Registers the callback by which the token closes the group. Set after the token, unless the
    /// token was made cancelled.
    pub(super) token_guard: OnceLock<CancelGuard>,
    /// Whether the group is closed by a cancellation or an outcome. Changed under the lock.
    pub(super) cancelled: AtomicBool,
    /// Everything that changes; see rule 1.
    pub(super) state: Mutex<State<R>>,
    /// How many references may add tasks without the owner; see `adder`.
    pub(super) adders: AtomicUsize,
    /// Whether all tasks were done at some time since a waiter last cleared it. A hint for a
    /// spinning waiter.
    pub(super) all_done_hint: Padded<AtomicBool>,
    /// Notified when all tasks are done, and after each task while `change_waiters` is not zero.
    pub(super) changed: Condvar,
    /// Where submitters sleep until there is room for an unstarted task, or the group is closed.
    pub(super) room: Room,
}

/// What the lock guards.
pub(super) struct State<R: TaskResult> {
    /// The queue of tasks that have not started, oldest first.
    pub(super) unstarted: TaskQueue<R>,
    /// The tasks that wait for their next attempt. `None` if there are none.
    #[cfg(feature = "retry")]
    pub(super) delayed: Option<Box<DelayedTasks<R>>>,
    /// The indices of running tasks; few.
    pub(super) running: SmallDeque<usize>,
    /// How many tasks were added; the index of the next.
    pub(super) total: usize,
    /// How many tasks are done; see rule 5.
    pub(super) done: usize,
    /// The tickets, and the threads that run tasks of the group. Tasks that a member runs inline do
    /// not count.
    pub(super) tickets: Tickets,
    /// How many runners hold no task, because they wake futures before they take the next one.
    pub(super) pausing: usize,
    /// Why no more tasks are started; `None` while the group is open.
    pub(super) closed: Option<CancelReason>,
    /// Whether no thread will wait for the group: its owner has dropped it, or turned it into a
    /// spawner. Outcomes are then not kept, because a spawner would fill the memory.
    pub(super) abandoned: bool,
    /// Whether a waiter waits for the first success. From then on the policy is `FirstSuccess`.
    pub(super) wants_first: bool,
    /// Why `spawn_all` left closures in its source: the group or the pool had been closed.
    pub(super) cut_short: Option<CancelReason>,
    /// The outcomes of the tasks that are done.
    pub(super) outcomes: Outcomes<R::Value, TaskFailure<R::Error>>,
    /// The threads that wait for room. All futures that do so count as one more.
    pub(super) room_waiters: RoomWaiters,
    /// How many threads wait for any task to be done.
    pub(super) change_waiters: usize,
    /// How many helpers sleep.
    pub(super) helpers: usize,
    /// The poller that waits; see rule 12.
    pub(super) poller: Option<Poller>,
    /// The futures that wait for room; see rule 13.
    pub(super) room_pollers: Option<Box<RoomPollers>>,
    /// Whether some of these futures may be due.
    pub(super) has_due: bool,
}

/// Tasks by time and index, with their timers.
#[cfg(feature = "retry")]
pub(super) type DelayedTasks<R> = BTreeMap<(Deadline, usize), (PendingTask<R>, TimerKey)>;

impl<R: TaskResult> GroupInner<R> {
    /// Makes a group and registers it with the pool.
    pub(crate) fn new(pool: Arc<PoolInner>, mut settings: GroupSettings) -> Arc<Self> {
        settings.limit = settings.limit.max(1);
        settings.capacity = settings.capacity.max(1);
        let inner = Arc::new_cyclic(|weak: &Weak<Self>| Self {
            registration: pool.groups.register(weak.clone(), context::shard()),
            pool,
            token: settings.token().map(OnceLock::from).unwrap_or_default(),
            settings,
            token_guard: OnceLock::new(),
            cancelled: AtomicBool::new(false),
            state: Mutex::new(State::new()),
            adders: AtomicUsize::new(0),
            all_done_hint: Padded::new(AtomicBool::new(false)),
            changed: Condvar::new(),
            room: Room::new(),
        });
        if let Some(token) = inner.token.get() {
            inner.link_token(token);
        }
        inner
    }

    /// Returns how many tasks were added and how many are done.
    pub(crate) fn progress(&self) -> Progress {
        let state = self.state.lock();
        Progress { done: state.done, total: state.total }
    }

    /// Returns the identity of the group among the frames of a stack.
    #[inline]
    pub(super) fn id(&self) -> GroupId {
        GroupId::of(self)
    }

    /// Calls `f` as a member of the group, with the counters of this thread.
    pub(super) fn as_member<T>(&self, f: impl FnOnce(&WorkerCounters) -> T) -> T {
        self.pool.executor.enter(self.id(), f)
    }

    /// Calls `f` as a member that runs no task: it cancels `ending` started tasks, or drops what is
    /// left of them. They are done when `f` has returned, or with its last step.
    pub(super) fn as_closer<T>(&self, ending: usize, f: impl FnOnce(&WorkerCounters) -> T) -> T {
        self.as_member(|counters| {
            context::set_no_task(ending);
            f(counters)
        })
    }

    /// Returns what observers see of a task.
    pub(super) fn origin(&self, id: TaskId, location: &'static Location<'static>) -> TaskOrigin<'_> {
        TaskOrigin { id, location, label: self.settings.label.as_ref() }
    }

    /// Counts a ticket if one is needed after a change. Returns `true` if it did; the caller then
    /// sends the ticket, without the lock.
    #[inline]
    pub(super) fn count_ticket_if_needed(&self, state: &mut State<R>) -> bool {
        let most = self.settings.limit.min(self.pool.workers.target());
        state.tickets.count_if_needed(state.unstarted.len(), most)
    }

    /// Sends a counted ticket to the shard of the group's registration, because the group has tasks
    /// to start.
    #[cold]
    pub(super) fn send_first_ticket(self: &Arc<Self>) {
        let weak: Weak<Self> = Arc::downgrade(self);
        self.pool.send_first_ticket(weak, &self.registration, self.settings.priority);
    }

    /// Sends a counted ticket to the end of the queue, because the group has just had a quantum.
    #[cold]
    pub(super) fn send_ticket(self: &Arc<Self>) {
        let weak: Weak<Self> = Arc::downgrade(self);
        self.pool.send_ticket(weak, self.settings.priority);
    }

    /// Returns `true` if one more runner may start, and would find a task.
    #[inline]
    pub(super) fn can_run(&self, state: &State<R>) -> bool {
        !state.unstarted.is_empty() && state.tickets.runners() < self.settings.limit
    }

    /// Notifies the threads that wait for room that a task has left the queue.
    #[inline]
    pub(super) fn notify_room(&self, state: &mut State<R>) {
        if state.waits_for_room() {
            self.notify_waiters(state);
        }
    }

    /// Wakes one thread that waits for any room, and all that wait for the low-water mark if it is
    /// reached. Marks the futures that wait for room.
    pub(super) fn notify_waiters(&self, state: &mut State<R>) {
        state.mark_room_pollers();
        self.room.notify_one(state.room_waiters, || state.unstarted.len() <= self.settings.capacity / 2);
    }

    /// Counts tasks as done, and notifies the threads that wait for that.
    pub(super) fn count_done(&self, state: &mut State<R>, tasks: usize) {
        state.done += tasks;
        let all_done = state.all_done();
        if all_done {
            // ORDERING: Release pairs with the Acquire of a spinning waiter, which then looks under
            // the lock in any case.
            self.all_done_hint.value.store(true, Ordering::Release);
        }
        if all_done || state.change_waiters > 0 {
            self.changed.notify_all();
        }
        if let Some(poller) = &mut state.poller {
            state.has_due |= poller.note_done(all_done);
        }
    }
}

impl<R: TaskResult> Drop for GroupInner<R> {
    fn drop(&mut self) {
        self.pool.groups.deregister(&self.registration);
    }
}

impl<R: TaskResult> State<R> {
    /// Returns the state of an open group without tasks.
    fn new() -> Self {
        Self {
            unstarted: TaskQueue::new(),
            #[cfg(feature = "retry")]
            delayed: None,
            running: SmallDeque::new(),
            total: 0,
            done: 0,
            tickets: Tickets::default(),
            pausing: 0,
            closed: None,
            abandoned: false,
            wants_first: false,
            cut_short: None,
            outcomes: Outcomes::new(),
            room_waiters: RoomWaiters::default(),
            change_waiters: 0,
            helpers: 0,
            poller: None,
            room_pollers: None,
            has_due: false,
        }
    }

    /// Records the same cancellation for a range of tasks, if an owner can still ask for it.
    pub(super) fn record_cancelled(&mut self, tasks: Range<usize>, reason: CancelReason) {
        if !self.abandoned {
            self.outcomes.record_cancelled(tasks, reason);
        }
    }

    /// Returns `true` if threads wait for room.
    #[inline]
    pub(super) fn waits_for_room(&self) -> bool {
        self.room_waiters.are_any()
    }

    /// Takes the first failure or panic by time, or else a cancellation.
    pub(super) fn take_error(&mut self) -> Option<GroupError<R::Error>> {
        self.take_error_with_task().map(GroupError::without_task)
    }

    /// Takes the error that [`take_error`](Self::take_error) takes, with the task that failed.
    pub(super) fn take_error_with_task(&mut self) -> Option<GroupError<TaskFailure<R::Error>>> {
        let failure = self.outcomes.take_failure().map(GroupError::from);
        failure.or_else(|| self.cut_short.map(GroupError::Cancelled))
    }

    /// Takes every outcome in spawn order, except those that were yielded.
    pub(super) fn take_outcomes(&mut self) -> Vec<Recorded<R>> {
        (0..self.total).filter_map(|index| self.outcomes.take(index)).collect()
    }

    /// Returns the tasks that wait for their next attempt.
    pub(super) fn delayed_tasks(&self) -> Vec<usize> {
        #[cfg(feature = "retry")]
        return self.delayed.iter().flat_map(|tasks| tasks.keys()).map(|(_, index)| *index).collect();
        #[cfg(not(feature = "retry"))]
        Vec::new()
    }

    /// Returns how many tasks wait for their next attempt.
    pub(super) fn delayed(&self) -> usize {
        #[cfg(feature = "retry")]
        return self.delayed.as_ref().map_or(0, |tasks| tasks.len());
        #[cfg(not(feature = "retry"))]
        0
    }

    /// Returns `true` if every task that was added is done.
    pub(super) fn all_done(&self) -> bool {
        self.done == self.total
    }

    /// Counts a task that is added, and returns its index.
    pub(super) fn next_index(&mut self) -> usize {
        self.total += 1;
        self.total - 1
    }

    /// Returns a value that changes when a task is added or taken. A waiter for room compares it.
    pub(super) fn moves(&self) -> (usize, usize) {
        (self.total, self.unstarted.len())
    }
}

/// A wait for the group on this thread would never end. The cycle is empty if no cycle is the
/// cause.
#[derive(Debug, thiserror::Error)]
#[error("waiting for the group here would wait forever{}", .0.suffix())]
pub(crate) struct WouldDeadlock(pub(crate) Cycle);

impl<E> From<WouldDeadlock> for GroupError<E> {
    fn from(WouldDeadlock(cycle): WouldDeadlock) -> Self {
        Self::WouldDeadlock(cycle)
    }
}

impl From<Refused> for WouldDeadlock {
    fn from(Refused(cycle): Refused) -> Self {
        Self(cycle)
    }
}

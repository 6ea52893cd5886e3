//! The protocol of a group: its state, how it is closed, how it calls for workers. Adding, running and waiting have
//! files of their own.
//!
//! A task is *unstarted* (in the group's own queue), *running*, or *done*; a cancelled one goes from unstarted to done.
//! A *ticket* is an entry in the pool's queue that asks a worker to run tasks of the group. A *runner* is a thread that
//! does: a worker with a ticket, or a worker that waits for the group. A *member* is a thread with a task of the group
//! on its stack.
//!
//! Rules:
//! 1. All changes of the state are made under the group's lock. Closures and outcomes are called and dropped outside of
//!    it.
//! 2. While the group has unstarted tasks, it has a ticket on its way or a runner at work. Who adds a task sends a
//!    ticket if there are fewer tickets and runners than could be at work (the limit or the workers, whichever is
//!    less); a runner that stops before the queue is empty does the same, and so does a pool that has got more workers.
//! 3. Runners never exceed the limit. A ticket that arrives when they have reached it is void: by rule 2 it is not
//!    needed.
//! 4. A runner gives way after a turn if jobs wait in the pool's queue besides the tickets of its group.
//! 5. A task counts as done when nothing of it is left: its closure consumed or dropped, its outcome landed, the
//!    cancellation it caused finished. So whoever finds all tasks done finds no borrow alive. [The scope stands on
//!    this.] Until then its frame is on the stack, so whatever foreign code does meanwhile (destructors, callbacks) is
//!    known to come from a member.
//! 6. The group is *closed* when it is cancelled, has failed, or has been waited for; in the last case under the same
//!    hold of the lock that found all tasks done. A closed group has no unstarted tasks, and what is added is dropped
//!    unrun.
//! 7. A token that is cancelled closes the group: by its callback, or by whoever looks at the token first. A group that
//!    has neither a parent nor a deadline makes its token when somebody asks for it, under the lock: until then nobody
//!    can cancel it but the group, and a group that was cancelled before makes one that is cancelled.
//! 8. A member cannot wait for its group. A member that adds a task to a full group runs it at once, in its own place
//!    among the runners, as long as its stack is not deep; then it adds it beyond the capacity.
//! 9. A worker that sleeps, because it waits for the group or for room in it, is woken when a runner leaves tasks
//!    behind, and one that waits for the group also when a task is added: it may be the only one who can run them.
//! 10. Who waits for room is *patient* first, as in the pool's queue: it lets the group work off half of its capacity,
//!     so that adders and runners work in long turns instead of waking each other for each task.
//! 11. Tickets that nobody has come to when the group ends are taken back, as far as they are the last of their row: else
//!     they would keep the memory of the group until a worker comes to them. One that is left finds nothing to do.
//!
//! Meetings: *failure and failure*: the first under the lock is first and closes. *Cancel and start*: the queue is
//! taken whole under the lock, so a task was started or is dropped. *Add and close*: the task is in the queue that the
//! closing takes, or it finds the group closed. *Last task and waiter*: `done` changes under the lock the waiter sleeps
//! with. *Cancel and the making of the token*: both under the lock; the later one cancels the token.

use std::ops::Range;
use std::panic::Location;
use std::time::Instant;

use super::outcomes::Outcomes;
use super::result::TaskResult;
use super::settings::{GroupSettings, Progress};
use super::small_deque::SmallDeque;
use crate::cancel::token::{CancelGuard, CancellationToken};
use crate::error::{CancelReason, GroupError, TaskError};
use crate::nesting;
use crate::observe::observer::{TaskId, TaskInfo};
use crate::observe::worker_counters::WorkerCounters;
use crate::pool::group_registry::Registration;
use crate::pool::inner::PoolInner;
use crate::sync::{Arc, AtomicBool, Condvar, Mutex, OnceLock, Ordering, Padded, Weak};
use crate::task::closure::Closure;
use crate::task::context::{self, GroupId};
use crate::time::clock::Moment;
use crate::unwind;

/// The closure of a task.
pub(crate) type Body<R> = Closure<'static, R>;

/// How one task ended.
pub(crate) type Ended<R> = Result<<R as TaskResult>::Value, TaskError<<R as TaskResult>::Error>>;

/// The inside of a group, shared by its owner, its spawners and its runners; tickets know it weakly.
pub(crate) struct GroupInner<R: TaskResult> {
    /// Its own among the groups of the pool.
    pub(super) registration: Registration,
    pub(super) engine: Arc<PoolInner>,
    pub(super) settings: GroupSettings,
    /// Cancelled with the group; its cancellation cancels the group. Set once; see rule 7.
    token: OnceLock<CancellationToken>,
    /// Keeps the token's word to the group; set after the token, unless that was born cancelled.
    told_by_token: OnceLock<CancelGuard>,
    /// Whether the group was cancelled. Changed under the lock.
    cancelled: AtomicBool,
    pub(super) state: Mutex<State<R>>,
    /// All tasks were done at some time since a waiter last cleared it; a hint for those who wait awake.
    pub(super) ended: Padded<AtomicBool>,
    /// Notified when all tasks are done, and on the way when somebody asked for it.
    pub(super) changed: Condvar,
    /// Notified when there is room for half of the capacity, or the group is closed.
    pub(super) half_room: Condvar,
    /// Notified when there is room for unstarted tasks, or the group is closed.
    pub(super) room: Condvar,
}

/// What the lock guards.
pub(super) struct State<R: TaskResult> {
    pub(super) unstarted: SmallDeque<PendingTask<R>>,
    /// The indices of running tasks; few.
    pub(super) running: SmallDeque<usize>,
    /// Tasks added so far; the index of the next.
    pub(super) total: usize,
    pub(super) done: usize,
    /// Tickets on their way.
    pub(super) tickets: usize,
    /// Threads that run tasks of the group, not counting those that a member runs in its own place.
    pub(super) runners: usize,
    /// Why nothing is started any more.
    pub(super) closed: Option<CancelReason>,
    /// Nobody will ask for outcomes any more: the owner is gone. Those of tasks that do not start are not kept then, or a
    /// spawner that outlives the group would fill the memory.
    pub(super) abandoned: bool,
    /// Whether the first success is all that is waited for, whatever the policy.
    pub(super) wants_first: bool,
    /// Whether a task was added that could never start.
    pub(super) impossible: bool,
    /// Why closures were left in a source: the group or the pool had been closed.
    pub(super) cut_short: Option<CancelReason>,
    pub(super) outcomes: Outcomes<R::Value, R::Error>,
    /// Threads that wait for half of the room.
    pub(super) wait_for_half_room: usize,
    /// Threads that wait for any room.
    pub(super) wait_for_room: usize,
    /// Threads that wait for any task to end.
    pub(super) wait_for_change: usize,
    /// Workers that wait and would run tasks, if there were any.
    pub(super) helpers: usize,
}

/// A task that waits in the group.
pub(super) struct PendingTask<R: 'static> {
    pub(super) index: usize,
    pub(super) body: Body<R>,
    pub(super) id: TaskId,
    pub(super) location: &'static Location<'static>,
    pub(super) queued_at: Option<Moment>,
}

impl<R: TaskResult> GroupInner<R> {
    pub(crate) fn new(engine: Arc<PoolInner>, mut settings: GroupSettings) -> Arc<Self> {
        if settings.limit == 0 {
            settings.capacity = 0;
        }
        let core = Arc::new_cyclic(|weak: &Weak<Self>| Self {
            registration: engine.groups.register(weak.clone(), context::shard()),
            engine,
            token: settings.token().map(OnceLock::from).unwrap_or_default(),
            settings,
            told_by_token: OnceLock::new(),
            cancelled: AtomicBool::new(false),
            state: Mutex::new(State::new()),
            ended: Padded::new(AtomicBool::new(false)),
            changed: Condvar::new(),
            half_room: Condvar::new(),
            room: Condvar::new(),
        });
        if let Some(token) = core.token.get() {
            core.be_told_by(token);
        }
        core
    }

    /// The token, which is made now if need be.
    pub(crate) fn token(self: &Arc<Self>) -> &CancellationToken {
        self.token.get().unwrap_or_else(|| self.make_token())
    }

    fn make_token(self: &Arc<Self>) -> &CancellationToken {
        let state = self.state.lock();
        self.token.get_or_init(|| {
            let token = CancellationToken::new();
            // Nobody else has the token yet: nothing foreign is called.
            if self.cancelled.load(Ordering::Relaxed) {
                token.cancel_because(state.closed.unwrap_or(CancelReason::Requested));
            } else {
                self.be_told_by(&token);
            }
            token
        })
    }

    /// Has the token close the group when it is cancelled.
    fn be_told_by(self: &Arc<Self>, token: &CancellationToken) {
        let weak = Arc::downgrade(self);
        let guard = token.on_cancel(move || {
            if let Some(core) = weak.upgrade() {
                core.close_if_told();
            }
        });
        let first = self.told_by_token.set(guard).is_ok();
        assert!(first, "a group has one token");
    }

    /// Whether the group was cancelled.
    pub(crate) fn is_cancelled(&self) -> bool {
        // ORDERING: Acquire pairs with the Release of `close_state`.
        self.cancelled.load(Ordering::Acquire) || self.token.get().is_some_and(CancellationToken::is_cancelled)
    }

    /// When the group expires.
    pub(super) fn expiry(&self) -> Option<Instant> {
        self.token.get().and_then(CancellationToken::deadline)
    }

    /// Cancels the token, if there is one; any that is made later is born cancelled. To be called after
    /// [`close_state`](Self::close_state), without the lock.
    pub(super) fn cancel_token(&self, reason: CancelReason) {
        if let Some(token) = self.token.get() {
            token.cancel_because(reason);
        }
    }

    pub(crate) fn progress(&self) -> Progress {
        let state = self.state.lock();
        Progress { done: state.done, total: state.total }
    }

    /// Cancels what has not started and tells what runs.
    pub(crate) fn close(&self, reason: CancelReason) {
        let mut state = self.state.lock();
        if state.closed.is_some() {
            return;
        }
        let unstarted = self.close_state(&mut state, reason);
        drop(state);
        self.enter(|record| {
            self.cancel_token(reason);
            self.drop_unstarted(record, unstarted, reason);
        });
    }

    /// Cancels what has not started, and keeps no more outcomes of such tasks: the owner lets go.
    pub(super) fn abandon(self: &Arc<Self>) {
        let mut state = self.state.lock();
        state.abandoned = true;
        let drops_none = state.unstarted.is_empty();
        drop(state);
        if drops_none {
            self.close(CancelReason::Requested);
        } else {
            // A closure that is dropped may own the next group, and so on: see `nesting`.
            let core = Arc::clone(self);
            nesting::call_back(move || core.close(CancelReason::Requested));
        }
    }

    /// Keeps rule 7; also notices a deadline. Costs two atomic loads while the token is live and has no deadline.
    #[inline]
    pub(super) fn close_if_told(&self) {
        if self.token.get().is_some_and(CancellationToken::needs_a_look) {
            self.close_if_due();
        }
    }

    fn close_if_due(&self) {
        // Looking at a deadline may call the token's callbacks.
        self.enter(|_| {
            if let Some(reason) = self.token.get().and_then(CancellationToken::reason) {
                self.close(reason);
            }
        });
    }

    /// Names the group among the frames of a stack.
    #[inline]
    pub(super) fn name(&self) -> GroupId {
        GroupId::of(self)
    }

    /// Calls `f` while this thread is a member; passes on the record that it counts on.
    pub(super) fn enter<T>(&self, f: impl FnOnce(&WorkerCounters) -> T) -> T {
        self.engine.executor.enter(self.name(), f)
    }

    pub(super) fn info(&self, id: TaskId, location: &'static Location<'static>) -> TaskInfo<'_> {
        TaskInfo { id, location, label: self.settings.label.as_ref() }
    }

    /// Keeps rule 2 after a change that may have broken it: counts a ticket if one is needed, which the caller then sends,
    /// without the lock. Says whether it did.
    #[inline]
    pub(super) fn count_ticket_if_needed(&self, state: &mut State<R>) -> bool {
        let useful = self.settings.limit.min(self.engine.workers.target());
        let needed = state.tickets + state.runners < useful && state.tickets < state.unstarted.len();
        state.tickets += usize::from(needed);
        needed
    }

    /// Sends a ticket that was counted, to the row of the group's seat: there is something to begin.
    #[cold]
    pub(super) fn send_first_ticket(self: &Arc<Self>) {
        let weak: Weak<Self> = Arc::downgrade(self);
        self.engine.send_first_ticket(weak, &self.registration);
    }

    /// Sends a ticket that was counted, behind all others: the group has had a turn.
    #[cold]
    pub(super) fn send_ticket(self: &Arc<Self>) {
        let weak: Weak<Self> = Arc::downgrade(self);
        self.engine.send_ticket(weak);
    }

    /// Whether one more runner may begin, and finds a task.
    #[inline]
    pub(super) fn can_run(&self, state: &State<R>) -> bool {
        !state.unstarted.is_empty() && state.runners < self.settings.limit
    }

    /// Tells who waits for room that a task has left the queue.
    #[inline]
    pub(super) fn tell_room(&self, state: &State<R>) {
        if state.waits_for_room() {
            self.tell_those_who_wait(state);
        }
    }

    fn tell_those_who_wait(&self, state: &State<R>) {
        if state.wait_for_room > 0 {
            self.room.notify_one();
        }
        if state.wait_for_half_room > 0 && state.unstarted.len() <= self.settings.capacity / 2 {
            self.half_room.notify_all();
        }
    }

    /// Closes the group under its lock; returns the tasks that will not start.
    pub(super) fn close_state(&self, state: &mut State<R>, reason: CancelReason) -> SmallDeque<PendingTask<R>> {
        state.closed = Some(reason);
        // ORDERING: Release pairs with the Acquire of `is_cancelled`; the token is made under the same lock.
        self.cancelled.store(true, Ordering::Release);
        self.half_room.notify_all();
        self.room.notify_all();
        state.unstarted.take_all()
    }

    /// Drops tasks that will not start, and lets that land as their outcome. Called by members only; see rule 5.
    pub(super) fn drop_unstarted(
        &self,
        record: &WorkerCounters,
        unstarted: SmallDeque<PendingTask<R>>,
        reason: CancelReason,
    ) {
        if unstarted.is_empty() {
            return;
        }
        let count = unstarted.len();
        let mut runs = Vec::new();
        for PendingTask { index, body, id, location, .. } in unstarted {
            unwind::discard(body);
            self.engine.executor.cancelled(record, &self.info(id, location), reason);
            match runs.last_mut() {
                Some(Range { end, .. }) if *end == index => *end += 1,
                _ => runs.push(index..index + 1),
            }
        }
        let mut state = self.state.lock();
        for run in runs {
            state.put_cancelled(run, reason);
        }
        self.count_done(&mut state, count);
        drop(state);
        self.engine.executor.task_done(record, count as u64);
    }

    /// Counts tasks as done and wakes who waits for that.
    pub(super) fn count_done(&self, state: &mut State<R>, tasks: usize) {
        state.done += tasks;
        let all_done = state.all_done();
        if all_done {
            // ORDERING: Release pairs with the Acquire of a waiter, who then looks under the lock all the same.
            self.ended.value.store(true, Ordering::Release);
        }
        if all_done || state.wait_for_change > 0 {
            self.changed.notify_all();
        }
    }
}

impl<R: TaskResult> Drop for GroupInner<R> {
    fn drop(&mut self) {
        self.engine.groups.deregister(&self.registration);
    }
}

impl<R: TaskResult> State<R> {
    fn new() -> Self {
        Self {
            unstarted: SmallDeque::new(),
            running: SmallDeque::new(),
            total: 0,
            done: 0,
            tickets: 0,
            runners: 0,
            closed: None,
            abandoned: false,
            wants_first: false,
            impossible: false,
            cut_short: None,
            outcomes: Outcomes::new(),
            wait_for_half_room: 0,
            wait_for_room: 0,
            wait_for_change: 0,
            helpers: 0,
        }
    }

    /// Lets the same cancellation land for a run of tasks, if anybody may ask for it.
    pub(super) fn put_cancelled(&mut self, run: Range<usize>, reason: CancelReason) {
        if !self.abandoned {
            self.outcomes.put_cancelled(run, reason);
        }
    }

    /// Whether threads wait for room.
    #[inline]
    pub(super) fn waits_for_room(&self) -> bool {
        self.wait_for_room + self.wait_for_half_room > 0
    }

    /// Takes the first failure, panic or cancellation, by time.
    pub(super) fn take_error(&mut self) -> Option<GroupError<R::Error>> {
        let trouble = self.outcomes.take_trouble().map(GroupError::from);
        trouble.or_else(|| self.cut_short.map(GroupError::Cancelled))
    }

    pub(super) fn all_done(&self) -> bool {
        self.done == self.total
    }

    pub(super) fn next_index(&mut self) -> usize {
        self.total += 1;
        self.total - 1
    }
}

/// Waiting for the group here would wait for ever.
#[derive(Debug)]
pub(crate) struct WouldDeadlock;

impl<E> From<WouldDeadlock> for GroupError<E> {
    fn from(_: WouldDeadlock) -> Self {
        Self::WouldDeadlock
    }
}

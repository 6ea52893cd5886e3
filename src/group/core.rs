//! The protocol of a group: its state, how it is closed, how it calls for workers. Adding, running and waiting have
//! files of their own.
//!
//! A task is *unstarted* (in the group's own queue), *running*, or *done*; a cancelled one goes from unstarted to done.
//! A *ticket* is an entry in the pool's queue that asks a worker to run tasks of the group. A *runner* is a thread that
//! does: a worker with a ticket, or a worker that waits for the group. A *member* is a thread with a task of the group
//! on its stack.
//!
//! The state has two halves, each under a lock of its own, because those who add tasks and those who run them would
//! else wait for each other's cache lines at every task: the *intake*, with the tasks that were added, and the *state*
//! proper, with those that were drawn from it. A runner that has none left *draws* all that were added meanwhile.
//!
//! Rules:
//! 1. All changes are made under the locks; who needs both takes the one of the state first. Closures and outcomes are
//!    called and dropped outside of them.
//! 2. While the group has unstarted tasks, it has a ticket on its way or a runner at work. Who adds a task sends a
//!    ticket if there are fewer tickets and runners than could be at work (the limit or the workers, whichever is
//!    less); a runner that stops before the queue is empty does the same, and so does a pool that has got more workers.
//! 3. Runners never exceed the limit. A ticket that arrives when they have reached it is void: by rule 2 it is not
//!    needed.
//! 4. A runner gives way after a turn if jobs wait in the pool's queue.
//! 5. A task counts as done when nothing of it is left: its closure consumed or dropped, its outcome landed, the
//!    cancellation it caused finished. So whoever finds all tasks done finds no borrow alive. [The scope stands on
//!    this.] Until then its frame is on the stack, so whatever foreign code does meanwhile (destructors, callbacks) is
//!    known to come from a member.
//! 6. The group is *closed* when it is cancelled, has failed, or has been waited for; in the last case under the same
//!    hold of both locks that found all tasks done. It is closed in both halves at once. A closed group has no
//!    unstarted tasks, and what is added is dropped unrun.
//! 7. A token that is cancelled closes the group: by its callback, or by whoever looks at the token first.
//! 8. A member cannot wait for its group. A member that adds a task to a full group runs it at once, in its own place
//!    among the runners, as long as its stack is not deep; then it adds it beyond the capacity.
//! 9. A worker that sleeps, because it waits for the group or for room in it, is woken when a runner leaves tasks
//!    behind, and one that waits for the group also when a task is added: it may be the only one who can run them.
//!
//! Meetings: *failure and failure*: the first under the state's lock is first and closes. *Cancel and start*: both queues
//! are taken whole under the locks, so a task was started or is dropped. *Add and close*: the task is in the intake that
//! the closing takes, or it finds the group closed. *Add and stop of a runner*: the runner looks into the intake under
//! the same hold of its lock under which it stops counting as a runner, so it finds the task, or the adder finds it
//! gone and sends a ticket. *Add and sleep of a helper*: the helper is counted in the intake under the hold of its lock
//! that found nothing, and holds the state's lock until it sleeps; an adder that finds it counted takes that lock before
//! it notifies. *Last task and waiter*: `done` changes under the lock the waiter sleeps with.

use std::collections::VecDeque;
use std::mem;
use std::panic::Location;

use super::outcomes::Outcomes;
use super::result::TaskResult;
use super::settings::{GroupSettings, Progress};
use crate::cancel::{CancelGuard, CancellationToken};
use crate::clock::Moment;
use crate::closure::Closure;
use crate::engine::Engine;
use crate::error::{CancelReason, GroupError, TaskError};
use crate::local::{self, Name};
use crate::observer::{TaskId, TaskInfo};
use crate::record::Record;
use crate::sync::{Arc, AtomicBool, AtomicUsize, CacheAligned, Condvar, Mutex, MutexGuard, OnceLock, Ordering, Weak};
use crate::unwind;

/// The closure of a task.
pub(crate) type Body<R> = Closure<'static, R>;

/// How one task ended.
pub(crate) type Ended<R> = Result<<R as TaskResult>::Value, TaskError<<R as TaskResult>::Error>>;

/// The inside of a group, shared by its owner, its spawners and its runners; tickets know it weakly.
pub(crate) struct GroupCore<R: TaskResult> {
    pub(super) name: Name,
    pub(super) engine: Arc<Engine>,
    pub(super) settings: GroupSettings,
    /// Cancelled with the group; its cancellation cancels the group.
    pub(super) token: CancellationToken,
    /// Keeps the token's word to the group; set once, when the group is made.
    told_by_token: OnceLock<CancelGuard>,
    /// The half of those who add tasks.
    pub(super) intake: CacheAligned<Mutex<Intake<R>>>,
    /// The half of those who run tasks and wait for them.
    pub(super) state: CacheAligned<Mutex<State<R>>>,
    /// Tasks that left the queues to be run. Written under the state's lock, for adders, who do not hold it.
    taken: AtomicUsize,
    /// All tasks were done when a waiter last had it cleared; a hint for those who wait awake.
    pub(super) ended: CacheAligned<AtomicBool>,
    /// Notified when all tasks are done, and on the way when somebody asked for it. Goes with the state's lock.
    pub(super) changed: Condvar,
    /// Notified when there is room for unstarted tasks, or the group is closed. Goes with the state's lock.
    pub(super) room: Condvar,
}

/// What the intake's lock guards.
pub(super) struct Intake<R: TaskResult> {
    /// Tasks that were added and not drawn.
    pub(super) added: VecDeque<Unstarted<R>>,
    /// Tasks so far; the index of the next.
    pub(super) total: usize,
    /// Tasks that ever were in a queue.
    queued: usize,
    /// What `taken` was when an adder looked last: by adders it is read only when it matters.
    taken: usize,
    /// Tickets on their way.
    pub(super) tickets: usize,
    /// Threads that run tasks of the group, not counting those that a member runs in its own place.
    pub(super) runners: usize,
    /// Workers that wait and would run tasks, if there were any.
    pub(super) helpers: usize,
    /// Why nothing is started any more.
    pub(super) closed: Option<CancelReason>,
}

/// What the state's lock guards.
pub(super) struct State<R: TaskResult> {
    /// Tasks that were drawn.
    pub(super) unstarted: VecDeque<Unstarted<R>>,
    /// The indices of running tasks; few.
    pub(super) running: Vec<usize>,
    pub(super) done: usize,
    /// Tasks so far, as of the last look into the intake.
    pub(super) total: usize,
    /// The same as in the intake.
    pub(super) closed: Option<CancelReason>,
    /// Whether a task was added that could never start.
    pub(super) impossible: bool,
    pub(super) outcomes: Outcomes<R::Value, R::Error>,
    /// Threads that wait for room.
    pub(super) wait_for_room: usize,
    /// Threads that wait for any task to end.
    pub(super) wait_for_change: usize,
}

/// A task that waits in the group.
pub(super) struct Unstarted<R: 'static> {
    pub(super) index: usize,
    pub(super) body: Body<R>,
    pub(super) id: TaskId,
    pub(super) location: &'static Location<'static>,
    pub(super) queued_at: Option<Moment>,
}

impl<R: TaskResult> GroupCore<R> {
    pub(crate) fn new(engine: Arc<Engine>, settings: GroupSettings) -> Arc<Self> {
        let parent = settings.parent.clone().unwrap_or_default();
        let token = match settings.deadline {
            Some(deadline) => parent.with_deadline(deadline),
            None => parent.child_token(),
        };
        let core = Arc::new(Self {
            name: local::new_name(),
            engine,
            settings,
            token,
            told_by_token: OnceLock::new(),
            intake: CacheAligned(Mutex::new(Intake::new())),
            state: CacheAligned(Mutex::new(State::new())),
            taken: AtomicUsize::new(0),
            ended: CacheAligned::default(),
            changed: Condvar::new(),
            room: Condvar::new(),
        });
        let weak = Arc::downgrade(&core);
        core.engine.register(core.name, weak.clone());
        let guard = core.token.on_cancel(move || {
            if let Some(core) = weak.upgrade() {
                core.close_if_told();
            }
        });
        let first = core.told_by_token.set(guard).is_ok();
        assert!(first, "a group is made once");
        core
    }

    pub(crate) fn token(&self) -> &CancellationToken {
        &self.token
    }

    pub(crate) fn progress(&self) -> Progress {
        let mut state = self.state.0.lock();
        drop(self.draw(&mut state));
        Progress { done: state.done, total: state.total }
    }

    /// Cancels what has not started and tells what runs.
    pub(crate) fn close(&self, reason: CancelReason) {
        let mut state = self.state.0.lock();
        if state.closed.is_some() {
            return;
        }
        let unstarted = self.close_state(&mut state, reason);
        drop(state);
        self.enter(|record| {
            self.token.cancel_because(reason);
            self.drop_unstarted(record, unstarted, reason);
        });
    }

    /// Keeps rule 7; also notices a deadline. Costs one atomic load while the token is live and has no deadline.
    #[inline]
    pub(super) fn close_if_told(&self) {
        if self.token.needs_a_look() {
            self.close_if_due();
        }
    }

    fn close_if_due(&self) {
        // Looking at a deadline may call the token's callbacks.
        self.enter(|_| {
            if let Some(reason) = self.token.reason() {
                self.close(reason);
            }
        });
    }

    /// Calls `f` while this thread is a member; passes on the record that it counts on.
    pub(super) fn enter<T>(&self, f: impl FnOnce(&Record) -> T) -> T {
        self.engine.supervisor.enter(self.name, f)
    }

    pub(super) fn info(&self, id: TaskId, location: &'static Location<'static>) -> TaskInfo<'_> {
        TaskInfo { id, location, label: self.settings.label.as_ref() }
    }

    /// Moves what was added to where runners find it; returns the lock under which `state.total` is true.
    pub(super) fn draw(&self, state: &mut State<R>) -> MutexGuard<'_, Intake<R>> {
        let mut intake = self.intake.0.lock();
        state.total = intake.total;
        if state.unstarted.is_empty() {
            mem::swap(&mut state.unstarted, &mut intake.added);
        } else {
            state.unstarted.append(&mut intake.added);
        }
        intake
    }

    /// Takes the oldest of the tasks that were drawn, to be run.
    #[inline]
    pub(super) fn take_drawn(&self, state: &mut State<R>) -> Option<Unstarted<R>> {
        let task = state.unstarted.pop_front()?;
        state.running.push(task.index);
        // Relaxed: to adders it may be out of date, and then it is too low, which is harmless. Written under the lock.
        self.taken.store(self.taken.load(Ordering::Relaxed) + 1, Ordering::Relaxed);
        if state.wait_for_room > 0 {
            self.room.notify_one();
        }
        Some(task)
    }

    /// Whether an unstarted task may be added to those there are. With the state's lock held `false` is exact.
    #[inline]
    pub(super) fn has_room(&self, intake: &mut Intake<R>) -> bool {
        let capacity = self.settings.capacity;
        intake.queued - intake.taken < capacity || self.count_unstarted(intake) < capacity
    }

    /// How many tasks have not started, at most.
    fn count_unstarted(&self, intake: &mut Intake<R>) -> usize {
        intake.taken = self.taken.load(Ordering::Relaxed);
        intake.queued - intake.taken
    }

    /// Keeps rule 2 after a change that may have broken it; returns whether it sent a ticket.
    pub(super) fn send_ticket_if_needed(self: &Arc<Self>, mut intake: MutexGuard<'_, Intake<R>>) -> bool {
        let useful = self.settings.limit.min(self.engine.roster.target());
        let needed =
            intake.tickets + intake.runners < useful && intake.tickets < self.count_unstarted(&mut intake);
        if needed {
            intake.tickets += 1;
        }
        drop(intake);
        if needed {
            let weak: Weak<Self> = Arc::downgrade(self);
            self.engine.send_ticket(weak);
        }
        needed
    }

    /// Closes the group under the state's lock; returns the tasks that will not start.
    pub(super) fn close_state(&self, state: &mut State<R>, reason: CancelReason) -> Vec<Unstarted<R>> {
        self.draw(state).closed = Some(reason);
        state.closed = Some(reason);
        self.room.notify_all();
        let unstarted = mem::take(&mut state.unstarted);
        self.taken.store(self.taken.load(Ordering::Relaxed) + unstarted.len(), Ordering::Relaxed);
        unstarted.into()
    }

    /// Drops tasks that will not start, and lets that land as their outcome. Called by members only; see rule 5.
    pub(super) fn drop_unstarted(&self, record: &Record, unstarted: Vec<Unstarted<R>>, reason: CancelReason) {
        if unstarted.is_empty() {
            return;
        }
        let mut indices = Vec::with_capacity(unstarted.len());
        for Unstarted { index, body, id, location, .. } in unstarted {
            unwind::discard(body);
            self.engine.supervisor.cancelled(record, &self.info(id, location), reason);
            indices.push(index);
        }
        let count = indices.len();
        let mut state = self.state.0.lock();
        for index in indices {
            state.outcomes.put(index, Err(TaskError::Cancelled(reason)));
        }
        self.count_done(&mut state, count);
        self.announce_end(&mut state);
        drop(state);
        self.engine.supervisor.settle(record, count as u64);
    }

    /// Counts tasks as done and wakes who waits for that, but for those who wait for the last: see `announce_end`.
    #[inline]
    pub(super) fn count_done(&self, state: &mut State<R>, tasks: usize) {
        state.done += tasks;
        if state.wait_for_change > 0 {
            self.changed.notify_all();
        }
    }

    /// Wakes who waits for the last task, if all are done. Whoever may have been at the last one calls it.
    pub(super) fn announce_end(&self, state: &mut State<R>) {
        if state.all_done() {
            drop(self.draw(state));
            self.announce_end_drawn(state);
        }
    }

    /// The same right after a look into the intake.
    pub(super) fn announce_end_drawn(&self, state: &State<R>) {
        if state.all_done() {
            // ORDERING: Release pairs with the Acquire of the waiter, who then looks under the lock all the same.
            self.ended.0.store(true, Ordering::Release);
            self.changed.notify_all();
        }
    }
}

impl<R: TaskResult> Drop for GroupCore<R> {
    fn drop(&mut self) {
        self.engine.unregister(self.name);
    }
}

impl<R: TaskResult> Intake<R> {
    fn new() -> Self {
        Self {
            added: VecDeque::new(),
            total: 0,
            queued: 0,
            taken: 0,
            tickets: 0,
            runners: 0,
            helpers: 0,
            closed: None,
        }
    }

    /// Gives a task its index, and puts it into the queue.
    #[inline]
    pub(super) fn add(&mut self, make: impl FnOnce(usize) -> Unstarted<R>) {
        self.added.push_back(make(self.total));
        self.total += 1;
        self.queued += 1;
    }
}

impl<R: TaskResult> State<R> {
    fn new() -> Self {
        Self {
            unstarted: VecDeque::new(),
            running: Vec::new(),
            done: 0,
            total: 0,
            closed: None,
            impossible: false,
            outcomes: Outcomes::new(),
            wait_for_room: 0,
            wait_for_change: 0,
        }
    }

    /// Whether all tasks are done, as of the last look into the intake.
    pub(super) fn all_done(&self) -> bool {
        self.done == self.total
    }

    /// Gives a task its index that is not put into a queue.
    pub(super) fn add_unqueued(&mut self, intake: &mut Intake<R>) -> usize {
        intake.total += 1;
        self.total = intake.total;
        intake.total - 1
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

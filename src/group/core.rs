//! The protocol of a group: who runs its tasks, who waits for them, how it ends.
//!
//! A task is *unstarted* (in the group's own queue), *running*, or *done*; a cancelled one goes from unstarted to done. A *ticket* is
//! an entry in the pool's queue that asks a worker to run tasks of the group. A *runner* is a thread that does: a worker with a
//! ticket, or a worker that waits for the group.
//!
//! Rules:
//! 1. All changes of the state are made under the group's lock. Closures and outcomes are called and dropped outside of it.
//! 2. While the group has unstarted tasks, it has a ticket on its way or a runner at work. Who adds a task sends a ticket if there are fewer
//!    tickets and runners than could be at work (the limit or the workers, whichever is less); a runner that stops before the
//!    queue is empty does the same.
//! 3. Runners never exceed the limit. A ticket that arrives when they have reached it is void: by rule 2 it is not needed.
//! 4. A runner gives way after a turn of [`TURN`] tasks if jobs wait in the pool's queue.
//! 5. A task counts as done when nothing of it is left: its closure consumed or dropped, its outcome landed, the cancellation it caused finished. So
//!    whoever finds all tasks done finds no borrow alive. [The scope stands on this.]
//! 6. The group is *closed* when it is cancelled, has failed, or has been waited for. A closed group starts nothing; what is added is
//!    dropped unrun.
//! 7. A member of the group (a thread with one of its tasks on the stack) cannot wait for it. A member that adds a task to a full group runs it at
//!    once, in its own place among the runners, as long as its stack is not deep; then it adds it beyond the capacity.
//!
//! Meetings: *failure and failure*: the first under the lock is first and closes. *Cancel and start*: the queue is taken whole under
//! the lock, so a task was started or is dropped. *Add and close*: the task is in the queue that the closing takes, or it finds the
//! group closed. *Last task and waiter*: `done` changes under the lock the waiter sleeps with.

use std::collections::VecDeque;
use std::mem;
use std::panic::Location;
use std::time::Instant;

use super::outcomes::Outcomes;
use super::result::TaskResult;
use crate::cancel::{CancelGuard, CancellationToken};
use crate::deadline::Deadline;
use crate::engine::Engine;
use crate::error::{CancelReason, GroupError, Refusal, TaskError};
use crate::job::Ticket;
use crate::local::{self, Name};
use crate::observer::{Outcome, TaskId, TaskInfo};
use crate::supervisor::Brief;
use crate::sync::{Arc, Condvar, Mutex, MutexGuard, OnceLock, Weak};
use crate::unwind;

/// How many tasks a runner takes before it gives way to jobs that wait.
const TURN: usize = 16;

/// When a group cancels the tasks that are left.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Policy {
    /// The first failure or panic cancels the rest.
    #[default]
    FailFast,
    /// Failures cancel nothing; all tasks run.
    CollectAll,
    /// The first success cancels the rest; failures cancel nothing.
    FirstSuccess,
}

/// How far a group is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub struct Progress {
    /// Tasks that have met their fate.
    pub done: usize,
    /// Tasks spawned so far.
    pub total: usize,
}

/// The settings of a group, final once it has started.
#[derive(Clone)]
pub(crate) struct GroupSettings {
    /// The most tasks running at once.
    pub(crate) limit: usize,
    /// The most unstarted tasks.
    pub(crate) capacity: usize,
    pub(crate) policy: Policy,
    pub(crate) deadline: Option<Instant>,
    pub(crate) parent: Option<CancellationToken>,
    pub(crate) label: Option<Arc<str>>,
}

impl GroupSettings {
    pub(crate) fn new(engine: &Engine) -> Self {
        Self {
            limit: usize::MAX,
            capacity: engine.queue_capacity(),
            policy: Policy::default(),
            deadline: None,
            parent: None,
            label: None,
        }
    }
}

/// The closure of a task.
pub(crate) type Body<R> = Box<dyn FnOnce() -> R + Send>;

/// How one task ended.
pub(crate) type Ended<R> = Result<<R as TaskResult>::Value, TaskError<<R as TaskResult>::Error>>;

/// The inside of a group, shared by its owner, its spawners and its runners; tickets know it weakly.
pub(crate) struct GroupCore<R: TaskResult> {
    name: Name,
    engine: Arc<Engine>,
    settings: GroupSettings,
    /// Cancelled with the group; its cancellation cancels the group.
    token: CancellationToken,
    /// Keeps the token's word to the group; set once, when the group is made.
    told_by_token: OnceLock<CancelGuard>,
    state: Mutex<State<R>>,
    /// Notified when all tasks are done, and on the way when somebody asked for it.
    changed: Condvar,
    /// Notified when there is room for unstarted tasks, or the group is closed.
    room: Condvar,
}

/// What the lock guards.
struct State<R: TaskResult> {
    unstarted: VecDeque<Unstarted<R>>,
    /// The indices of running tasks; few.
    running: Vec<usize>,
    /// Tasks added so far; the index of the next.
    total: usize,
    done: usize,
    /// Tickets on their way.
    tickets: usize,
    /// Threads that run tasks of the group, not counting those that a member runs in its own place.
    runners: usize,
    /// Why nothing is started any more.
    closed: Option<CancelReason>,
    /// Whether a task was added that could never start.
    impossible: bool,
    outcomes: Outcomes<R::Value, R::Error>,
    /// Threads that wait for room.
    wait_for_room: usize,
    /// Threads that wait for anything to change, not only for the end.
    wait_for_change: usize,
}

/// A task that waits in the group.
struct Unstarted<R> {
    index: usize,
    body: Body<R>,
    id: TaskId,
    location: &'static Location<'static>,
    queued_at: Option<Instant>,
}

impl<R: TaskResult> GroupCore<R> {
    pub(crate) fn new(engine: Arc<Engine>, settings: GroupSettings) -> Arc<Self> {
        let parent = settings.parent.clone().unwrap_or_default();
        let token = match settings.deadline {
            Some(deadline) => parent.with_deadline(deadline),
            None => parent.child_token(),
        };
        let state = State {
            unstarted: VecDeque::new(),
            running: Vec::new(),
            total: 0,
            done: 0,
            tickets: 0,
            runners: 0,
            closed: None,
            impossible: false,
            outcomes: Outcomes::new(),
            wait_for_room: 0,
            wait_for_change: 0,
        };
        let core = Arc::new(Self {
            name: local::new_name(),
            engine,
            settings,
            token,
            told_by_token: OnceLock::new(),
            state: Mutex::new(state),
            changed: Condvar::new(),
            room: Condvar::new(),
        });
        let weak = Arc::downgrade(&core);
        core.engine.register(core.name, weak.clone());
        let guard = core.token.on_cancel(move || {
            if let Some(core) = weak.upgrade() {
                core.close(core.token.reason().unwrap_or(CancelReason::Requested));
            }
        });
        let first = core.told_by_token.set(guard).is_ok();
        assert!(first, "a group is made once");
        core
    }

    pub(crate) fn token(&self) -> &CancellationToken {
        &self.token
    }

    pub(crate) fn is_cancelled(&self) -> bool {
        self.token.is_cancelled()
    }

    pub(crate) fn progress(&self) -> Progress {
        let state = self.state.lock();
        Progress { done: state.done, total: state.total }
    }

    /// Adds a task. Waits for room, unless this thread is a worker of the pool. A closed group drops it.
    pub(crate) fn add(self: &Arc<Self>, body: Body<R>, location: &'static Location<'static>) {
        let supervisor = &self.engine.supervisor;
        let queued_at = supervisor.now_if_timing();
        let Some(id) = supervisor.admit(location, self.settings.label.as_ref()) else {
            unwind::discard(body);
            return self.land_unstarted(vec![None], CancelReason::ShutDown);
        };
        let mut task = Unstarted { index: 0, body, id, location, queued_at };
        match self.wait_for_room() {
            Room::Here(mut state) => {
                task.index = state.next_index();
                state.unstarted.push_back(task);
                self.send_ticket_if_needed(state);
            }
            Room::OnThisStack(mut state) => {
                task.index = state.next_index();
                state.running.push(task.index);
                drop(state);
                self.perform(task);
            }
            Room::Never(mut state, reason) => {
                task.index = state.next_index();
                drop(state);
                self.drop_unstarted(vec![task], reason);
            }
        }
    }

    /// Adds a task if there is room now; `box_up` is called only then.
    pub(crate) fn try_add<F>(
        self: &Arc<Self>,
        f: F,
        box_up: impl FnOnce(F) -> Body<R>,
        location: &'static Location<'static>,
    ) -> Result<(), (Refusal, F)> {
        let supervisor = &self.engine.supervisor;
        let label = self.settings.label.as_ref();
        let queued_at = supervisor.now_if_timing();
        let Some(id) = supervisor.admit(location, label) else { return Err((Refusal::ShutDown, f)) };
        let refused = |refusal, f| {
            supervisor.withdrawn(&TaskInfo { id, location, label });
            Err((refusal, f))
        };
        // The token is asked first, because a deadline is noticed by asking.
        if self.token.is_cancelled() {
            return refused(Refusal::ShutDown, f);
        }
        let mut state = self.state.lock();
        if state.closed.is_some() {
            drop(state);
            return refused(Refusal::ShutDown, f);
        }
        if self.holds_nothing() || state.unstarted.len() >= self.settings.capacity {
            drop(state);
            return refused(Refusal::Full, f);
        }
        let index = state.next_index();
        state.unstarted.push_back(Unstarted { index, body: box_up(f), id, location, queued_at });
        self.send_ticket_if_needed(state);
        Ok(())
    }

    /// Cancels what has not started and tells what runs; returns how many tasks will never start because of it.
    pub(crate) fn close(&self, reason: CancelReason) -> usize {
        let mut state = self.state.lock();
        let unstarted = self.close_state(&mut state, reason);
        drop(state);
        self.token.cancel_because(reason);
        let count = unstarted.len();
        self.drop_unstarted(unstarted, reason);
        count
    }

    /// Waits until all tasks are done; returns whether that came before the deadline. Helps, if `deadline` is never and this
    /// thread is a worker of the pool.
    pub(crate) fn wait_all_done(self: &Arc<Self>, deadline: Deadline) -> Result<bool, WouldDeadlock> {
        self.wait_until(deadline, Watch::End, State::all_done)
    }

    /// Waits until a task has succeeded or all are done.
    pub(crate) fn wait_first_success(self: &Arc<Self>) -> Result<bool, WouldDeadlock> {
        self.wait_until(Deadline::NEVER, Watch::Changes, |state| {
            state.outcomes.first_success().is_some() || state.all_done()
        })
    }

    /// Hands out the next task that has ended, waiting for one; `None` when all were handed out.
    pub(crate) fn next_ended(self: &Arc<Self>) -> Option<(usize, Ended<R>)> {
        let watch = |state: &State<R>| state.outcomes.has_ended() || state.all_done();
        self.keep_order();
        self.wait_until(Deadline::NEVER, Watch::Changes, watch).ok()?;
        self.state.lock().outcomes.next_ended()
    }

    /// From now on keeps the order in which tasks end.
    fn keep_order(&self) {
        let mut state = self.state.lock();
        // While tasks are being dropped they are in none of the lists. That ends soon, and is announced.
        while state.total - state.done != state.unstarted.len() + state.running.len() {
            state.wait_for_change += 1;
            state = self.changed.wait_until(state, None);
            state.wait_for_change -= 1;
        }
        let State { outcomes, unstarted, running, total, .. } = &mut *state;
        let is_pending =
            |index: &usize| running.contains(index) || unstarted.binary_search_by_key(index, |task| task.index).is_ok();
        outcomes.keep_order((0..*total).filter(|index| !is_pending(index)));
    }

    /// Closes a group that has been waited for and takes what came of it.
    pub(crate) fn finish(&self) -> Result<Vec<R::Value>, GroupError<R::Error>> {
        let mut state = self.state.lock();
        state.closed.get_or_insert(CancelReason::Requested);
        if state.impossible {
            return Err(GroupError::WouldDeadlock);
        }
        let outcomes = &mut state.outcomes;
        let enough = self.settings.policy == Policy::FirstSuccess && outcomes.first_success().is_some();
        let trouble = outcomes.first_trouble().or(outcomes.lowest_trouble()).filter(|_| !enough);
        match trouble.and_then(|index| outcomes.take(index)) {
            Some(Err(error)) => Err(error.into()),
            _ => Ok(outcomes.take_values()),
        }
    }

    /// Closes a group that has been waited for and takes the first value.
    pub(crate) fn finish_any(&self) -> Result<R::Value, GroupError<R::Error>> {
        let mut state = self.state.lock();
        let outcomes = &mut state.outcomes;
        let index = outcomes.first_success().or(outcomes.first_trouble()).or(outcomes.lowest_trouble());
        match index.and_then(|index| outcomes.take(index)) {
            Some(outcome) => outcome.map_err(GroupError::from),
            // A group without tasks: a first success would be waited for in vain.
            None => Err(GroupError::WouldDeadlock),
        }
    }

    /// Closes a group that has been waited for and takes every outcome, in spawn order.
    pub(crate) fn finish_all(&self) -> Vec<Ended<R>> {
        let mut state = self.state.lock();
        state.closed.get_or_insert(CancelReason::Requested);
        let total = state.total;
        (0..total).filter_map(|index| state.outcomes.take(index)).collect()
    }

    /// Drops every outcome, containing their destructors' panics.
    pub(crate) fn discard_outcomes(&self) {
        let outcomes = mem::replace(&mut self.state.lock().outcomes, Outcomes::new());
        drop(outcomes);
    }

    /// Whether no task could ever be held or run.
    fn holds_nothing(&self) -> bool {
        self.settings.limit == 0 || self.settings.capacity == 0
    }

    /// Waits until a task may be added, by the rules 6 and 7.
    fn wait_for_room(&self) -> Room<'_, R> {
        let on_worker = local::is_worker_of(self.engine.pool());
        loop {
            let _ = self.token.is_cancelled(); // notices a deadline, and closes the group if it has passed
            let mut state = self.state.lock();
            if let Some(reason) = state.closed {
                return Room::Never(state, reason);
            }
            if self.holds_nothing() {
                state.impossible = true;
                return Room::Never(state, CancelReason::Requested);
            }
            if state.unstarted.len() < self.settings.capacity {
                return Room::Here(state);
            }
            if on_worker {
                let in_place = local::is_member_of(self.name);
                return if in_place && local::depth() < local::INLINE_DEPTH {
                    Room::OnThisStack(state)
                } else {
                    Room::Here(state)
                };
            }
            state.wait_for_room += 1;
            let mut state = self.room.wait_until(state, self.token.deadline());
            state.wait_for_room -= 1;
        }
    }

    /// Keeps rule 2 after a change that may have broken it.
    fn send_ticket_if_needed(self: &Arc<Self>, mut state: MutexGuard<'_, State<R>>) {
        let useful = self.settings.limit.min(self.engine.roster.target());
        let under_way = state.tickets + state.runners;
        let needed = under_way < useful && !state.unstarted.is_empty();
        if needed {
            state.tickets += 1;
        }
        drop(state);
        if needed {
            let weak: Weak<Self> = Arc::downgrade(self);
            self.engine.send_ticket(weak);
        }
    }

    /// Runs unstarted tasks as a runner that is already counted, until there are none, `enough` says so, or a turn is over.
    fn run_unstarted(self: &Arc<Self>, turn: Turn, enough: impl Fn(&State<R>) -> bool) {
        for taken in 0.. {
            let _ = self.token.is_cancelled(); // notices a deadline, and closes the group if it has passed
            let mut state = self.state.lock();
            let turn_over = turn == Turn::GivesWay && taken >= TURN && self.engine.has_jobs();
            let task = if turn_over || enough(&state) { None } else { state.unstarted.pop_front() };
            let Some(task) = task else {
                state.runners -= 1;
                let helper_needed = !state.unstarted.is_empty() && state.wait_for_change > 0;
                self.send_ticket_if_needed(state);
                if helper_needed {
                    self.changed.notify_all();
                }
                return;
            };
            state.running.push(task.index);
            let wanted = state.wait_for_room > 0;
            drop(state);
            if wanted {
                self.room.notify_one();
            }
            self.perform(task);
        }
    }

    /// Runs one task and lets its outcome land.
    fn perform(&self, task: Unstarted<R>) {
        let Unstarted { index, body, id, location, queued_at } = task;
        let info = TaskInfo { id, location, label: self.settings.label.as_ref() };
        let brief = Brief { info, group: self.name, queued_at };
        let outcome_of = |result: &R| if result.is_failure() { Outcome::Failed } else { Outcome::Succeeded };
        let ended = match self.engine.supervisor.perform(&brief, body, outcome_of) {
            Ok(result) => result.into_result().map_err(TaskError::Failed),
            Err(panic) => Err(TaskError::Panicked(panic)),
        };
        let mut state = self.state.lock();
        let decides = match self.settings.policy {
            Policy::FailFast => ended.is_err(),
            Policy::CollectAll => false,
            Policy::FirstSuccess => ended.is_ok(),
        };
        if decides && state.closed.is_none() {
            if ended.is_err() {
                state.outcomes.note_trouble(index);
            }
            let unstarted = self.close_state(&mut state, CancelReason::GroupFailed);
            drop(state);
            self.token.cancel_because(CancelReason::GroupFailed);
            self.drop_unstarted(unstarted, CancelReason::GroupFailed);
            state = self.state.lock();
        }
        state.outcomes.put(index, ended);
        state.running.retain(|running| *running != index);
        self.count_done(state, 1);
        self.engine.supervisor.settle(1);
    }

    /// Closes the group under its lock; returns the tasks that will not start.
    fn close_state(&self, state: &mut State<R>, reason: CancelReason) -> Vec<Unstarted<R>> {
        if state.closed.is_some() {
            return Vec::new();
        }
        state.closed = Some(reason);
        self.room.notify_all();
        mem::take(&mut state.unstarted).into()
    }

    /// Drops tasks that will not start, and lets that land as their outcome.
    fn drop_unstarted(&self, unstarted: Vec<Unstarted<R>>, reason: CancelReason) {
        if unstarted.is_empty() {
            return;
        }
        let mut indices = Vec::with_capacity(unstarted.len());
        for Unstarted { index, body, id, location, .. } in unstarted {
            unwind::discard(body);
            let info = TaskInfo { id, location, label: self.settings.label.as_ref() };
            self.engine.supervisor.cancelled(&info, reason);
            indices.push(Some(index));
        }
        let count = indices.len() as u64;
        self.land_unstarted(indices, reason);
        self.engine.supervisor.settle(count);
    }

    /// Lets tasks land as cancelled, each under its index or, if it has none yet, the next.
    fn land_unstarted(&self, indices: Vec<Option<usize>>, reason: CancelReason) {
        let mut state = self.state.lock();
        let count = indices.len();
        for index in indices {
            let index = index.unwrap_or_else(|| state.next_index());
            state.outcomes.put(index, Err(TaskError::Cancelled(reason)));
        }
        self.count_done(state, count);
    }

    /// Counts tasks as done and wakes who waits for that.
    fn count_done(&self, mut state: MutexGuard<'_, State<R>>, tasks: usize) {
        state.done += tasks;
        let tell = state.all_done() || state.wait_for_change > 0;
        drop(state);
        if tell {
            self.changed.notify_all();
        }
    }

    /// Waits until `enough`, or the deadline. Helps, if there is no deadline and this thread is a worker of the pool.
    fn wait_until(
        self: &Arc<Self>,
        deadline: Deadline,
        watch: Watch,
        enough: impl Fn(&State<R>) -> bool,
    ) -> Result<bool, WouldDeadlock> {
        if local::is_member_of(self.name) {
            return Err(WouldDeadlock);
        }
        let helps = deadline == Deadline::NEVER && local::is_worker_of(self.engine.pool());
        // A helper must learn that a runner gave way, which is a change.
        let watches_change = usize::from(helps || watch == Watch::Changes);
        loop {
            let _ = self.token.is_cancelled(); // notices a deadline, and closes the group if it has passed
            let mut state = self.state.lock();
            if enough(&state) {
                return Ok(true);
            }
            if deadline.is_past() {
                return Ok(false);
            }
            if helps && !state.unstarted.is_empty() && state.runners < self.settings.limit {
                if local::depth() >= local::HELP_DEPTH {
                    return Err(WouldDeadlock);
                }
                state.runners += 1;
                drop(state);
                self.run_unstarted(Turn::Whole, &enough);
                continue;
            }
            let until = if state.closed.is_some() { deadline } else { deadline.earlier(self.token.deadline()) };
            state.wait_for_change += watches_change;
            let mut state = self.changed.wait_until(state, until.instant());
            state.wait_for_change -= watches_change;
        }
    }
}

impl<R: TaskResult> Ticket for GroupCore<R> {
    fn serve(self: Arc<Self>) {
        let mut state = self.state.lock();
        state.tickets -= 1;
        if state.runners >= self.settings.limit {
            return;
        }
        state.runners += 1;
        drop(state);
        self.run_unstarted(Turn::GivesWay, |_| false);
    }

    fn cancel(&self, reason: CancelReason) -> usize {
        self.close(reason)
    }
}

impl<R: TaskResult> Drop for GroupCore<R> {
    fn drop(&mut self) {
        self.engine.unregister(self.name);
    }
}

impl<R: TaskResult> State<R> {
    fn all_done(&self) -> bool {
        self.done == self.total
    }

    fn next_index(&mut self) -> usize {
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

/// Whether a task may be added; the lock is still held.
enum Room<'a, R: TaskResult> {
    /// To the queue of the group.
    Here(MutexGuard<'a, State<R>>),
    /// By running it at once.
    OnThisStack(MutexGuard<'a, State<R>>),
    /// Not at all.
    Never(MutexGuard<'a, State<R>>, CancelReason),
}

/// How long a runner goes on.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Turn {
    /// To the end, like a waiter that helps.
    Whole,
    /// For a turn, if jobs wait.
    GivesWay,
}

/// What wakes a waiter.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Watch {
    /// The end of the last task.
    End,
    /// The end of any task.
    Changes,
}

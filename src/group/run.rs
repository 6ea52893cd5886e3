//! How the tasks of a group are run, by the rules 2 to 5 of `state`.

use super::body::{Body, Recorded};
use super::result::TaskResult;
use super::settings::GroupPolicy;
use super::state::{GroupInner, State};
use super::task_queue::PendingTask;
use crate::error::{CancelReason, TaskError, TaskFailure};
use crate::failpoint::{self, Failpoint};
use crate::nesting;
use crate::observe::task_info::TaskOutcome;
use crate::observe::task_origin::TaskOrigin;
use crate::observe::worker_counters::WorkerCounters;
use crate::snapshot::{GroupSnapshot, Holder, TaskSnapshot, since};
use crate::sync::{Arc, MutexGuard};
use crate::task::closure::Closure;
use crate::task::executor::TaskMeta;
use crate::task::job::{Leftover, TicketHolder, leftover};
use crate::task::wakers::Wakers;
use crate::unwind;

/// How long a runner goes on.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Budget {
    /// Until no task is left, as a worker that waits for the group does.
    Unlimited,
    /// For a quantum if the pool's queue holds other jobs, else until no task is left.
    Quantum,
}

/// How far a runner has got.
struct Batch<R: TaskResult> {
    budget: Budget,
    /// How many tasks it has taken.
    taken: usize,
    /// A task that it has taken and runs as soon as it has woken futures.
    held: Option<PendingTask<R>>,
}

impl<R: TaskResult> GroupInner<R> {
    /// Runs unstarted tasks as one more runner, until there are none, `should_stop` returns `true`,
    /// or the budget is used up. Takes the lock and returns it; each outcome is recorded under the
    /// hold of the lock that takes the next task.
    pub(super) fn run_unstarted<'a>(
        self: &'a Arc<Self>,
        mut state: MutexGuard<'a, State<R>>,
        budget: Budget,
        should_stop: impl Fn(&State<R>) -> bool,
    ) -> MutexGuard<'a, State<R>> {
        state.tickets.start_runner();
        let mut batch = Batch { budget, taken: 0, held: None };
        loop {
            state = self.as_member(|counters| self.run_batch(counters, state, &mut batch, &should_stop));
            if !state.has_due {
                return self.stop_runner(state);
            }
            while let Some(due) = state.take_due() {
                let pausing = usize::from(batch.held.is_none());
                state.pausing += pausing;
                drop(state);
                due.wake();
                state = self.run_held(&mut batch.held);
                state.pausing -= pausing;
            }
        }
    }

    /// Runs unstarted tasks as [`run_unstarted`](Self::run_unstarted) does, until that ends or
    /// futures must be woken. If that must happen before a task runs that has been taken, holds the
    /// task.
    #[inline]
    fn run_batch<'a>(
        self: &'a Arc<Self>,
        counters: &WorkerCounters,
        mut state: MutexGuard<'a, State<R>>,
        batch: &mut Batch<R>,
        should_stop: &impl Fn(&State<R>) -> bool,
    ) -> MutexGuard<'a, State<R>> {
        loop {
            let is_over =
                batch.budget == Budget::Quantum && state.tickets.is_quantum_over(batch.taken, || self.pool.queued());
            let next = if is_over || should_stop(&state) {
                None
            } else {
                state.unstarted.places_without_gap_in_front().pop_front()
            };
            let Some(task) = next else { return state };
            batch.taken += 1;
            state.running.push_back(task.index);
            if state.waits_for_room() {
                self.notify_waiters(&mut state);
                if state.has_due {
                    batch.held = Some(task);
                    return state;
                }
            }
            drop(state);
            state = self.run_started(counters, task);
            if state.has_due {
                return state;
            }
        }
    }

    /// Runs the task that was held, and returns the lock.
    #[cold]
    fn run_held<'a>(self: &'a Arc<Self>, held: &mut Option<PendingTask<R>>) -> MutexGuard<'a, State<R>> {
        match held.take() {
            Some(task) => self.as_member(|counters| self.run_started(counters, task)),
            None => self.state.lock(),
        }
    }

    /// Runs a task that has left the queue, and returns the lock under which it is done.
    #[inline(always)]
    fn run_started<'a>(
        self: &'a Arc<Self>,
        counters: &WorkerCounters,
        mut task: PendingTask<R>,
    ) -> MutexGuard<'a, State<R>> {
        let (index, meta) = (task.index, self.meta(&task));
        match &mut task.body {
            Body::Once(closure) => {
                let outcome = self.call_closure(counters, closure, (index, &meta));
                drop(task); // before the task counts as done, and without the lock
                self.close_if_cancelled();
                let state = self.complete(counters, index, outcome);
                self.pool.executor.task_done(counters, 1);
                state
            }
            #[cfg(feature = "retry")]
            Body::Repeated(_) => self.make_attempt(counters, task),
        }
    }

    /// Runs one task inline, on the stack of the caller: a member, or a runner. A runner counts as
    /// pausing afterwards, until it stops.
    pub(super) fn run_inline(self: &Arc<Self>, mut task: PendingTask<R>, is_runner: bool) {
        self.as_member(|counters| {
            let (index, meta) = (task.index, self.meta(&task));
            let outcome = match &mut task.body {
                Body::Once(closure) => self.call_closure(counters, closure, (index, &meta)),
                #[cfg(feature = "retry")]
                Body::Repeated(_) => {
                    self.make_attempt(counters, task).pausing += usize::from(is_runner);
                    return;
                }
            };
            drop(task);
            self.complete(counters, index, outcome).pausing += usize::from(is_runner);
            self.pool.executor.task_done(counters, 1);
        });
        self.wake_due_poller();
    }

    /// Ends a runner; see the rules 2 and 9 of `state`. Releases the lock for a moment only if it
    /// leaves tasks behind.
    pub(super) fn stop_runner<'a>(
        self: &'a Arc<Self>,
        mut state: MutexGuard<'a, State<R>>,
    ) -> MutexGuard<'a, State<R>> {
        state.tickets.stop_runner();
        if state.unstarted.is_empty() {
            return state;
        }
        let helpers = state.helpers > 0;
        let for_room = state.waits_for_room();
        let needed = self.count_ticket_if_needed(&mut state);
        let poller = state.take_helping_poller();
        let room = if for_room { state.take_room_wakers() } else { None };
        drop(state);
        if needed {
            self.send_ticket();
        }
        poller.into_iter().for_each(nesting::wake);
        if helpers {
            self.changed.notify_all();
        }
        if for_room {
            // One of the waiters may be a worker that can run tasks itself.
            self.room.wake_all();
            room.into_iter().for_each(Wakers::wake);
        }
        self.state.lock()
    }

    /// Returns what the executor needs to know of a task.
    fn meta(&self, task: &PendingTask<R>) -> TaskMeta<'_> {
        TaskMeta { origin: self.origin(task.id, task.location), queued_at: task.queued_at }
    }

    /// Calls the closure of a task and returns its outcome.
    fn call_closure(
        &self,
        counters: &WorkerCounters,
        f: &mut Closure<'static, R>,
        (index, meta): (usize, &TaskMeta<'_>),
    ) -> Recorded<R> {
        let outcome_of = |result: &R| if result.is_failure() { TaskOutcome::Failed } else { TaskOutcome::Succeeded };
        match self.pool.executor.run(counters, meta, || f.call(), outcome_of) {
            Ok(result) => result.into_result().map_err(|error| Self::failed(&meta.origin, index, error)),
            Err(panic) => Err(TaskError::Panicked(panic.with_index(index))),
        }
    }

    /// Returns the outcome of a task that returned an error.
    #[cold]
    pub(super) fn failed(origin: &TaskOrigin<'_>, index: usize, error: R::Error) -> TaskError<TaskFailure<R::Error>> {
        let mut task = origin.to_failed();
        task.set_index(index);
        TaskError::Failed(TaskFailure::new(error, task))
    }

    /// Records the outcome of a task, and closes the group if the policy says so. Returns the lock
    /// under which the outcome was recorded. The caller then counts the task as done for the pool.
    pub(super) fn complete(
        &self,
        counters: &WorkerCounters,
        index: usize,
        outcome: Recorded<R>,
    ) -> MutexGuard<'_, State<R>> {
        failpoint::hit(Failpoint::Completing);
        if outcome.is_err() {
            return self.complete_failed(counters, index, outcome);
        }
        let mut state = self.state.lock();
        if (self.settings.policy == GroupPolicy::FirstSuccess) | state.wants_first | state.abandoned {
            state = self.record_decisive(counters, index, outcome, state);
        } else {
            state.outcomes.record(index, outcome);
        }
        state.running.remove(&index);
        self.count_done(&mut state, 1);
        state
    }

    /// Records an outcome that may close the group, and that may be dropped instead of being kept.
    #[cold]
    pub(super) fn record_decisive<'a>(
        &'a self,
        counters: &WorkerCounters,
        index: usize,
        outcome: Recorded<R>,
        mut state: MutexGuard<'a, State<R>>,
    ) -> MutexGuard<'a, State<R>> {
        let decides = match outcome {
            Ok(_) => self.settings.policy == GroupPolicy::FirstSuccess || state.wants_first,
            Err(_) => self.settings.policy == GroupPolicy::FailFast && !state.wants_first,
        };
        if decides && state.closed.is_none() {
            state = self.close_on_outcome(counters, index, &outcome, state);
        }
        if state.abandoned {
            return self.drop_outcome(outcome, state);
        }
        state.outcomes.record(index, outcome);
        state
    }

    /// Drops the outcome of a task, without the lock and before the task counts as done.
    #[cold]
    fn drop_outcome<'a>(&'a self, outcome: Recorded<R>, state: MutexGuard<'a, State<R>>) -> MutexGuard<'a, State<R>> {
        drop(state);
        unwind::discard(outcome);
        self.state.lock()
    }

    /// Records the outcome of a task that failed or panicked. A panic that belongs to the handle of
    /// the task goes there, and the group has no outcome for the task.
    #[cold]
    fn complete_failed(
        &self,
        counters: &WorkerCounters,
        index: usize,
        outcome: Recorded<R>,
    ) -> MutexGuard<'_, State<R>> {
        let outcome = match outcome {
            Err(TaskError::Panicked(panic)) => panic.deliver().map(|panic| Err(TaskError::Panicked(panic))),
            outcome => Some(outcome),
        };
        let mut state = self.state.lock();
        if let Some(outcome) = outcome {
            state = self.record_decisive(counters, index, outcome, state);
        }
        state.running.remove(&index);
        self.count_done(&mut state, 1);
        state
    }

    /// Closes the group because of an outcome that is about to be recorded.
    #[cold]
    pub(super) fn close_on_outcome<'a>(
        &'a self,
        counters: &WorkerCounters,
        index: usize,
        outcome: &Recorded<R>,
        mut state: MutexGuard<'a, State<R>>,
    ) -> MutexGuard<'a, State<R>> {
        state.outcomes.note_decision(index, outcome);
        let unstarted = self.close_state(&mut state, CancelReason::GroupEnded);
        drop(state);
        if unstarted.is_empty() {
            self.cancel_token(CancelReason::GroupEnded);
        } else {
            self.as_closer(unstarted.len(), |_| {
                self.cancel_token(CancelReason::GroupEnded);
                self.drop_unstarted(counters, unstarted, CancelReason::GroupEnded);
            });
        }
        self.state.lock()
    }
}

impl<R: TaskResult> TicketHolder for GroupInner<R> {
    /// Runs tasks as a worker that has taken a ticket.
    fn run_ticket(self: Arc<Self>) {
        self.close_if_cancelled();
        let mut state = self.state.lock();
        state.tickets.take();
        if state.tickets.runners() < self.settings.limit {
            drop(self.run_unstarted(state, Budget::Quantum, |_| false));
        }
    }

    fn send_tickets(self: Arc<Self>) {
        while self.count_ticket_if_needed(&mut self.state.lock()) {
            self.send_ticket();
        }
    }

    fn cancel(&self, reason: CancelReason) {
        self.close(reason);
    }

    fn snapshot(self: Arc<Self>) -> (Holder, Leftover) {
        let state = self.state.lock();
        let oldest = state.unstarted.oldest().map(|task| (task.id, task.location, task.queued_at));
        let label = self.settings.label.clone();
        let mut copy = GroupSnapshot {
            limit: Some(self.settings.limit).filter(|limit| *limit < usize::MAX),
            running: state.tickets.runners() - state.pausing,
            waiting: state.unstarted.len(),
            capacity: self.settings.capacity,
            delayed: state.delayed(),
            submitters: state.room_waiters.count(),
            is_closed: state.closed.is_some(),
            oldest: None,
            label,
        };
        drop(state);
        copy.oldest = oldest.map(|(id, location, queued_at)| {
            let age = queued_at.map(|at| since(self.pool.executor.tracker.instant(at)));
            TaskSnapshot::new(id, copy.label.as_ref(), location, age)
        });
        (Holder::Group(copy), leftover(self))
    }
}

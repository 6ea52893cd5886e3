//! How the tasks of a group are run, by the rules 2 to 5 of `core`.

use super::result::TaskResult;
use super::settings::GroupPolicy;
use super::state::{Ended, GroupInner, PendingTask, State};
use crate::defect::defect;
use crate::error::{CancelReason, TaskError};
use crate::failpoint::{self, Place};
use crate::observe::observer::TaskOutcome;
use crate::observe::worker_counters::WorkerCounters;
use crate::sync::{Arc, MutexGuard};
use crate::task::executor::TaskMeta;
use crate::task::job::TicketHolder;

/// How many tasks a runner takes before it gives way to jobs that wait, other than tickets of its own group.
const TURN: usize = 16;

/// How long a runner goes on.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Budget {
    /// To the end, as one who waits for the group does.
    Unlimited,
    /// For a turn, if jobs wait.
    Quantum,
}

impl<R: TaskResult> GroupInner<R> {
    /// Runs unstarted tasks as one more runner, until there are none, `enough` says so, or the stint is over. The lock under
    /// which an outcome lands is the one under which the next task is taken; the lock that it begins under is passed in,
    /// and the one that it ends under is passed out.
    pub(super) fn run_unstarted<'a>(
        self: &'a Arc<Self>,
        mut state: MutexGuard<'a, State<R>>,
        stint: Budget,
        enough: impl Fn(&State<R>) -> bool,
    ) -> MutexGuard<'a, State<R>> {
        state.runners += 1;
        self.enter(|record| {
            for taken in 0.. {
                let is_over = stint == Budget::Quantum && taken >= TURN && self.engine.queued() > state.tickets;
                let task = if is_over || enough(&state) { None } else { state.unstarted.pop_front() };
                let Some(mut task) = task else { break };
                state.running.push_back(task.index);
                self.tell_room(&state);
                drop(state);
                let (ended, index) = (self.call(record, &mut task), task.index);
                drop(task); // before it counts as done, and under no lock
                self.close_if_told();
                state = self.land(record, index, ended);
                self.engine.executor.task_done(record, 1);
            }
            self.stop_running(state)
        })
    }

    /// Runs one task in the place of the member that calls this.
    pub(super) fn perform(&self, mut task: PendingTask<R>) {
        self.enter(|record| {
            let (ended, index) = (self.call(record, &mut task), task.index);
            drop(task);
            drop(self.land(record, index, ended));
            self.engine.executor.task_done(record, 1);
        });
    }

    /// A runner stops; see the rules 2 and 9 of `core`. Lets go of the lock only if it leaves tasks behind.
    fn stop_running<'a>(self: &'a Arc<Self>, mut state: MutexGuard<'a, State<R>>) -> MutexGuard<'a, State<R>> {
        state.runners -= 1;
        if state.unstarted.is_empty() {
            return state;
        }
        let helpers = state.helpers > 0;
        let for_room = state.waits_for_room();
        let needed = self.count_ticket_if_needed(&mut state);
        drop(state);
        if needed {
            self.send_ticket();
        }
        if helpers {
            self.changed.notify_all();
        }
        if for_room {
            // One of them may be a worker, who can run tasks itself.
            self.half_room.notify_all();
            self.room.notify_all();
        }
        self.state.lock()
    }

    /// Calls the closure of a task and tells what came of it.
    fn call(&self, record: &WorkerCounters, task: &mut PendingTask<R>) -> Ended<R> {
        let outcome_of = |result: &R| if result.is_failure() { TaskOutcome::Failed } else { TaskOutcome::Succeeded };
        let brief = TaskMeta { info: self.info(task.id, task.location), queued_at: task.queued_at };
        match self.engine.executor.run(record, &brief, || task.body.call(), outcome_of) {
            Ok(result) => result.into_result().map_err(TaskError::Failed),
            Err(panic) => Err(TaskError::Panicked(panic)),
        }
    }

    /// Lets the outcome of a task land, and closes the group if that decides it. Returns the lock under which it landed;
    /// the caller settles the task.
    fn land(&self, record: &WorkerCounters, index: usize, ended: Ended<R>) -> MutexGuard<'_, State<R>> {
        failpoint::at(Place::Landing);
        let decides = match self.settings.policy {
            GroupPolicy::FailFast => ended.is_err(),
            GroupPolicy::CollectAll => false,
            GroupPolicy::FirstSuccess => ended.is_ok(),
        };
        let mut state = self.state.lock();
        if (decides || state.wants_first && ended.is_ok()) && state.closed.is_none() {
            state = self.decide(record, index, &ended, state);
        }
        state.outcomes.put(index, ended);
        state.running.remove(&index);
        self.count_done(&mut state, 1);
        state
    }

    /// Closes the group because of an outcome that is about to land.
    #[cold]
    fn decide<'a>(
        &'a self,
        record: &WorkerCounters,
        index: usize,
        ended: &Ended<R>,
        mut state: MutexGuard<'a, State<R>>,
    ) -> MutexGuard<'a, State<R>> {
        if !defect!("error noted after the cancellation") {
            state.outcomes.note_decision(index, ended);
        }
        let unstarted = self.close_state(&mut state, CancelReason::GroupEnded);
        drop(state);
        self.cancel_token(CancelReason::GroupEnded);
        self.drop_unstarted(record, unstarted, CancelReason::GroupEnded);
        self.state.lock()
    }
}

impl<R: TaskResult> TicketHolder for GroupInner<R> {
    fn run_ticket(self: Arc<Self>) {
        self.close_if_told();
        let mut state = self.state.lock();
        state.tickets -= 1;
        if state.runners < self.settings.limit {
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
}

//! How a thread waits for a group, and what the wait returns.
//!
//! A waiter finds its result ready and takes it without releasing the lock in between. So no later
//! event changes the result.

use std::cell::Cell;
use std::collections::BTreeSet;
use std::mem;

use super::any_end::{AnyEnd, WaitFor};
use super::body::Outcome;
use super::result::TaskResult;
use super::run::Budget;
use super::settings::GroupPolicy;
use super::state::{GroupInner, State, WouldDeadlock};
use crate::error::{CancelReason, Cycle, CycleKind, CycleTarget, GroupError, TaskError, TaskFailure};
use crate::nesting;
use crate::sync::{Arc, MutexGuard, Ordering, spin_wait};
use crate::task::cell::SPIN_TIME;
use crate::task::context::{self, AwaitedId, PoolId};
use crate::task::sleepers;
use crate::task::waits::{self, Awaited, Kind, Needs, Next};
use crate::time::deadline::Deadline;

/// All values of a group in spawn order, or its first error.
pub(crate) type WaitResult<R> = Result<Vec<<R as TaskResult>::Value>, GroupError<<R as TaskResult>::Error>>;

/// All values of a group in spawn order, or its first error with the task that failed.
pub(super) type WithTaskResult<R> =
    Result<Vec<<R as TaskResult>::Value>, GroupError<TaskFailure<<R as TaskResult>::Error>>>;

/// The values of a group in spawn order, as far as there are any, and its error.
pub(super) type PartialResult<R> = (Vec<<R as TaskResult>::Value>, Result<(), GroupError<<R as TaskResult>::Error>>);

/// The reason why a wait for the next task has yielded none.
#[derive(Debug, thiserror::Error)]
pub(super) enum NoCompletion {
    /// No task ended before the deadline.
    #[error("no task ended in time")]
    TimedOut,
    /// The wait would never end.
    #[error("{0}")]
    WouldDeadlock(#[from] WouldDeadlock),
}

impl<R: TaskResult> GroupInner<R> {
    /// Waits until all tasks are done, closes the group, and takes the values or the first error.
    /// Returns `None` if the deadline passed first. Helps if there is no deadline and this thread
    /// has tasks on its stack.
    pub(crate) fn wait_values(
        self: &Arc<Self>,
        deadline: Deadline,
        kind: Kind,
    ) -> Result<Option<WaitResult<R>>, WouldDeadlock> {
        self.wait_done(deadline, kind, Self::take_values)
    }

    /// Waits as [`wait_values`](Self::wait_values) does, and keeps the task that failed.
    pub(super) fn wait_values_with_task(self: &Arc<Self>) -> WithTaskResult<R> {
        let taken = self.wait_done(Deadline::NEVER, Kind::Certain, Self::take_values_with_task);
        taken.and_then(|taken| taken.ok_or(WouldDeadlock(Cycle::default()))).unwrap_or_else(|error| Err(error.into()))
    }

    /// Waits until all tasks are done, closes the group, and takes the values and the first error.
    pub(super) fn wait_partial(self: &Arc<Self>) -> PartialResult<R> {
        let taken = self.wait_done(Deadline::NEVER, Kind::Certain, Self::take_partial);
        let taken = taken.and_then(|taken| taken.ok_or(WouldDeadlock(Cycle::default())));
        taken.unwrap_or_else(|error| (Vec::new(), Err(error.into())))
    }

    /// Waits until all tasks are done, closes the group, and takes what `take` takes. Returns
    /// `None` if the deadline passed first.
    #[inline]
    fn wait_done<X>(
        self: &Arc<Self>,
        deadline: Deadline,
        kind: Kind,
        take: impl FnOnce(&Self, &mut State<R>) -> X,
    ) -> Result<Option<X>, WouldDeadlock> {
        let state = self.wait_until(deadline, (WaitFor::All, kind), State::all_done)?;
        Ok(state.map(|state| self.take_done(state, take)))
    }

    /// Closes the group, all of whose tasks are done, and takes what `take` takes.
    #[inline]
    pub(super) fn take_done<X>(
        self: &Arc<Self>,
        mut state: MutexGuard<'_, State<R>>,
        take: impl FnOnce(&Self, &mut State<R>) -> X,
    ) -> X {
        self.finish(&mut state);
        let taken = take(self, &mut state);
        // A worker may hold the group a little longer than this waiter. Errors and values that the
        // caller does not get are dropped here, so that none outlives the wait.
        let unclaimed = state.outcomes.take_unclaimed();
        drop(state);
        drop(unclaimed);
        taken
    }

    /// Takes the values or the first error of a group all of whose tasks are done.
    #[inline]
    pub(super) fn take_values(&self, state: &mut State<R>) -> WaitResult<R> {
        self.take_end(state).map(|()| state.outcomes.take_values())
    }

    /// Takes what [`take_values`](Self::take_values) takes, and keeps the task that failed.
    pub(super) fn take_values_with_task(&self, state: &mut State<R>) -> WithTaskResult<R> {
        let error = if self.ends_well(state) { None } else { state.take_error_with_task() };
        error.map_or_else(|| Ok(state.outcomes.take_values()), Err)
    }

    /// Takes the values and the error of a group all of whose tasks are done.
    pub(super) fn take_partial(&self, state: &mut State<R>) -> PartialResult<R> {
        let end = self.take_end(state);
        (state.outcomes.take_values(), end)
    }

    /// Takes the error of a group all of whose tasks are done, if it is an error by its policy.
    #[inline]
    fn take_end(&self, state: &mut State<R>) -> Result<(), GroupError<R::Error>> {
        if self.ends_well(state) { Ok(()) } else { state.take_error().map_or(Ok(()), Err) }
    }

    /// Returns `true` if errors do not count, because a task has succeeded.
    #[inline]
    fn ends_well(&self, state: &State<R>) -> bool {
        self.settings.policy == GroupPolicy::FirstSuccess && state.outcomes.has_success()
    }

    /// Waits until all tasks are done, closes the group, and takes every outcome in spawn order.
    pub(crate) fn wait_outcomes(self: &Arc<Self>) -> Result<Vec<Outcome<R>>, WouldDeadlock> {
        let taken = self.wait_done(Deadline::NEVER, Kind::Certain, Self::take_outcomes)?;
        taken.ok_or(WouldDeadlock(Cycle::default()))
    }

    /// Takes every outcome of a group all of whose tasks are done, in spawn order.
    pub(super) fn take_outcomes(&self, state: &mut State<R>) -> Vec<Outcome<R>> {
        state.take_outcomes().into_iter().map(without_task).collect()
    }

    /// Waits until a task has succeeded or all are done, and takes the first value, or what
    /// `errors` takes. From now on only a success ends the group.
    pub(super) fn wait_first<X>(
        self: &Arc<Self>,
        errors: impl FnOnce(&mut State<R>) -> X,
    ) -> Result<Result<R::Value, X>, WouldDeadlock> {
        self.begin_first();
        match self.wait_until(Deadline::NEVER, (WaitFor::First, Kind::Certain), State::has_first)? {
            Some(state) => Ok(Self::take_first(state, errors)),
            None => Err(WouldDeadlock(Cycle::default())),
        }
    }

    /// From now on, only a success ends the group.
    pub(super) fn begin_first(&self) {
        self.state.lock().wants_first = true;
    }

    /// Takes the first value, or what `errors` takes.
    pub(super) fn take_first<X>(
        mut state: MutexGuard<'_, State<R>>,
        errors: impl FnOnce(&mut State<R>) -> X,
    ) -> Result<R::Value, X> {
        let first = state.outcomes.take_success().ok_or_else(|| errors(&mut state));
        let unclaimed = state.outcomes.take_unclaimed();
        drop(state);
        drop(unclaimed);
        first
    }

    /// Waits at most until the deadline for the next task that ends, and yields its outcome.
    /// Returns `None` when all tasks were yielded.
    pub(super) fn next_completion(
        self: &Arc<Self>,
        deadline: Deadline,
    ) -> Result<Option<(usize, Outcome<R>)>, NoCompletion> {
        loop {
            let tracked = self.state.lock().try_track_completions();
            // If the group cannot keep the order of ends yet, wait until it can.
            let condition = |state: &State<R>| {
                if tracked { state.has_next() } else { state.can_track_completions() }
            };
            let ready = self.wait_until(deadline, (WaitFor::Next, Kind::Certain), condition)?;
            let mut state = ready.ok_or(NoCompletion::TimedOut)?;
            if tracked {
                return Ok(state.next_completion());
            }
        }
    }

    /// Closes the group, all of whose tasks are done, and takes back its tickets; see rule 11 of
    /// `state`.
    #[inline]
    fn finish(self: &Arc<Self>, state: &mut State<R>) {
        state.closed.get_or_insert(CancelReason::Requested);
        while state.tickets.sent() > 0 && self.pool.unpush_ticket(self, &self.registration, self.settings.priority) {
            state.tickets.take();
        }
    }

    /// Waits until `condition` holds, and returns the lock under which it did. Returns `None` if
    /// the deadline passed first. Helps if there is no deadline and this thread has tasks on its
    /// stack.
    pub(super) fn wait_until(
        self: &Arc<Self>,
        deadline: Deadline,
        (wait_for, kind): (WaitFor, Kind),
        condition: impl Fn(&State<R>) -> bool,
    ) -> Result<Option<MutexGuard<'_, State<R>>>, WouldDeadlock> {
        let position = context::position(self.pool.id(), self.id());
        if position.is_member {
            return Err(self.own_wait());
        }
        let waits = deadline == Deadline::NEVER && position.depth > 0;
        let helps = waits && position.is_worker;
        let mut may_spin = wait_for == WaitFor::All;
        loop {
            self.close_if_cancelled();
            let mut state = self.state.lock();
            #[cfg(feature = "retry")]
            if helps && state.delayed.is_some() {
                drop(state);
                self.start_timed();
                state = self.state.lock();
            }
            // In a loop: tasks may have been added while a runner that stopped did not hold the
            // lock.
            while helps && !condition(&state) && self.can_run(&state) {
                if position.depth >= context::MAX_HELP_DEPTH {
                    return Err(WouldDeadlock(Cycle::default()));
                }
                state = self.run_unstarted(state, Budget::Unlimited, &condition);
            }
            if condition(&state) {
                return Ok(Some(state));
            }
            if deadline.is_past() {
                return Ok(None);
            }
            // The thread that cancels the groups of the pool may be this one, in a destructor.
            if waits && state.closed.is_none() && self.pool.executor.tracker.is_cancelling() {
                drop(state);
                self.close(CancelReason::ShutDown);
                continue;
            }
            // While tasks are unstarted, the wait is long, and the runners need the CPUs.
            if state.unstarted.is_empty() && mem::take(&mut may_spin) {
                self.all_done_hint.value.store(false, Ordering::Relaxed);
                drop(state);
                // ORDERING: Acquire pairs with the Release of `count_done`.
                spin_wait(SPIN_TIME, || self.all_done_hint.value.load(Ordering::Acquire) || deadline.is_past());
                continue;
            }
            if deadline == Deadline::NEVER && nesting::has_pending() {
                drop(state);
                if !nesting::call_pending() {
                    return Err(WouldDeadlock(Cycle::default()));
                }
                continue;
            }
            let until = if state.closed.is_some() { deadline } else { deadline.earlier(self.deadline()) };
            if waits {
                drop(state);
                self.sleep_registered((wait_for, kind), until, |state| {
                    condition(state) || helps && self.can_run(state)
                })?;
            } else {
                let _listed = sleepers::list(self.describe_wait(wait_for), self.pool.id(), deadline);
                drop(self.sleep(state, wait_for, false, until));
            }
        }
    }

    /// Sleeps until the group has changed, unless it is `ready`. The wait is in the registry of
    /// waits meanwhile, which may have this thread help first.
    fn sleep_registered(
        self: &Arc<Self>,
        (wait_for, kind): (WaitFor, Kind),
        until: Deadline,
        ready: impl Fn(&State<R>) -> bool,
    ) -> Result<(), WouldDeadlock> {
        // The end of a task without a success, or of the last spawner, may close a knot of waits.
        let sources = |state: &State<R>| (wait_for != WaitFor::All).then(|| (self.may_grow(), state.done));
        let seen = sources(&self.state.lock());
        let target: Arc<dyn Awaited> = match wait_for {
            WaitFor::All => Arc::clone(self) as _,
            WaitFor::Next | WaitFor::First => Arc::new(AnyEnd { group: Arc::clone(self), wait_for }),
        };
        match waits::register(target, kind)? {
            Next::Help(awaited) => awaited.help(),
            Next::Sleep(wait, moment) => {
                let state = self.state.lock();
                if !ready(&state) && !wait.is_notified() && seen == sources(&state) {
                    drop(self.sleep(state, wait_for, true, until.earlier(moment)));
                } else {
                    drop(state);
                }
                wait.check()?;
            }
        }
        Ok(())
    }

    /// Sleeps until the group has changed or the deadline has passed, unless it is `ready`. May
    /// wake early.
    pub(super) fn sleep_unless(&self, ready: impl Fn(&State<R>) -> bool, until: Deadline) {
        let state = self.state.lock();
        if !ready(&state) {
            drop(self.sleep(state, WaitFor::Next, true, until));
        }
    }

    /// Describes a wait of a thread for the group.
    fn describe_wait(&self, wait_for: WaitFor) -> CycleTarget {
        let kind = if wait_for == WaitFor::All { CycleKind::Group } else { CycleKind::AnyTask };
        CycleTarget::new(kind).label(self.settings.label.as_ref())
    }

    /// Returns the error of a member that waits for the group.
    pub(super) fn own_wait(&self) -> WouldDeadlock {
        WouldDeadlock(waits::own_cycle(self.describe(), self.pool.id()))
    }

    /// Wakes the threads that wait for any task to end, so that they register their wait again.
    pub(super) fn wake_any_waiters(&self) {
        if self.state.lock().change_waiters > 0 {
            self.changed.notify_all();
        }
    }

    /// Sleeps until the group has changed or the deadline has passed. May wake early.
    fn sleep<'a>(
        &self,
        mut state: MutexGuard<'a, State<R>>,
        wait_for: WaitFor,
        helps: bool,
        until: Deadline,
    ) -> MutexGuard<'a, State<R>> {
        let (waits_for_any, helpers) = (usize::from(wait_for != WaitFor::All), usize::from(helps));
        #[cfg(feature = "retry")]
        let until = if helps { until.earlier(state.next_due()) } else { until };
        state.change_waiters += waits_for_any;
        state.helpers += helpers;
        state = self.changed.wait_until(state, until.instant());
        state.change_waiters -= waits_for_any;
        state.helpers -= helpers;
        state
    }
}

/// Converts an outcome to the form that callers get.
fn without_task<T, E>(outcome: Result<T, TaskError<TaskFailure<E>>>) -> Result<T, TaskError<E>> {
    outcome.map_err(TaskError::without_task)
}

impl<R: TaskResult> State<R> {
    /// Yields the outcome of the task that ended first of those that were not yielded.
    pub(super) fn next_completion(&mut self) -> Option<(usize, Outcome<R>)> {
        let (index, outcome) = self.outcomes.next_completion()?;
        Some((index, without_task(outcome)))
    }

    /// Returns `true` if an outcome can be yielded, or all were.
    pub(super) fn has_next(&self) -> bool {
        self.outcomes.has_completion() || self.all_done()
    }

    /// Returns `true` if a task has succeeded or all are done.
    pub(super) fn has_first(&self) -> bool {
        self.outcomes.has_success() || self.all_done()
    }

    /// Returns `true` if every task that is not done is in one of the lists.
    pub(super) fn can_track_completions(&self) -> bool {
        self.total - self.done == self.unstarted.len() + self.running.len() + self.delayed()
    }

    /// Keeps the order in which tasks end from now on. Returns `false` if tasks are just being
    /// dropped, which are in neither list. That ends soon, and then waiters are notified.
    pub(super) fn try_track_completions(&mut self) -> bool {
        if self.outcomes.tracks_completions() || !self.can_track_completions() {
            return self.outcomes.tracks_completions();
        }
        let delayed = self.delayed_tasks();
        let Self { outcomes, unstarted, running, total, .. } = self;
        let started = running.iter().copied().chain(delayed);
        let pending: BTreeSet<usize> = started.chain(unstarted.indices()).collect();
        outcomes.track_completions((0..*total).filter(|index| !pending.contains(index)));
        true
    }
}

/// The group as the registry of waits sees it.
impl<R: TaskResult> Awaited for GroupInner<R> {
    fn awaited_id(&self) -> AwaitedId {
        self.id().into()
    }

    fn pool(&self) -> PoolId {
        self.pool.id()
    }

    fn report_needs(&self, needs: &mut Needs) {
        let state = self.state.lock();
        if !state.all_done() {
            needs.worker = self.can_run(&state);
            #[cfg(feature = "retry")]
            self.report_delayed(&state, needs);
            needs.end_of(self.id());
        }
    }

    fn describe(&self) -> CycleTarget {
        CycleTarget::new(CycleKind::Group).label(self.settings.label.as_ref())
    }

    /// Runs one task, as one more runner.
    fn help(self: Arc<Self>) {
        let has_run = Cell::new(false);
        #[cfg_attr(not(feature = "retry"), allow(unused_mut, reason = "only retried tasks are delayed"))]
        let mut state = self.state.lock();
        #[cfg(feature = "retry")]
        if state.delayed.is_some() {
            drop(state);
            self.start_timed();
            state = self.state.lock();
        }
        if self.can_run(&state) {
            drop(self.run_unstarted(state, Budget::Unlimited, |_| has_run.replace(true)));
        }
    }

    fn wake_waiters(&self) {
        // A waiter now either sleeps or has not checked its condition.
        drop(self.state.lock());
        self.changed.notify_all();
        self.room.wake_all();
    }
}

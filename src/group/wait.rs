//! How a group is waited for, and what the waiter gets.
//!
//! What a waiter gets is taken under the same hold of the lock that found it ready, so nothing that comes later changes
//! it.

use std::cell::Cell;
use std::collections::BTreeSet;
use std::mem;
use std::time::Duration;

use super::result::TaskResult;
use super::run::Budget;
use super::settings::GroupPolicy;
use super::state::{Ended, GroupInner, State, WouldDeadlock};
use crate::error::{CancelReason, GroupError};
use crate::sync::{Arc, MutexGuard, Ordering, spin_wait};
use crate::task::context::{self, AwaitedId, PoolId};
use crate::task::waits::{self, Awaited, Kind, Needs, Next};
use crate::time::deadline::Deadline;

/// All values of a group in spawn order, or its first trouble.
pub(crate) type Values<R> = Result<Vec<<R as TaskResult>::Value>, GroupError<<R as TaskResult>::Error>>;

/// How long a waiter looks for the end of the last task before it sleeps: about as long as it takes to be woken.
const SPIN_TIME: Duration = Duration::from_micros(50);

/// What wakes a waiter.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Watch {
    /// The end of the last task.
    End,
    /// The end of any task.
    Changes,
}

impl<R: TaskResult> GroupInner<R> {
    /// Waits until all tasks are done, closes the group, and takes the values or the first trouble; `None` if the
    /// deadline came before. Helps, if `deadline` is never and this thread has tasks on its stack.
    pub(crate) fn wait_values(
        self: &Arc<Self>,
        deadline: Deadline,
        kind: Kind,
    ) -> Result<Option<Values<R>>, WouldDeadlock> {
        let Some(mut state) = self.wait_until(deadline, (Watch::End, kind), State::all_done)? else { return Ok(None) };
        self.end(&mut state);
        let values = if state.impossible {
            Err(GroupError::WouldDeadlock)
        } else if self.settings.policy == GroupPolicy::FirstSuccess && state.outcomes.has_success() {
            Ok(state.outcomes.take_values())
        } else {
            match state.take_error() {
                Some(error) => Err(error),
                None => Ok(state.outcomes.take_values()),
            }
        };
        // A worker may own the group a little longer than this waiter. Errors and values that the caller does not get are
        // dropped here, so that none outlives the wait.
        let unclaimed = state.outcomes.take_unclaimed();
        drop(state);
        drop(unclaimed);
        Ok(Some(values))
    }

    /// Waits until all tasks are done, closes the group, and takes every outcome in spawn order.
    pub(crate) fn wait_outcomes(self: &Arc<Self>) -> Result<Vec<Ended<R>>, WouldDeadlock> {
        let Some(mut state) = self.wait_until(Deadline::NEVER, (Watch::End, Kind::Certain), State::all_done)? else {
            return Err(WouldDeadlock);
        };
        self.end(&mut state);
        let total = state.total;
        Ok((0..total).filter_map(|index| state.outcomes.take(index)).collect())
    }

    /// Waits until a task has succeeded or all are done, and takes the first value or the first trouble.
    pub(crate) fn wait_first(self: &Arc<Self>) -> Result<R::Value, GroupError<R::Error>> {
        self.state.lock().wants_first = true;
        let has_failed =
            |state: &State<R>| self.settings.policy == GroupPolicy::FailFast && state.outcomes.trouble_came_first();
        let enough = |state: &State<R>| state.outcomes.has_success() || has_failed(state) || state.all_done();
        let Some(mut state) = self.wait_until(Deadline::NEVER, (Watch::Changes, Kind::Open), enough)? else {
            return Err(GroupError::WouldDeadlock);
        };
        let success = if has_failed(&state) { None } else { state.outcomes.take_success() };
        let first = match success {
            Some(value) => Ok(value),
            None if state.impossible => Err(GroupError::WouldDeadlock),
            // Without tasks there is no success to wait for.
            None => Err(state.take_error().unwrap_or(GroupError::WouldDeadlock)),
        };
        let unclaimed = state.outcomes.take_unclaimed();
        drop(state);
        drop(unclaimed);
        first
    }

    /// Hands out the next task that has ended, waiting for one; `None` when all were handed out.
    pub(crate) fn next_ended(self: &Arc<Self>) -> Result<Option<(usize, Ended<R>)>, WouldDeadlock> {
        if context::is_member_of(self.name()) {
            return Err(WouldDeadlock);
        }
        self.keep_order();
        let enough = |state: &State<R>| state.outcomes.has_ended() || state.all_done();
        let state = self.wait_until(Deadline::NEVER, (Watch::Changes, Kind::Open), enough)?;
        Ok(state.and_then(|mut state| state.outcomes.next_ended()))
    }

    /// Drops every outcome, containing their destructors' panics.
    pub(crate) fn discard_outcomes(&self) {
        let outcomes = self.state.lock().outcomes.take_all();
        drop(outcomes);
    }

    /// Closes the group, all of whose tasks are done, and takes back the tickets that nobody has come to; rule 11 of `core`.
    #[inline]
    fn end(self: &Arc<Self>, state: &mut State<R>) {
        state.closed.get_or_insert(CancelReason::Requested);
        while state.tickets > 0 && self.engine.unpush_ticket(self, &self.registration) {
            state.tickets -= 1;
        }
    }

    /// From now on keeps the order in which tasks end.
    fn keep_order(&self) {
        let mut state = self.state.lock();
        // While tasks are being dropped they are in none of the lists. That ends soon, and is announced.
        while !state.outcomes.keeps_order() && state.total - state.done != state.unstarted.len() + state.running.len() {
            state.wait_for_change += 1;
            state = self.changed.wait_until(state, None);
            state.wait_for_change -= 1;
        }
        let State { outcomes, unstarted, running, total, .. } = &mut *state;
        if !outcomes.keeps_order() {
            let pending: BTreeSet<usize> =
                running.iter().copied().chain(unstarted.iter().map(|task| task.index)).collect();
            outcomes.keep_order((0..*total).filter(|index| !pending.contains(index)));
        }
    }

    /// Waits until `enough`, and returns with the lock that found it so; `None` if the deadline came before. Helps, if
    /// there is no deadline and this thread has tasks on its stack.
    fn wait_until(
        self: &Arc<Self>,
        deadline: Deadline,
        (watch, kind): (Watch, Kind),
        enough: impl Fn(&State<R>) -> bool,
    ) -> Result<Option<MutexGuard<'_, State<R>>>, WouldDeadlock> {
        let local = context::position(self.engine.id(), self.name());
        if local.is_member {
            return Err(WouldDeadlock);
        }
        let waits = deadline == Deadline::NEVER && local.depth > 0;
        let helps = waits && local.is_worker;
        let mut stays_awake = watch == Watch::End;
        loop {
            self.close_if_told();
            let mut state = self.state.lock();
            // Again and again: tasks may have come while a runner that stopped had let go of the lock.
            while helps && !enough(&state) && self.can_run(&state) {
                if local.depth >= context::MAX_HELP_DEPTH {
                    return Err(WouldDeadlock);
                }
                state = self.run_unstarted(state, Budget::Unlimited, &enough);
            }
            if enough(&state) {
                return Ok(Some(state));
            }
            if deadline.is_past() {
                return Ok(None);
            }
            // While there is more to start, the end is far, and the runners need the CPUs.
            if state.unstarted.is_empty() && mem::take(&mut stays_awake) {
                self.ended.value.store(false, Ordering::Relaxed);
                drop(state);
                // ORDERING: Acquire pairs with the Release of `count_done`.
                spin_wait(SPIN_TIME, || self.ended.value.load(Ordering::Acquire) || deadline.is_past());
                continue;
            }
            let until = if state.closed.is_some() { deadline } else { deadline.earlier(self.expiry()) };
            if waits {
                drop(state);
                self.sleep_entered((watch, kind), until, |state| enough(state) || helps && self.can_run(state))?;
            } else {
                drop(self.sleep(state, watch, false, until));
            }
        }
    }

    /// Sleeps until the group has changed, unless it is `ready`. The registry of waits knows of it meanwhile, and may have
    /// this thread help first.
    fn sleep_entered(
        self: &Arc<Self>,
        (watch, kind): (Watch, Kind),
        until: Deadline,
        ready: impl Fn(&State<R>) -> bool,
    ) -> Result<(), WouldDeadlock> {
        match waits::enter(Arc::clone(self) as _, kind).map_err(|_| WouldDeadlock)? {
            Next::Help(awaited) => awaited.help(),
            Next::Sleep(wait, moment) => {
                let state = self.state.lock();
                if !ready(&state) && !wait.is_called() {
                    drop(self.sleep(state, watch, true, until.earlier(moment)));
                } else {
                    drop(state);
                }
                if wait.is_refused() {
                    return Err(WouldDeadlock);
                }
            }
        }
        Ok(())
    }

    /// Sleeps until the group has changed.
    fn sleep<'a>(
        &self,
        mut state: MutexGuard<'a, State<R>>,
        watch: Watch,
        helps: bool,
        until: Deadline,
    ) -> MutexGuard<'a, State<R>> {
        let (watches, helpers) = (usize::from(watch == Watch::Changes), usize::from(helps));
        state.wait_for_change += watches;
        state.helpers += helpers;
        state = self.changed.wait_until(state, until.instant());
        state.wait_for_change -= watches;
        state.helpers -= helpers;
        state
    }
}

/// What the registry of waits sees of the group.
impl<R: TaskResult> Awaited for GroupInner<R> {
    fn name(&self) -> AwaitedId {
        GroupInner::name(self).into()
    }

    fn pool(&self) -> PoolId {
        self.engine.id()
    }

    fn look(&self, needs: &mut Needs) {
        let state = self.state.lock();
        if !state.all_done() {
            needs.worker = self.can_run(&state);
            needs.end_of(self.name());
        }
    }

    /// Runs one task, as one more runner.
    fn help(self: Arc<Self>) {
        let has_run = Cell::new(false);
        let state = self.state.lock();
        if self.can_run(&state) {
            drop(self.run_unstarted(state, Budget::Unlimited, |_| has_run.replace(true)));
        }
    }

    fn wake_waiters(&self) {
        drop(self.state.lock()); // a waiter has looked before, and sleeps, or looks after
        self.changed.notify_all();
        self.half_room.notify_all();
        self.room.notify_all();
    }
}

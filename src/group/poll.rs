//! How a future waits for a group: the counterpart of `wait` that does not block.

use std::task::{Context, Poll, Waker};

use super::any_end::WaitFor;
use super::body::Outcome;
use super::poller::{DueWakers, Poller};
use super::result::TaskResult;
use super::run::Budget;
use super::state::{GroupInner, State, WouldDeadlock};
use crate::error::Cycle;
use crate::sync::{Arc, MutexGuard};
use crate::task::context;
use crate::task::future_wait::FutureWait;
use crate::time::deadline::Deadline;
use crate::unwind;

/// The index and the outcome of the next task that has ended; `None` if all were yielded.
type NextCompletion<R> = Result<Option<(usize, Outcome<R>)>, WouldDeadlock>;

/// The wait of a future for a group. Removes its poller when dropped.
///
/// Owns a reference, so that what borrows a group and contains this has no destructor of its own,
/// and does not extend the borrow.
pub(super) struct GroupWait<R: TaskResult> {
    group: Arc<GroupInner<R>>,
    /// What the last poll has registered.
    wait: FutureWait,
}

impl<R: TaskResult> GroupWait<R> {
    pub(super) fn new(group: &Arc<GroupInner<R>>) -> Self {
        Self { group: Arc::clone(group), wait: FutureWait::default() }
    }

    /// Closes the group and takes what `take` takes if all tasks are done, like `wait_values`.
    pub(super) fn poll_done<X>(
        &mut self,
        context: &Context<'_>,
        take: impl FnOnce(&GroupInner<R>, &mut State<R>) -> X,
    ) -> Poll<Result<X, WouldDeadlock>> {
        let Self { group, wait } = self;
        let polled = group.poll_until(WaitFor::All, wait, context, State::all_done);
        polled.map_ok(|state| group.take_done(state, take))
    }

    /// Takes the first value if a task has succeeded, or what `errors` takes if all are done, like
    /// `wait_first`.
    pub(super) fn poll_first<X>(
        &mut self,
        context: &Context<'_>,
        errors: impl FnOnce(&mut State<R>) -> X,
    ) -> Poll<Result<Result<R::Value, X>, WouldDeadlock>> {
        let Self { group, wait } = self;
        let polled = group.poll_until(WaitFor::First, wait, context, State::has_first);
        polled.map_ok(|state| GroupInner::take_first(state, errors))
    }

    /// Yields the outcome of the next task that has ended, like `next_completion`.
    pub(super) fn poll_completion(&mut self, context: &Context<'_>) -> Poll<NextCompletion<R>> {
        let Self { group, wait } = self;
        loop {
            let tracked = group.state.lock().try_track_completions();
            // Until the order is kept, any change may be what it takes.
            let condition = |state: &State<R>| {
                if tracked { state.has_next() } else { state.can_track_completions() }
            };
            match group.poll_until(WaitFor::Next, wait, context, condition) {
                Poll::Ready(Ok(mut state)) if tracked => return Poll::Ready(Ok(state.next_completion())),
                Poll::Ready(Ok(state)) => drop(state),
                Poll::Ready(Err(error)) => return Poll::Ready(Err(error)),
                Poll::Pending => return Poll::Pending,
            }
        }
    }
}

impl<R: TaskResult> Drop for GroupWait<R> {
    fn drop(&mut self) {
        self.group.remove_poller();
    }
}

impl<R: TaskResult> State<R> {
    /// Takes the wakers of the futures that must be woken. The caller does so without the lock.
    #[inline]
    pub(super) fn take_due(&mut self) -> Option<DueWakers> {
        if self.has_due { Some(self.take_due_wakers()) } else { None }
    }

    #[cold]
    fn take_due_wakers(&mut self) -> DueWakers {
        self.has_due = false;
        let poller = self.poller.take_if(|poller| poller.is_due).map(|poller| poller.waker);
        let room_is_due = self.room_pollers.as_ref().is_some_and(|room| room.is_due);
        DueWakers { poller, room: if room_is_due { self.take_room_wakers() } else { None } }
    }

    /// Takes the waker of the poller if that helps. The caller wakes it without the lock, because
    /// there is a task to start.
    #[inline]
    pub(super) fn take_helping_poller(&mut self) -> Option<Waker> {
        self.poller.take_if(|poller| poller.helps).map(|poller| poller.waker)
    }
}

impl<R: TaskResult> GroupInner<R> {
    /// Wakes the futures that must be woken.
    #[inline]
    pub(super) fn wake_due_poller(&self) {
        let due = self.state.lock().take_due();
        due.into_iter().for_each(DueWakers::wake);
    }

    /// Forgets the poller, which no longer waits.
    fn remove_poller(&self) {
        let poller = self.state.lock().poller.take();
        unwind::discard(poller.map(|poller| poller.waker));
    }

    /// Returns the lock under which `condition` holds, or registers the future. Helps if this
    /// thread is a worker with tasks on its stack.
    fn poll_until<'a>(
        self: &'a Arc<Self>,
        wait_for: WaitFor,
        wait: &mut FutureWait,
        context: &Context<'_>,
        condition: impl Fn(&State<R>) -> bool,
    ) -> Poll<Result<MutexGuard<'a, State<R>>, WouldDeadlock>> {
        let position = context::position(self.pool.id(), self.id());
        let helps = position.depth > 0 && position.is_worker;
        loop {
            wait.begin_poll();
            self.close_if_cancelled();
            let mut state = self.state.lock();
            while !position.is_member && helps && !condition(&state) && self.can_run(&state) {
                if position.depth >= context::MAX_HELP_DEPTH {
                    return Poll::Ready(Err(WouldDeadlock(Cycle::default())));
                }
                state = self.run_unstarted(state, Budget::Unlimited, &condition);
            }
            if condition(&state) {
                return Poll::Ready(Ok(state));
            }
            drop(state);
            // After the condition: a waker that polls at once is called by a member whose task is
            // done.
            if position.is_member {
                return Poll::Ready(Err(self.own_wait()));
            }
            // Cloning a waker is user code.
            let waker = context.waker().clone();
            let mut state = self.state.lock();
            if condition(&state) || helps && self.can_run(&state) {
                drop(state);
                unwind::discard(waker);
                continue;
            }
            let until = if state.closed.is_some() { Deadline::NEVER } else { Deadline::NEVER.earlier(self.deadline()) };
            let old = state.poller.replace(Poller { waker, wants_any: wait_for != WaitFor::All, helps, is_due: false });
            drop(state);
            unwind::discard(old.map(|poller| poller.waker));
            match wait.register(|| Arc::clone(self) as _, until, context) {
                Some(awaited) => awaited.help(),
                None => return Poll::Pending,
            }
        }
    }
}

//! How a group is closed and cancelled, and its token; see the rules 5 to 7 of `state`.

use std::ops::Range;
use std::time::Instant;

use super::result::TaskResult;
use super::small_deque::SmallDeque;
use super::state::{GroupInner, State};
use super::task_queue::PendingTask;
use crate::cancel::token::CancellationToken;
use crate::error::CancelReason;
use crate::nesting;
use crate::observe::worker_counters::WorkerCounters;
use crate::sync::{Arc, Ordering};
use crate::unwind;

impl<R: TaskResult> GroupInner<R> {
    /// Closes the group, drops the tasks that have not started, and cancels the token.
    pub(crate) fn close(&self, reason: CancelReason) {
        let mut state = self.state.lock();
        if state.closed.is_some() {
            return;
        }
        let unstarted = self.close_state(&mut state, reason);
        drop(state);
        self.as_closer(unstarted.len(), |counters| {
            self.cancel_token(reason);
            self.drop_unstarted(counters, unstarted, reason);
        });
        self.wake_due_poller();
    }

    /// Closes the group for an owner that does not wait. No outcome is kept. Returns how many tasks
    /// had not started, which may be stale.
    pub(super) fn abandon(self: &Arc<Self>) -> usize {
        let mut state = self.state.lock();
        state.abandoned = true;
        let unstarted = state.unstarted.len() + state.delayed();
        let has_outcomes = !state.outcomes.is_empty();
        drop(state);
        // An outcome or a closure that is dropped may own another group, and so on: see `nesting`.
        if has_outcomes {
            self.discard_outcomes();
        }
        if unstarted == 0 {
            self.close(CancelReason::Requested);
        } else {
            let inner = Arc::clone(self);
            nesting::call_back(move || inner.close(CancelReason::Requested));
        }
        unstarted
    }

    #[cold]
    fn discard_outcomes(&self) {
        let unclaimed = self.state.lock().outcomes.take_unclaimed();
        nesting::discard(unclaimed);
    }

    /// Keeps no outcome from now on, for an owner that will not wait. Drops those that there are.
    pub(super) fn keep_nothing(&self) {
        let mut state = self.state.lock();
        state.abandoned = true;
        let unclaimed = state.outcomes.take_unclaimed();
        drop(state);
        self.as_closer(0, |_| drop(unclaimed));
    }

    /// Closes the group if its token is cancelled or the deadline has passed; see rule 7. Costs two
    /// atomic loads while the token is live and has no deadline.
    #[inline]
    pub(super) fn close_if_cancelled(&self) {
        if self.token.get().is_some_and(CancellationToken::may_be_cancelled) {
            self.close_with_token();
        }
    }

    /// Closes the group for the reason of its token, if that has one.
    fn close_with_token(&self) {
        // Reading the reason checks the deadline, which may call the token's callbacks.
        self.as_closer(0, |_| {
            if let Some(reason) = self.token.get().and_then(CancellationToken::reason) {
                self.close(reason);
            }
        });
    }

    /// Closes the group under its lock. Returns the tasks that will not start.
    pub(super) fn close_state(&self, state: &mut State<R>, reason: CancelReason) -> SmallDeque<PendingTask<R>> {
        state.closed = Some(reason);
        // ORDERING: Release pairs with the Acquire of `is_cancelled`; the token is made under the
        // same lock.
        self.cancelled.store(true, Ordering::Release);
        self.room.wake_all();
        state.mark_room_pollers();
        #[cfg_attr(not(feature = "retry"), allow(unused_mut, reason = "only retried tasks are delayed"))]
        let mut unstarted = state.unstarted.take_all();
        #[cfg(feature = "retry")]
        if state.delayed.is_some() {
            self.take_delayed(state, &mut unstarted);
        }
        unstarted
    }

    /// Drops tasks that will not start, and records their cancellation. Must be called by a closer
    /// of these tasks; see rule 5.
    pub(super) fn drop_unstarted(
        &self,
        counters: &WorkerCounters,
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
            self.pool.executor.cancelled(counters, &self.origin(id, location), reason);
            match runs.last_mut() {
                Some(Range { end, .. }) if *end == index => *end += 1,
                _ => runs.push(index..index + 1),
            }
        }
        let mut state = self.state.lock();
        for run in runs {
            state.record_cancelled(run, reason);
        }
        self.count_done(&mut state, count);
        drop(state);
        self.pool.executor.task_done(counters, count as u64);
    }

    /// Returns the token. Makes it now if there is none yet.
    pub(crate) fn token(self: &Arc<Self>) -> &CancellationToken {
        self.token.get().unwrap_or_else(|| self.make_token())
    }

    fn make_token(self: &Arc<Self>) -> &CancellationToken {
        let state = self.state.lock();
        self.token.get_or_init(|| {
            let token = CancellationToken::new();
            // No other thread has the token yet, so cancelling it calls no user code.
            if self.cancelled.load(Ordering::Relaxed) {
                token.cancel_with(state.closed.unwrap_or(CancelReason::Requested));
            } else {
                self.link_token(&token);
            }
            token
        })
    }

    /// Registers the callback by which the token closes the group.
    pub(super) fn link_token(self: &Arc<Self>, token: &CancellationToken) {
        let weak = Arc::downgrade(self);
        let guard = token.on_cancel(move || {
            if let Some(inner) = weak.upgrade() {
                inner.close_if_cancelled();
            }
        });
        let first = self.token_guard.set(guard).is_ok();
        assert!(first, "a group has one token");
    }

    /// Returns `true` if the group was cancelled. `true` is final.
    pub(crate) fn is_cancelled(&self) -> bool {
        // ORDERING: Acquire pairs with the Release of `close_state`.
        self.cancelled.load(Ordering::Acquire) || self.token.get().is_some_and(CancellationToken::is_cancelled)
    }

    /// Returns the moment at which the clock cancels the group.
    pub(super) fn deadline(&self) -> Option<Instant> {
        self.token.get().and_then(CancellationToken::deadline)
    }

    /// Cancels the token, if there is one; a token that is made later is made cancelled. Must be
    /// called after [`close_state`](Self::close_state), without the lock.
    pub(super) fn cancel_token(&self, reason: CancelReason) {
        if let Some(token) = self.token.get() {
            token.cancel_with(reason);
        }
    }
}

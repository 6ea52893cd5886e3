//! A task that is retried: a cell that holds the closure or the output, and a timer.
//!
//! The cell is that of a plain task. After an attempt that will be followed by another, the closure
//! is *put back* into the cell, and the timer is set to the end of the delay.
//!
//! | state | cell | timer | next |
//! |---|---|---|---|
//! | *queued* | `Queued` | none, or fired; an entry is in the pool's queue | *running*, by a worker; done, by cancel |
//! | *running* | `Running` | none | *delayed*, by a failure that is retried; done |
//! | *delayed* | `Queued` | set | *queued*, when the timer fires; *running*, by a waiting worker once the delay is over; done, by cancel |
//!
//! Rules:
//! 1. A thread that claims the closure also removes the timer. `timer` is locked while the closure
//!    is put back and the timer is set, and while the closure is claimed and the timer is removed.
//!    So a claim comes before both steps or after both.
//! 2. The pool counts the task once. After an attempt that will be followed by another, the task
//!    counts as queued again.
//! 3. A worker that waits for the task makes an attempt itself if one is due and no other thread
//!    makes it. The registry of waits tells the worker of each delay, and the worker keeps time by
//!    its own clock. There may be no other worker to which the timer thread could hand the task.
//! 4. The queue holds at most one entry for the task, however many attempts waiting workers make:
//!    - A thread that dequeues the entry clears `is_enqueued`. Only then does it check whether an
//!      attempt is due.
//!    - The timer thread enqueues an entry only if `is_enqueued` was clear, and sets it. The
//!      closure is back by then.
//!    - If `is_enqueued` was set, the existing entry serves: the thread that dequeues it later
//!      finds the attempt due.
//! 5. A task whose token is cancelled begins no further attempt. The callback of the token ends a
//!    delay if a parent of the token may be cancelled. A deadline has no callback: the thread that
//!    is to make the next attempt finds it passed.
//! 6. An entry that is dequeued before the delay is over is *stale*: it belongs to an earlier
//!    attempt, which a waiting worker has made. The thread that dequeues it, to run the task or to
//!    discard it for a newer job, leaves the task alone.
//!
//! Races:
//! - *Cancel and put back*: cancel finds `Queued` and wins, or it finds `Running` and cancels the
//!   token. In the second case it then looks at the cell again, and the thread that puts the
//!   closure back looks at the token after that. So one of them ends the task.
//! - *Close and reschedule*: the timer thread refuses the timer and the task is cancelled here, or
//!   the close finds the timer.
//! - *Fire and claim by a waiting worker*: the entry that is left in the queue is stale.

use std::panic::Location;
use std::time::Instant;

use super::attempts::{Attempt, RetryState};
use super::error::{GiveUpReason, RetryError};
use super::retried::{AfterAttempt, Retried};
use crate::cancel::token::{CancelGuard, CancellationToken};
use crate::error::{CancelReason, JoinError};
use crate::nesting;
use crate::observe::task_info::TaskId;
use crate::observe::task_origin::TaskOrigin;
use crate::observe::worker_counters::WorkerCounters;
use crate::priority::Priority;
use crate::snapshot::{TimerKind, TimerSnapshot};
use crate::sync::{Arc, AtomicBool, Mutex, OnceLock, Ordering, Weak};
use crate::task::cell::TaskCell;
use crate::task::cell_task::CellTask;
use crate::task::context::{self, GroupId};
use crate::task::executor::{Executor, TaskMeta};
use crate::task::job::Task;
use crate::task::limited::TaskLimits;
use crate::task::waits::{self, Needs};
use crate::time::clock::Timestamp;
use crate::time::deadline::Deadline;
use crate::timer::heap::TimerKey;
use crate::timer::thread::{Reservation, TimerThread};
use crate::unwind;

/// The output of the task, as its handle returns it.
type RetryOutput<T, E> = Result<T, RetryError<E>>;

/// A task that is retried.
pub(super) struct RetryTask<F, T, E> {
    /// The closure or the output, and the waiters.
    cell: TaskCell<RetryClosure<F, E>, RetryOutput<T, E>>,
    /// The token, which is cancelled with the task, and what else limits and names the task.
    limits: TaskLimits,
    /// The class of every attempt.
    class: Priority,
    /// Registers the callback of the token, if another token may cancel it.
    guard: OnceLock<CancelGuard>,
    /// The timer thread of the pool.
    timers: Arc<TimerThread>,
    /// The key of the timer; it may have fired. See rule 1.
    timer: Mutex<Option<TimerKey>>,
    /// Whether the pool's queue holds an entry for the task; see rule 4.
    is_enqueued: AtomicBool,
    /// A reference to the task itself, for the timer.
    weak_self: Weak<Self>,
}

/// The closure of the task with its state: claimed for an attempt, and put back after it.
pub(super) struct RetryClosure<F, E> {
    retried: Retried<F, E>,
    /// The parent of the tokens of the attempts. Made when the first attempt begins.
    token: Option<CancellationToken>,
    /// The place that is reserved for the timer. Without one, no attempt follows the first.
    reservation: Option<Reservation>,
}

impl<F, T, E> RetryTask<F, T, E>
where
    F: FnMut(Attempt) -> Result<T, E> + Send + 'static,
    T: Send + 'static,
    E: Send + 'static,
{
    /// Makes a task that the caller submits at once.
    pub(super) fn new(
        f: F,
        attempts: RetryState<E>,
        reservation: Option<Reservation>,
        timers: Arc<TimerThread>,
        (limits, class): (TaskLimits, Priority),
        (id, location, queued_at): (TaskId, &'static Location<'static>, Option<Timestamp>),
    ) -> Arc<Self> {
        let retried = Retried::new(f, attempts).with_timer(reservation.is_some());
        let body = RetryClosure { retried, token: None, reservation };
        Arc::new_cyclic(|weak_self| Self {
            cell: TaskCell::new(body, id, location, queued_at),
            limits,
            class,
            guard: OnceLock::new(),
            timers,
            timer: Mutex::new(None),
            is_enqueued: AtomicBool::new(true), // by the submission
            weak_self: Weak::clone(weak_self),
        })
    }

    /// Takes the closure back out of a task whose submission was refused.
    pub(super) fn withdraw(&self) -> F {
        self.cell.withdraw().retried.into_closure()
    }

    /// Cancels the task with its token from now on, also in a delay. Called once, when the task was
    /// accepted.
    pub(super) fn watch_token(&self, executor: &Arc<Executor>) {
        let (weak, executor) = (Weak::clone(&self.weak_self), Arc::clone(executor));
        let guard = self.limits.token.on_cancel(move || {
            if let Some(task) = weak.upgrade() {
                task.cancel(task.limits.token.reason().unwrap_or(CancelReason::Requested), &executor);
            }
        });
        let first = self.guard.set(guard).is_ok();
        assert!(first, "a token is watched once");
    }

    /// Claims the closure, if it is in the cell; see rule 1.
    fn claim(&self) -> Option<RetryClosure<F, E>> {
        self.claim_if(|_| true)
    }

    /// Claims the closure, unless the delay is not over: then the caller has dequeued a stale
    /// entry. The timer fires after the delay is over, so the entry of the next attempt is never
    /// taken for a stale one.
    fn claim_if_due(&self) -> Option<RetryClosure<F, E>> {
        self.claim_if(|key| key.deadline() <= Deadline::at(self.now()))
    }

    /// Claims the closure and removes the timer, unless the timer's key says not to.
    fn claim_if(&self, may_start: impl FnOnce(TimerKey) -> bool) -> Option<RetryClosure<F, E>> {
        let mut timer = self.timer.lock();
        if !timer.is_none_or(may_start) {
            return None;
        }
        let removed = timer.take().and_then(|key| self.timers.remove(key));
        let body = self.cell.claim();
        drop(timer);
        drop(removed);
        body
    }

    /// Makes one attempt, and then completes, reschedules or gives up the task.
    fn attempt(&self, mut body: RetryClosure<F, E>, counters: &WorkerCounters, executor: &Executor) {
        if let Some(reason) = self.reason_to_stop(&body) {
            return self.cancel_claimed(body, reason, counters, executor);
        }
        let mut meta = self.meta();
        if body.retried.made() > 0 {
            meta.queued_at = None; // the first attempt has recorded how long the task was queued
        }
        let TaskLimits { token, timeout, .. } = &self.limits;
        let make_token = || timeout.map_or_else(|| token.clone(), |timeout| token.child_with_timeout(timeout));
        let token = body.token.get_or_insert_with(make_token);
        match body.retried.make_attempt(executor, counters, &meta, token, self.timers.clock()) {
            AfterAttempt::Succeeded(value) => {
                unwind::discard(body);
                self.cell.complete(Ok(Ok(value)));
                executor.task_done(counters, 1);
            }
            AfterAttempt::Again(due) => self.reschedule(body, due, counters, executor),
            AfterAttempt::GivenUp(reason) => self.give_up(body, reason, counters, executor),
        }
    }

    /// Puts the closure back and sets the timer. Cancels the task if the pool is closed or the
    /// token is cancelled.
    fn reschedule(&self, body: RetryClosure<F, E>, due: Deadline, counters: &WorkerCounters, executor: &Executor) {
        let this = self.weak_self.upgrade().expect("the caller of a method holds a reference");
        let reservation = body.reservation.as_ref().expect("a task without a place for a timer has one attempt");
        let mut timer = self.timer.lock();
        match reservation.insert(due, this) {
            Ok(key) => {
                *timer = Some(key);
                self.cell.put_back(body);
                drop(timer);
                waits::notify_change([self.cell.group_id().into()], executor.pool_id);
                // A cancel that found the closure running has left the rest to this thread.
                if let Some(reason) = self.limits.token.reason()
                    && let Some(body) = self.claim()
                {
                    self.cancel_claimed(body, reason, counters, executor);
                }
            }
            Err(_) => {
                drop(timer);
                self.cancel_claimed(body, CancelReason::ShutDown, counters, executor);
            }
        }
    }

    /// Completes a task whose attempts are over.
    fn give_up(
        &self,
        mut body: RetryClosure<F, E>,
        reason: GiveUpReason,
        counters: &WorkerCounters,
        executor: &Executor,
    ) {
        let error = body.retried.take_error(reason).expect("a task that is given up has failed");
        unwind::discard(body);
        self.cell.complete(Ok(Err(error)));
        executor.task_done(counters, 1);
    }

    /// Cancels a task whose closure this thread has claimed.
    fn cancel_claimed(
        &self,
        mut body: RetryClosure<F, E>,
        reason: CancelReason,
        counters: &WorkerCounters,
        executor: &Executor,
    ) {
        let error = body.retried.take_error(GiveUpReason::Cancelled(reason));
        context::set_cancelling(self.cell.group_id());
        nesting::discard(body);
        executor.cancelled(counters, &self.meta().origin, reason);
        self.cell.complete(error.map_or(Err(JoinError::Cancelled(reason)), |error| Ok(Err(error))));
        executor.task_done(counters, 1);
    }

    /// Makes an attempt if one is due and no other thread makes it.
    fn attempt_if_due(&self, executor: &Executor) {
        executor.enter(self.cell.group_id(), |counters| {
            if let Some(body) = self.claim_if_due() {
                self.attempt(body, counters, executor);
            }
        });
    }

    /// Notes that the entry of the task has left the queue; see rule 4.
    fn note_dequeued(&self) {
        // ORDERING: pairs with the swap that enqueues, below.
        self.is_enqueued.swap(false, Ordering::AcqRel);
    }
}

impl<F, T, E> RetryTask<F, T, E> {
    fn now(&self) -> Instant {
        self.timers.clock().now()
    }

    /// Returns what the executor needs to know of the task.
    fn meta(&self) -> TaskMeta<'_> {
        let TaskMeta { origin, queued_at } = self.cell.meta();
        TaskMeta { origin: TaskOrigin { label: self.limits.label.as_ref(), ..origin }, queued_at }
    }

    /// Returns why no further attempt may begin: the token is cancelled, or the first attempt was to
    /// begin earlier.
    fn reason_to_stop(&self, body: &RetryClosure<F, E>) -> Option<CancelReason> {
        let is_late = || body.retried.made() == 0 && self.limits.start_by.is_past();
        let token = body.token.as_ref().unwrap_or(&self.limits.token);
        token.reason().or_else(|| is_late().then_some(CancelReason::Expired))
    }
}

impl<F, T, E> Task for RetryTask<F, T, E>
where
    F: FnMut(Attempt) -> Result<T, E> + Send + 'static,
    T: Send + 'static,
    E: Send + 'static,
{
    fn run(&self, executor: &Executor) {
        self.note_dequeued();
        self.attempt_if_due(executor);
    }

    fn cancel(&self, reason: CancelReason, executor: &Executor) -> bool {
        if reason == CancelReason::Discarded {
            self.note_dequeued();
        }
        executor.enter(GroupId::NONE, |counters| {
            let mut claimed = if reason == CancelReason::Discarded { self.claim_if_due() } else { self.claim() };
            // An overflowing queue has discarded a stale entry; the task is delayed or running.
            if claimed.is_none() && reason == CancelReason::Discarded {
                return false;
            }
            self.limits.token.cancel_with(reason);
            // An attempt that did not see the token may have put the closure back.
            claimed = claimed.or_else(|| self.claim());
            let Some(body) = claimed else { return false };
            self.cancel_claimed(body, reason, counters, executor);
            true
        })
    }

    fn is_finished(&self) -> bool {
        self.cell.is_done()
    }

    fn describe_timer(&self) -> TimerSnapshot {
        let origin = self.meta().origin;
        TimerSnapshot::of_task(TimerKind::Retry, origin.id, origin.label, origin.location)
    }

    fn class(&self) -> Priority {
        self.class
    }

    fn should_enqueue(&self) -> bool {
        // ORDERING: AcqRel on both sides: a thread that dequeues the entry found here sees the
        // closure put back.
        !self.is_enqueued.swap(true, Ordering::AcqRel)
    }
}

/// The task as its handle and the registry of waits see it; see rule 3.
impl<F, T, E> CellTask for RetryTask<F, T, E>
where
    F: FnMut(Attempt) -> Result<T, E> + Send + 'static,
    T: Send + 'static,
    E: Send + 'static,
{
    type Closure = RetryClosure<F, E>;
    type Output = RetryOutput<T, E>;

    fn cell(&self) -> &TaskCell<RetryClosure<F, E>, RetryOutput<T, E>> {
        &self.cell
    }

    fn label(&self) -> Option<&Arc<str>> {
        self.limits.label.as_ref()
    }

    /// Returns the status; a delayed task is in progress.
    fn is_timed(&self) -> bool {
        self.timer.lock().is_some_and(|key| key.deadline() > Deadline::at(self.now()))
    }

    fn report_needs(&self, needs: &mut Needs) {
        let due = self.timer.lock().map(TimerKey::deadline);
        let now = self.now();
        self.cell.report_needs(needs, |needs| match due {
            Some(due) if due > Deadline::at(now) => needs.worker_at = due.instant(),
            _ => needs.worker = true,
        });
    }

    fn help(&self, executor: &Executor) {
        self.attempt_if_due(executor);
    }
}

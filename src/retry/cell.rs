//! The cell of a task that is tried again.
//!
//! It is the cell of a plain task, whose closure is *put back* after an attempt that is to be followed by another, and a
//! place in the agenda:
//!
//! | state | in the plain cell | in the agenda | next |
//! |---|---|---|---|
//! | *queued* | `Queued` | no; on its way in the pool's queue | *running* |
//! | *running* | `Running` | no | *delayed*; done |
//! | *delayed* | `Queued` | yes | *queued*, by the timekeeper; *running*, by a worker that waits for it; done, by cancel |
//!
//! Rules:
//! 1. Whoever claims the closure strikes the task out of the agenda. `place` is locked while the closure is put back and
//!    the task is put down, and while it is claimed and struck out, so what claims comes before both or after both.
//! 2. A task is in the pool's books once. After an attempt that is followed by another it counts as queued again.
//! 3. A worker that waits for the task makes an attempt itself when one is due and no other thread does. The registry of
//!    waits tells it of each delay, and it keeps the time by its own clock: there may be no other worker that the
//!    timekeeper could hand the task to.
//! 4. At most one share in the task lies in the queue, however many attempts waiting workers make. Who takes a share out says
//!    so before he looks whether the task is due; the timekeeper puts one in, after the task was put back, unless one is
//!    said to lie there: then who takes that out comes later, and finds the task due.
//!
//! Meetings: *cancel and put back*: cancel finds `Queued` and wins; or it finds `Running` and marks the token. Then it looks
//! again, and who puts the closure back looks at the token after that: one of them ends the task. *Closing and put down*: the agenda refuses the task, which is then
//! cancelled here, or the closing finds it there. *Handed over and claimed by a waiting worker*: what is left in the queue
//! is an empty share. *Empty share and delay*: a share that leaves the queue before the delay is over is an empty one, of an
//! earlier attempt; whoever takes it out, to run it or to give it up for a newer job, leaves the task alone.

use std::panic::Location;
use std::time::Instant;

use super::attempts::{Attempt, Attempts, Next};
use super::error::{AttemptError, Errors, GiveUpReason, RetryError};
use super::policy::ErrorClass;
use crate::cancel::token::CancellationToken;
use crate::error::{CancelReason, JoinError};
use crate::nesting;
use crate::observe::observer::{TaskId, TaskOutcome};
use crate::observe::worker_counters::WorkerCounters;
use crate::sync::{Arc, AtomicBool, Mutex, Ordering, Weak};
use crate::task::cell::{CellTask, TaskCell};
use crate::task::context::GroupId;
use crate::task::executor::Executor;
use crate::task::job::Task;
use crate::task::join::JoinStatus;
use crate::task::waits::{self, Needs};
use crate::time::clock::Moment;
use crate::timer::heap::{Due, Place};
use crate::timer::thread::{Reservation, TimerThread};
use crate::unwind;

/// What the handle yields.
type Yield<T, E> = Result<T, RetryError<E>>;

/// A task that is tried again.
pub(super) struct RetryCell<F, T, E> {
    plain: TaskCell<Body<F, E>, Yield<T, E>>,
    /// Cancelled with the task; the parent of each attempt's.
    token: CancellationToken,
    timers: Arc<TimerThread>,
    /// The place in the agenda, while it may be there. See rule 1.
    place: Mutex<Option<Place>>,
    /// Whether a share in it lies in the pool's queue; see rule 4.
    is_queued: AtomicBool,
    /// Itself, for the agenda.
    me: Weak<Self>,
}

/// What is claimed and put back.
pub(super) struct Body<F, E> {
    f: F,
    attempts: Attempts<E>,
    errors: Errors<E>,
    reservation: Reservation,
}

/// What became of an attempt.
enum Tried<T, E> {
    Succeeded(T),
    Failed(E, ErrorClass),
}

impl<F, T, E> RetryCell<F, T, E>
where
    F: FnMut(Attempt) -> Result<T, E> + Send + 'static,
    T: Send + 'static,
    E: Send + 'static,
{
    pub(super) fn new(
        f: F,
        attempts: Attempts<E>,
        reservation: Reservation,
        timers: Arc<TimerThread>,
        (id, location, queued_at): (TaskId, &'static Location<'static>, Option<Moment>),
    ) -> Arc<Self> {
        let body = Body { f, attempts, errors: Errors::new(), reservation };
        Arc::new_cyclic(|me| Self {
            plain: TaskCell::new(body, id, location, queued_at),
            token: CancellationToken::new(),
            timers,
            place: Mutex::new(None),
            is_queued: AtomicBool::new(true), // it is submitted as soon as it is made
            me: Weak::clone(me),
        })
    }

    /// Takes the closure back out of a task whose submission was refused.
    pub(super) fn withdraw(&self) -> F {
        self.plain.withdraw().f
    }

    /// Claims the closure, if it can be claimed; see rule 1.
    fn start(&self) -> Option<Body<F, E>> {
        self.start_if(|_| true)
    }

    /// The same, unless a delay is under way: what has come out of the queue then is an empty share.
    /// A delay that ends is handed over after it is over, so the share of the next attempt is never taken for one.
    fn start_if_due(&self) -> Option<Body<F, E>> {
        self.start_if(|place| place.due() <= Due::At(self.now()))
    }

    fn start_if(&self, may_start: impl FnOnce(Place) -> bool) -> Option<Body<F, E>> {
        let mut place = self.place.lock();
        if !place.is_none_or(may_start) {
            return None;
        }
        let out_of_agenda = place.take().and_then(|place| self.timers.strike_out(place));
        let body = self.plain.claim();
        drop(place);
        drop(out_of_agenda);
        body
    }

    /// Makes one attempt and sees to what follows.
    fn attempt(&self, mut body: Body<F, E>, record: &WorkerCounters, executor: &Executor) {
        let mut brief = self.plain.meta();
        if body.attempts.made() > 0 {
            brief.queued_at = None; // the first attempt tells how long the task has waited for a worker
        }
        let attempt = body.attempts.begin(&self.token, self.now());
        let (f, attempts) = (&mut body.f, &body.attempts);
        let (started, result) = executor.run_attempt(record, &brief, || match f(attempt) {
            Ok(value) => Tried::Succeeded(value),
            Err(error) => {
                let class = attempts.classify(&error);
                Tried::Failed(error, class)
            }
        });
        let (next, outcome) = match &result {
            Ok(Tried::Succeeded(_)) => (None, TaskOutcome::Succeeded),
            Ok(Tried::Failed(_, class)) => (Some(self.what_follows(&mut body.attempts, *class)), TaskOutcome::Failed),
            Err(_) => (Some(self.what_follows(&mut body.attempts, ErrorClass::Transient)), TaskOutcome::Panicked),
        };
        let ends = !matches!(next, Some(Next::After(_)));
        executor.finish_attempt(record, &brief, started, result.as_ref().err(), ends.then_some(outcome));
        let error = match result {
            Ok(Tried::Succeeded(value)) => {
                body.attempts.succeeded();
                unwind::discard(body);
                self.plain.complete(Ok(Ok(value)));
                executor.task_done(record, 1);
                return;
            }
            Ok(Tried::Failed(error, _)) => AttemptError::Failed(error),
            Err(panic) => AttemptError::Panicked(panic),
        };
        unwind::discard(body.errors.add(error));
        match next {
            Some(Next::After(delay)) => self.delay(body, Due::after(self.now(), delay), record, executor),
            Some(Next::GiveUpReason(reason)) => self.give_up(body, reason, record, executor),
            None => unreachable!("an attempt without an error has succeeded"),
        }
    }

    /// What follows a failed attempt.
    fn what_follows(&self, attempts: &mut Attempts<E>, class: ErrorClass) -> Next {
        match self.token.reason() {
            Some(reason) => Next::GiveUpReason(GiveUpReason::Cancelled(reason)),
            None => attempts.failed(class, self.now()),
        }
    }

    /// Puts the closure back and the task into the agenda.
    fn delay(&self, body: Body<F, E>, due: Due, record: &WorkerCounters, executor: &Executor) {
        let mut place = self.place.lock();
        let me = self.me.upgrade().expect("whoever calls a method holds a reference");
        match body.reservation.put(due, me) {
            Ok(taken) => {
                *place = Some(taken);
                self.plain.put_back(body);
                drop(place);
                waits::changed(self.plain.group_id().into(), executor.pool_id);
                // Who cancelled before the closure was back has found it running, and left it to this.
                if let Some(reason) = self.token.reason()
                    && let Some(body) = self.start()
                {
                    self.cancel_claimed(body, reason, record, executor);
                }
            }
            Err(_) => {
                drop(place);
                self.cancel_claimed(body, CancelReason::ShutDown, record, executor);
            }
        }
    }

    /// Ends a task whose attempts are over.
    fn give_up(&self, body: Body<F, E>, reason: GiveUpReason, record: &WorkerCounters, executor: &Executor) {
        let Body { f, attempts, errors, reservation } = body;
        let made = attempts.made();
        unwind::discard((f, attempts, reservation));
        let error = errors.give_up(reason, made).expect("what is given up has failed");
        self.plain.complete(Ok(Err(error)));
        executor.task_done(record, 1);
    }

    /// Ends a task that is not being tried.
    fn cancel_claimed(&self, body: Body<F, E>, reason: CancelReason, record: &WorkerCounters, executor: &Executor) {
        let Body { f, attempts, errors, reservation } = body;
        let made = attempts.made();
        nesting::discard((f, attempts, reservation));
        executor.cancelled(record, &self.plain.meta().info, reason);
        let error = errors.give_up(GiveUpReason::Cancelled(reason), made);
        self.plain.complete(error.map_or(Err(JoinError::Cancelled(reason)), |error| Ok(Err(error))));
        executor.task_done(record, 1);
    }

    /// Makes an attempt, if none is under way and no delay either.
    fn run_if_due(&self, executor: &Executor) {
        executor.enter(self.plain.group_id(), |record| {
            if let Some(body) = self.start_if_due() {
                self.attempt(body, record, executor);
            }
        });
    }

    /// A share in the task has left the queue; see rule 4.
    fn leave_queue(&self) {
        // ORDERING: see `should_enqueue`.
        self.is_queued.swap(false, Ordering::AcqRel);
    }
}

impl<F, T, E> RetryCell<F, T, E> {
    fn now(&self) -> Instant {
        self.timers.watch().now()
    }
}

impl<F, T, E> Task for RetryCell<F, T, E>
where
    F: FnMut(Attempt) -> Result<T, E> + Send + 'static,
    T: Send + 'static,
    E: Send + 'static,
{
    fn run(&self, executor: &Executor) {
        self.leave_queue();
        self.run_if_due(executor);
    }

    fn cancel(&self, reason: CancelReason, executor: &Executor) -> bool {
        if reason == CancelReason::Discarded {
            self.leave_queue();
        }
        executor.enter(GroupId::NONE, |record| {
            let mut claimed = if reason == CancelReason::Discarded { self.start_if_due() } else { self.start() };
            // An overflowing queue gives up what lies in it, which may be an empty share in a task that is being tried.
            if claimed.is_none() && reason == CancelReason::Discarded {
                return false;
            }
            self.token.cancel_because(reason);
            // The closure may have been put back by an attempt that had not seen the token.
            claimed = claimed.or_else(|| self.start());
            let Some(body) = claimed else { return false };
            self.cancel_claimed(body, reason, record, executor);
            true
        })
    }

    fn is_finished(&self) -> bool {
        self.plain.is_done()
    }

    fn should_enqueue(&self) -> bool {
        // ORDERING: AcqRel on both sides: whoever takes out a share that is found here sees the task put back.
        !self.is_queued.swap(true, Ordering::AcqRel)
    }
}

/// Keeps rule 3.
impl<F, T, E> CellTask for RetryCell<F, T, E>
where
    F: FnMut(Attempt) -> Result<T, E> + Send + 'static,
    T: Send + 'static,
    E: Send + 'static,
{
    type Closure = Body<F, E>;
    type Output = Yield<T, E>;

    fn cell(&self) -> &TaskCell<Body<F, E>, Yield<T, E>> {
        &self.plain
    }

    /// A task between two attempts is under way.
    fn join_status(&self) -> JoinStatus {
        let is_delayed = self.place.lock().is_some_and(|place| place.due() > Due::At(self.now()));
        match self.plain.join_status() {
            JoinStatus::Queued if is_delayed => JoinStatus::InProgress,
            status => status,
        }
    }

    fn look(&self, needs: &mut Needs) {
        let due = self.place.lock().map(Place::due);
        let now = self.now();
        self.plain.look(needs, |needs| match due {
            Some(due) if due > Due::At(now) => needs.worker_at = due.instant(),
            _ => needs.worker = true,
        });
    }

    fn help(&self, executor: &Executor) {
        self.run_if_due(executor);
    }
}

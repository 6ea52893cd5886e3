//! A closure that runs repeatedly.
//!
//! A periodic timer is not a task. For each run a worker admits a new task. So a periodic timer
//! does not keep its pool from being idle, and each run has its own identity and outcome.
//!
//! | state | meaning | changed by | next |
//! |---|---|---|---|
//! | `Waiting` | holds the closure; in the heap or in the queue | any thread | `Running`, by a worker; `Stopped`, by a cancellation |
//! | `Running` | the closure is on a worker's stack, or is being scheduled | that worker; a cancellation | `Waiting`, with its next key; `Stopping` |
//! | `Stopping` | as `Running`, but the closure will not run again | that worker | `Stopped` |
//! | `Stopped` | the closure is dropped | – | none |
//!
//! All transitions happen under the lock. The closure is called and dropped outside of it. A
//! closure that ends its timer goes from `Running` to `Stopped`.
//!
//! Races:
//! - *Cancel and start*: one of them finds `Waiting` and wins.
//! - *Cancel and end of a run*: the worker finds `Stopping`, or the cancellation finds `Waiting`.
//! - *Close and end of a run*: the heap refuses the next run, or closing removes the timer from the
//!   heap.

use std::mem;
use std::panic::Location;

use super::handle::Repeating;
use super::heap::TimerKey;
use super::schedule::Schedule;
use super::thread::{Reservation, TimerRefused, TimerThread};
use super::tick::TickResult;
use crate::error::CancelReason;
use crate::nesting;
use crate::observe::task_info::TaskOutcome;
use crate::priority::Priority;
use crate::snapshot::{TimerKind, TimerSnapshot};
use crate::sync::{Arc, AtomicBool, Mutex, Ordering, Weak};
use crate::task::context::GroupId;
use crate::task::executor::{Executor, TaskMeta};
use crate::task::job::Task;
use crate::task::propagation::Carried;
use crate::time::deadline::Deadline;
use crate::unwind;

/// A closure and its schedule.
pub(crate) struct Periodic<F> {
    schedule: Schedule,
    /// The class in which each run is queued.
    class: Priority,
    location: &'static Location<'static>,
    timers: Arc<TimerThread>,
    /// A reference to itself, for the heap.
    me: Weak<Self>,
    /// Whether it has stopped for good: a copy of the state, for a reader that takes no lock.
    stopped: AtomicBool,
    state: Mutex<State<F>>,
}

/// See the table above.
enum State<F> {
    Waiting { body: Body<F>, key: TimerKey },
    Running,
    Stopping,
    Stopped,
}

/// The closure, and its slot in the heap.
struct Body<F> {
    closure: F,
    /// The context of the thread that has set the timer; each run is submitted in it.
    carried: Option<Carried>,
    /// Its slot in the heap, which it keeps between runs.
    reservation: Reservation,
}

impl<F, R> Periodic<F>
where
    F: FnMut() -> R + Send + 'static,
    R: TickResult,
{
    /// Creates a timer and schedules its first run, or returns the closure.
    pub(crate) fn set(
        (closure, carried): (F, Option<Carried>),
        (schedule, first, class): (Schedule, Deadline, Priority),
        location: &'static Location<'static>,
        timers: &Arc<TimerThread>,
    ) -> Result<Arc<Self>, (TimerRefused, F)> {
        let reservation = match timers.reserve() {
            Ok(reservation) => reservation,
            Err(refusal) => return Err((refusal, closure)),
        };
        let timer = Arc::new_cyclic(|me| {
            let (timers, me) = (Arc::clone(timers), Weak::clone(me));
            let stopped = AtomicBool::new(false);
            Self { schedule, class, location, timers, me, stopped, state: Mutex::new(State::Running) }
        });
        match timer.schedule_next(Body { closure, carried, reservation }, first) {
            None => Ok(timer),
            Some(body) => Err((TimerRefused::Closed, body.closure)),
        }
    }

    /// Starts a run: takes the body out and returns it with its deadline.
    fn start(&self) -> Option<(Body<F>, Deadline)> {
        let mut state = self.state.lock();
        match mem::replace(&mut *state, State::Running) {
            State::Waiting { body, key } => Some((body, key.deadline())),
            other => {
                *state = other;
                None
            }
        }
    }

    /// Runs the closure as a new task. Returns `false` if it has ended the timer, or if the pool
    /// has not admitted the task.
    fn run_once(&self, body: &mut Body<F>, executor: &Executor) -> bool {
        let Body { closure, carried, .. } = body;
        executor.within_carried(carried.as_mut(), || self.run_admitted(closure, executor))
    }

    fn run_admitted(&self, closure: &mut F, executor: &Executor) -> bool {
        let Some(id) = executor.admit(self.location, None) else { return false };
        executor.enter(GroupId::NONE, |record| {
            let brief = TaskMeta::single(id, self.location, None);
            let result = executor.run(record, &brief, closure, |_| TaskOutcome::Succeeded);
            let goes_on = !result.as_ref().is_ok_and(TickResult::ends_timer);
            drop(result);
            executor.task_done(record, 1);
            goes_on
        })
    }

    /// Schedules the next run. Returns the body if there is no next run.
    fn schedule_next(&self, body: Body<F>, deadline: Deadline) -> Option<Body<F>> {
        let mut state = self.state.lock();
        if matches!(*state, State::Running)
            && let Ok(key) = body.reservation.insert(deadline, self.me())
        {
            *state = State::Waiting { body, key };
            return None;
        }
        *state = State::Stopped;
        Some(body)
    }

    fn me(&self) -> Arc<dyn Task> {
        self.me.upgrade().expect("the caller of a method holds a reference")
    }
}

impl<F, R> Task for Periodic<F>
where
    F: FnMut() -> R + Send + 'static,
    R: TickResult,
{
    fn run(&self, executor: &Executor) {
        let Some((mut body, last)) = self.start() else { return };
        let left = if self.run_once(&mut body, executor) {
            let next = self.schedule.next(last, self.timers.clock().now());
            self.schedule_next(body, next)
        } else {
            *self.state.lock() = State::Stopped;
            Some(body)
        };
        executor.enter(GroupId::NONE, |_| unwind::discard(left));
    }

    fn is_finished(&self) -> bool {
        self.stopped.load(Ordering::Relaxed)
    }

    fn class(&self) -> Priority {
        self.class
    }

    fn describe_timer(&self) -> TimerSnapshot {
        TimerSnapshot { location: Some(self.location), ..TimerSnapshot::of_kind(TimerKind::Periodic) }
    }

    fn cancel(&self, _: CancelReason, executor: &Executor) -> bool {
        let mut state = self.state.lock();
        let next = match &*state {
            State::Waiting { .. } | State::Stopped => State::Stopped,
            State::Running | State::Stopping => State::Stopping,
        };
        let before = mem::replace(&mut *state, next);
        drop(state);
        match before {
            State::Waiting { body, key } => {
                executor.enter(GroupId::NONE, |_| nesting::discard(body));
                self.stopped.store(true, Ordering::Relaxed); // only after the closure is gone
                let removed = self.timers.remove(key);
                drop(removed);
                true
            }
            State::Running => true,
            State::Stopping | State::Stopped => false,
        }
    }
}

impl<F, R> Repeating for Periodic<F>
where
    F: FnMut() -> R + Send + 'static,
    R: TickResult,
{
    fn is_stopped(&self) -> bool {
        matches!(*self.state.lock(), State::Stopping | State::Stopped)
    }
}

impl<F> Drop for Periodic<F> {
    /// Drops the closure of a timer that was left in the queue of a pool that has ended.
    fn drop(&mut self) {
        let state = mem::replace(&mut *self.state.lock(), State::Stopped);
        unwind::discard(state);
    }
}

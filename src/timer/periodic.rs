//! A closure that is run again and again.
//!
//! A periodic timer is no task: it *submits* one for each run, at the moment a worker comes to it. So it does not keep a
//! pool from being idle, and each run has an identity and a fate of its own.
//!
//! | state | meaning | who may change it | next |
//! |---|---|---|---|
//! | `Waiting` | holds the closure; in the agenda, or in the queue | any thread | `Running`, by a worker; `Stopped`, by cancel |
//! | `Running` | the closure is on a worker's stack, or is being set | that worker; cancel | `Waiting`, with its next place in the agenda; `Stopping` |
//! | `Stopping` | the same, but it will not run again | that worker | `Stopped` |
//! | `Stopped` | nothing is left | nobody | none |
//!
//! All changes are made under the lock; the closure is called and dropped outside of it.
//!
//! Meetings: *cancel and start*: one finds `Waiting` and wins. *Cancel and end of a run*: the worker finds `Stopping`, or
//! cancel finds `Waiting`. *Closing and end of a run*: the agenda refuses the next place, or the closing finds the timer
//! in it.

use std::mem;
use std::panic::Location;

use super::handle::Repeating;
use super::heap::{Due, Place};
use super::schedule::Schedule;
use super::thread::{Reservation, TimerRefused, TimerThread};
use crate::error::CancelReason;
use crate::nesting;
use crate::observe::observer::TaskOutcome;
use crate::sync::{Arc, Mutex, Weak};
use crate::task::context::GroupId;
use crate::task::executor::{Executor, TaskMeta};
use crate::task::job::Task;
use crate::unwind;

/// A closure and its rhythm.
pub(crate) struct Periodic<F> {
    rhythm: Schedule,
    location: &'static Location<'static>,
    timers: Arc<TimerThread>,
    /// Itself, for the agenda.
    me: Weak<Self>,
    state: Mutex<State<F>>,
}

/// See the table above.
enum State<F> {
    Waiting { body: Body<F>, place: Place },
    Running,
    Stopping,
    Stopped,
}

/// What is run.
struct Body<F> {
    closure: F,
    /// Its place in the agenda, between the runs.
    reservation: Reservation,
}

impl<F: FnMut() + Send + 'static> Periodic<F> {
    /// Makes a timer and puts its first run into the agenda, or gives the closure back.
    pub(crate) fn set(
        closure: F,
        rhythm: Schedule,
        location: &'static Location<'static>,
        timers: &Arc<TimerThread>,
    ) -> Result<Arc<Self>, (TimerRefused, F)> {
        let reservation = match timers.reserve() {
            Ok(reservation) => reservation,
            Err(refusal) => return Err((refusal, closure)),
        };
        let first = rhythm.first(timers.watch().now());
        let timer = Arc::new_cyclic(|me| {
            let (timers, me) = (Arc::clone(timers), Weak::clone(me));
            Self { rhythm, location, timers, me, state: Mutex::new(State::Running) }
        });
        match timer.put_down(Body { closure, reservation }, first) {
            None => Ok(timer),
            Some(body) => Err((TimerRefused::Closed, body.closure)),
        }
    }

    /// Takes out what is to be run; also says when that was due.
    fn start(&self) -> Option<(Body<F>, Due)> {
        let mut state = self.state.lock();
        match mem::replace(&mut *state, State::Running) {
            State::Waiting { body, place } => Some((body, place.due())),
            other => {
                *state = other;
                None
            }
        }
    }

    /// Runs the closure as a task of its own; says whether the pool let it.
    fn run_once(&self, closure: &mut F, executor: &Executor) -> bool {
        let Some(id) = executor.admit(self.location, None) else { return false };
        executor.enter(GroupId::NONE, |record| {
            let brief = TaskMeta::single(id, self.location, None);
            let result = executor.run(record, &brief, closure, |()| TaskOutcome::Succeeded);
            drop(result);
            executor.task_done(record, 1);
        });
        true
    }

    /// Puts the next run into the agenda. Gives the body back if there is none.
    fn put_down(&self, body: Body<F>, due: Due) -> Option<Body<F>> {
        let mut state = self.state.lock();
        if matches!(*state, State::Running)
            && let Ok(place) = body.reservation.put(due, self.me())
        {
            *state = State::Waiting { body, place };
            return None;
        }
        *state = State::Stopped;
        Some(body)
    }

    fn me(&self) -> Arc<dyn Task> {
        self.me.upgrade().expect("whoever calls a method holds a reference")
    }
}

impl<F: FnMut() + Send + 'static> Task for Periodic<F> {
    fn run(&self, executor: &Executor) {
        let Some((mut body, last)) = self.start() else { return };
        let left = if self.run_once(&mut body.closure, executor) {
            let next = self.rhythm.next(last, self.timers.watch().now());
            self.put_down(body, next)
        } else {
            *self.state.lock() = State::Stopped;
            Some(body)
        };
        executor.enter(GroupId::NONE, |_| unwind::discard(left));
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
            State::Waiting { body, place } => {
                executor.enter(GroupId::NONE, |_| nesting::discard(body));
                let out_of_agenda = self.timers.strike_out(place);
                drop(out_of_agenda);
                true
            }
            State::Running => true,
            State::Stopping | State::Stopped => false,
        }
    }
}

impl<F: FnMut() + Send + 'static> Repeating for Periodic<F> {
    fn is_stopped(&self) -> bool {
        matches!(*self.state.lock(), State::Stopping | State::Stopped)
    }
}

impl<F> Drop for Periodic<F> {
    /// A pool that has ended may leave a timer in its queue.
    fn drop(&mut self) {
        let state = mem::replace(&mut *self.state.lock(), State::Stopped);
        unwind::discard(state);
    }
}

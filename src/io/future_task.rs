//! A future as a task of the pool: one identity, one handle, one fate.
//!
//! It is the cell of a plain task, whose closure is what becomes of the future's output:
//!
//! | state | in the plain cell | where it is | next |
//! |---|---|---|---|
//! | *in flight* | `Queued(InFlight)` | the future on the I/O thread | *arrived*, by that thread; done, by cancel |
//! | *arrived* | `Queued(Arrived)` | on its way to a worker, or at its end on the I/O thread | *running*; done, by cancel |
//! | *running*, *done* | as there | | |
//!
//! Rules:
//! 1. A flight is in the pool's books from its launch. Like a delayed task it counts as queued while nothing of it runs on
//!    a worker.
//! 2. Whoever claims the cell decides: an output that arrives after a cancellation is dropped, and a cancellation after
//!    the arrival keeps the closure from running.
//! 3. A cancelled future is dropped by the I/O thread, as soon as that is not polling it: later, perhaps, than the handle
//!    learns of it.
//! 4. A future is driven while it has a *slot*, which it gives back when it is gone. So a slot comes free by the I/O thread
//!    alone, whatever workers do. A flight that an outside thread has launched also has a *place*, until its outcome lands
//!    or a worker comes to its output. So no more outputs of theirs wait for workers than there are places.
//! 5. A worker that waits for a flight whose output needs a worker may run it itself when it has arrived: there may be no
//!    other. The arrival is told to the registry of waits.
//! 6. While the future is polled the flight is on the stack of the I/O thread, under the name of its cell. So the registry
//!    of waits knows what the future waits for, and a worker that waits for the flight helps with that.

use std::future::Future;
use std::panic::Location;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::task::AbortHandle;

use super::thread::{CatchUnwind, IoThread};
use crate::cancel::token::CancelGuard;
use crate::error::{CancelReason, JoinError};
use crate::nesting;
use crate::observe::observer::{TaskId, TaskOutcome};
use crate::pool::inner::PoolInner;
use crate::sync::{Arc, AtomicBool, Mutex, Ordering};
use crate::task::cell::{CellTask, TaskCell};
use crate::task::context::GroupId;
use crate::task::executor::{Executor, TaskMeta};
use crate::task::job::{Job, Task};
use crate::task::join::JoinStatus;
use crate::task::waits::{self, Needs};
use crate::time::clock::Moment;
use crate::time::deadline::Deadline;
use crate::unwind::{self, Payload};

/// The right to have one future driven; see rule 4.
type Slot = OwnedSemaphorePermit;
/// The right to have one flight that nobody has dealt with; see rule 4.
pub(super) type Place = OwnedSemaphorePermit;

/// What becomes of the output of a future, and how that is told.
pub(crate) struct Fate<F, O, T> {
    /// Makes the task's value of the output.
    pub(crate) f: F,
    /// Whether `f` runs on a worker for this output; otherwise it runs where the output arises, and is not the user's.
    /// `None`: never.
    pub(crate) on_worker: Option<fn(&O) -> bool>,
    /// What the value means for the books.
    pub(crate) outcome_of: fn(&T) -> TaskOutcome,
}

/// The cell of a flight.
pub(super) struct FutureTask<F, O, T> {
    plain: TaskCell<Stage<F, O>, T>,
    /// Whether the output is there; set before it is put into the cell.
    arrived: AtomicBool,
    on_worker: Option<fn(&O) -> bool>,
    outcome_of: fn(&T) -> TaskOutcome,
    /// Of the driver; observers see it.
    label: Option<Arc<str>>,
    /// Gives the future up; there once that is launched. Whoever sets it looks, under the lock, whether it is too late.
    abort: Mutex<Option<AbortHandle>>,
    /// Knows whether a wait would be one of the I/O thread for itself.
    io: Arc<IoThread>,
}

/// What is claimed.
pub(super) enum Stage<F, O> {
    InFlight(F),
    /// With the place, if it is given back by the worker.
    Arrived(F, Result<O, Payload>, Option<Place>),
}

impl<F, O, T> FutureTask<F, O, T>
where
    F: FnOnce(O) -> T + Send + 'static,
    O: Send + 'static,
    T: Send + 'static,
{
    pub(super) fn new(
        fate: Fate<F, O, T>,
        io: Arc<IoThread>,
        label: Option<Arc<str>>,
        (id, location, queued_at): (TaskId, &'static Location<'static>, Option<Moment>),
    ) -> Arc<Self> {
        let Fate { f, on_worker, outcome_of } = fate;
        let plain = TaskCell::new(Stage::InFlight(f), id, location, queued_at);
        let (arrived, abort) = (AtomicBool::new(false), Mutex::new(None));
        Arc::new(Self { plain, arrived, on_worker, outcome_of, label, abort, io })
    }

    /// Gives the future to the I/O thread, where it waits for its slot if there is none.
    pub(super) fn launch<Fut>(
        self: &Arc<Self>,
        future: Fut,
        place: Option<Place>,
        slots: &Arc<Semaphore>,
        engine: &Arc<PoolInner>,
    ) where
        Fut: Future<Output = O> + Send + 'static,
    {
        let weak = Arc::downgrade(self);
        let executor = Arc::clone(&engine.executor);
        let guard = engine.io.cancelling.on_cancel(move || {
            if let Some(flight) = weak.upgrade() {
                flight.cancel(CancelReason::ShutDown, &executor);
            }
        });
        let future = CatchUnwind::new(future, &engine.executor, self.plain.group_id());
        let slot = Arc::clone(slots).try_acquire_owned().map_err(|_| Arc::clone(slots));
        let way = Arc::clone(self).fly(future, place, slot, guard, Arc::clone(engine));
        let launched = self.io.spawn(way);
        let mut abort = self.abort.lock();
        if self.plain.is_done() {
            launched.abort(); // cancelled in between, perhaps when there was nothing to give up yet
        } else {
            *abort = Some(launched);
        }
    }

    async fn fly<Fut>(
        self: Arc<Self>,
        future: CatchUnwind<Fut>,
        place: Option<Place>,
        slot: Result<Slot, Arc<Semaphore>>,
        guard: CancelGuard,
        engine: Arc<PoolInner>,
    ) where
        Fut: Future<Output = O> + Send + 'static,
    {
        let slot = match slot {
            Ok(slot) => slot,
            Err(slots) => slots.acquire_owned().await.expect("the slots are never closed"),
        };
        let output = future.await;
        drop((guard, slot));
        self.arrive(output, place, &engine);
    }

    /// The future has ended and is gone.
    fn arrive(self: Arc<Self>, output: Result<O, Payload>, place: Option<Place>, engine: &PoolInner) {
        let Some(Stage::InFlight(f)) = self.plain.claim() else {
            unwind::discard(output); // cancelled meanwhile
            return;
        };
        let on_worker = self.on_worker.is_some_and(|wants| output.as_ref().is_ok_and(wants));
        let place = place.filter(|_| on_worker);
        // ORDERING: Release pairs with the Acquire of `has_arrived`; the lock that `put_back` takes orders it for waiters.
        self.arrived.store(true, Ordering::Release);
        self.plain.put_back(Stage::Arrived(f, output, place));
        if on_worker {
            waits::changed(self.plain.group_id().into(), engine.id());
            engine.push_unbounded(Job::Task(self));
        } else {
            self.run(&engine.executor);
        }
    }

    /// Has the future dropped, if there is one still. Call it when the outcome has landed.
    fn give_up(&self) {
        let launched = self.abort.lock().take();
        if let Some(launched) = launched {
            launched.abort();
        }
    }

    fn brief(&self) -> TaskMeta<'_> {
        let mut brief: TaskMeta<'_> = self.plain.meta();
        brief.info.label = self.label.as_ref();
        brief
    }
}

impl<F, O, T> FutureTask<F, O, T> {
    fn has_arrived(&self) -> bool {
        // ORDERING: see `arrive`.
        self.arrived.load(Ordering::Acquire)
    }
}

impl<F, O, T> Task for FutureTask<F, O, T>
where
    F: FnOnce(O) -> T + Send + 'static,
    O: Send + 'static,
    T: Send + 'static,
{
    fn run(&self, executor: &Executor) {
        executor.enter(self.plain.group_id(), |record| {
            let Some(stage) = self.plain.claim() else { return };
            let Stage::Arrived(f, output, place) = stage else { unreachable!("nobody runs what has not arrived") };
            drop(place);
            let body = move || match output {
                Ok(output) => f(output),
                Err(payload) => {
                    unwind::discard(f);
                    unwind::resume(payload)
                }
            };
            let result = executor.run(record, &self.brief(), body, self.outcome_of);
            self.plain.complete(result.map_err(JoinError::Panicked));
            executor.task_done(record, 1);
        });
    }

    fn cancel(&self, reason: CancelReason, executor: &Executor) -> bool {
        executor.enter(GroupId::NONE, |record| {
            let Some(stage) = self.plain.claim() else { return false };
            nesting::discard(stage);
            executor.cancelled(record, &self.brief().info, reason);
            self.plain.complete(Err(JoinError::Cancelled(reason)));
            self.give_up();
            executor.task_done(record, 1);
            true
        })
    }
}

/// Keeps the rules 5 and 6.
impl<F, O, T> CellTask for FutureTask<F, O, T>
where
    F: FnOnce(O) -> T + Send + 'static,
    O: Send + 'static,
    T: Send + 'static,
{
    type Closure = Stage<F, O>;
    type Output = T;

    fn cell(&self) -> &TaskCell<Stage<F, O>, T> {
        &self.plain
    }

    /// What is in flight is under way; an output that waits for a worker is not.
    fn join_status(&self) -> JoinStatus {
        match self.plain.join_status() {
            JoinStatus::Queued if !self.has_arrived() || self.on_worker.is_none() => JoinStatus::InProgress,
            status => status,
        }
    }

    /// The I/O thread does not wait for what it has to do itself.
    fn wait(&self, deadline: Deadline) -> bool {
        if self.io.is_here() { self.plain.is_done() } else { self.plain.wait(deadline) }
    }

    fn may_sleep(&self) -> bool {
        !self.io.is_here()
    }

    fn look(&self, needs: &mut Needs) {
        let (has_arrived, wants_worker) = (self.has_arrived(), self.on_worker.is_some());
        self.plain.look(needs, |needs| match (has_arrived, wants_worker) {
            (true, true) => needs.worker = true,
            (true, false) => {} // about to land
            (false, _) => needs.end_of(self.plain.group_id()),
        });
    }

    fn help(&self, executor: &Executor) {
        if self.has_arrived() {
            self.run(executor);
        }
    }
}

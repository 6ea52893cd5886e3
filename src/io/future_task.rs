//! A future as a task of the pool, with one identity, one handle and one outcome.
//!
//! The task has the cell of a plain task. The closure in the cell turns the future's output into
//! the task's value.
//!
//! | state | cell | where | next |
//! |---|---|---|---|
//! | *in flight* | `Queued(InFlight)` | the future is on the I/O thread | *output ready*, by that thread; done, by cancel |
//! | *output ready* | `Queued(OutputReady)` | queued for a worker, or about to run on the I/O thread | *running*; done, by cancel |
//! | *running*, *done* | as in a plain task | | |
//!
//! Rules:
//! 1. The pool counts the task from the moment it is spawned. While no part of it runs on a worker,
//!    it counts as queued, as a delayed task does.
//! 2. The thread that claims the cell decides. An output that becomes ready after a cancellation is
//!    dropped. A cancellation after that moment keeps the closure from running.
//! 3. The I/O thread drops a cancelled future as soon as it is not polling it. This may be after
//!    the handle returns the cancellation.
//! 4. A future is driven while it has a *run permit*, which it returns when it was dropped. So run
//!    permits become free by the I/O thread alone, unless the future awaits a task. The task of an
//!    external submitter also has a *submit permit*, until the output is ready, or, if the output
//!    needs a worker, until a worker has taken it. So the outputs of external submitters that wait
//!    for workers are at most as many as the submit permits.
//! 5. If the output needs a worker, a worker that waits for the task may run it once the output is
//!    ready, because there may be no other worker. The registry of waits is notified at that
//!    moment.
//! 6. While the future is polled, the task is on the stack of the I/O thread, under the name of its
//!    cell. So the registry of waits knows what the future waits for, and a worker that waits for
//!    the task helps with that. The task may also need the end of a future in front of it (see
//!    `permits`), or of a wait that blocks the I/O thread itself.

use std::future::Future;
use std::panic::Location;

use tokio::task::AbortHandle;

use super::in_flight::{DriverInner, FutureCopy, InFlight, Listed};
use super::permits::{OutputPermit, RunPermit, SubmitPermit};
use super::thread::{CatchUnwind, IoThread};
use crate::error::{CancelReason, JoinError};
use crate::nesting;
use crate::observe::task_info::{TaskId, TaskOutcome};
use crate::pool::inner::PoolInner;
use crate::snapshot::TaskSnapshot;
use crate::sync::{Arc, AtomicBool, Mutex, Ordering};
use crate::task::cell::TaskCell;
use crate::task::cell_task::CellTask;
use crate::task::context::{self, AwaitedId, GroupId, ThreadId};
use crate::task::executor::{Executor, TaskMeta};
use crate::task::job::{Job, Leftover, Task, leftover};
use crate::task::sleepers::List;
use crate::task::waits::{self, Needs};
use crate::time::clock::Timestamp;
use crate::time::deadline::Deadline;
use crate::unwind::{self, Payload};

/// How the output of a future becomes the value of its task.
pub(crate) struct OnOutput<F, O, T> {
    /// Makes the value from the output.
    pub(crate) f: F,
    /// Returns `true` if `f` must run on a worker for this output. `None` for never. Otherwise `f`
    /// runs on the I/O thread, and is not user code.
    pub(crate) on_worker: Option<fn(&O) -> bool>,
    /// Returns the outcome that metrics and observers see.
    pub(crate) outcome_of: fn(&T) -> TaskOutcome,
}

/// The task of a future.
pub(super) struct FutureTask<F, O, T> {
    /// The closure with its stage, or the value; and the waiters.
    cell: TaskCell<Stage<F, O>, T>,
    /// Whether the future has its run permit. Set once.
    is_driven: AtomicBool,
    /// Whether the output is ready. Set before the output is put into the cell.
    output_ready: AtomicBool,
    /// See [`OnOutput`].
    on_worker: Option<fn(&O) -> bool>,
    /// See [`OnOutput`].
    outcome_of: fn(&T) -> TaskOutcome,
    /// Aborts the future; set once that is spawned. The thread that sets it checks under the lock
    /// whether the task was cancelled before.
    abort_handle: Mutex<Option<AbortHandle>>,
    /// The thread that drives the future. Not a reference to it, which would be kept by an entry in
    /// the queue, and joins the thread when it is dropped.
    io_thread: ThreadId,
    /// What the futures of the driver share.
    driver: Arc<DriverInner>,
}

/// The content of the cell until it is claimed for good.
pub(super) enum Stage<F, O> {
    /// The future has not ended.
    InFlight(F),
    /// The future has ended. The submit permit, if there is one, is released by a worker.
    OutputReady(F, Result<O, Payload>, Option<OutputPermit>),
}

impl<F, O, T> FutureTask<F, O, T>
where
    F: FnOnce(O) -> T + Send + 'static,
    O: Send + 'static,
    T: Send + 'static,
{
    pub(super) fn new(
        on_output: OnOutput<F, O, T>,
        (io, driver): (&IoThread, Arc<DriverInner>),
        (id, location, queued_at): (TaskId, &'static Location<'static>, Option<Timestamp>),
    ) -> Arc<Self> {
        let OnOutput { f, on_worker, outcome_of } = on_output;
        let cell = TaskCell::new(Stage::InFlight(f), id, location, queued_at);
        let [is_driven, output_ready] = [(); 2].map(|()| AtomicBool::new(false));
        let abort_handle = Mutex::new(None);
        let io_thread = io.thread_id();
        Arc::new(Self { cell, is_driven, output_ready, on_worker, outcome_of, abort_handle, io_thread, driver })
    }

    /// Gives the future to the I/O thread. It waits there for a run permit if none is free.
    pub(super) fn spawn<Fut>(
        self: &Arc<Self>,
        future: Fut,
        submit_permit: Option<SubmitPermit>,
        pool: &Arc<PoolInner>,
        io: &Arc<IoThread>,
    ) where
        Fut: Future<Output = O> + Send + 'static,
    {
        let listed = self.driver.list(self);
        let frame = (self.cell.group_id(), self.driver.permits.item());
        let future = CatchUnwind::new(future, &pool.executor, Some(self.cell.meta().origin.id), frame);
        let run_permit = self.driver.permits.try_run();
        let owners = (Arc::clone(pool), Arc::clone(io));
        let driven = Arc::clone(self).drive(future, submit_permit, run_permit, listed, owners);
        let handle = io.spawn(driven);
        let mut abort_handle = self.abort_handle.lock();
        if self.cell.is_done() {
            handle.abort(); // the task was cancelled before there was a handle to abort it by
        } else {
            *abort_handle = Some(handle);
        }
    }

    /// Drives the future to its end. Runs on the I/O thread.
    async fn drive<Fut>(
        self: Arc<Self>,
        future: CatchUnwind<Fut>,
        submit_permit: Option<SubmitPermit>,
        run_permit: Option<RunPermit>,
        listed: Listed,
        (pool, _io): (Arc<PoolInner>, Arc<IoThread>),
    ) where
        Fut: Future<Output = O> + Send + 'static,
    {
        let run_permit = match run_permit {
            Some(run_permit) => run_permit,
            None => self.driver.permits.run().await,
        };
        // Only a hint, for what a wait needs: relaxed.
        self.is_driven.store(true, Ordering::Relaxed);
        let output = future.await;
        drop((listed, run_permit));
        self.on_output_ready(output, submit_permit, &pool);
    }

    /// Takes the output of a future that has ended and was dropped, and passes it on.
    fn on_output_ready(
        self: Arc<Self>,
        output: Result<O, Payload>,
        submit_permit: Option<SubmitPermit>,
        pool: &PoolInner,
    ) {
        let Some(Stage::InFlight(f)) = self.cell.claim() else {
            unwind::discard(output); // the task was cancelled meanwhile
            return;
        };
        let on_worker = self.on_worker.is_some_and(|wants| output.as_ref().is_ok_and(wants));
        let submit_permit = submit_permit.filter(|_| on_worker);
        // ORDERING: Release pairs with the Acquire of `is_output_ready`; for waiters, the lock of
        // `put_back` orders it.
        self.output_ready.store(true, Ordering::Release);
        let put = |permit| self.cell.put_back(Stage::OutputReady(f, output, permit));
        let has_permit = submit_permit.is_some();
        match submit_permit {
            Some(permit) => {
                let task = Arc::downgrade(&self);
                self.driver.permits.list_output(permit, task, |permit| put(Some(permit)));
            }
            None => put(None),
        }
        if on_worker {
            let of_permits = has_permit.then(|| self.driver.permits.id());
            waits::notify_change([self.cell.group_id().into()].into_iter().chain(of_permits), pool.id());
            let class = self.driver.class;
            pool.push_unbounded(Job::Task(self), class);
        } else {
            self.run(&pool.executor);
        }
    }

    /// Aborts the future, if it has not ended. Must be called after the task is completed.
    fn abort(&self) {
        let handle = self.abort_handle.lock().take();
        if let Some(handle) = handle {
            handle.abort();
        }
    }

    /// Returns what the executor needs to know of the task.
    fn meta(&self) -> TaskMeta<'_> {
        let mut meta: TaskMeta<'_> = self.cell.meta();
        meta.origin.label = self.driver.label.as_ref();
        meta
    }
}

impl<F, O, T> FutureTask<F, O, T> {
    /// Returns `true` on the I/O thread.
    fn is_here(&self) -> bool {
        self.io_thread == context::thread_id()
    }

    fn is_output_ready(&self) -> bool {
        // ORDERING: see `on_output_ready`.
        self.output_ready.load(Ordering::Acquire)
    }
}

impl<F, O, T> Task for FutureTask<F, O, T>
where
    F: FnOnce(O) -> T + Send + 'static,
    O: Send + 'static,
    T: Send + 'static,
{
    fn run(&self, executor: &Executor) {
        executor.enter(self.cell.group_id(), |counters| {
            let Some(stage) = self.cell.claim() else { return };
            let Stage::OutputReady(f, output, submit_permit) = stage else {
                unreachable!("a task is run only once its output is ready")
            };
            drop(submit_permit);
            let body = move || match output {
                Ok(output) => f(output),
                Err(payload) => {
                    unwind::discard(f);
                    unwind::resume(payload)
                }
            };
            let result = executor.run(counters, &self.meta(), body, self.outcome_of);
            self.cell.complete(result.map_err(JoinError::Panicked));
            executor.task_done(counters, 1);
        });
    }

    fn is_finished(&self) -> bool {
        self.cell.is_done()
    }

    fn cancel(&self, reason: CancelReason, executor: &Executor) -> bool {
        executor.enter(GroupId::NONE, |counters| {
            let Some(mut stage) = self.cell.claim() else { return false };
            if let Stage::OutputReady(.., permit) = &mut stage {
                drop(permit.take()); // the destructors of the user may wait for it
            }
            context::set_cancelling(self.cell.group_id());
            nesting::discard(stage);
            executor.cancelled(counters, &self.meta().origin, reason);
            self.cell.complete(Err(JoinError::Cancelled(reason)));
            self.abort();
            executor.task_done(counters, 1);
            true
        })
    }
}

impl<F, O, T> InFlight for FutureTask<F, O, T>
where
    F: FnOnce(O) -> T + Send + 'static,
    O: Send + 'static,
    T: Send + 'static,
{
    fn copy(self: Arc<Self>, now: Option<Timestamp>) -> (FutureCopy, Leftover) {
        let meta = self.meta();
        let age = now.zip(meta.queued_at).map(|(now, queued_at)| now.since(queued_at));
        let task = TaskSnapshot::new(meta.origin.id, meta.origin.label, meta.origin.location, age);
        let (is_driven, id) = (self.is_driven.load(Ordering::Relaxed), self.cell.group_id().into());
        (FutureCopy { task, is_driven, id }, leftover(self))
    }
}

/// The task as the registry of waits sees it; see the rules 5 and 6.
impl<F, O, T> CellTask for FutureTask<F, O, T>
where
    F: FnOnce(O) -> T + Send + 'static,
    O: Send + 'static,
    T: Send + 'static,
{
    type Closure = Stage<F, O>;
    type Output = T;

    fn cell(&self) -> &TaskCell<Stage<F, O>, T> {
        &self.cell
    }

    fn label(&self) -> Option<&Arc<str>> {
        self.driver.label.as_ref()
    }

    /// A future in flight is in progress; an output that waits for a worker is not.
    fn may_start(&self) -> bool {
        self.is_output_ready() && self.on_worker.is_some()
    }

    /// Waits for the outcome, except on the I/O thread, which would wait for itself.
    fn wait(&self, deadline: Deadline, list: List<'_>) -> bool {
        if self.is_here() { self.cell.is_done() } else { self.cell.wait(deadline, list) }
    }

    fn may_sleep(&self) -> bool {
        !self.is_here()
    }

    fn report_needs(&self, needs: &mut Needs) {
        let (is_output_ready, wants_worker) = (self.is_output_ready(), self.on_worker.is_some());
        self.cell.report_needs(needs, |needs| match (is_output_ready, wants_worker) {
            (true, true) => needs.worker = true,
            (true, false) => {} // the I/O thread is about to run it
            (false, _) => {
                needs.end_of(self.cell.group_id());
                needs.possible_end_of(self.io_thread);
                if !self.is_driven.load(Ordering::Relaxed) {
                    self.driver.permits.report_needs(needs);
                }
            }
        });
    }

    fn related_ids(&self) -> Vec<AwaitedId> {
        if self.is_output_ready() {
            return Vec::new();
        }
        let permits = (!self.is_driven.load(Ordering::Relaxed)).then(|| self.driver.permits.id());
        permits.into_iter().chain([self.io_thread.into()]).collect()
    }
}

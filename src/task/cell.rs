//! The cell of a task with a handle: closure, outcome and waiters in one allocation.
//!
//! | state | meaning | changed by | next |
//! |---|---|---|---|
//! | `Queued` | holds the closure, which no thread has claimed | any thread | `Running`, by a claim; `Taken`, by withdrawal of a refused submission |
//! | `Running` | the closure is on the stack of the named thread, which runs or drops it | that thread | `Done`; `Taken`, if the handle is gone; `Queued`, to be claimed again (see `retry`) |
//! | `Done` | holds the outcome | the owner of the handle | `Taken` |
//! | `Taken` | holds nothing | – | – |
//!
//! Only a withdrawal skips a state. All changes are made under the cell's lock. Closures, outcomes
//! and wakers are called and dropped outside of it.
//!
//! Races:
//! - *claim and claim* (a worker and a joining worker), *claim and cancel*: the first under the
//!   lock finds `Queued` and wins. The other finds a later state and does nothing.
//! - *complete and wait*: the waiter checks the state under the lock that the completion takes. It
//!   either sees `Done` or is notified.
//! - *complete and drop of the handle*: the first under the lock decides which thread drops the
//!   outcome. The drop of the handle does so if it finds `Done`, otherwise the completing thread.

use std::mem;
use std::panic::Location;
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

use super::context::{self, GroupId, PoolId, ThreadId};
use super::executor::{Executor, TaskMeta};
use super::job::Task;
use super::join::JoinStatus;
use super::sleepers::List;
use super::waits::{Needs, Wait};
use crate::error::{CancelReason, JoinError};
use crate::failpoint::{self, Failpoint};
use crate::nesting;
use crate::observe::task_info::{TaskId, TaskOutcome};
use crate::observe::task_origin::TaskOrigin;
use crate::observe::worker_counters::WorkerCounters;
use crate::sync::{AtomicBool, Condvar, Mutex, Ordering, spin_wait};
use crate::time::clock::Timestamp;
use crate::time::deadline::Deadline;
use crate::unwind;

/// How long a thread spins for the end of a task or of a group before it blocks.
///
/// About as long as a sleeping worker takes to wake up and claim the task. So a thread and a worker
/// that wait for each other cost one wake-up and not two.
pub(crate) const SPIN_TIME: Duration = Duration::from_micros(50);

/// A task with a handle.
pub(crate) struct TaskCell<F, T> {
    pub(super) id: TaskId,
    pub(super) location: &'static Location<'static>,
    /// The time of submission, if durations are recorded.
    queued_at: Option<Timestamp>,
    state: Mutex<State<F, T>>,
    /// Whether the task has completed, with a handle or without. Written under the lock, read
    /// without it.
    completed: AtomicBool,
    /// Notified when the task completes, and by `put_back` and `wake_waiters`.
    done: Condvar,
}

/// What the lock guards.
struct State<F, T> {
    stage: Stage<F, T>,
    /// The last waker that polled; woken when the task completes.
    waker: Option<Waker>,
    /// Whether the handle is gone.
    detached: bool,
}

/// The states of the table above.
enum Stage<F, T> {
    Queued(F),
    Running(ThreadId),
    Done(Result<T, JoinError>),
    Taken,
}

impl<F, T> TaskCell<F, T> {
    /// Creates a task that is about to be submitted.
    pub(crate) fn new(
        closure: F,
        id: TaskId,
        location: &'static Location<'static>,
        queued_at: Option<Timestamp>,
    ) -> Self {
        let state = State { stage: Stage::Queued(closure), waker: None, detached: false };
        let (completed, done) = (AtomicBool::new(false), Condvar::new());
        Self { id, location, queued_at, state: Mutex::new(state), completed, done }
    }

    /// Takes the closure back out of a task whose submission was refused.
    pub(crate) fn withdraw(&self) -> F {
        match mem::replace(&mut self.state.lock().stage, Stage::Taken) {
            Stage::Queued(closure) => closure,
            _ => unreachable!("no other thread has seen a refused task"),
        }
    }

    /// Claims the closure to run or drop it on this thread; `None` if it has been claimed.
    pub(crate) fn claim(&self) -> Option<F> {
        let running = || Stage::Running(context::thread_id());
        let mut state = self.state.lock();
        match &state.stage {
            Stage::Queued(_) => match mem::replace(&mut state.stage, running()) {
                Stage::Queued(closure) => Some(closure),
                _ => unreachable!("the stage was checked under the same lock"),
            },
            _ => None,
        }
    }

    /// Stores the outcome and wakes the waiters. The calling thread has claimed the closure.
    pub(crate) fn complete(&self, outcome: Result<T, JoinError>) {
        failpoint::hit(Failpoint::Completing);
        let mut state = self.state.lock();
        // ORDERING: Release pairs with the Acquire of `is_done`.
        self.completed.store(true, Ordering::Release);
        if state.detached {
            state.stage = Stage::Taken;
            drop(state);
            unwind::discard(outcome);
            return;
        }
        state.stage = Stage::Done(outcome);
        let waker = state.waker.take();
        drop(state);
        self.done.notify_all();
        waker.into_iter().for_each(nesting::wake);
    }

    /// Runs a closure that this thread has claimed, and completes the task.
    #[inline]
    pub(crate) fn run_claimed(
        &self,
        closure: impl FnOnce() -> T,
        meta: &TaskMeta<'_>,
        counters: &WorkerCounters,
        executor: &Executor,
    ) {
        let result = executor.run(counters, meta, closure, |_| TaskOutcome::Succeeded);
        self.complete(result.map_err(JoinError::Panicked));
        failpoint::hit(Failpoint::Completed);
        executor.task_done(counters, 1);
    }

    /// Drops a closure that this thread has claimed, and completes the task as cancelled. The stage
    /// is `Running` while the closure is dropped: waiters see `Done` only after that.
    pub(crate) fn cancel_claimed(
        &self,
        closure: F,
        origin: &TaskOrigin<'_>,
        reason: CancelReason,
        counters: &WorkerCounters,
        executor: &Executor,
    ) where
        F: 'static,
    {
        context::set_cancelling(self.group_id());
        // The destructor may cancel another task, and so on.
        nesting::discard(closure);
        executor.cancelled(counters, origin, reason);
        self.complete(Err(JoinError::Cancelled(reason)));
        executor.task_done(counters, 1);
    }

    /// Returns what the executor needs to know of the task.
    pub(crate) fn meta(&self) -> TaskMeta<'static> {
        TaskMeta::single(self.id, self.location, self.queued_at)
    }

    /// Returns the id of the frames of this task, which is a group of its own.
    #[inline]
    pub(crate) fn group_id(&self) -> GroupId {
        GroupId::of(self)
    }

    /// Returns `true` if the task has completed.
    pub(crate) fn is_done(&self) -> bool {
        // ORDERING: Acquire pairs with the Release of `complete`.
        self.completed.load(Ordering::Acquire)
    }
}

/// Used by tasks that are run more than once, or whose closure becomes ready later.
#[cfg(any(feature = "retry", feature = "driver"))]
impl<F, T> TaskCell<F, T> {
    /// Puts back the closure that this thread has claimed, to be claimed again.
    pub(crate) fn put_back(&self, closure: F) {
        self.state.lock().stage = Stage::Queued(closure);
        self.done.notify_all();
    }
}

/// Used by the registry of waits.
impl<F, T> TaskCell<F, T> {
    /// Adds what the task needs to complete; `unclaimed` does so for a closure that is not claimed.
    pub(crate) fn report_needs(&self, needs: &mut Needs, unclaimed: impl FnOnce(&mut Needs)) {
        match self.state.lock().stage {
            Stage::Queued(_) => unclaimed(needs),
            Stage::Running(_) => needs.end_of(self.group_id()),
            Stage::Done(_) | Stage::Taken => {}
        }
    }

    /// Wakes the threads that wait for the task, so that they check whether they were called.
    pub(crate) fn wake_waiters(&self) {
        // A waiter has checked before this and sleeps, or checks after it.
        drop(self.state.lock());
        self.done.notify_all();
    }
}

/// Used by handles.
impl<F, T> TaskCell<F, T> {
    /// Returns the status of the task as a joining thread sees it.
    pub(crate) fn join_status(&self) -> JoinStatus {
        match &self.state.lock().stage {
            Stage::Queued(_) => JoinStatus::Queued,
            Stage::Running(thread) if *thread == context::thread_id() => JoinStatus::OnThisStack,
            _ => JoinStatus::InProgress,
        }
    }

    /// Blocks until the task has an outcome or the deadline has passed. Returns `true` if it has an
    /// outcome. Calls `list` before it sleeps.
    pub(crate) fn wait(&self, deadline: Deadline, list: List<'_>) -> bool {
        spin_wait(SPIN_TIME, || self.is_done() || deadline.is_past());
        let is_over = self.is_done() || deadline.is_past();
        let _listed = (!is_over).then(list);
        self.block_unless(|| false, deadline)
    }

    pub(super) fn sleep(&self, wait: &Wait, until: Option<Instant>) -> bool {
        self.block_unless(|| wait.is_notified(), Deadline::NEVER.earlier(until))
    }

    /// Blocks until the task has completed, `is_called` returns `true` or the deadline has passed.
    fn block_unless(&self, is_called: impl Fn() -> bool, deadline: Deadline) -> bool {
        drop(self.done.wait_while(self.state.lock(), deadline, |_| !self.is_done() && !is_called()));
        self.is_done()
    }

    pub(super) fn take(&self) -> Option<Result<T, JoinError>> {
        let mut state = self.state.lock();
        if !matches!(state.stage, Stage::Done(_)) {
            return None;
        }
        let Stage::Done(outcome) = mem::replace(&mut state.stage, Stage::Taken) else { unreachable!() };
        Some(outcome)
    }

    pub(super) fn poll_take(&self, context: &Context<'_>) -> Poll<Result<T, JoinError>> {
        // Cloning and dropping a waker is user code, so both happen outside of the lock.
        let waker = context.waker().clone();
        let old = {
            let mut state = self.state.lock();
            match state.stage {
                Stage::Done(_) | Stage::Taken => None,
                _ => Some(state.waker.replace(waker)),
            }
        };
        if old.is_some() { Poll::Pending } else { self.take().map_or(Poll::Pending, Poll::Ready) }
    }
}

/// Used by handles.
impl<F, T: 'static> TaskCell<F, T> {
    pub(super) fn detach(&self) {
        let mut state = self.state.lock();
        state.detached = true;
        let waker = state.waker.take();
        let is_done = matches!(state.stage, Stage::Done(_));
        let outcome = is_done.then(|| mem::replace(&mut state.stage, Stage::Taken));
        drop(state);
        if let Some(Stage::Done(outcome)) = outcome {
            // Inside one more frame, so that a destructor that spawns a task and drops its handle
            // cannot recur forever. It may also drop the next handle, and so on.
            nesting::call_back(move || context::with_frame(PoolId::NONE, GroupId::NONE, |_, _| drop(outcome)));
        }
        unwind::discard(waker);
    }
}

impl<F, T> Task for TaskCell<F, T>
where
    F: FnOnce() -> T + Send + 'static,
    T: Send + 'static,
{
    fn run(&self, executor: &Executor) {
        executor.enter(self.group_id(), |counters| {
            if let Some(closure) = self.claim() {
                self.run_claimed(closure, &self.meta(), counters, executor);
            }
        });
    }

    fn cancel(&self, reason: CancelReason, executor: &Executor) -> bool {
        executor.enter(GroupId::NONE, |counters| {
            let Some(closure) = self.claim() else { return false };
            self.cancel_claimed(closure, &self.meta().origin, reason, counters, executor);
            true
        })
    }

    fn is_finished(&self) -> bool {
        self.is_done()
    }
}

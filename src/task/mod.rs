//! The cell of a task that somebody may wait for: closure, outcome and waiters in one allocation.
//!
//! | state | meaning | who may change it | next |
//! |---|---|---|---|
//! | `Queued` | holds the closure; nobody has claimed it | any thread | `Running` by claim; `Done` by cancel; `Taken` by withdrawal of a refused submission |
//! | `Running` | the closure is on the stack of the named thread | that thread | `Done`; `Taken`, if the handle is gone; `Queued` again, if it is to be tried again (see `retry`) |
//! | `Done` | holds the outcome | the owner of the handle | `Taken` |
//! | `Taken` | nothing is left | nobody | none |
//!
//! No state is skipped but `Running`, by cancellation and withdrawal. All changes are made under the cell's lock;
//! closures, outcomes and wakers are called and dropped outside of it.
//!
//! Meetings:
//! - *claim and claim* (worker and joining worker), *claim and cancel*: one finds `Queued` and wins, the other finds
//!   what the winner made of it.
//! - *complete and park*: the waiter looks at the state under the lock that the completion takes, so it either sees
//!   `Done` or is notified.
//! - *complete and drop of the handle*: the first under the lock decides who drops the outcome: the handle, if it was
//!   `Done`; else the completing thread.

pub(crate) mod closure;
pub(crate) mod context;
pub(crate) mod executor;
pub(crate) mod handle;
pub(crate) mod idle;
pub(crate) mod job;
pub(crate) mod ledger;
pub(crate) mod lifecycle;
pub(crate) mod waits;

use std::mem;
use std::panic::Location;
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

use self::context::Name;
use self::executor::{Executor, TaskMeta};
use self::job::Task;
use self::waits::{Needs, Wait};
use crate::defect::defect;
use crate::error::{CancelReason, JoinError};
use crate::failpoint::{self, Place};
use crate::nesting;
use crate::observe::observer::{TaskId, TaskOutcome};
use crate::sync::{AtomicBool, Condvar, Mutex, MutexGuard, Ordering, spin_wait};
use crate::time::clock::Moment;
use crate::time::deadline::Deadline;
use crate::unwind;

/// How long a thread that waits for an outcome looks for it before it sleeps: about as long as a sleeping worker takes
/// to come to the task, so that a thread and a worker that wait for each other cost one wake-up and not two.
const SPIN_TIME: Duration = Duration::from_micros(50);

/// What a handle needs of its task, whatever the type of the closure.
pub(crate) trait JoinTarget<T>: Task + Landing<T> + Watched {}

/// What the registry of waits needs of a task, whatever its types.
pub(crate) trait Watched: Send + Sync {
    /// Names it among the frames of a stack.
    fn name(&self) -> Name;

    /// Says what it needs to end; see [`Awaited::look`](crate::task::waits::Awaited::look).
    fn look(&self, needs: &mut Needs);

    /// Brings it one step further on a worker that waits for it: runs it, if it is ready for that.
    fn help(&self, executor: &Executor);

    /// Wakes the threads that sleep in a wait for it.
    fn wake_waiters(&self);
}

/// Where the outcome of a task lands.
pub(crate) trait Landing<T>: Send + Sync {
    fn id(&self) -> TaskId;

    /// Whether the outcome is there.
    fn is_done(&self) -> bool;

    /// What a wait on this thread would meet.
    fn prospect(&self) -> JoinStatus;

    /// Waits for the outcome; returns whether it came before the deadline.
    fn wait(&self, deadline: Deadline) -> bool;

    /// Looks for the outcome for a short while; returns whether it is there.
    fn spin_wait(&self) -> bool {
        spin_wait(SPIN_TIME, || self.is_done())
    }

    /// Whether this thread is not the one that the outcome is to come from.
    fn may_sleep(&self) -> bool {
        true
    }

    /// Sleeps until the outcome is there, `wait` is called, or the moment has come; returns whether the outcome is there.
    fn sleep(&self, wait: &Wait, until: Option<Instant>) -> bool;

    /// Takes the outcome; `None` if there is none, or none any more.
    fn take(&self) -> Option<Result<T, JoinError>>;

    /// Takes the outcome, or leaves word with the waker of `context`.
    fn poll_take(&self, context: &Context<'_>) -> Poll<Result<T, JoinError>>;

    /// Says that no thread will ask for the outcome any more; drops it, if it is there.
    fn detach(&self);
}

/// What a wait would meet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use = "the prospect tells whether waiting is safe"]
pub(crate) enum JoinStatus {
    /// The task has not started; a worker can claim it.
    Queued,
    /// Another thread is at it, or it is done.
    InProgress,
    /// The task is on the stack of this very thread.
    OnThisStack,
}

/// A task with a handle.
pub(crate) struct TaskCell<F, T> {
    id: TaskId,
    location: &'static Location<'static>,
    queued_at: Option<Moment>,
    inner: Mutex<Inner<F, T>>,
    /// Whether the outcome has landed, if only to be dropped; written under the lock, for those who look without it.
    landed: AtomicBool,
    /// Notified when the outcome is there.
    done: Condvar,
}

/// What the lock guards.
struct Inner<F, T> {
    state: State<F, T>,
    /// Woken when the outcome is there: the last waker that polled.
    waker: Option<Waker>,
    /// Whether the handle is gone.
    detached: bool,
}

/// See the table above.
enum State<F, T> {
    Queued(F),
    Running(Name),
    Done(Result<T, JoinError>),
    Taken,
}

impl<F, T> State<F, T> {
    /// What a wait on this thread would meet.
    fn prospect(&self) -> JoinStatus {
        match self {
            Self::Queued(_) => JoinStatus::Queued,
            Self::Running(thread) if *thread == context::thread_id() => JoinStatus::OnThisStack,
            _ => JoinStatus::InProgress,
        }
    }
}

impl<F, T> TaskCell<F, T> {
    pub(crate) fn new(closure: F, id: TaskId, location: &'static Location<'static>, queued_at: Option<Moment>) -> Self {
        let inner = Inner { state: State::Queued(closure), waker: None, detached: false };
        Self { id, location, queued_at, inner: Mutex::new(inner), landed: AtomicBool::new(false), done: Condvar::new() }
    }

    /// Takes the closure back out of a task whose submission was refused.
    pub(crate) fn withdraw(&self) -> F {
        match mem::replace(&mut self.inner.lock().state, State::Taken) {
            State::Queued(closure) => closure,
            _ => unreachable!("a refused task was never in reach of anybody else"),
        }
    }

    /// Takes the closure out for running or cancelling, if it is still there.
    fn claim(&self, next: impl FnOnce() -> State<F, T>) -> Option<F> {
        let mut inner = self.inner.lock();
        if defect!("claim in two steps") && matches!(inner.state, State::Queued(_)) {
            drop(inner);
            inner = self.inner.lock();
            let State::Queued(closure) = mem::replace(&mut inner.state, next()) else { unreachable!("claimed twice") };
            return Some(closure);
        }
        match &inner.state {
            State::Queued(_) => match mem::replace(&mut inner.state, next()) {
                State::Queued(closure) => Some(closure),
                _ => unreachable!("the state was looked at under the same lock"),
            },
            _ => None,
        }
    }

    /// Lets the outcome land and wakes who waits for it.
    pub(crate) fn complete(&self, outcome: Result<T, JoinError>) {
        failpoint::at(Place::Landing);
        let mut inner = self.inner.lock();
        // ORDERING: Release pairs with the Acquire of `is_done`.
        self.landed.store(true, if defect!("relaxed flag") { Ordering::Relaxed } else { Ordering::Release });
        if inner.detached {
            inner.state = State::Taken;
            drop(inner);
            if defect!("payload dropped outside of the guard") {
                drop(outcome);
                return;
            }
            unwind::discard(outcome);
            return;
        }
        inner.state = State::Done(outcome);
        self.announce(inner);
    }

    /// Wakes who waits for the outcome that has just landed.
    fn announce(&self, mut inner: MutexGuard<'_, Inner<F, T>>) {
        let waker = inner.waker.take();
        if let Some(waker) = &waker
            && defect!("wake under the lock")
        {
            waker.wake_by_ref();
        }
        drop(inner);
        if !defect!("completion without a notification") {
            self.done.notify_all();
        }
        if let Some(waker) = waker {
            // A waker is foreign code too.
            nesting::call_back(move || waker.wake());
        }
    }

    /// What the executor needs to know.
    pub(crate) fn meta(&self) -> TaskMeta<'static> {
        TaskMeta::single(self.id, self.location, self.queued_at)
    }
}

/// The seam for tasks that are tried again, and for those whose closure comes later.
#[cfg(any(feature = "retry", feature = "driver"))]
impl<F, T> TaskCell<F, T> {
    /// Claims the closure, to run it on this thread.
    pub(crate) fn start(&self) -> Option<F> {
        self.claim(|| State::Running(context::thread_id()))
    }

    /// Puts back the closure that this thread has claimed, to be claimed again.
    pub(crate) fn put_back(&self, closure: F) {
        self.inner.lock().state = State::Queued(closure);
        self.done.notify_all();
    }
}

/// The seam for the registry of waits.
impl<F, T> TaskCell<F, T> {
    /// Names it among the frames of a stack.
    #[inline]
    pub(crate) fn name(&self) -> Name {
        context::name_of(self)
    }

    /// Says what it needs to end, where `unstarted` says so of a closure that is not claimed.
    pub(crate) fn look(&self, needs: &mut Needs, unstarted: impl FnOnce(&mut Needs)) {
        match self.inner.lock().state {
            State::Queued(_) => unstarted(needs),
            State::Running(_) => needs.end_of(self.name()),
            State::Done(_) | State::Taken => {}
        }
    }

    /// Wakes the threads that wait for it, for them to look at their calls.
    pub(crate) fn wake_waiters(&self) {
        drop(self.inner.lock()); // a waiter has looked before, and sleeps, or looks after
        self.done.notify_all();
    }
}

impl<F, T> Task for TaskCell<F, T>
where
    F: FnOnce() -> T + Send + 'static,
    T: Send + 'static,
{
    fn run(&self, executor: &Executor) {
        executor.enter(self.name(), |record| {
            if let Some(closure) = self.claim(|| State::Running(context::thread_id())) {
                let result = executor.run(record, &self.meta(), closure, |_| TaskOutcome::Succeeded);
                self.complete(result.map_err(JoinError::Panicked));
                failpoint::at(Place::Settling);
                executor.task_done(record, 1);
            }
        });
    }

    fn cancel(&self, reason: CancelReason, executor: &Executor) -> bool {
        executor.enter(0, |record| {
            // `Running` keeps others off while the closure is dropped: waiters must find it gone.
            let Some(closure) = self.claim(|| State::Running(context::thread_id())) else { return false };
            if defect!("outcome before the drop of the closure") {
                self.complete(Err(JoinError::Cancelled(reason)));
                unwind::discard(closure);
                executor.task_done(record, 1);
                return true;
            }
            // Its destructor may cancel the next task, and so on.
            nesting::discard(closure);
            executor.cancelled(record, &self.meta().info, reason);
            self.complete(Err(JoinError::Cancelled(reason)));
            executor.task_done(record, 1);
            true
        })
    }

    fn is_finished(&self) -> bool {
        self.landed.load(Ordering::Acquire)
    }
}

impl<F, T> JoinTarget<T> for TaskCell<F, T>
where
    F: FnOnce() -> T + Send + 'static,
    T: Send + 'static,
{
}

impl<F, T> Watched for TaskCell<F, T>
where
    F: FnOnce() -> T + Send + 'static,
    T: Send + 'static,
{
    fn name(&self) -> Name {
        TaskCell::name(self)
    }

    fn look(&self, needs: &mut Needs) {
        TaskCell::look(self, needs, |needs| needs.worker = true);
    }

    fn help(&self, executor: &Executor) {
        self.run(executor);
    }

    fn wake_waiters(&self) {
        TaskCell::wake_waiters(self);
    }
}

impl<F: Send, T: Send + 'static> Landing<T> for TaskCell<F, T> {
    fn id(&self) -> TaskId {
        self.id
    }

    fn is_done(&self) -> bool {
        self.landed.load(Ordering::Acquire)
    }

    fn prospect(&self) -> JoinStatus {
        self.inner.lock().state.prospect()
    }

    fn wait(&self, deadline: Deadline) -> bool {
        spin_wait(SPIN_TIME, || self.is_done() || deadline.is_past());
        if self.is_done() {
            return true;
        }
        let mut inner = self.inner.lock();
        while !self.is_done() && !deadline.is_past() {
            inner = self.done.wait_until(inner, deadline.instant());
        }
        drop(inner);
        self.is_done()
    }

    fn sleep(&self, wait: &Wait, until: Option<Instant>) -> bool {
        let deadline = Deadline::NEVER.earlier(until);
        let mut inner = self.inner.lock();
        while !self.is_done() && !wait.is_called() && !deadline.is_past() {
            inner = self.done.wait_until(inner, deadline.instant());
        }
        drop(inner);
        self.is_done()
    }

    fn take(&self) -> Option<Result<T, JoinError>> {
        let mut inner = self.inner.lock();
        match &inner.state {
            State::Done(_) => match mem::replace(&mut inner.state, State::Taken) {
                State::Done(outcome) => Some(outcome),
                _ => unreachable!("the state was looked at under the same lock"),
            },
            _ => None,
        }
    }

    fn poll_take(&self, context: &Context<'_>) -> Poll<Result<T, JoinError>> {
        // The waker is cloned before the lock and the old one dropped after it: both are foreign code.
        let waker = context.waker().clone();
        let old = {
            let mut inner = self.inner.lock();
            match inner.state {
                State::Done(_) | State::Taken => None,
                _ => Some(inner.waker.replace(waker)),
            }
        };
        match old {
            Some(_) => Poll::Pending,
            None => self.take().map_or(Poll::Pending, Poll::Ready),
        }
    }

    fn detach(&self) {
        let mut inner = self.inner.lock();
        inner.detached = true;
        let waker = inner.waker.take();
        let outcome = match &inner.state {
            State::Done(_) => mem::replace(&mut inner.state, State::Taken),
            _ => State::Taken,
        };
        drop(inner);
        if let State::Done(outcome) = outcome {
            // A task deeper meanwhile, so that a destructor that spawns, and drops the handle, cannot go on forever. It
            // may also drop the next handle, and so on.
            nesting::call_back(move || context::with_frame(0, 0, |_, _| drop(outcome)));
        }
        unwind::discard(waker);
    }
}

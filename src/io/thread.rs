//! The I/O thread of a pool: a runtime on a thread of its own.
//!
//! Its owners share it by reference count. When the last reference is dropped, the runtime ends,
//! the remaining futures are dropped, and the thread is joined. It is not joined in three cases: by
//! itself, where waits are nested too deep in callbacks, and after a report about the end of the
//! pool. Then a future that blocks would delay the drop. A report that comes while the drop waits
//! ends that wait.

use std::any::Any;
use std::future::Future;
use std::io;
use std::panic::Location;
use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::runtime::{Builder, Handle};
use tokio::sync::oneshot;
use tokio::task::AbortHandle;

use super::block_on;
use crate::error::FailedTask;
use crate::error::panic::TaskPanic;
use crate::observe::task_info::TaskId;
use crate::pool::worker_pool::WorkerPool;
use crate::sync::thread_name::thread_name;
use crate::sync::{Arc, AtomicBool, Ordering, Weak, thread};
use crate::task::context::{self, GroupId, ThreadId};
use crate::task::executor::Executor;
use crate::task::propagation::Part;
use crate::task::report::Reported;
use crate::time::deadline::Deadline;
use crate::unwind::{self, Payload};

/// The thread that drives the futures of one pool.
pub(crate) struct IoThread {
    runtime: Handle,
    /// The id of the thread.
    id: ThreadId,
    /// The executor of the pool.
    executor: Arc<Executor>,
    /// Dropped to end the runtime. `None` only in the destructor.
    stop: Option<oneshot::Sender<()>>,
    /// Joined in the destructor, and `None` only there.
    thread: Option<thread::JoinHandle<()>>,
    /// Set when the thread runs nothing more but the destructors of its thread locals.
    ended: Arc<AtomicBool>,
}

/// The reason why a wait for a future returned no output.
#[derive(Debug, thiserror::Error)]
#[allow(dead_code, reason = "for features that wait for an answer on the caller's thread")]
pub(crate) enum BlockError {
    /// The deadline passed first, or waits are nested too deep in callbacks. The future is dropped.
    #[error("there was no answer in time")]
    Timeout,
    /// The caller is the I/O thread, which would have waited for itself.
    #[error("the I/O thread cannot wait for itself")]
    OnIoThread,
    /// The future panicked.
    #[error("{0}")]
    Panicked(TaskPanic),
}

impl IoThread {
    /// Returns the I/O thread of the pool. Starts it if it does not run.
    pub(crate) fn of(pool: &WorkerPool) -> io::Result<Arc<Self>> {
        let inner = pool.inner();
        let mut shared = inner.io.lock();
        if let Some(running) = shared.as_ref().and_then(Weak::upgrade) {
            drop(shared); // before the new reference is dropped, which may be the last
            return Ok(running.downcast().unwrap_or_else(|_| unreachable!("only an `IoThread` is stored there")));
        }
        let started = Arc::new(Self::start(pool.thread_name(), &inner.executor)?);
        let any: Arc<dyn Any + Send + Sync> = Arc::clone(&started) as _;
        *shared = Some(Arc::downgrade(&any));
        Ok(started)
    }

    fn start(base: &str, executor: &Arc<Executor>) -> io::Result<Self> {
        let [name, blocking] = ["io", "blocking"].map(|suffix| thread_name(base, suffix));
        let runtime = Builder::new_current_thread().enable_all().thread_name(blocking).build()?;
        let handle = runtime.handle().clone();
        let (stop, stopped) = oneshot::channel::<()>();
        let ended = Arc::new(AtomicBool::new(false));
        let end = End { ended: Arc::clone(&ended), executor: Arc::clone(executor) };
        let id = ThreadId::new();
        let thread = thread::Builder::new().name(name).spawn(move || {
            let _end = end;
            context::set_io_thread(id);
            let _ = runtime.block_on(stopped);
            // Name look-ups run on other threads of the runtime, and may take any time, so do not
            // wait for them.
            runtime.shutdown_background();
        })?;
        let executor = Arc::clone(executor);
        Ok(Self { runtime: handle, id, executor, stop: Some(stop), thread: Some(thread), ended })
    }

    /// Returns the runtime, for libraries that spawn by themselves. The pool does not count those
    /// futures.
    #[allow(dead_code, reason = "not every feature needs it")]
    pub(crate) fn runtime(&self) -> &Handle {
        &self.runtime
    }

    /// Returns the id of the thread.
    pub(super) fn thread_id(&self) -> ThreadId {
        self.id
    }

    /// Returns `true` if the calling thread is the I/O thread.
    pub(crate) fn is_here(&self) -> bool {
        self.thread.as_ref().is_some_and(|thread| thread.thread().id() == thread::current().id())
    }

    /// Drives a future that is not a task of the pool. The returned handle can abort it. A panic
    /// ends only this future.
    pub(crate) fn spawn<F>(&self, future: F) -> AbortHandle
    where
        F: Future<Output = ()> + Send + 'static,
    {
        self.runtime.spawn(future).abort_handle()
    }

    /// Blocks until a future is ready or the deadline has passed. The I/O thread drives the future.
    /// On a worker this holds the worker.
    #[track_caller]
    #[allow(dead_code, reason = "for features that wait for an answer on the caller's thread")]
    pub(crate) fn block_on<F>(&self, future: F, deadline: Deadline) -> Result<F::Output, BlockError>
    where
        F: Future + Send + 'static,
        F::Output: Send + 'static,
    {
        if self.is_here() {
            return Err(BlockError::OnIoThread);
        }
        let location = Location::caller();
        let (answer, answered) = oneshot::channel();
        let contained = CatchUnwind::new(future, &self.executor, None, (GroupId::NONE, 0));
        let abort_handle = self.spawn(async move {
            let _ = answer.send(contained.await).map_err(unwind::discard);
        });
        match block_on::block_on(answered, deadline) {
            Some(Ok(Ok(output))) => Ok(output),
            Some(Ok(Err(payload))) => {
                Err(BlockError::Panicked(TaskPanic::new(payload, FailedTask::new(None, None, location))))
            }
            Some(Err(_)) => unreachable!("the runtime runs while there is a reference to the thread"),
            None => {
                abort_handle.abort();
                Err(BlockError::Timeout)
            }
        }
    }
}

impl Drop for IoThread {
    fn drop(&mut self) {
        let is_here = self.is_here();
        drop(self.stop.take());
        let Some(thread) = self.thread.take().filter(|_| !is_here) else { return };
        let lifecycle = &self.executor.tracker;
        let is_given_up = || lifecycle.has_reported(Reported::Idle);
        // ORDERING: Acquire pairs with the Release of `End`; the lock of `wake_waiters` decides.
        let has_waited = lifecycle.wait_until(|| self.ended.load(Ordering::Acquire) || is_given_up());
        if has_waited && !is_given_up() {
            // The runtime contains the panics of what it drives and drops.
            let _ = thread.join();
        }
    }
}

/// Tells that the I/O thread ends, when it is dropped.
struct End {
    ended: Arc<AtomicBool>,
    executor: Arc<Executor>,
}

impl Drop for End {
    fn drop(&mut self) {
        // ORDERING: see the drop of `IoThread`.
        self.ended.store(true, Ordering::Release);
        self.executor.tracker.wake_waiters();
    }
}

/// A future that returns panics of another future as errors. While it is polled, the thread counts
/// as being inside of the pool, so a future that ends the pool does not wait for itself.
pub(super) struct CatchUnwind<F> {
    /// The other future; `None` once it has ended and was dropped.
    future: Option<Pin<Box<F>>>,
    /// The executor of the pool.
    executor: Arc<Executor>,
    /// The identity of the task on the stack of the I/O thread; zero if the future is not a task.
    group: GroupId,
    /// The item of its frame: its driver, or zero.
    item: usize,
    /// The task, in whose context the future is polled and dropped; `None` if it is not a task.
    task: Option<TaskId>,
}

impl<F> CatchUnwind<F> {
    /// Wraps a future. With a task, it is polled in the context of that.
    pub(super) fn new(
        future: F,
        executor: &Arc<Executor>,
        task: Option<TaskId>,
        (group, item): (GroupId, usize),
    ) -> Self {
        Self { future: Some(Box::pin(future)), executor: Arc::clone(executor), group, item, task }
    }

    /// Drops the other future.
    fn discard(&mut self) {
        let future = self.future.take();
        within(&self.executor, (self.group, self.item), self.task, || unwind::discard(future));
    }
}

impl<F: Future> Future for CatchUnwind<F> {
    type Output = Result<F::Output, Payload>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let Self { future, executor, group, item, task } = &mut *self;
        let inner = future.as_mut().expect("a future is not polled after it returned `Ready`");
        let polled = within(executor, (*group, *item), *task, || unwind::catch(|| inner.as_mut().poll(context)));
        let output = match polled {
            Ok(Poll::Pending) => return Poll::Pending,
            Ok(Poll::Ready(output)) => Ok(output),
            Err(payload) => Err(payload),
        };
        self.discard();
        Poll::Ready(output)
    }
}

/// Calls `f` with the task of a future on this thread's stack, and in its context.
fn within<T>(executor: &Executor, (group, item): (GroupId, usize), task: Option<TaskId>, f: impl FnOnce() -> T) -> T {
    executor.enter(group, |_| {
        context::set_item(item);
        executor.in_context(task, Part::Poll, f)
    })
}

impl<F> Drop for CatchUnwind<F> {
    fn drop(&mut self) {
        self.discard();
    }
}

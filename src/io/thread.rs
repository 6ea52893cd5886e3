//! The I/O thread of a pool: a runtime on a thread of its own.
//!
//! It is owned by all who need it together: when the last of them lets go, the runtime ends, futures that are left are
//! dropped, and the thread is joined. It is not joined by itself, nor after a report about the end of the pool: a
//! future that blocks would hold the drop for as long.

use std::any::Any;
use std::future::Future;
use std::io;
use std::panic::Location;
use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::runtime::{Builder, Handle};
use tokio::sync::oneshot;
use tokio::task::AbortHandle;

use super::parker;
use crate::error::panic::TaskPanic;
use crate::pool::worker_pool::WorkerPool;
use crate::sync::thread_name::thread_name;
use crate::sync::{Arc, Weak, thread};
use crate::task::context::GroupId;
use crate::task::executor::Executor;
use crate::task::tracker::Reported;
use crate::time::deadline::Deadline;
use crate::unwind::{self, Payload};

/// The thread that drives the futures of one pool.
pub(crate) struct IoThread {
    runtime: Handle,
    executor: Arc<Executor>,
    /// Dropped to end the runtime. `None` only while this is dropped.
    stop: Option<oneshot::Sender<()>>,
    /// `None` only while this is dropped.
    thread: Option<thread::JoinHandle<()>>,
}

/// Why waiting for a future gave no value.
#[derive(Debug, thiserror::Error)]
#[allow(dead_code, reason = "for features that wait for an answer on the caller's thread")]
pub(crate) enum BlockError {
    /// The deadline passed first; the future is dropped.
    #[error("there was no answer in time")]
    Timeout,
    /// The wait was tried on the I/O thread, which would have waited for itself.
    #[error("the I/O thread cannot wait for itself")]
    OnIoThread,
    /// The future panicked.
    #[error("{0}")]
    Panicked(TaskPanic),
}

impl IoThread {
    /// The I/O thread of the pool, which runs from now on.
    pub(crate) fn of(pool: &WorkerPool) -> io::Result<Arc<Self>> {
        let engine = pool.inner();
        let mut shared = engine.io.shared.lock();
        if let Some(running) = shared.as_ref().and_then(Weak::upgrade) {
            drop(shared); // what was upgraded may be the last reference when it is dropped
            return Ok(running.downcast().unwrap_or_else(|_| unreachable!("nothing else is kept there")));
        }
        let started = Arc::new(Self::start(pool.thread_name(), &engine.executor)?);
        let any: Arc<dyn Any + Send + Sync> = Arc::clone(&started) as _;
        *shared = Some(Arc::downgrade(&any));
        Ok(started)
    }

    fn start(base: &str, executor: &Arc<Executor>) -> io::Result<Self> {
        let [name, blocking] = ["io", "blocking"].map(|suffix| thread_name(base, suffix));
        let runtime = Builder::new_current_thread().enable_all().thread_name(blocking).build()?;
        let handle = runtime.handle().clone();
        let (stop, stopped) = oneshot::channel::<()>();
        let thread = thread::Builder::new().name(name).spawn(move || {
            let _ = runtime.block_on(stopped);
            // Look-ups of names run on threads of the runtime, and nobody can say how long one takes.
            runtime.shutdown_background();
        })?;
        Ok(Self { runtime: handle, executor: Arc::clone(executor), stop: Some(stop), thread: Some(thread) })
    }

    #[allow(dead_code, reason = "not every feature needs it")]
    /// For libraries that want to spawn by themselves; what they spawn is in nobody's books.
    pub(crate) fn runtime(&self) -> &Handle {
        &self.runtime
    }

    /// Whether the calling thread is the I/O thread.
    pub(crate) fn is_here(&self) -> bool {
        self.thread.as_ref().is_some_and(|thread| thread.thread().id() == thread::current().id())
    }

    /// Drives a future that is no task of the pool; it may be given up by the returned handle. A panic ends it.
    pub(crate) fn spawn<F>(&self, future: F) -> AbortHandle
    where
        F: Future<Output = ()> + Send + 'static,
    {
        self.runtime.spawn(future).abort_handle()
    }

    /// Blocks until the future, driven by the I/O thread, is ready or the deadline has passed. On a worker this holds
    /// the worker.
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
        let contained = CatchUnwind::new(future, &self.executor, GroupId::NONE);
        let task = self.spawn(async move {
            let _ = answer.send(contained.await).map_err(unwind::discard);
        });
        match parker::wait_for(answered, deadline) {
            Some(Ok(Ok(output))) => Ok(output),
            Some(Ok(Err(payload))) => Err(BlockError::Panicked(TaskPanic::new(payload, location))),
            Some(Err(_)) => unreachable!("the runtime goes on while somebody holds the thread"),
            None => {
                task.abort();
                Err(BlockError::Timeout)
            }
        }
    }
}

impl Drop for IoThread {
    fn drop(&mut self) {
        let joins = !self.is_here() && !self.executor.tracker.has_reported(Reported::Idle);
        drop(self.stop.take());
        if let Some(thread) = self.thread.take()
            && joins
        {
            // The runtime contains the panics of what it drives and drops.
            let _ = thread.join();
        }
    }
}

/// A future whose panics are values. While it is polled the thread counts as being inside the pool, so a future that
/// ends the pool does not wait for itself.
pub(super) struct CatchUnwind<F> {
    /// `None` once it has ended: it is dropped on the spot.
    future: Option<Pin<Box<F>>>,
    executor: Arc<Executor>,
    /// Names it on the stack of the I/O thread, or zero.
    group: GroupId,
}

impl<F> CatchUnwind<F> {
    pub(super) fn new(future: F, executor: &Arc<Executor>, group: GroupId) -> Self {
        Self { future: Some(Box::pin(future)), executor: Arc::clone(executor), group }
    }
}

impl<F: Future> Future for CatchUnwind<F> {
    type Output = Result<F::Output, Payload>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let Self { future, executor, group } = &mut *self;
        let inner = future.as_mut().expect("a future is not polled after it was ready");
        let output = match executor.enter(*group, |_| unwind::catch(|| inner.as_mut().poll(context))) {
            Ok(Poll::Pending) => return Poll::Pending,
            Ok(Poll::Ready(output)) => Ok(output),
            Err(payload) => Err(payload),
        };
        executor.enter(*group, |_| unwind::discard(future.take()));
        Poll::Ready(output)
    }
}

impl<F> Drop for CatchUnwind<F> {
    fn drop(&mut self) {
        let future = self.future.take();
        self.executor.enter(self.group, |_| unwind::discard(future));
    }
}

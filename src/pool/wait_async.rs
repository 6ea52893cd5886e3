//! Waiting from async code until a pool is idle, or until it has ended.
//!
//! Both futures store one waker with the tracker or the worker set. A notification takes all wakers
//! that are stored there, so a future that is never polled again keeps no notification from
//! another.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};

use super::end_wait;
use super::inner::PoolInner;
use super::shutdown::{self, PollShutdown};
use super::worker_pool::WorkerPool;
use crate::sync::Arc;
use crate::task::context;
use crate::task::future_wait::FutureWait;
use crate::task::idle;
use crate::task::wakers::WakerKey;
use crate::time::deadline::Deadline;
use crate::unwind;

/// # From async code
impl WorkerPool {
    /// Like [`wait_idle`](Self::wait_idle), for async code: the returned future does not block.
    /// Works with any runtime. Dropping it has no effect on the pool.
    ///
    /// # Panics
    ///
    /// A poll panics in a task of this pool, and in a future that a driver of this pool polls,
    /// because the pool cannot be idle meanwhile.
    ///
    /// # Examples
    ///
    /// ```
    /// # fn block_on<F: Future>(future: F) -> F::Output { pollster::block_on(future) }
    /// let pool = workcrew::WorkerPool::builder().workers(2).build()?;
    /// pool.execute(|| println!("on a worker"))?;
    /// block_on(pool.wait_idle_async());
    /// assert_eq!(pool.metrics().tasks_succeeded, 1);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn wait_idle_async(&self) -> WaitForIdle {
        WaitForIdle { pool: Arc::clone(self.inner()), key: WakerKey::new(), wait: FutureWait::default() }
    }

    /// Like [`shutdown`](Self::shutdown), for async code: the returned future refuses new tasks
    /// when it is first polled, and is ready when every task has ended and every worker has left.
    /// Works with any runtime.
    ///
    /// After that the drop of the pool does not block, under any [`OnDrop`](crate::OnDrop) policy.
    /// Like [`shutdown_timeout`](Self::shutdown_timeout), the future does not wait for destructors
    /// of the workers' thread locals.
    ///
    /// - For a time limit, race the future against a timer of the runtime, and call
    ///   [`shutdown_now`](Self::shutdown_now) when the timer wins. That does not block, and neither
    ///   does the drop of the pool after it, except for a short time if no task is running.
    /// - Dropping the future ends the wait. If it was polled, the pool remains closed.
    /// - If a [report](crate::ShutdownReport) leaves a running task behind, the future is ready.
    /// - In a task of this pool the future is ready at once, and the pool ends after that task.
    ///
    /// # Examples
    ///
    /// ```
    /// # fn block_on<F: Future>(future: F) -> F::Output { pollster::block_on(future) }
    /// let pool = workcrew::WorkerPool::builder().workers(2).build()?;
    /// let handle = pool.spawn(|| 6 * 7)?;
    /// block_on(async {
    ///     pool.shutdown_async().await;
    ///     assert!(handle.is_finished());
    ///     drop(pool); // does not block
    /// });
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn shutdown_async(&self) -> WaitForShutdown {
        WaitForShutdown {
            pool: Arc::clone(self.inner()),
            key: WakerKey::new(),
            wait: FutureWait::default(),
            is_over: false,
        }
    }
}

/// A future that waits for a pool to be idle. Returned by [`WorkerPool::wait_idle_async`].
#[must_use = "a future does nothing until it is polled"]
pub struct WaitForIdle {
    pool: Arc<PoolInner>,
    key: WakerKey,
    /// What the last poll has registered.
    wait: FutureWait,
}

impl Future for WaitForIdle {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        let Self { pool, key, wait } = &mut *self;
        wait.begin_poll();
        loop {
            if pool.executor.tracker.poll_idle(*key, context.waker()) {
                return Poll::Ready(());
            }
            assert!(!context::is_inside(pool.id()), "a task cannot wait for its own pool to be idle");
            match wait.register(|| idle::awaited(&pool.executor), Deadline::NEVER, context) {
                Some(awaited) => awaited.help(),
                None => return Poll::Pending,
            }
        }
    }
}

impl Drop for WaitForIdle {
    fn drop(&mut self) {
        self.pool.executor.tracker.stop_polling(self.key);
    }
}

unwind::safe!(WaitForIdle);
unwind::safe!(WaitForShutdown);

impl fmt::Debug for WaitForIdle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("WaitForIdle").field("is_idle", &self.pool.executor.tracker.is_idle()).finish_non_exhaustive()
    }
}

/// A future that ends a pool. Returned by [`WorkerPool::shutdown_async`].
#[must_use = "a future does nothing until it is polled"]
pub struct WaitForShutdown {
    pool: Arc<PoolInner>,
    key: WakerKey,
    /// What the last poll has registered.
    wait: FutureWait,
    /// Whether the future was ready.
    is_over: bool,
}

impl Future for WaitForShutdown {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        let Self { pool, key, wait, is_over } = &mut *self;
        wait.begin_poll();
        loop {
            if *is_over || shutdown::poll_shutdown(pool, *key, context.waker()) == PollShutdown::Ended {
                *is_over = true;
                return Poll::Ready(());
            }
            match wait.register(|| end_wait::awaited(pool), Deadline::NEVER, context) {
                Some(awaited) => awaited.help(),
                None => return Poll::Pending,
            }
        }
    }
}

impl Drop for WaitForShutdown {
    fn drop(&mut self) {
        self.pool.workers.stop_polling(self.key);
    }
}

impl fmt::Debug for WaitForShutdown {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("WaitForShutdown").field("is_over", &self.is_over).finish_non_exhaustive()
    }
}

//! The public methods that end a pool. `shutdown` implements them.

use std::time::Duration;

use super::shutdown::{self, ShutdownReport};
use super::worker_pool::WorkerPool;

/// # Ending
///
/// Each of these methods may be called from any thread, more than once, and while other threads
/// submit. A submitter that waits for room gets its closure back.
///
/// Each of them cancels tasks that wait for a delay or a retry, since the pool starts no new
/// delays.
///
/// # What a shutdown cancels
///
/// Three ways to end a pool cancel its tasks: [`shutdown_timeout`](Self::shutdown_timeout) when its
/// limit has passed, [`shutdown_now`](Self::shutdown_now), and the drop of the last handle under
/// [`OnDrop::Cancel`](crate::OnDrop::Cancel). They do the same:
///
/// - Tasks that have not started never start. Their outcome is
///   [`CancelReason::ShutDown`](crate::CancelReason::ShutDown).
/// - Futures of drivers are dropped, with the same outcome.
/// - The token of every running task is cancelled with that reason, if the task has one. Tasks of a
///   [`TaskBuilder`](crate::TaskBuilder), of groups and of scopes have one. So do attempts of
///   retried tasks and of event handlers, and jobs of NATS. A task that starts at the same moment
///   gets a cancelled token. A token that you made yourself, or passed as a parent, is not
///   cancelled.
///
/// A running task without a token, such as that of [`execute`](Self::execute), is not told to stop.
/// [`close`](Self::close), [`shutdown`](Self::shutdown) and
/// [`shutdown_async`](Self::shutdown_async) cancel no token.
///
/// # What is left behind
///
/// A task that never ends cannot be stopped, but it can be left behind.
/// [`shutdown_timeout`](Self::shutdown_timeout) and [`shutdown_now`](Self::shutdown_now) report how
/// many tasks are still running when they return. From then on, nothing in this list waits for
/// those tasks:
///
/// - the drop of the last handle, under any [`OnDrop`](crate::OnDrop) policy and on any thread;
/// - [`shutdown`](Self::shutdown), whether it is called later or already waits in another thread;
/// - the drop of a driver, an event bus, or a gRPC or NATS client of the pool.
///
/// So a process whose `main` returns after such a report ends, and the stuck task ends with it. A
/// task that was left behind and does end is counted like any other, and its worker leaves.
///
/// Waits for the tasks themselves still wait for a task that was left behind:
/// [`JoinHandle::join`](crate::JoinHandle::join), the waits of groups, the end of a
/// [scope](Self::scope), and [`wait_idle`](Self::wait_idle). A `shutdown_timeout` after a
/// `shutdown_now` waits up to its own limit; after another `shutdown_timeout` it returns at once.
///
/// The waits of an event bus and of a NATS worker end with the report of a `shutdown_timeout`, if
/// they have no timeout of their own: [`EventBus::wait_idle`](crate::events::EventBus::wait_idle),
/// [`Receipt::wait`](crate::events::Receipt::wait),
/// [`Subscription::unsubscribe`](crate::events::Subscription::unsubscribe), and a run of a
/// `nats::Worker` without a drain timeout.
///
/// # Async code
///
/// `shutdown`, `shutdown_timeout` and the drop of the last handle block the thread of the async
/// runtime. Await [`shutdown_async`](Self::shutdown_async) before the drop, or build the pool with
/// [`OnDrop::Detach`](crate::OnDrop::Detach).
impl WorkerPool {
    /// Refuses new tasks and returns at once. Queued tasks still run, and then the workers end.
    /// Tasks that wait for a delay or a retry are cancelled.
    ///
    /// To wait for the end, call [`shutdown`](Self::shutdown).
    pub fn close(&self) {
        shutdown::close(self.inner());
    }

    /// Refuses new tasks, runs what is queued and joins the workers. Blocks until then.
    ///
    /// A task that never ends makes this method wait forever, unless another thread calls
    /// [`shutdown_timeout`](Self::shutdown_timeout) or [`shutdown_now`](Self::shutdown_now). When
    /// such a call reports a task as still running, `shutdown` returns. After such a report it
    /// returns at once.
    ///
    /// If a task of this pool calls this method, it does not wait: the pool runs what is queued and
    /// ends after that task. The same holds for a task or hook of another pool, if a task of this
    /// pool waits for it, or the stop hook of a worker does.
    pub fn shutdown(&self) {
        shutdown::shutdown(self.inner());
    }

    /// Like [`shutdown`](Self::shutdown), but waits at most for `timeout` and reports what was
    /// left.
    ///
    /// When the limit has passed, it [cancels](#what-a-shutdown-cancels) tasks that have not
    /// started, and the tokens of running tasks. Tasks that are still running are left behind for
    /// good: no drop and no other shutdown waits for them. A second call returns at once, and
    /// reports the tasks that are still running. To give them more time, call
    /// [`wait_idle_timeout`](Self::wait_idle_timeout).
    ///
    /// `Duration::ZERO` checks once, and `Duration::MAX` waits forever. Neither this method nor the
    /// later drop of the pool waits for destructors of the workers' thread locals. After a report
    /// that says `drained`, [`shutdown`](Self::shutdown) does.
    ///
    /// The calling thread drops the closures that it cancels and calls the observer for them. If
    /// that user code blocks, this call returns after its limit.
    ///
    /// If a task of this pool calls this method, it does not wait, cancel tasks or leave anything
    /// behind. It then acts like [`close`](Self::close), with a report.
    ///
    /// # Examples
    ///
    /// ```
    /// use std::sync::mpsc::channel;
    /// use std::time::Duration;
    ///
    /// let pool = workcrew::WorkerPool::builder().workers(1).build()?;
    /// let (started, start) = channel();
    /// pool.execute(move || {
    ///     started.send(()).unwrap();
    ///     loop {
    ///         std::thread::park(); // never ends
    ///     }
    /// })?;
    /// start.recv()?;
    /// let report = pool.shutdown_timeout(Duration::from_millis(5));
    /// assert_eq!((report.drained, report.tasks_running), (false, 1));
    /// drop(pool); // returns at once
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[must_use = "the report says whether the pool was drained"]
    pub fn shutdown_timeout(&self, timeout: Duration) -> ShutdownReport {
        shutdown::shutdown_timeout(self.inner(), timeout)
    }

    /// Refuses new tasks, [cancels](#what-a-shutdown-cancels) tasks that have not started and the
    /// tokens of running tasks, and returns a report. Does not wait for running tasks.
    ///
    /// Tasks that the report counts as running are left behind for good: no drop and no
    /// [`shutdown`](Self::shutdown) waits for them. To wait for them up to a limit, call
    /// [`shutdown_timeout`](Self::shutdown_timeout) next. If no task was running, the drop of the
    /// pool still waits until the workers have left.
    ///
    /// The same holds if a task of this pool calls it. The report counts that task too.
    #[allow(clippy::must_use_candidate, reason = "the report is often not needed")]
    pub fn shutdown_now(&self) -> ShutdownReport {
        shutdown::shutdown_now(self.inner())
    }
}

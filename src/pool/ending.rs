//! The ways to end a pool, as users see them. How they work stands in `shutdown`.

use std::time::Duration;

use super::shutdown::{self, ShutdownReport};
use super::worker_pool::WorkerPool;

/// # Ending
///
/// Each of these methods may be called from any thread, more than once, and while other threads submit. A submitter that
/// waits for room gets its closure back.
///
/// A task that never ends cannot be stopped, but it can be left behind. [`shutdown_timeout`](Self::shutdown_timeout) and
/// [`shutdown_now`](Self::shutdown_now) report what still runs when they return. From then on these do not wait for it:
///
/// - the drop of the pool, whatever [`OnDrop`](crate::OnDrop) says and wherever the last reference is dropped;
/// - [`shutdown`](Self::shutdown), whether it is called later or already waits in another thread;
/// - the drop of a driver, an event bus, or a gRPC or NATS client of the pool.
///
/// So a process whose `main` returns after such a report ends, and the stuck task ends with it. A task that was left
/// behind and does end is counted like any other, and its worker leaves.
///
/// Calls that ask for more time still wait: another `shutdown_timeout` up to its own limit, and the waits for the tasks
/// themselves, such as [`JoinHandle::join`](crate::JoinHandle::join), [`wait_idle`](Self::wait_idle) and the end of a
/// [scope](Self::scope).
///
/// # Async code
///
/// `shutdown`, `shutdown_timeout` and the drop of the last reference block the thread of the executor. Build the pool
/// with [`OnDrop::Detach`](crate::OnDrop::Detach), or end it on a thread that may block.
impl WorkerPool {
    /// Refuses new work and returns at once. What is queued still runs, and then the workers end; what waits for its time
    /// is cancelled. To wait for the end, call [`shutdown`](Self::shutdown), or drop the pool.
    pub fn close(&self) {
        shutdown::close(self.inner());
    }

    /// Refuses new work, runs what is queued, joins the workers. Blocks until then.
    ///
    /// A task that never ends makes it wait forever, unless another thread calls
    /// [`shutdown_timeout`](Self::shutdown_timeout) or [`shutdown_now`](Self::shutdown_now): when such a call reports a
    /// task as still running, `shutdown` returns. After such a report it returns at once.
    ///
    /// Called by a task of this pool it does not wait: the pool runs what is queued and ends after that task. The same
    /// holds for a task of another pool that a task of this pool waits for.
    pub fn shutdown(&self) {
        shutdown::shutdown(self.inner());
    }

    /// Like [`shutdown`](Self::shutdown), but waits at most `timeout` and reports what was left.
    ///
    /// When the limit has passed, tasks that have not started are cancelled, and running groups and scopes are told
    /// through their tokens. A plain task has a token only if you gave it one. What still runs is left behind for good:
    /// no drop and no `shutdown` waits for it. To give it more time, call this again with a new limit.
    ///
    /// `Duration::ZERO` looks once, and `Duration::MAX` waits forever. Destructors of the workers' thread locals are not
    /// waited for, neither here nor by the drop of the pool afterwards. If the report says `drained`, `shutdown` waits
    /// for them.
    ///
    /// The calling thread drops the closures that it cancels and calls the observer about them. User code that blocks
    /// there holds up this call past its limit.
    ///
    /// Called by a task of this pool it neither waits nor cancels nor leaves anything behind: like
    /// [`close`](Self::close), with a report.
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

    /// Refuses new work, cancels what has not started, tells running groups and scopes through their tokens, and
    /// returns a report without waiting for what runs.
    ///
    /// A task that the report counts as running is left behind for good: no drop and no [`shutdown`](Self::shutdown)
    /// waits for it. To wait for it up to a limit, call [`shutdown_timeout`](Self::shutdown_timeout) next. If no task was
    /// running, the drop of the pool still waits until the workers have left.
    ///
    /// The same holds when a task of this pool calls it. The report counts that task too.
    #[allow(clippy::must_use_candidate, reason = "the report is of interest to few")]
    pub fn shutdown_now(&self) -> ShutdownReport {
        shutdown::shutdown_now(self.inner())
    }
}

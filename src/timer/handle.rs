//! What the caller holds of a timer.

use std::fmt;
use std::panic::{RefUnwindSafe, UnwindSafe};

use super::heap::TimerKey;
use super::thread::TimerThread;
use crate::error::CancelReason;
use crate::sync::Arc;
use crate::task::executor::Executor;
use crate::task::handle::JoinHandle;
use crate::task::job::Task;

/// Stops a timer. From [`execute_after`](crate::WorkerPool::execute_after),
/// [`execute_every`](crate::WorkerPool::execute_every) and
/// [`execute_with_fixed_delay`](crate::WorkerPool::execute_with_fixed_delay).
///
/// Dropping the handle detaches the timer, which goes on.
///
/// # Examples
///
/// ```
/// use std::time::Duration;
///
/// let pool = workcrew::WorkerPool::builder().workers(1).build()?;
/// let reminder = pool.execute_after(Duration::from_secs(3_600), || println!("an hour has passed"))?;
/// assert!(reminder.cancel()); // it never runs, and its closure is gone
/// assert!(reminder.is_finished() && !reminder.cancel());
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub struct TimerHandle {
    kind: Kind,
    /// Of the pool the timer belongs to.
    executor: Arc<Executor>,
}

/// What a handle is of.
enum Kind {
    /// A task that waits for its time.
    Once { task: JoinHandle<()>, place: TimerKey, timers: Arc<TimerThread> },
    /// A closure that is run again and again.
    Periodic(Arc<dyn Repeating>),
}

/// What a handle needs of a periodic timer, whatever the type of its closure.
pub(crate) trait Repeating: Task {
    /// Whether it will not start again.
    fn is_stopped(&self) -> bool;
}

impl TimerHandle {
    pub(crate) fn once(
        task: JoinHandle<()>,
        place: TimerKey,
        timers: Arc<TimerThread>,
        executor: Arc<Executor>,
    ) -> Self {
        Self { kind: Kind::Once { task, place, timers }, executor }
    }

    pub(crate) fn periodic(timer: Arc<dyn Repeating>, executor: Arc<Executor>) -> Self {
        Self { kind: Kind::Periodic(timer), executor }
    }

    /// Stops the timer: it does not start any more. The closure, and the timer's memory, are freed before this returns;
    /// while a periodic timer is running, when the run is over. A run that has started is not touched.
    ///
    /// Returns whether this call made the difference: `false` for a delayed task that has started, and for what was
    /// stopped before. Costs a logarithm of the number of pending timers.
    #[allow(clippy::must_use_candidate, reason = "stopping what may be over is a fine thing to do")]
    pub fn cancel(&self) -> bool {
        match &self.kind {
            Kind::Once { task, place, timers } => {
                let cancelled = task.cancel();
                let removed = timers.remove(*place);
                drop(removed);
                cancelled
            }
            Kind::Periodic(timer) => timer.cancel(CancelReason::Requested, &self.executor),
        }
    }

    /// Whether the timer has nothing left to start: a delayed task has ended or was cancelled, a periodic timer was
    /// stopped, if only by the end of its pool. `true` is final; `false` may be out of date.
    #[must_use]
    pub fn is_finished(&self) -> bool {
        match &self.kind {
            Kind::Once { task, .. } => task.is_finished(),
            Kind::Periodic(timer) => timer.is_stopped(),
        }
    }
}

// A panic never happens under a lock of this crate, so nothing that is broken can be seen through a reference.
impl UnwindSafe for TimerHandle {}
impl RefUnwindSafe for TimerHandle {}

impl fmt::Debug for TimerHandle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let is_periodic = matches!(self.kind, Kind::Periodic(_));
        f.debug_struct("TimerHandle").field("periodic", &is_periodic).field("finished", &self.is_finished()).finish()
    }
}

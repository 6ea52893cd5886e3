//! The handle of a timer.

use std::fmt;

use crate::error::CancelReason;
use crate::sync::Arc;
use crate::task::executor::Executor;
use crate::task::handle::JoinHandle;
use crate::task::job::Task;
use crate::unwind;

/// A handle that cancels a timer.
///
/// It is returned by [`execute_after`](crate::WorkerPool::execute_after),
/// [`execute_at`](crate::WorkerPool::execute_at),
/// [`execute_every`](crate::WorkerPool::execute_every) and
/// [`execute_with_fixed_delay`](crate::WorkerPool::execute_with_fixed_delay). Dropping the handle
/// detaches the timer, which continues.
///
/// # Examples
///
/// ```
/// use std::time::Duration;
///
/// let pool = workcrew::WorkerPool::builder().workers(1).build()?;
/// let an_hour = Duration::from_secs(3_600);
/// let reminder = pool.execute_after(an_hour, || println!("an hour has passed"))?;
/// assert!(reminder.cancel()); // it never runs, and its closure is gone
/// assert!(reminder.is_finished() && !reminder.cancel());
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub struct TimerHandle {
    kind: Kind,
    /// The executor of the timer's pool.
    executor: Arc<Executor>,
}

/// The kind of a timer.
enum Kind {
    /// A delayed task.
    Once(JoinHandle<()>),
    /// A closure that runs repeatedly.
    Periodic(Arc<dyn Repeating>),
}

/// A periodic timer with any type of closure.
pub(crate) trait Repeating: Task {
    /// Returns `true` if the timer will not start again.
    fn is_stopped(&self) -> bool;
}

impl TimerHandle {
    pub(crate) fn once(task: JoinHandle<()>, executor: Arc<Executor>) -> Self {
        Self { kind: Kind::Once(task), executor }
    }

    pub(crate) fn periodic(timer: Arc<dyn Repeating>, executor: Arc<Executor>) -> Self {
        Self { kind: Kind::Periodic(timer), executor }
    }

    /// Cancels the timer, so that it does not start again.
    ///
    /// The closure and the timer's memory are freed before this method returns or, if a periodic
    /// timer is running, when that run ends. A run that has started is not interrupted.
    ///
    /// Returns `true` if this call cancelled the timer. Returns `false` if a delayed task has
    /// started, or if the timer had ended or was cancelled before. The cost is logarithmic in the
    /// number of pending timers.
    #[allow(clippy::must_use_candidate, reason = "a caller may cancel a timer whether or not it is over")]
    pub fn cancel(&self) -> bool {
        match &self.kind {
            Kind::Once(task) => task.cancel(),
            Kind::Periodic(timer) => timer.cancel(CancelReason::Requested, &self.executor),
        }
    }

    /// Returns `true` if the timer will not start again.
    ///
    /// This is so for a delayed task that has ended or was cancelled. It is also so for a periodic
    /// timer that was cancelled or has ended itself, or whose pool has ended. `true` is final;
    /// `false` may be stale when it returns.
    #[must_use]
    pub fn is_finished(&self) -> bool {
        match &self.kind {
            Kind::Once(task) => task.is_finished(),
            Kind::Periodic(timer) => timer.is_stopped(),
        }
    }
}

unwind::safe!(TimerHandle);

impl fmt::Debug for TimerHandle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let is_periodic = matches!(self.kind, Kind::Periodic(_));
        f.debug_struct("TimerHandle").field("periodic", &is_periodic).field("finished", &self.is_finished()).finish()
    }
}

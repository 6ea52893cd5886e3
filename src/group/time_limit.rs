//! The time limits of a group: a deadline or a timeout.

use std::time::{Duration, Instant};

use super::result::TaskResult;
use super::task_group::TaskGroup;
use crate::time::deadline::Deadline;

/// # Time limits
impl<R: TaskResult> TaskGroup<R> {
    /// Cancels the group with [`CancelReason::Expired`](crate::CancelReason::Expired) at
    /// `deadline`. If time limits are set several times, the earliest counts.
    ///
    /// No thread watches the clock. The deadline takes effect when a thread or a future waits for
    /// the group, when a thread adds a task, and when a worker is about to start a task. The wait
    /// then returns [`GroupError::Cancelled`](crate::GroupError::Cancelled), unless a task had
    /// failed before. A task that stops at the deadline by `token.check()?` has failed, and its
    /// error may be the first. To tell the two apart, ask the [token](Self::token) for its
    /// [`reason`](crate::CancellationToken::reason).
    ///
    /// # Panics
    ///
    /// If the group has [started](Self#settings).
    #[track_caller]
    pub fn deadline(self, deadline: Instant) -> Self {
        self.set(|settings| settings.end_by(Deadline::at(deadline)))
    }

    /// Sets a [`deadline`](Self::deadline) that is `timeout` from now. `Duration::MAX` means never.
    ///
    /// The time counts from this call. To limit only a wait, call
    /// [`wait_timeout`](Self::wait_timeout).
    ///
    /// # Panics
    ///
    /// If the group has [started](Self#settings).
    ///
    /// # Examples
    ///
    /// ```
    /// use std::time::Duration;
    /// use workcrew::{CancelReason, GroupError, WorkerPool};
    ///
    /// let pool = WorkerPool::builder().workers(2).build()?;
    /// let group = pool.group().timeout(Duration::ZERO);
    /// group.spawn(|| println!("never printed, because the time is over"));
    /// assert!(matches!(group.wait(), Err(GroupError::Cancelled(CancelReason::Expired))));
    /// # Ok::<(), workcrew::BuildError>(())
    /// ```
    #[track_caller]
    pub fn timeout(self, timeout: Duration) -> Self {
        self.set(|settings| settings.end_by(Deadline::after(timeout)))
    }
}

//! What a task with a handle runs: a closure, or one attempt after the other.

use crate::cancel::token::CancellationToken;
use crate::error::{CancelReason, JoinError};
use crate::nesting;
use crate::observe::task_info::TaskOutcome;
use crate::observe::worker_counters::WorkerCounters;
use crate::task::executor::{Executor, TaskMeta};
#[cfg(feature = "retry")]
use crate::{sync::Arc, time::deadline::Deadline, timer::thread::Reservation};

/// What the handle of a task returns.
pub(crate) type Outcome<T> = Result<T, JoinError>;

/// What follows a call of a body.
pub(crate) enum Step<B, T> {
    /// The task has ended, and nothing of the closure is left.
    Ended(Outcome<T>),
    /// Another call follows.
    #[cfg_attr(not(feature = "retry"), allow(dead_code, reason = "for the feature `retry`"))]
    Again(B, Later),
}

/// When the next attempt is made.
#[cfg(feature = "retry")]
pub(crate) struct Later {
    pub(crate) due: Deadline,
    /// The place for the timer.
    pub(crate) reservation: Arc<Reservation>,
}

/// Without the feature `retry`, there is no next attempt.
#[cfg(not(feature = "retry"))]
pub(crate) enum Later {}

/// What a task with a handle runs.
pub(crate) trait KeyedBody<T>: Send + Sized + 'static {
    /// Calls the closure, as the task of `meta`. The token is that of the task, if it has one.
    fn call(
        self,
        executor: &Executor,
        counters: &WorkerCounters,
        meta: &TaskMeta<'_>,
        token: Option<&CancellationToken>,
    ) -> Step<Self, T>;

    /// Drops the closure. Returns the outcome of the task.
    fn cancel(self, reason: CancelReason) -> Outcome<T>;
}

/// A closure that is called once.
pub(super) struct Once<F>(pub(super) F);

impl<F, T> KeyedBody<T> for Once<F>
where
    F: FnOnce() -> T + Send + 'static,
{
    fn call(
        self,
        executor: &Executor,
        counters: &WorkerCounters,
        meta: &TaskMeta<'_>,
        _: Option<&CancellationToken>,
    ) -> Step<Self, T> {
        let result = executor.run(counters, meta, self.0, |_| TaskOutcome::Succeeded);
        Step::Ended(result.map_err(JoinError::Panicked))
    }

    fn cancel(self, reason: CancelReason) -> Outcome<T> {
        nesting::discard(self.0);
        Err(JoinError::Cancelled(reason))
    }
}

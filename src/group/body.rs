//! What a task of a group runs: a closure that is called once, or one that makes attempts.

use super::result::TaskResult;
use crate::error::{TaskError, TaskFailure};
use crate::task::closure::Closure;
#[cfg(feature = "retry")]
use crate::{
    cancel::token::CancellationToken, observe::worker_counters::WorkerCounters, task::executor::Executor,
    task::executor::TaskMeta, time::deadline::Deadline, timer::thread::Reservation,
};

/// The outcome of one task: its value, or why there is none.
pub(crate) type Outcome<R> = Result<<R as TaskResult>::Value, TaskError<<R as TaskResult>::Error>>;

/// The outcome of one task as the group keeps it: with the task, if it failed.
pub(super) type Recorded<R> = Result<<R as TaskResult>::Value, TaskError<TaskFailure<<R as TaskResult>::Error>>>;

/// What a task of a group runs.
pub(crate) enum Body<R: 'static> {
    /// Called or dropped once.
    Once(Closure<'static, R>),
    /// Called until it has an outcome, or dropped.
    #[cfg(feature = "retry")]
    Repeated(RepeatedBody<R>),
}

/// A body that makes attempts.
#[cfg(feature = "retry")]
pub(crate) struct RepeatedBody<R> {
    pub(crate) attempts: Box<dyn Attempts<R>>,
    /// The place that is reserved for the timer of a delay; `None` if no attempt follows the first.
    /// Boxed, so that tasks that run once take no more memory.
    pub(crate) reservation: Option<Box<Reservation>>,
}

/// The attempts of one task.
#[cfg(feature = "retry")]
pub(crate) trait Attempts<R>: Send {
    /// Makes the next attempt and counts it, as the task of `meta`. Its token is a child of
    /// `token`.
    fn make(
        &mut self,
        executor: &Executor,
        counters: &WorkerCounters,
        meta: &TaskMeta<'_>,
        token: &CancellationToken,
    ) -> Step<R>;
}

/// What follows an attempt.
#[cfg(feature = "retry")]
pub(crate) enum Step<R> {
    /// The task has this result.
    Ended(R),
    /// Another attempt is due then.
    Again(Deadline),
}

impl<R> Body<R> {
    /// Creates a body that runs once.
    #[inline]
    pub(crate) fn once<F: FnOnce() -> R + Send + 'static>(f: F) -> Self {
        Self::Once(Closure::new(f))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_body_takes_no_more_memory_than_a_closure() {
        assert_eq!(size_of::<Body<()>>(), size_of::<Closure<'static, ()>>());
    }
}

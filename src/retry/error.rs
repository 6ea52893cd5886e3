//! The error of a task that was retried without success.

use std::error::Error;
use std::fmt;

use crate::error::CancelReason;
use crate::error::panic::TaskPanic;
use crate::unwind;

/// The reason why a task was not retried any more.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum GiveUpReason {
    /// The policy classified the last error as permanent.
    Permanent,
    /// The policy allows no more attempts.
    Attempts,
    /// The next attempt would have come after the deadline.
    Deadline,
    /// The shared [budget](crate::retry::RetryBudget) of the policy's tasks is used up.
    Budget,
    /// No timer was free for the delay: 1,048,576 timers are pending, or the timer thread could not
    /// be started. Only a [map](crate::WorkerPool::map_with_retry) gives up for this reason; other
    /// tasks are refused when they are spawned.
    NoTimer,
    /// The task was cancelled, by its handle or by the end of its pool. It was waiting for its next
    /// attempt, or an attempt was running.
    Cancelled(CancelReason),
}

/// The failure of one attempt.
#[derive(Debug)]
#[non_exhaustive]
pub enum AttemptError<E> {
    /// The attempt returned an error.
    Failed(E),
    /// The attempt panicked.
    Panicked(TaskPanic),
}

/// The error of a task that was given up after at least one attempt. When it is dropped, panics in
/// the destructors of its errors are contained.
///
/// # Examples
///
/// ```
/// use std::time::Duration;
/// use workcrew::retry::{AttemptError, GiveUpReason, RetryPolicy};
///
/// let pool = workcrew::WorkerPool::builder().workers(1).build()?;
/// let policy = RetryPolicy::fixed(Duration::ZERO).max_attempts(2);
/// let fails = |attempt: workcrew::retry::Attempt| Err::<(), _>(attempt.number());
/// let error = pool.spawn_with_retry(policy, fails)?.join()?.unwrap_err();
/// assert_eq!((error.attempts(), error.reason()), (2, GiveUpReason::Attempts));
/// assert!(matches!(error.first(), AttemptError::Failed(1)));
/// assert!(matches!(error.into_last(), AttemptError::Failed(2)));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub struct RetryError<E> {
    reason: GiveUpReason,
    attempts: u32,
    /// At least one.
    errors: AttemptErrors<E>,
}

/// The first and the last error of a task so far.
pub(crate) struct AttemptErrors<E> {
    /// The error of the first attempt, if another attempt has failed since.
    first: Option<AttemptError<E>>,
    /// The error of the last attempt, if there was one.
    last: Option<AttemptError<E>>,
}

impl<E> RetryError<E> {
    /// Returns the reason why the task was not retried any more.
    #[must_use]
    pub fn reason(&self) -> GiveUpReason {
        self.reason
    }

    /// Returns how many attempts were made.
    #[must_use]
    pub fn attempts(&self) -> u32 {
        self.attempts
    }

    /// Returns the error of the first attempt.
    #[must_use]
    pub fn first(&self) -> &AttemptError<E> {
        self.errors.first.as_ref().unwrap_or_else(|| self.last())
    }

    /// Returns the error of the last attempt.
    #[must_use]
    pub fn last(&self) -> &AttemptError<E> {
        self.errors.last.as_ref().expect("a task that is given up has failed")
    }

    /// Returns the error of the last attempt by value. This gives access to the source of the
    /// error, like [`GroupError::into_failed`](crate::GroupError::into_failed).
    #[must_use]
    pub fn into_last(mut self) -> AttemptError<E> {
        self.errors.last.take().expect("a task that is given up has failed")
    }
}

impl<E> AttemptErrors<E> {
    pub(crate) fn new() -> Self {
        Self { first: None, last: None }
    }

    /// Adds the error of an attempt. Returns an error that is no longer kept, because dropping it
    /// runs user code.
    #[must_use = "the destructor is user code, which may panic"]
    pub(crate) fn add(&mut self, error: AttemptError<E>) -> Option<AttemptError<E>> {
        let before = self.last.replace(error)?;
        match self.first {
            None => {
                self.first = Some(before);
                None
            }
            Some(_) => Some(before),
        }
    }

    /// Returns the error of the task, or `None` if there was no attempt.
    pub(crate) fn give_up(self, reason: GiveUpReason, attempts: u32) -> Option<RetryError<E>> {
        self.last.is_some().then_some(RetryError { reason, attempts, errors: self })
    }
}

impl<E> Drop for AttemptErrors<E> {
    /// Drops the errors one by one, because two destructors that panic together would abort the
    /// process.
    fn drop(&mut self) {
        unwind::discard(self.first.take());
        unwind::discard(self.last.take());
    }
}

impl<E: fmt::Debug> fmt::Debug for RetryError<E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RetryError")
            .field("reason", &self.reason)
            .field("attempts", &self.attempts)
            .field("first", self.first())
            .field("last", self.last())
            .finish()
    }
}

impl fmt::Display for GiveUpReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Permanent => f.write_str("the error is permanent"),
            Self::Attempts => f.write_str("the attempts are used up"),
            Self::Deadline => f.write_str("the deadline leaves no time for another attempt"),
            Self::Budget => f.write_str("the budget for retries is used up"),
            Self::NoTimer => f.write_str("no timer was free for the delay"),
            Self::Cancelled(reason) => reason.fmt(f),
        }
    }
}

impl<E: fmt::Display> fmt::Display for AttemptError<E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Failed(error) => write!(f, "{error:#}"), // with its causes, if the type shows them
            Self::Panicked(panic) => write!(f, "{panic}"),
        }
    }
}

impl<E: fmt::Display> fmt::Display for RetryError<E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "given up after attempt {}, since {}: {}", self.attempts, self.reason, self.last())
    }
}

// No `source`: it would need `E: Error`, which `String`, `anyhow::Error` and boxed errors are not.
// See `into_last`.
impl<E: fmt::Debug + fmt::Display> Error for AttemptError<E> {}
impl<E: fmt::Debug + fmt::Display> Error for RetryError<E> {}

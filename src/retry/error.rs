//! How a task ends that was tried in vain.

use std::error::Error;
use std::fmt;

use crate::error::CancelReason;
use crate::error::panic::TaskPanic;
use crate::unwind;

/// Why a task was not tried again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum GiveUpReason {
    /// The policy says of the last error that it is permanent.
    Permanent,
    /// The attempts are used up.
    Attempts,
    /// The next attempt would have come after the deadline.
    Deadline,
    /// The budget that the policy's tasks share is used up.
    Budget,
    /// The task was cancelled, while it waited for the next attempt or during the last one; by the end of its pool,
    /// perhaps.
    Cancelled(CancelReason),
}

/// How one attempt ended, if not well.
#[derive(Debug)]
pub enum AttemptError<E> {
    /// It returned an error.
    Failed(E),
    /// It panicked.
    Panicked(TaskPanic),
}

/// How a task ended that was tried, and given up. Dropping it contains a panic of the errors' destructors.
pub struct RetryError<E> {
    reason: GiveUpReason,
    attempts: u32,
    /// There is one at least.
    errors: Errors<E>,
}

/// The errors of a task so far: the first and the last are kept.
pub(crate) struct Errors<E> {
    /// The error of the first attempt, unless that was the only one.
    first: Option<AttemptError<E>>,
    last: Option<AttemptError<E>>,
}

impl<E> RetryError<E> {
    /// Why the task was not tried again.
    #[must_use]
    pub fn reason(&self) -> GiveUpReason {
        self.reason
    }

    /// How many attempts were made.
    #[must_use]
    pub fn attempts(&self) -> u32 {
        self.attempts
    }

    /// The error of the first attempt.
    #[must_use]
    pub fn first(&self) -> &AttemptError<E> {
        self.errors.first.as_ref().unwrap_or_else(|| self.last())
    }

    /// The error of the last attempt.
    #[must_use]
    pub fn last(&self) -> &AttemptError<E> {
        self.errors.last.as_ref().expect("what is given up has failed")
    }

    /// The error of the last attempt itself. This is the way to its source, as with
    /// [`GroupError::into_failed`](crate::GroupError::into_failed).
    #[must_use]
    pub fn into_last(mut self) -> AttemptError<E> {
        self.errors.last.take().expect("what is given up has failed")
    }
}

impl<E> Errors<E> {
    pub(crate) fn new() -> Self {
        Self { first: None, last: None }
    }

    /// Adds the error of an attempt. Returns the one that is kept no more: foreign code drops it.
    #[must_use = "it is dropped with care"]
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

    /// Makes the task's error of them; `None`, if there was no attempt.
    pub(crate) fn give_up(self, reason: GiveUpReason, attempts: u32) -> Option<RetryError<E>> {
        self.last.is_some().then_some(RetryError { reason, attempts, errors: self })
    }
}

impl<E> Drop for Errors<E> {
    /// One after the other: two destructors that panic together would end the process.
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
            Self::Cancelled(reason) => reason.fmt(f),
        }
    }
}

impl<E: fmt::Display> fmt::Display for AttemptError<E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Failed(error) => write!(f, "{error:#}"), // with its causes, where the type can show them
            Self::Panicked(panic) => write!(f, "{panic}"),
        }
    }
}

impl<E: fmt::Display> fmt::Display for RetryError<E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "given up after attempt {}, since {}: {}", self.attempts, self.reason, self.last())
    }
}

// No `source`: it would need `E: Error`, which `String`, `anyhow::Error` and boxed errors are not. See `into_last`.
impl<E: fmt::Debug + fmt::Display> Error for AttemptError<E> {}
impl<E: fmt::Debug + fmt::Display> Error for RetryError<E> {}

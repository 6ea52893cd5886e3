//! The errors of a group in which no task succeeded.

use std::error::Error;
use std::fmt;

use super::cycle::Cycle;
use super::failure::TaskFailure;
use super::outcome::TaskError;

/// The limit of errors that `Display` writes.
const MAX_SHOWN: usize = 8;

/// The errors of all tasks of a group in which no task succeeded. Returned by
/// [`TaskGroup::wait_any_or_errors`](crate::TaskGroup::wait_any_or_errors).
///
/// `Display` writes the first eight errors in spawn order, each with its task, and how many more
/// there are.
pub struct NoSuccess<E> {
    /// One for each task, in spawn order.
    errors: Vec<TaskError<TaskFailure<E>>>,
    /// Why the wait itself could not end.
    would_deadlock: Option<Cycle>,
}

impl<E> NoSuccess<E> {
    pub(crate) fn new(errors: Vec<TaskError<TaskFailure<E>>>) -> Self {
        Self { errors, would_deadlock: None }
    }

    /// Returns the error of a wait that could not end, with the errors so far.
    pub(crate) fn would_deadlock(errors: Vec<TaskError<TaskFailure<E>>>, cycle: Cycle) -> Self {
        Self { errors, would_deadlock: Some(cycle) }
    }

    /// Returns the errors of the tasks in spawn order. Cancellations are included. Errors that
    /// `completions` has yielded are not.
    #[must_use]
    pub fn errors(&self) -> &[TaskError<TaskFailure<E>>] {
        &self.errors
    }

    /// Returns the errors of the tasks by value.
    #[must_use]
    pub fn into_errors(self) -> Vec<TaskError<TaskFailure<E>>> {
        self.errors
    }

    /// Returns `true` if the wait could not end; see
    /// [`GroupError::WouldDeadlock`](crate::GroupError::WouldDeadlock). This includes the wait for
    /// a group without tasks.
    #[must_use]
    pub fn is_would_deadlock(&self) -> bool {
        self.would_deadlock.is_some()
    }

    /// Returns the waits that need each other, if the wait could not end. The cycle is empty for a
    /// group without tasks.
    #[must_use]
    pub fn cycle(&self) -> Option<&Cycle> {
        self.would_deadlock.as_ref()
    }
}

impl<E: fmt::Debug> fmt::Debug for NoSuccess<E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("NoSuccess").field("errors", &self.errors).field("would_deadlock", &self.would_deadlock).finish()
    }
}

impl<E: fmt::Display> fmt::Display for NoSuccess<E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(cycle) = &self.would_deadlock {
            return write!(f, "waiting for the group here would wait forever{}", cycle.suffix());
        }
        f.write_str("no task succeeded")?;
        for (number, error) in self.errors.iter().take(MAX_SHOWN).enumerate() {
            write!(f, "{} {error}", if number == 0 { ":" } else { ";" })?;
        }
        match self.errors.len().saturating_sub(MAX_SHOWN) {
            0 => Ok(()),
            more => write!(f, "; and {more} more"),
        }
    }
}

impl<E: fmt::Debug + fmt::Display> Error for NoSuccess<E> {}

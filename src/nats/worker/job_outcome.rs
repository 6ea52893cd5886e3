//! The outcome of one job of a batch.

use std::fmt;
use std::time::Duration;

/// The outcome of one job of a batch; see [`Worker::run_batch`](crate::nats::Worker::run_batch).
///
/// # Examples
///
/// ```
/// use workcrew::nats::JobOutcome;
///
/// let parsed: Result<u32, _> = "seven".parse::<u32>();
/// let outcome = JobOutcome::from(parsed.map(drop)); // an error: the policy decides
/// assert!(matches!(outcome, JobOutcome::Failed(_)));
/// ```
#[non_exhaustive]
pub enum JobOutcome<E> {
    /// The job is done, and leaves the queue.
    Done,
    /// The attempt failed. The policy of the worker decides as after an error of a single job:
    /// another attempt after its delay, or a dead letter.
    Failed(E),
    /// The attempt failed. Another one follows after this delay instead of the policy's, if the
    /// policy allows one; otherwise the job goes to the dead letters.
    RetryAfter(Duration, E),
    /// The job has failed for good, and goes to the dead letters.
    Dead(E),
    /// The job was not worked on, and goes back to the queue for this time. No attempt counts. With
    /// a time of zero it comes back at once.
    Return(Duration),
}

impl<E> From<Result<(), E>> for JobOutcome<E> {
    fn from(result: Result<(), E>) -> Self {
        result.map_or_else(Self::Failed, |()| Self::Done)
    }
}

/// Omits the error, which may need no `Debug`.
impl<E> fmt::Debug for JobOutcome<E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Done => f.write_str("Done"),
            Self::Failed(_) => f.write_str("Failed(..)"),
            Self::RetryAfter(delay, _) => write!(f, "RetryAfter({delay:?}, ..)"),
            Self::Dead(_) => f.write_str("Dead(..)"),
            Self::Return(delay) => write!(f, "Return({delay:?})"),
        }
    }
}

//! Errors of waiting: how a task or a group can end other than well.

use std::convert::Infallible;
use std::error::Error;
use std::fmt;

use super::panic::TaskPanic;

/// Why something was cancelled. The closure of a task that was cancelled never ran, but for one that is tried again, which may
/// have been tried before; a future that was cancelled may have been on its way. A token tells the reason to tasks that run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum CancelReason {
    /// Somebody asked for it: a `cancel` call, or a group dropped without a wait.
    Requested,
    /// The group had come to its end: a sibling failed or panicked, or succeeded where one success is enough.
    GroupEnded,
    /// The pool was shut down.
    ShutDown,
    /// The overflow policy gave it up. (So would a worker that panicked by a fault of this crate; none is known.)
    Discarded,
    /// The deadline passed.
    Expired,
}

impl fmt::Display for CancelReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Requested => "cancelled on request",
            Self::GroupEnded => "cancelled because its group had already ended",
            Self::ShutDown => "cancelled because the pool was shut down",
            Self::Discarded => "discarded because the queue was full",
            Self::Expired => "cancelled because its deadline passed",
        })
    }
}

/// The error of [`CancellationToken::check`](crate::CancellationToken::check): stop now.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{reason}")]
pub struct Cancelled {
    /// Why the token was cancelled.
    pub(crate) reason: CancelReason,
}

impl Cancelled {
    /// Why the token was cancelled.
    #[must_use]
    pub fn reason(&self) -> CancelReason {
        self.reason
    }
}

/// Why [`JoinHandle::join`](crate::JoinHandle::join) has no value to return.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum JoinError {
    /// The task panicked.
    #[error("{0}")]
    Panicked(TaskPanic),
    /// The task was cancelled: a closure before it started, a future that is [driven](crate#how-do-i-use-it-from-async-code) or
    /// a remote call perhaps on its way, so that the other side may have acted on it.
    #[error("task {0}")]
    Cancelled(CancelReason),
    /// The wait could not end: a task joining itself, or joins nested deeper than a worker's stack is trusted to go.
    #[error("joining here would wait for ever")]
    WouldDeadlock,
}

/// How one task of a group ended, if not well.
#[derive(Debug)]
pub enum TaskError<E> {
    /// The task returned an error.
    Failed(E),
    /// The task panicked.
    Panicked(TaskPanic),
    /// The task was cancelled before it started.
    Cancelled(CancelReason),
}

/// How a group or a scope ended, if not well: the first failure or panic, or the cancellation that nothing had
/// preceded.
#[derive(Debug)]
pub enum GroupError<E> {
    /// A task returned this error, before any other failed.
    Failed(E),
    /// A task panicked, before any other failed.
    Panicked(TaskPanic),
    /// The group was cancelled while it had tasks to run, and none had failed. A running task that obeys its token by
    /// returning an error is a failure, the first one perhaps; to tell the two apart, let it return `Ok`, or look
    /// for the error it returns.
    Cancelled(CancelReason),
    /// The wait could not end: it was called by a task of the group itself, or nested deeper than a worker's stack is
    /// trusted to go, or the group can hold no task at all.
    WouldDeadlock,
}

impl<E> TaskError<E> {
    /// Becomes an error of yours: a failure by its own conversion, so that its causes are kept and it can be told what it
    /// is; anything else by the other. See [`GroupError::into_error`].
    pub fn into_error<X>(self) -> X
    where
        X: From<E> + From<TaskError<Infallible>>,
    {
        match self {
            Self::Failed(error) => error.into(),
            Self::Panicked(panic) => TaskError::Panicked(panic).into(),
            Self::Cancelled(reason) => TaskError::Cancelled(reason).into(),
        }
    }

    /// The error that the task returned, if it did.
    ///
    /// # Errors
    ///
    /// The error itself, if the task panicked or was cancelled.
    pub fn into_failed(self) -> Result<E, Self> {
        match self {
            Self::Failed(error) => Ok(error),
            other => Err(other),
        }
    }
}

impl<E> GroupError<E> {
    /// Becomes an error of yours: a failure by its own conversion, as Go's `errgroup` returns the task's error itself;
    /// anything else, which no task returned, by the other.
    ///
    /// The conversion by `?` alone suits every `E` that can be displayed, but then the failure is a text of the group's error,
    /// without its causes and with its type forgotten.
    ///
    /// # Examples
    ///
    /// ```
    /// use std::num::ParseIntError;
    ///
    /// fn numbers(pool: &workcrew::WorkerPool) -> anyhow::Result<Vec<u8>> {
    ///     let group = pool.group();
    ///     group.spawn_all(["1", "two"].map(|text| move || text.parse::<u8>()));
    ///     group.wait().map_err(workcrew::GroupError::into_error)
    /// }
    ///
    /// let pool = workcrew::WorkerPool::builder().workers(1).build()?;
    /// assert!(numbers(&pool).unwrap_err().is::<ParseIntError>());
    /// # Ok::<(), workcrew::BuildError>(())
    /// ```
    pub fn into_error<X>(self) -> X
    where
        X: From<E> + From<GroupError<Infallible>>,
    {
        match self {
            Self::Failed(error) => error.into(),
            Self::Panicked(panic) => GroupError::Panicked(panic).into(),
            Self::Cancelled(reason) => GroupError::Cancelled(reason).into(),
            Self::WouldDeadlock => GroupError::WouldDeadlock.into(),
        }
    }

    /// The error that a task returned, if one did. This is the way to its source: an error of a group cannot know the
    /// source of an `E` of which it knows only how to display it.
    ///
    /// # Errors
    ///
    /// The error itself, if it is none that a task returned.
    ///
    /// # Examples
    ///
    /// ```
    /// use std::num::ParseIntError;
    ///
    /// fn sum(pool: &workcrew::WorkerPool, texts: [&'static str; 2]) -> Result<u32, ParseIntError> {
    ///     match pool.try_map(texts, str::parse::<u32>) {
    ///         Ok(numbers) => Ok(numbers.into_iter().sum()),
    ///         Err(error) => Err(error.into_failed().expect("nothing panics here, and nobody cancels")),
    ///     }
    /// }
    ///
    /// let pool = workcrew::WorkerPool::builder().workers(1).build()?;
    /// assert_eq!(sum(&pool, ["1", "2"])?, 3);
    /// assert!(sum(&pool, ["1", "two"]).is_err());
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn into_failed(self) -> Result<E, Self> {
        match self {
            Self::Failed(error) => Ok(error),
            other => Err(other),
        }
    }
}

impl<E> From<JoinError> for GroupError<E> {
    fn from(error: JoinError) -> Self {
        match error {
            JoinError::Panicked(panic) => Self::Panicked(panic),
            JoinError::Cancelled(reason) => Self::Cancelled(reason),
            JoinError::WouldDeadlock => Self::WouldDeadlock,
        }
    }
}

impl<E> From<TaskError<E>> for GroupError<E> {
    fn from(error: TaskError<E>) -> Self {
        match error {
            TaskError::Failed(error) => Self::Failed(error),
            TaskError::Panicked(panic) => Self::Panicked(panic),
            TaskError::Cancelled(reason) => Self::Cancelled(reason),
        }
    }
}

impl<E: fmt::Display> fmt::Display for TaskError<E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Failed(error) => write!(f, "{error:#}"), // with its causes, where the type can show them
            Self::Panicked(panic) => write!(f, "{panic}"),
            Self::Cancelled(reason) => write!(f, "task {reason}"),
        }
    }
}

impl<E: fmt::Display> fmt::Display for GroupError<E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Failed(error) => write!(f, "{error:#}"), // with its causes, where the type can show them
            Self::Panicked(panic) => write!(f, "{panic}"),
            Self::Cancelled(reason) => write!(f, "group {reason}"),
            Self::WouldDeadlock => f.write_str("waiting for the group here would wait for ever"),
        }
    }
}

// No `source`: it would need `E: Error`, which `String`, `anyhow::Error` and boxed errors are not. See `into_error`.
impl<E: fmt::Debug + fmt::Display> Error for TaskError<E> {}
impl<E: fmt::Debug + fmt::Display> Error for GroupError<E> {}

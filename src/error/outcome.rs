//! Errors of waiting: how a task or a group can end other than well.

use std::error::Error;
use std::fmt;

use crate::panic::Panic;

/// Why a task was cancelled: it never ran.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum CancelReason {
    /// Somebody asked for it: a `cancel` call, or a group dropped without a wait.
    Requested,
    /// A sibling in the group failed or panicked, or succeeded where one success is enough.
    GroupFailed,
    /// The pool was shut down.
    ShutDown,
    /// The overflow policy gave it up for the sake of another.
    Discarded,
    /// Its deadline passed before it started.
    Expired,
}

impl fmt::Display for CancelReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Requested => "cancelled on request",
            Self::GroupFailed => "cancelled because its group had already ended",
            Self::ShutDown => "cancelled because the pool was shut down",
            Self::Discarded => "discarded because the queue was full",
            Self::Expired => "cancelled because its deadline passed",
        })
    }
}

/// The answer of [`CancellationToken::check`](crate::CancellationToken::check): stop now.
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
    Panicked(Panic),
    /// The task was cancelled before it started.
    #[error("task {0}")]
    Cancelled(CancelReason),
    /// The wait could not end: a task joining itself, or joins nested deeper than a worker's stack is trusted to go.
    #[error("joining here would wait for ever")]
    WouldDeadlock,
}

/// How one task of a group ended, if not well.
#[derive(Debug)]
#[non_exhaustive]
pub enum TaskError<E> {
    /// The task returned an error.
    Failed(E),
    /// The task panicked.
    Panicked(Panic),
    /// The task was cancelled before it started.
    Cancelled(CancelReason),
}

/// How a group ended, if not well: the first failure or panic, or the cancellation that nothing had preceded.
#[derive(Debug)]
#[non_exhaustive]
pub enum GroupError<E> {
    /// A task returned this error, before any other failed.
    Failed(E),
    /// A task panicked, before any other failed.
    Panicked(Panic),
    /// The group was cancelled while it had tasks to run, and none had failed.
    Cancelled(CancelReason),
    /// The wait could not end: it was called by a task of the group itself, or nested deeper than a worker's stack is
    /// trusted to go, or the group can hold no task at all.
    WouldDeadlock,
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
            Self::Failed(error) => write!(f, "{error}"),
            Self::Panicked(panic) => write!(f, "{panic}"),
            Self::Cancelled(reason) => write!(f, "task {reason}"),
        }
    }
}

impl<E: fmt::Display> fmt::Display for GroupError<E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Failed(error) => write!(f, "{error}"),
            Self::Panicked(panic) => write!(f, "{panic}"),
            Self::Cancelled(reason) => write!(f, "group {reason}"),
            Self::WouldDeadlock => f.write_str("waiting for the group here would wait for ever"),
        }
    }
}

// No `source`: it would need `E: Error`, which `String`, `anyhow::Error` and boxed errors are not.
impl<E: fmt::Debug + fmt::Display> Error for TaskError<E> {}
impl<E: fmt::Debug + fmt::Display> Error for GroupError<E> {}

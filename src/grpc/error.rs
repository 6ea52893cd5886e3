//! How a call fails.

use std::error::Error;
use std::fmt;

use tonic::codegen::StdError;
use tonic::{Code, Status};

use super::end::{self, End};
use crate::error::JoinError;
use crate::retry::GiveUpReason;

/// The error of a call.
///
/// It is always about the last attempt, and [converts into](Status) the status that says so.
pub struct CallError {
    kind: Kind,
    status: Status,
    /// How many attempts were made.
    attempts: u32,
    /// Why there was no other; `None`, if there was none at all or the call did not come to an end.
    reason: Option<GiveUpReason>,
}

/// What the questions are about.
#[derive(Debug)]
enum Kind {
    /// No connection.
    Connect,
    /// The time was over.
    Deadline,
    /// The server said so, or the connection broke.
    Status,
    /// The pool did not take the call in.
    ShutDown,
    /// The call was cancelled, or it panicked, or waiting for it would not have ended.
    Join(JoinError),
}

impl CallError {
    /// The error of an attempt.
    pub(super) fn of(end: End, attempts: u32) -> Self {
        let kind = if end.status.code() == Code::DeadlineExceeded {
            Kind::Deadline
        } else if end.is_connect {
            Kind::Connect
        } else {
            Kind::Status
        };
        Self { kind, status: end.status, attempts, reason: None }
    }

    pub(super) fn with_reason(self, reason: GiveUpReason) -> Self {
        Self { reason: Some(reason), ..self }
    }

    pub(super) fn shut_down() -> Self {
        let status = Status::unavailable("the pool is shut down");
        Self { kind: Kind::ShutDown, status, attempts: 0, reason: None }
    }

    /// There is no connection at the start.
    pub(super) fn no_connection(error: StdError) -> Self {
        let End { status, .. } = End::of(Status::from_error(error), 0, None);
        Self { kind: Kind::Connect, status, attempts: 1, reason: None }
    }

    pub(super) fn join(error: JoinError) -> Self {
        let status = match &error {
            JoinError::Cancelled(reason) => Status::cancelled(reason.to_string()),
            JoinError::Panicked(panic) => Status::internal(panic.to_string()),
            JoinError::WouldDeadlock => Status::failed_precondition(error.to_string()),
        };
        Self { kind: Kind::Join(error), status, attempts: 0, reason: None }
    }

    /// Returns `true` if there was no connection to the target, so that the server has seen nothing of the last attempt.
    #[must_use]
    pub fn is_connect(&self) -> bool {
        matches!(self.kind, Kind::Connect)
    }

    /// Returns `true` if the server surely did not act on the last attempt; see [`is_unsent`](super::is_unsent). Earlier
    /// attempts are another matter.
    #[must_use]
    pub fn is_unsent(&self) -> bool {
        end::is_unsent(&self.status)
    }

    /// Whether the last attempt ran out of time, ours or the server's, or no time was left for another.
    #[must_use]
    pub fn is_deadline(&self) -> bool {
        matches!(self.kind, Kind::Deadline) || self.reason == Some(GiveUpReason::Deadline)
    }

    /// Whether the pool is shut down, or its shutdown cancelled the call.
    #[must_use]
    pub fn is_shut_down(&self) -> bool {
        use crate::error::CancelReason::ShutDown;
        matches!(self.kind, Kind::ShutDown | Kind::Join(JoinError::Cancelled(ShutDown)))
            || self.reason == Some(GiveUpReason::Cancelled(ShutDown))
    }

    /// The panic or the cancellation of the call, if it had no outcome of its own; with
    /// [`call_blocking`](super::Caller::call_blocking) only.
    #[must_use]
    pub fn join_error(&self) -> Option<&JoinError> {
        match &self.kind {
            Kind::Join(error) => Some(error),
            _ => None,
        }
    }

    /// The code of the status, as the protocol has it. A time-out of the client, which tonic calls `Cancelled`, is
    /// `DeadlineExceeded`. A connection that broke, which tonic calls `Unknown` or `Cancelled`, is `Unavailable`.
    #[must_use]
    pub fn code(&self) -> Code {
        self.status.code()
    }

    /// What the server said, or what stands for it.
    #[must_use]
    pub fn status(&self) -> &Status {
        &self.status
    }

    /// How many attempts came to an end. A call that panicked or was cancelled, which only
    /// [`call_blocking`](super::Caller::call_blocking) says by this error, says zero.
    #[must_use]
    pub fn attempts(&self) -> u32 {
        self.attempts
    }

    /// Why there was no other attempt, if one was made and ended.
    #[must_use]
    pub fn reason(&self) -> Option<GiveUpReason> {
        self.reason
    }
}

impl From<CallError> for Status {
    fn from(error: CallError) -> Self {
        error.status
    }
}

impl fmt::Debug for CallError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CallError")
            .field("kind", &self.kind)
            .field("code", &self.code())
            .field("message", &self.status.message())
            .field("attempts", &self.attempts)
            .field("reason", &self.reason)
            .finish()
    }
}

impl fmt::Display for CallError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.kind {
            Kind::Connect => f.write_str("no connection")?,
            Kind::Deadline => f.write_str("no answer in time")?,
            Kind::ShutDown => return f.write_str("the pool is shut down"),
            Kind::Join(error) => return error.fmt(f),
            Kind::Status => write!(f, "{:?}", self.code())?,
        }
        match self.attempts {
            1 => {}
            attempts => write!(f, " (attempt {attempts})")?,
        }
        write!(f, ": {}", self.status.message())
    }
}

impl Error for CallError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        // The status itself is in the words, and a method away.
        self.status.source()
    }
}

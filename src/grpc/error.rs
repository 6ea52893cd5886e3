//! The error of a call, and that of a caller that was not built.

use std::error::Error;
use std::fmt;

use tonic::codegen::StdError;
use tonic::{Code, Status};

use super::end::{self, End};
use crate::error::JoinError;
use crate::io::DriverError;
use crate::retry::GiveUpReason;

/// The error of a call.
///
/// It is always about the last attempt, and converts into the [status](Status) of that attempt.
pub struct CallError {
    kind: Kind,
    /// The status of the last attempt, or one that stands for it.
    status: Status,
    /// How many attempts were made.
    attempts: u32,
    /// Why there was no other attempt, or no first one. `None` if the call did not end by itself.
    reason: Option<GiveUpReason>,
}

/// The kind of an error.
#[derive(Debug)]
enum Kind {
    /// There was no connection.
    Connect,
    /// The time was over.
    Deadline,
    /// The server answered with an error, or the connection was lost.
    Status,
    /// The pool did not accept the call.
    ShutDown,
    /// The call was cancelled or panicked, or a wait for it would never have ended.
    Join(JoinError),
}

impl CallError {
    /// Returns the error of an attempt.
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

    /// Sets why there was no other attempt.
    pub(super) fn with_reason(self, reason: GiveUpReason) -> Self {
        Self { reason: Some(reason), ..self }
    }

    /// Returns the error of a call that a closed pool did not accept.
    pub(super) fn shut_down() -> Self {
        let status = Status::unavailable("the pool is shut down");
        Self { kind: Kind::ShutDown, status, attempts: 0, reason: None }
    }

    /// Returns the error of a caller that could not connect when it was built.
    pub(super) fn no_connection(error: StdError) -> Self {
        let End { status, .. } = End::of(Status::from_error(error), 0, None);
        Self { kind: Kind::Connect, status, attempts: 1, reason: None }
    }

    /// Returns the error of a call without an outcome of its own.
    pub(super) fn join(error: JoinError) -> Self {
        let status = match &error {
            JoinError::Cancelled(reason) => Status::cancelled(reason.to_string()),
            JoinError::Panicked(panic) => Status::internal(panic.to_string()),
            JoinError::WouldDeadlock(_) => Status::failed_precondition(error.to_string()),
        };
        Self { kind: Kind::Join(error), status, attempts: 0, reason: None }
    }

    /// Returns `true` if there was no connection to the target, so that the last attempt did not
    /// reach the server.
    #[must_use]
    pub fn is_connect(&self) -> bool {
        matches!(self.kind, Kind::Connect)
    }

    /// Returns `true` if the server certainly did not act on the last attempt; see
    /// [`is_unsent`](super::is_unsent). It may have acted on earlier attempts.
    #[must_use]
    pub fn is_unsent(&self) -> bool {
        end::is_unsent(&self.status)
    }

    /// Returns `true` if the last attempt ran out of time, on the client or on the server, or no
    /// time was left for another attempt.
    #[must_use]
    pub fn is_deadline(&self) -> bool {
        matches!(self.kind, Kind::Deadline) || self.reason == Some(GiveUpReason::Deadline)
    }

    /// Returns `true` if the pool is shut down, or its shutdown cancelled the call.
    #[must_use]
    pub fn is_shut_down(&self) -> bool {
        use crate::error::CancelReason::ShutDown;
        matches!(self.kind, Kind::ShutDown | Kind::Join(JoinError::Cancelled(ShutDown)))
            || self.reason == Some(GiveUpReason::Cancelled(ShutDown))
    }

    /// Returns the panic or the cancellation of the call, if it had no outcome of its own. Only
    /// [`call_blocking`](super::Caller::call_blocking) and [`MessageStream`](super::MessageStream)
    /// report it here.
    #[must_use]
    pub fn join_error(&self) -> Option<&JoinError> {
        match &self.kind {
            Kind::Join(error) => Some(error),
            _ => None,
        }
    }

    /// Returns the code of the status, as the protocol defines it. A timeout of the client, which
    /// tonic reports as `Cancelled`, is `DeadlineExceeded`. A lost connection, which tonic reports
    /// as `Unknown` or `Cancelled`, is `Unavailable`.
    #[must_use]
    pub fn code(&self) -> Code {
        self.status.code()
    }

    /// Returns the status that the server sent, or one that stands for it.
    #[must_use]
    pub fn status(&self) -> &Status {
        &self.status
    }

    /// Returns how many attempts have ended. Zero if there is a [`join_error`](Self::join_error),
    /// if the pool did not accept the call, or if the call had no turn of the
    /// [rate](super::CallerBuilder::rate) in time.
    #[must_use]
    pub fn attempts(&self) -> u32 {
        self.attempts
    }

    /// Returns why there was no other attempt, if an attempt has ended, or no first attempt, if its
    /// turn of the rate did not come in time.
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
            0 | 1 => {}
            attempts => write!(f, " (attempt {attempts})")?,
        }
        write!(f, ": {}", self.status.message())
    }
}

impl Error for CallError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        // The status itself is part of the message, and `status` returns it.
        self.status.source()
    }
}

/// The reason why a caller was not built. Its text begins with the setting.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CallerError {
    /// The limit of calls in flight is zero or too high.
    #[error("max_in_flight: {0}")]
    MaxInFlight(#[source] DriverError),
    /// The operating system refused to start the I/O thread, or a resource that the thread needs.
    #[error(transparent)]
    IoThread(DriverError),
    /// The address is invalid.
    #[error("endpoint: `{uri}` {problem}")]
    #[non_exhaustive]
    Endpoint {
        /// The address.
        uri: String,
        /// What is wrong with it.
        problem: &'static str,
    },
    /// The name is neither that of a method nor that of a service.
    #[error("method: `{name}` is neither `/package.Service/Method` nor `/package.Service/`")]
    #[non_exhaustive]
    Method {
        /// The name.
        name: String,
    },
    /// The buffer of a stream holds no message, or more than 1,048,576.
    #[error("stream_buffer: {requested} is not between 1 and {limit}")]
    #[non_exhaustive]
    StreamBuffer {
        /// The number asked for.
        requested: usize,
        /// The largest number allowed.
        limit: usize,
    },
    /// The rate allows no call, or its period is zero.
    #[error("rate: {problem}")]
    #[non_exhaustive]
    Rate {
        /// What is wrong with it.
        problem: &'static str,
    },
    /// There is no connection. Only [`CallerBuilder::connect`](super::CallerBuilder::connect)
    /// returns this.
    #[error("endpoint: {0}")]
    Connect(#[source] CallError),
}

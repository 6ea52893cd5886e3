//! The errors of connections, queues and workers.

use std::error::Error;
use std::fmt;

use async_nats::jetstream::context::{PublishError as StoreError, PublishErrorKind};
use async_nats::jetstream::{self, ErrorCode};

use super::check::InvalidArgument;
use super::config_diff::ConfigMismatch;

/// An error of user code that encodes or decodes a payload, or of the client library.
pub type BoxError = Box<dyn Error + Send + Sync>;

/// The error of connecting to a server.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ConnectError {
    /// An argument was refused before anything was sent.
    #[error(transparent)]
    Invalid(#[from] InvalidArgument),
    /// The operating system refused to start the I/O thread, or what it needs.
    #[error("the I/O thread could not be started")]
    Start(#[source] std::io::Error),
    /// The credentials could not be read, or are malformed.
    #[error("the credentials cannot be used")]
    Credentials(#[source] std::io::Error),
    /// A certificate or a key could not be read, or the file or text holds none.
    #[error("the {what} cannot be used: {source}")]
    #[non_exhaustive]
    Certificate {
        /// The setting that is wrong.
        what: &'static str,
        /// What is wrong with it.
        source: std::io::Error,
    },
    /// No server answered in time.
    #[error("no server answered in time")]
    Timeout,
    /// The server refuses the credentials.
    #[error("the server refuses the credentials")]
    Refused(#[source] BoxError),
    /// No server could be reached, or not as requested (with TLS, for example).
    #[error("no connection: {0}")]
    Failed(#[source] BoxError),
    /// The call was made on the I/O thread, which would have waited for itself.
    #[error("the I/O thread cannot wait for itself")]
    WouldDeadlock,
}

/// The error of a message that was not published, or of a request that got no answer.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PublishError {
    /// An argument was refused before anything was sent.
    #[error(transparent)]
    Invalid(#[from] InvalidArgument),
    /// The payload could not be encoded.
    #[error("the payload could not be encoded")]
    Encode(#[source] BoxError),
    /// The subject has no subscriber. Only requests fail with it.
    #[error("the subject has no responder")]
    NoResponders,
    /// There was no answer in time, or no room in the client's buffer while there is no connection.
    #[error("no answer in time")]
    Timeout,
    /// The server does not allow so large a payload.
    #[error("the payload is larger than the server allows")]
    TooLarge,
    /// The server does not permit this subject to the user that is logged in.
    #[error("permission denied: {0}")]
    Denied(String),
    /// The client refuses the message because the connection is closed.
    #[error("not published: {0}")]
    Failed(#[source] BoxError),
    /// The call was made on the I/O thread, which would have waited for itself.
    #[error("the I/O thread cannot wait for itself")]
    WouldDeadlock,
}

/// The error of enqueueing a job, which is not known to be stored.
///
/// After [`Timeout`](Self::Timeout) and [`Disconnected`](Self::Disconnected) it may be stored
/// nevertheless. Enqueue it again with the same id: within the duplicate window it is stored once.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum EnqueueError {
    /// An argument was refused before anything was sent.
    #[error(transparent)]
    Invalid(#[from] InvalidArgument),
    /// The payload could not be encoded.
    #[error("the payload could not be encoded")]
    Encode(#[source] BoxError),
    /// The queue has reached its limit of jobs or bytes, or the server has no room.
    #[error("the queue is full: {0}")]
    Full(#[source] BoxError),
    /// No stream answers on this subject: the subject is not one of the queue's, the stream was
    /// deleted, or its servers are electing a leader. An election ends within seconds.
    #[error("no stream answers on this subject (temporary while a leader is elected)")]
    NoStream,
    /// There is no connection.
    #[error("there is no connection")]
    Disconnected,
    /// The server did not confirm in time.
    #[error("the server did not confirm in time")]
    Timeout,
    /// The server does not permit the subject to the user that is logged in. If the inbox of
    /// answers is denied, the job may be stored.
    #[error("permission denied: {0}")]
    Denied(String),
    /// The payload is larger than the server or the stream allows.
    #[error("the payload is larger than the server or the stream allows")]
    TooLarge,
    /// The server refuses the job for another reason.
    #[error("not stored: {0}")]
    Rejected(#[source] BoxError),
    /// The call was made on the I/O thread, which would have waited for itself.
    #[error("the I/O thread cannot wait for itself")]
    WouldDeadlock,
}

/// The error of a queue that could not be opened or read.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum QueueError {
    /// An argument was refused before anything was sent.
    #[error(transparent)]
    Invalid(#[from] InvalidArgument),
    /// A stream of this name exists with other settings.
    #[error("the stream {stream} exists with other settings: {}", Listed(.differences))]
    #[non_exhaustive]
    Differs {
        /// The name of the stream.
        stream: String,
        /// The settings that differ.
        differences: Vec<ConfigMismatch>,
    },
    /// JetStream does not answer: there is no connection, or the server does not have it turned on.
    #[error("no answer from JetStream: {0}")]
    Unavailable(#[source] BoxError),
    /// The server does not permit the call to the user that is logged in.
    #[error("permission denied: {0}")]
    Denied(String),
    /// The server refuses the settings.
    #[error("the server refuses: {0}")]
    Rejected(#[source] BoxError),
    /// A dead letter could not be enqueued again. It is still among the dead letters.
    #[error("the dead letter was not requeued")]
    Requeue(#[source] EnqueueError),
    /// The call was made on the I/O thread, which would have waited for itself.
    #[error("the I/O thread cannot wait for itself")]
    WouldDeadlock,
}

/// The error of a worker that could not be built, or whose run has failed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum WorkerError {
    /// An argument was refused before anything was sent.
    #[error(transparent)]
    Invalid(#[from] InvalidArgument),
    /// The consumer exists with other settings, or the server is too old to keep them.
    #[error("the consumer {consumer} has other settings: {}", Listed(.differences))]
    #[non_exhaustive]
    Differs {
        /// The name of the consumer.
        consumer: String,
        /// The settings that differ.
        differences: Vec<ConfigMismatch>,
    },
    /// The server refuses the settings.
    #[error("the server refuses: {0}")]
    Rejected(#[source] BoxError),
    /// The server does not permit the call to the user that is logged in. Only
    /// [`plan`](super::Worker::plan) and its change fail with it. A run reports
    /// [`Event::Denied`](super::Event) and tries again.
    #[error("permission denied: {0}")]
    Denied(String),
    /// JetStream does not answer. Only [`plan`](super::Worker::plan) and its change fail with it. A
    /// run tries again.
    #[error("no answer from JetStream: {0}")]
    Unavailable(#[source] BoxError),
    /// The connection has ended for good: it gave up reconnecting, by
    /// [`ReconnectSettings`](super::ReconnectSettings), or the client library has failed. Another
    /// connection is needed.
    #[error("the connection has ended for good")]
    ConnectionClosed,
    /// The call was made on a worker of the pool that it needs, or on the I/O thread.
    #[error("a worker cannot be run by a task of its own pool")]
    WouldDeadlock,
}

/// A denied permission, with the server's message.
#[derive(Debug)]
pub(crate) struct Denied(pub(crate) String);

/// Converts a denial into the error of each kind of call.
macro_rules! from_denied {
    ($($error:ty),*) => {
        $(impl From<Denied> for $error {
            fn from(denied: Denied) -> Self {
                Self::Denied(denied.0)
            }
        })*
    };
}

from_denied!(PublishError, EnqueueError, QueueError, WorkerError);

/// Displays mismatches in a sentence.
struct Listed<'a>(&'a [ConfigMismatch]);

impl fmt::Display for Listed<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (place, difference) in self.0.iter().enumerate() {
            write!(f, "{}{difference}", if place == 0 { "" } else { ", " })?;
        }
        Ok(())
    }
}

impl From<async_nats::ConnectError> for ConnectError {
    fn from(error: async_nats::ConnectError) -> Self {
        use async_nats::ConnectErrorKind::{Authentication, AuthorizationViolation, TimedOut};
        match error.kind() {
            TimedOut => Self::Timeout,
            Authentication | AuthorizationViolation => Self::Refused(error.into()),
            _ => Self::Failed(error.into()),
        }
    }
}

impl From<async_nats::PublishError> for PublishError {
    fn from(error: async_nats::PublishError) -> Self {
        match error.kind() {
            async_nats::client::PublishErrorKind::MaxPayloadExceeded => Self::TooLarge,
            _ => Self::Failed(error.into()),
        }
    }
}

impl From<async_nats::RequestError> for PublishError {
    fn from(error: async_nats::RequestError) -> Self {
        use async_nats::RequestErrorKind::{MaxPayloadExceeded, NoResponders, TimedOut};
        match error.kind() {
            TimedOut => Self::Timeout,
            NoResponders => Self::NoResponders,
            MaxPayloadExceeded => Self::TooLarge,
            _ => Self::Failed(error.into()),
        }
    }
}

impl From<StoreError> for EnqueueError {
    fn from(error: StoreError) -> Self {
        let said = error.source().and_then(|source| source.downcast_ref::<jetstream::Error>());
        let (code, is_full) = (said.map(jetstream::Error::error_code), said.is_some_and(means_full));
        match (error.kind(), code) {
            (PublishErrorKind::StreamNotFound, _) => Self::NoStream,
            (PublishErrorKind::TimedOut, _) => Self::Timeout,
            (PublishErrorKind::BrokenPipe, _) => Self::Disconnected,
            (PublishErrorKind::MaxPayloadExceeded, _) | (_, Some(ErrorCode::STREAM_MESSAGE_EXCEEDS_MAXIMUM)) => {
                Self::TooLarge
            }
            _ if is_full => Self::Full(error.into()),
            _ => Self::Rejected(error.into()),
        }
    }
}

/// Returns `true` if the error means that the server has no room.
fn means_full(error: &jetstream::Error) -> bool {
    const NO_ROOM: [ErrorCode; 5] = [
        ErrorCode::ACCOUNT_RESOURCES_EXCEEDED,
        ErrorCode::INSUFFICIENT_RESOURCES,
        ErrorCode::STORAGE_RESOURCES_EXCEEDED,
        ErrorCode::MEMORY_RESOURCES_EXCEEDED,
        ErrorCode::STREAM_MAX_STREAM_BYTES_EXCEEDED,
    ];
    // The server uses this code for limits of the stream ("maximum messages exceeded"), and for
    // failures of its files.
    let is_limit = error.error_code() == ErrorCode::STREAM_STORE_FAILED && error.to_string().contains("maximum");
    is_limit || NO_ROOM.contains(&error.error_code())
}

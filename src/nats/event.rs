//! The events of connections and workers.

use std::fmt;
use std::time::Duration;

/// A change or failure that the operator of a program may want to see. Passed to
/// [`ConnectionBuilder::observer`](super::ConnectionBuilder::observer).
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Event {
    /// There is a connection, for the first time or again.
    Connected,
    /// The connection is lost. The client tries to reconnect.
    Disconnected,
    /// The server is about to shut down, and asks its clients to move to another one.
    LameDuck,
    /// A subscription was too slow and has lost messages.
    SlowConsumer,
    /// The server or the client reports a problem.
    Warning(String),
    /// The server does not permit something to the user that is logged in. Its message names the
    /// subject.
    Denied(String),
    /// A worker found its consumer deleted, and creates it again.
    ConsumerLost {
        /// The name of the consumer.
        consumer: String,
    },
    /// A worker has its consumer and requests jobs.
    ConsumerReady {
        /// The name of the consumer.
        consumer: String,
    },
    /// A worker cannot request jobs, and tries again after a while.
    ConsumerFailed {
        /// The name of the consumer.
        consumer: String,
        /// The server's error, or that it does not answer.
        error: String,
        /// When the worker tries again.
        retry_after: Duration,
    },
    /// A worker found another stream of the same name: its stream was deleted and created again, or
    /// the server lost it. Outcomes of jobs of the old stream are not sent.
    StreamReplaced {
        /// The name of the stream.
        stream: String,
    },
    /// A job has headers that the client cannot read. It was moved to the dead letters.
    JobSetAside {
        /// The subject of the job.
        subject: String,
        /// Its sequence number in the stream.
        sequence: u64,
        /// What is wrong with its headers.
        error: String,
    },
    /// Finished jobs are still stored, as happens after a server was killed. They are not delivered
    /// again, but take room. [`Worker::clear_finished`](super::Worker::clear_finished) deletes
    /// them.
    JobsLeftBehind {
        /// The name of the consumer that counts them as done.
        consumer: String,
        /// The sequence number of the first.
        first: u64,
        /// How many there are, counted up to 1,000.
        jobs: u64,
    },
    /// A job ran longer than [`stuck_after`](super::WorkerBuilder::stuck_after). The attempt counts
    /// as failed: by the policy, the job is delivered again or goes to the dead letters.
    JobStuck {
        /// The subject of the job.
        subject: String,
        /// Its sequence number in the stream.
        sequence: u64,
    },
    /// A dead letter could not be stored. The job is delivered again later, to store the letter;
    /// its handler is not called again.
    DeadLetterFailed {
        /// The subject of the job.
        subject: String,
        /// Its sequence number in the stream.
        sequence: u64,
        /// Why it could not be stored.
        error: String,
    },
    /// The outcome of a job could not be sent to the server in time, and the job is delivered
    /// again. Or the server has lost the job, and another one has its place.
    AckLost {
        /// The subject of the job.
        subject: String,
        /// Its sequence number in the stream.
        sequence: u64,
    },
}

impl fmt::Display for Event {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Connected => f.write_str("connected"),
            Self::Disconnected => f.write_str("disconnected"),
            Self::LameDuck => f.write_str("the server is about to shut down"),
            Self::SlowConsumer => f.write_str("a subscription has lost messages"),
            Self::Warning(text) | Self::Denied(text) => f.write_str(text),
            Self::ConsumerLost { consumer } => write!(f, "the consumer {consumer} was deleted"),
            Self::ConsumerReady { consumer } => write!(f, "the consumer {consumer} is ready"),
            Self::ConsumerFailed { consumer, error, retry_after } => {
                write!(f, "the consumer {consumer} cannot be used, next try in {retry_after:?}: {error}")
            }
            Self::StreamReplaced { stream } => write!(f, "the stream {stream} was replaced by another one"),
            Self::JobSetAside { subject, sequence, error } => {
                write!(f, "job {sequence} ({subject}) cannot be read and was moved to the dead letters: {error}")
            }
            Self::JobsLeftBehind { consumer, first, jobs } => {
                write!(f, "{jobs} finished jobs of {consumer} are still stored, from {first} on")
            }
            Self::JobStuck { subject, sequence } => write!(f, "job {sequence} ({subject}) is stuck"),
            Self::DeadLetterFailed { subject, sequence, error } => {
                write!(f, "the dead letter of job {sequence} ({subject}) is not stored: {error}")
            }
            Self::AckLost { subject, sequence } => {
                write!(f, "the outcome of job {sequence} ({subject}) could not be sent")
            }
        }
    }
}

//! What users are told while a connection lives and workers work.

use std::fmt;
use std::time::Duration;

/// Something that whoever runs the program may want to know of. Told to
/// [`ConnectionBuilder::observer`](super::ConnectionBuilder::observer).
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Event {
    /// There is a connection, for the first time or again.
    Connected,
    /// The connection is lost; the client tries to get it back.
    Disconnected,
    /// The server is about to be shut down, and asks its clients to go elsewhere.
    LameDuck,
    /// A subscription has lost messages, since it took them too slowly.
    SlowConsumer,
    /// The server, or the client, complains of something.
    Warning(String),
    /// The server does not permit something to the user that is logged in. Its words name the subject.
    Denied(String),
    /// A worker found its consumer deleted, and makes it anew.
    ConsumerLost {
        /// The name of the consumer.
        consumer: String,
    },
    /// A worker has its consumer and asks for jobs.
    ConsumerReady {
        /// The name of the consumer.
        consumer: String,
    },
    /// A worker cannot ask for jobs, and tries again after a while.
    ConsumerFailed {
        /// The name of the consumer.
        consumer: String,
        /// What the server says, or that it says nothing.
        error: String,
        /// When it tries again.
        retry_after: Duration,
    },
    /// A worker found another stream of the same name: its stream was deleted and made again, or the server
    /// lost it. Outcomes of jobs of the old stream are told to no server.
    StreamReplaced {
        /// The name of the stream.
        stream: String,
    },
    /// A job has headers that the client cannot read. It is among the dead letters, and out of the queue.
    JobSetAside {
        /// The subject of the job.
        subject: String,
        /// Its place in the stream.
        sequence: u64,
        /// What is wrong with its headers.
        error: String,
    },
    /// Jobs that have run are still stored, as happens after a server was killed. They are not delivered again, but
    /// take room. [`Worker::clear_finished`](super::Worker::clear_finished) deletes them.
    JobsLeftBehind {
        /// The name of the consumer that counts them as done.
        consumer: String,
        /// The place of the first.
        first: u64,
        /// How many there are; of more than 1,000, 1,000.
        jobs: u64,
    },
    /// A job ran longer than [`stuck_after`](super::WorkerBuilder::stuck_after). The attempt counts as failed:
    /// the job is delivered again by the policy, or goes to the dead letters.
    JobStuck {
        /// The subject of the job.
        subject: String,
        /// Its place in the stream.
        sequence: u64,
    },
    /// A dead letter could not be stored. The job is delivered again later, for another try to store the
    /// letter; its handler is not called again.
    DeadLetterFailed {
        /// The subject of the job.
        subject: String,
        /// Its place in the stream.
        sequence: u64,
        /// Why it could not be stored.
        error: String,
    },
    /// What became of a job could not be told to the server in time: it is delivered again.
    AckLost {
        /// The subject of the job.
        subject: String,
        /// Its place in the stream.
        sequence: u64,
    },
}

impl fmt::Display for Event {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Connected => f.write_str("connected"),
            Self::Disconnected => f.write_str("disconnected"),
            Self::LameDuck => f.write_str("the server is about to be shut down"),
            Self::SlowConsumer => f.write_str("a subscription has lost messages"),
            Self::Warning(text) | Self::Denied(text) => f.write_str(text),
            Self::ConsumerLost { consumer } => write!(f, "the consumer {consumer} is gone"),
            Self::ConsumerReady { consumer } => write!(f, "the consumer {consumer} is ready"),
            Self::ConsumerFailed { consumer, error, retry_after } => {
                write!(f, "the consumer {consumer} cannot be used, next try in {retry_after:?}: {error}")
            }
            Self::StreamReplaced { stream } => write!(f, "the stream {stream} is another one now"),
            Self::JobSetAside { subject, sequence, error } => {
                write!(f, "job {sequence} ({subject}) cannot be read and is set aside: {error}")
            }
            Self::JobsLeftBehind { consumer, first, jobs } => {
                write!(f, "{jobs} jobs that {consumer} has done are still stored, from {first} on")
            }
            Self::JobStuck { subject, sequence } => write!(f, "job {sequence} ({subject}) is stuck"),
            Self::DeadLetterFailed { subject, sequence, error } => {
                write!(f, "the dead letter of job {sequence} ({subject}) is not stored: {error}")
            }
            Self::AckLost { subject, sequence } => {
                write!(f, "the outcome of job {sequence} ({subject}) could not be told")
            }
        }
    }
}

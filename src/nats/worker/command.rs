//! What a run of a worker is told, besides jobs and dispositions.

use super::ack_preparer::AckResult;
use super::history::JobRecord;
use super::inbox::{PrepareError, Prepared};
use super::incarnation::OriginCheck;
use super::job::Delivered;
use super::key_queues::Key;
use super::leftover::Leftovers;
use crate::nats::core::dispatch::ConnectionEvent;
use crate::sync::Arc;

/// A message to a run.
pub(crate) enum Command {
    /// The result of sending the outcome of this delivery.
    AckResult(u64, AckResult),
    /// The client had no room for this acknowledgement.
    Unsent(u64),
    /// The state of the connection has changed.
    Connection(ConnectionEvent),
    /// The result of preparing; the number is that of the attempt.
    Prepared(u64, Result<Box<Prepared>, PrepareError>),
    /// The result of checking the stream and the consumer; the number is that of the check.
    OriginChecked(u64, OriginCheck),
    /// The history of a job, which was read for this delivery.
    Known(u64, Arc<Delivered>, JobRecord),
    /// The search for unreadable jobs has ended.
    Swept,
    /// Finished jobs that are still stored, if there are any.
    Leftovers(Option<Leftovers>),
    /// Jobs that were expected and that the server no longer has, each with its key.
    JobsGone(Vec<(Key, u64)>),
    /// The new number of slots.
    Slots(usize),
    /// Stop requesting jobs, or request jobs again.
    Pause(bool),
    /// The handler of this delivery has started. Sent only if there is a rate.
    Begun(u64),
    /// A run of the worker has spent or released turns of the rate.
    TurnsChanged,
    /// Start no further jobs, and end.
    Drain,
    /// A report about the end of the pool has left a task behind.
    LeftBehind,
}

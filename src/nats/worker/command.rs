//! What a run of a worker is reported.

use super::ack::AckResult;
use super::history::JobRecord;
use super::inbox::{PrepareError, Prepared};
use super::incarnation::OriginCheck;
use super::leftover::Leftovers;
use crate::nats::core::dispatch::ConnectionEvent;

/// What a run hears of, besides jobs and dispositions.
pub(crate) enum Command {
    /// What came of telling an outcome.
    AckResult(u64, AckResult),
    /// There was no room for an acknowledgement.
    Unsent(u64),
    /// Something happened to the connection.
    Connection(ConnectionEvent),
    /// What came of preparing; the number is that of the try.
    Prepared(u64, Result<Box<Prepared>, PrepareError>),
    /// What a look at the stream and the consumer says; the number is that of the check.
    OriginChecked(u64, OriginCheck),
    /// What is known of a job that comes again.
    Known(u64, JobRecord),
    /// The jobs that cannot be read have been on_origin_checked for.
    Swept,
    /// Jobs that have run and are still stored, if there are any.
    Leftovers(Option<Leftovers>),
    /// The run has so many slots from now on.
    Slots(usize),
    /// Nothing is asked for from now on, or jobs are again.
    Pause(bool),
    /// Nothing new shall be begun.
    Drain,
}

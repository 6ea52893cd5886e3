//! What a run of a worker is told.

use super::ack::Settled;
use super::history::WorkerCounters;
use super::inbox::{PrepareError, Prepared};
use super::incarnation::Look;
use super::leftover::DetachedOutput;
use crate::nats::core::dispatch::News;

/// What a run hears of, besides jobs and verdicts.
pub(crate) enum Note {
    /// What came of telling an outcome.
    Settled(u64, Settled),
    /// There was no room for an acknowledgement.
    Unsent(u64),
    /// Something happened to the connection.
    News(News),
    /// What came of preparing; the number is that of the try.
    Prepared(u64, Result<Box<Prepared>, PrepareError>),
    /// What a look at the stream and the consumer says; the number is that of the look.
    Looked(u64, Look),
    /// What is known of a job that comes again.
    Known(u64, WorkerCounters),
    /// The jobs that cannot be read have been looked for.
    Swept,
    /// Jobs that have run and are still stored, if there are any.
    DetachedOutput(Option<DetachedOutput>),
    /// The run has so many slots from now on.
    Slots(usize),
    /// Nothing is asked for from now on, or jobs are again.
    Pause(bool),
    /// Nothing new shall be begun.
    Drain,
}

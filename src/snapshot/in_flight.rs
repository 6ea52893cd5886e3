//! The entries of a snapshot that have work in flight beside the workers: drivers, and workers of
//! NATS.

use super::entries::{Page, TaskSnapshot, WaitSnapshot};
use crate::sync::Arc;

/// A driver, or a caller of gRPC.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct DriverSnapshot {
    /// Its label; of a caller without one, the address of its server.
    pub label: Option<Arc<str>>,
    /// What its futures are.
    pub kind: DriverKind,
    /// How many futures have a place.
    pub in_flight: usize,
    /// How many may have one.
    pub max_in_flight: usize,
    /// How many futures wait for a place. Workers, and other futures, spawn such futures. Other
    /// threads that wait for a place are among the [waits](super::Snapshot::waits).
    pub waiting: usize,
    /// How many outputs wait for a worker, and still take the place of a further submitter.
    pub outputs: usize,
    /// The futures that have not ended. The oldest come first.
    pub futures: Page<FutureSnapshot>,
}

/// What the futures of a driver are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum DriverKind {
    /// Futures of the user.
    #[default]
    Futures,
    /// Calls of a gRPC caller, each with all its attempts and the delays between them.
    Calls,
}

/// A future in flight.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct FutureSnapshot {
    /// Its task. The [`age`](TaskSnapshot::age) is there with
    /// [`timing`](crate::WorkerPoolBuilder::timing).
    pub task: TaskSnapshot,
    /// Whether it has a place at the driver, and so has started.
    pub is_driven: bool,
    /// The handles and other things of this crate that it has polled and that are pending, at most
    /// four. It may wait for any of them, for all, or for something else.
    pub waits: Vec<WaitSnapshot>,
}

/// A run of a worker of NATS on the pool. The numbers are those of all runs of the worker, and the
/// jobs that run are among the tasks of the pool's [workers](super::Snapshot::workers).
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct JobWorkerSnapshot {
    /// The name of the worker, which is the label of its tasks.
    pub name: Arc<str>,
    /// The stream of its jobs.
    pub stream: Arc<str>,
    /// How many jobs may be in flight.
    pub slots: usize,
    /// How many jobs are in flight: the pool has them, or the server has not confirmed their
    /// outcome.
    pub in_flight: usize,
    /// How many jobs no worker has got, as the server said last.
    pub pending: u64,
    /// Whether it is paused.
    pub is_paused: bool,
}

impl DriverSnapshot {
    /// Returns `true` if it has anything to show.
    pub(super) fn is_busy(&self) -> bool {
        self.in_flight + self.waiting + self.outputs + self.futures.total > 0
    }

    /// Returns why a future waits, as far as the crate knows.
    pub(super) fn reason(&self, future: &FutureSnapshot) -> String {
        match (&*future.waits, self.kind) {
            _ if !future.is_driven => format!("waits for a place ({}/{})", self.in_flight, self.max_in_flight),
            ([], DriverKind::Futures) => "in flight; it waits for nothing that the crate knows".to_owned(),
            ([], DriverKind::Calls) => "in flight: an attempt, or the wait for the next one".to_owned(),
            ([wait], _) => wait.to_string(),
            ([wait, rest @ ..], _) => format!("{wait}; it has polled {} more", rest.len()),
        }
    }
}

impl JobWorkerSnapshot {
    /// Returns why it begins no more jobs.
    pub(super) fn reason(&self) -> Option<String> {
        match self.in_flight {
            _ if self.is_paused => Some("it is paused".to_owned()),
            in_flight if in_flight >= self.slots => Some(format!("its slots are taken {in_flight}/{}", self.slots)),
            _ if self.pending == 0 => Some("no more jobs are pending".to_owned()),
            _ => None,
        }
    }
}

//! Bounded worker-pool task executor.

mod builder;
mod cancel;
mod deadline;
mod engine;
mod error;
mod handle;
mod job;
mod ledger;
mod lifecycle;
mod local;
mod metrics;
mod observer;
mod panic;
mod pool;
mod queue;
mod roster;
mod shutdown;
mod spill;
mod supervisor;
mod sync;
mod task;
mod unwind;
mod worker;

pub use builder::Builder;
pub use cancel::{CancelGuard, CancellationToken};
pub use engine::Overflow;
pub use error::{
    BuildError, CancelReason, Cancelled, GroupError, JoinError, Refused, SubmitError, SubmitTimeoutError, TaskError,
    TrySubmitError,
};
pub use handle::JoinHandle;
pub use metrics::{Histogram, Metrics};
pub use observer::{Observer, Outcome, RunningTask, TaskId, TaskInfo};
pub use panic::Panic;
pub use pool::WorkerPool;
pub use shutdown::{OnDrop, ShutdownReport};

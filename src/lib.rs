//! Bounded worker-pool task executor.

mod pool;
mod builder;
mod handle;
mod group;
mod scope;
mod map;
mod cancel;
mod error;
mod panic;
mod observer;
mod metrics;
mod engine;
mod worker;
mod shutdown;
mod roster;
mod spill;
mod queue;
mod job;
mod task;
mod supervisor;
mod lifecycle;
mod ledger;
mod local;
mod unwind;
mod deadline;
mod sync;

pub use builder::Builder;
pub use cancel::{CancelGuard, CancellationToken};
pub use engine::Overflow;
pub use error::{
    BuildError, CancelReason, Cancelled, GroupError, JoinError, Refused, SubmitError, SubmitTimeoutError, TaskError,
    TrySubmitError,
};
pub use group::{Completions, Policy, Progress, Spawner, TaskGroup, TaskResult};
pub use handle::JoinHandle;
pub use metrics::{Histogram, Metrics};
pub use observer::{Observer, Outcome, RunningTask, TaskId, TaskInfo};
pub use panic::Panic;
pub use pool::WorkerPool;
pub use scope::Scope;
pub use shutdown::{OnDrop, ShutdownReport};

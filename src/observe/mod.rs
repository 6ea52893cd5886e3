//! What can be seen of a pool from outside: observer calls, running tasks, counters and histograms.

pub(crate) mod coarse_clock;
pub(crate) mod current_task;
pub(crate) mod histogram;
pub(crate) mod metrics;
pub(crate) mod observer;
pub(crate) mod task_info;
pub(crate) mod task_origin;
#[cfg(feature = "tracing")]
pub(crate) mod task_span;
pub(crate) mod worker_counters;

pub use self::histogram::Histogram;
pub use self::metrics::Metrics;
pub use self::observer::Observer;
pub use self::task_info::{RunningTask, TaskInfo, TaskOutcome};

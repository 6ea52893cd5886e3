//! What can be seen of a pool from outside: observer calls, running tasks, counters and histograms.

pub(crate) mod coarse_clock;
pub(crate) mod current_task;
pub(crate) mod histogram;
pub(crate) mod metrics;
pub(crate) mod observer;
pub(crate) mod task_info;
pub(crate) mod worker_counters;

//! The pool: worker threads, one queue and timers.
//!
//! Users see `worker_pool`, `builder`, `propagate`, `submit`, `task_builder`, `overflow`,
//! `spawn_async`, `timers`, `timer_builder`, `ending`, `wait_async`, `broadcast`, `worker_local`,
//! `snapshot`, `on_stuck` and `current_worker`. The workers share `inner`.

pub(crate) mod broadcast;
pub(crate) mod builder;
pub(crate) mod current_worker;
pub(crate) mod end_wait;
pub(crate) mod ending;
pub(crate) mod group_registry;
pub(crate) mod inbox;
pub(crate) mod inner;
pub(crate) mod on_stuck;
pub(crate) mod overflow;
pub(crate) mod propagate;
pub(crate) mod queue_room;
pub(crate) mod shutdown;
pub(crate) mod snapshot;
#[cfg(feature = "driver")]
pub(crate) mod sources;
pub(crate) mod spawn_async;
pub(crate) mod stuck;
pub(crate) mod submit;
pub(crate) mod task_builder;
pub(crate) mod timer_builder;
pub(crate) mod timers;
pub(crate) mod wait_async;
pub(crate) mod worker;
pub(crate) mod worker_context;
pub(crate) mod worker_local;
pub(crate) mod worker_pool;
pub(crate) mod worker_set;
pub(crate) mod worker_start;
pub(crate) mod worker_values;

pub use self::builder::WorkerPoolBuilder;
pub use self::current_worker::{CurrentWorker, current_worker};
pub use self::overflow::Overflow;
pub use self::shutdown::{OnDrop, ShutdownReport};
pub use self::spawn_async::SpawnAsync;
pub use self::task_builder::TaskBuilder;
pub use self::timer_builder::TimerBuilder;
pub use self::wait_async::{WaitForIdle, WaitForShutdown};
pub use self::worker_local::WorkerLocal;
pub use self::worker_pool::{WeakWorkerPool, WorkerPool};

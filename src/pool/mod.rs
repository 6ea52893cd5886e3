//! The pool: it joins worker threads, one queue and timers.
//!
//! `worker_pool`, `builder`, `spawn_async` and `timers` are what users see. `inner` is what the workers share.

pub(crate) mod builder;
pub(crate) mod ending;
pub(crate) mod group_registry;
pub(crate) mod inner;
pub(crate) mod queue_room;
pub(crate) mod shutdown;
pub(crate) mod spawn_async;
pub(crate) mod timers;
pub(crate) mod worker;
pub(crate) mod worker_pool;
pub(crate) mod worker_set;

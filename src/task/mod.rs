//! The life of one task: admitted by the `tracker`, queued as a `job`, run by the `executor`,
//! joined through its `handle`.
//!
//! `closure` and `cell` store a task, without and with a handle. `cell_task` joins tasks with a
//! cell. `context` knows what is on the stack of the current thread. `propagation` carries the
//! submitter's context to the task. `waits` knows which waits depend on each other. `tickets` is
//! how groups of tasks ask for workers, and `room` how submitters wait for room in them. No module
//! here knows the queue or the workers.

pub(crate) mod cell;
pub(crate) mod cell_task;
pub(crate) mod closure;
pub(crate) mod context;
pub(crate) mod executor;
pub(crate) mod future_wait;
pub(crate) mod handle;
pub(crate) mod idle;
pub(crate) mod in_context;
pub(crate) mod job;
pub(crate) mod join;
pub(crate) mod limited;
pub(crate) mod propagation;
pub(crate) mod report;
pub(crate) mod room;
pub(crate) mod sleepers;
pub(crate) mod tickets;
pub(crate) mod tracker;
pub(crate) mod waits;
pub(crate) mod wakers;

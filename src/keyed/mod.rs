//! Serial queues by key, on the workers of a pool.
//!
//! A keyed executor keeps its unstarted tasks to itself and sends the pool tickets, as a group
//! does. `state` holds the protocol with its rules; `submit`, `run`, `task`, `delay` and `idle` are
//! its sides. `lookup` finds the entry of a key, `name` is the identity of a key, `pending` a task
//! in its queue, `body` what a task with a handle runs, `room` the wait for room, and `needs` what
//! waits need of a key.

mod body;
mod builder;
#[cfg(feature = "retry")]
mod delay;
mod executor;
mod idle;
mod lookup;
mod name;
mod needs;
mod pending;
mod room;
mod run;
mod state;
mod submit;
mod task;

#[cfg(feature = "retry")]
pub(crate) use self::body::{KeyedBody, Later, Outcome, Step};
pub use self::builder::KeyedExecutorBuilder;
pub use self::executor::KeyedExecutor;

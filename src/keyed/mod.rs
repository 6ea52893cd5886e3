//! Serial queues by key, on the workers of a pool.
//!
//! A keyed executor keeps its unstarted tasks to itself and sends the pool tickets, as a group
//! does. `state` holds the protocol with its rules; `submit`, `run`, `task`, `delay` and `idle` are
//! its operations. The other modules are:
//!
//! - `lookup` finds the entry of a key, and `name` is the identity of a key.
//! - `pending` is a task in the queue of a key, and `body` is what a task with a handle runs.
//! - `room` is the wait for room, and `needs` reports what a wait needs of a key.

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

//! Serial queues by key, on the workers of a pool.
//!
//! A keyed executor keeps its unstarted tasks to itself and sends the pool tickets, as a group
//! does. `state` holds the protocol with its rules; `submit`, `spawn_async`, `run`, `task`, `delay`
//! and `idle` are its operations. The other modules are:
//!
//! - `serial_queues` is the queues of the keys, and the order in which keys take turns: it has the
//!   `entries` of keys and the `ready` keys. `lookup` finds the entry of a key, and `name` is the
//!   identity of a key. Subscriptions use these, too.
//! - `pending` is a task in the queue of a key, and `body` is what a task with a handle runs.
//! - `room` is the wait for room, and `needs` reports what a wait needs of a key.

mod body;
mod builder;
#[cfg(feature = "retry")]
mod delay;
mod entries;
mod executor;
mod idle;
pub(crate) mod lookup;
pub(crate) mod name;
mod needs;
mod pending;
mod ready;
mod room;
mod run;
mod spawn_async;
mod state;
mod submit;
mod task;
pub(crate) mod serial_queues;

#[cfg(feature = "retry")]
pub(crate) use self::body::{KeyedBody, Later, Outcome, Step};
pub use self::builder::KeyedExecutorBuilder;
pub use self::executor::KeyedExecutor;

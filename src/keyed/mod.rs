//! Serial queues by key, on the workers of a pool.
//!
//! A keyed executor keeps its unstarted tasks to itself and sends the pool tickets, as a group does.
//! `state` holds the protocol with its rules; `submit`, `run`, `task` and `idle` are its four sides.
//! `lookup` finds the entry of a key, `name` is the identity of a key, `pending` a task in its queue,
//! and `room` the wait for room.

mod builder;
mod executor;
mod idle;
mod lookup;
mod name;
mod pending;
mod room;
mod run;
mod state;
mod submit;
mod task;

pub use self::builder::KeyedExecutorBuilder;
pub use self::executor::KeyedExecutor;

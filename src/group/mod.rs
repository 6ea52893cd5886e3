//! Groups: tasks with one fate.
//!
//! A group keeps its unstarted tasks to itself and sends the pool *tickets*: "run tasks of this group". `core` holds the protocol,
//! `outcomes` what the tasks left behind; the others are the faces that users see.

mod completions;
mod core;
mod outcomes;
mod result;
mod spawner;
mod task_group;

pub use self::completions::Completions;
pub(crate) use self::core::{GroupCore, GroupSettings};
pub use self::core::{Policy, Progress};
pub use self::result::TaskResult;
pub use self::spawner::Spawner;
pub use self::task_group::TaskGroup;

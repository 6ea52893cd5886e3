//! Groups: tasks with one fate.
//!
//! A group keeps its unstarted tasks to itself and sends the pool *tickets*: "run tasks of this group". `core` holds
//! the protocol, with its rules; `adding`, `running` and `waiting` are its three sides, `outcomes` what the tasks left
//! behind, with `troubles` for those that brought no value. The others are the faces that users see.

mod task_group;
mod spawner;
mod completions;
mod settings;
mod result;
mod small_deque;
mod core;
mod adding;
mod running;
mod waiting;
mod outcomes;
mod troubles;
#[cfg(test)]
mod tests;

pub use self::completions::Completions;
pub(crate) use self::core::GroupCore;
pub use self::result::TaskResult;
pub(crate) use self::settings::GroupSettings;
pub use self::settings::{Policy, Progress};
pub use self::spawner::Spawner;
pub use self::task_group::TaskGroup;
pub(crate) use self::waiting::Values;

//! Groups: tasks with one fate.
//!
//! A group keeps its unstarted tasks to itself and sends the pool *tickets*: "run tasks of this group". `core` holds
//! the protocol, with its rules; `adding`, `running` and `waiting` are its three sides, `outcomes` what the tasks left
//! behind, with `failures` for those that brought no value. The others are the faces that users see.

mod task_group;
mod spawner;
pub(crate) mod map;
pub(crate) mod scope;
mod completions;
mod settings;
mod result;
mod small_deque;
mod state;
mod spawn;
mod run;
mod wait;
mod outcomes;
mod failures;
#[cfg(test)]
mod tests;

pub use self::completions::Completions;
pub use self::result::TaskResult;
pub(crate) use self::settings::GroupSettings;
pub use self::settings::{GroupPolicy, Progress};
pub use self::spawner::Spawner;
pub(crate) use self::state::GroupInner;
pub use self::task_group::TaskGroup;
pub(crate) use self::wait::WaitResult;

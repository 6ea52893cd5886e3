//! Groups of tasks that are waited for and cancelled together.
//!
//! A group keeps its unstarted tasks to itself and sends the pool *tickets*: requests to run tasks
//! of this group. `state` holds the protocol with its rules; `spawn`, `run`, `wait` and `close` are
//! its four sides; `poll` is `wait` for futures. `outcomes` holds the outcomes of the tasks:
//! `values` the values, `failures` the rest. The other modules are the public types.

mod task_group;
mod task_queue;
mod time_limit;
mod adder;
mod any;
mod any_end;
mod partial;
mod spawner;
mod in_progress;
pub(crate) mod map;
mod map_tasks;
mod read_ahead;
pub(crate) mod scope;
mod scope_builder;
mod scope_map;
mod scoped_handle;
mod scoped_task;
mod one_task;
mod completions;
mod stream;
mod future;
mod group_future;
mod wait_async;
mod spawners;
mod settings;
mod result;
mod body;
pub(crate) mod small_deque;
mod state;
mod room;
mod spawn;
mod spawn_async;
mod run;
mod wait;
mod poll;
mod poller;
mod close;
#[cfg(feature = "retry")]
mod delayed;
mod outcomes;
mod values;
mod failures;
mod unwaited;
#[cfg(test)]
mod tests;

pub(crate) use self::body::Body;
#[cfg(feature = "retry")]
pub(crate) use self::body::{Attempts, RepeatedBody, Step};
pub use self::completions::Completions;
pub use self::future::WaitForGroup;
#[cfg(feature = "retry")]
pub(crate) use self::in_progress::InProgress;
pub use self::map::Map;
#[cfg(feature = "retry")]
pub(crate) use self::map_tasks::MapTasks;
pub use self::result::{ScopeResult, TaskResult};
pub use self::scope::Scope;
pub use self::scope_builder::ScopeBuilder;
pub use self::scope_map::ScopeMap;
pub use self::scoped_handle::ScopedHandle;
pub(crate) use self::settings::GroupSettings;
pub use self::settings::{GroupPolicy, Progress};
pub use self::spawner::Spawner;
pub(crate) use self::state::GroupInner;
pub use self::task_group::TaskGroup;
pub(crate) use self::wait::WaitResult;

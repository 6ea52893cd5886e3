//! Timers: a heap of entries ordered by deadline, and the thread that fires them.
//!
//! A delayed task is an ordinary task: it is admitted when it is submitted, and waits in the heap
//! until its deadline. A periodic timer is a source of tasks. The pool's methods that create timers
//! are in `pool::timers`.

pub(crate) mod delayed;
#[cfg(feature = "retry")]
pub(crate) mod end_timer;
pub(crate) mod handle;
pub(crate) mod heap;
pub(crate) mod period;
pub(crate) mod periodic;
pub(crate) mod schedule;
#[cfg(test)]
pub(crate) mod tests;
pub(crate) mod thread;
pub(crate) mod tick;

pub use self::handle::TimerHandle;
pub use self::period::Period;
pub use self::tick::TickResult;

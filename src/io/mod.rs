//! Futures that one thread drives for a pool, so that waiting for the network holds no worker.
//!
//! `thread` is the I/O thread: a runtime that drives any future. `future_task` is a future as a
//! task of the pool, and `driver` spawns such tasks, with a limit on how many are in flight.
//! `permits` is that limit, and `in_flight` lists the futures. `block_on` waits for a future on a thread without a runtime. What the
//! futures do is decided by the features above.
//!
//! Rules:
//! 1. Each pool has at most one I/O thread. It is started on first use, and ends when its last
//!    owner is dropped: a driver, a future task, or another holder of an [`IoThread`]. An idle
//!    thread sleeps.
//! 2. Futures run and are dropped on that thread. A panic ends only its own future. User code that
//!    handles an output runs on the workers. Observers, panic hooks and the functions that classify
//!    errors are called on the thread where a task completes.
//! 3. Nothing here blocks the I/O thread. A wait for the I/O thread on that thread itself is an
//!    error. A future that blocks delays all others.
//! 4. The I/O thread makes progress without any worker. So a worker that waits for a future task
//!    waits for a thread that does not need it.

mod driver;
mod future_task;
mod in_flight;
mod permits;
mod thread;
mod block_on;
#[cfg(test)]
mod tests;

pub use self::driver::{Driver, DriverError};

pub(crate) use self::block_on::block_on;
#[allow(unused_imports, reason = "not every feature needs all of it")]
pub(crate) use self::future_task::OnOutput;
#[allow(unused_imports, reason = "not every feature needs all of it")]
pub(crate) use self::thread::{BlockError, IoThread};
/// A mutex whose guard may be held across an `await`. Its waiters get it in the order of their
/// calls.
#[allow(unused_imports, reason = "not every feature needs it")]
pub(crate) use tokio::sync::Mutex as FairMutex;
/// Channels to a future that the I/O thread drives.
#[allow(unused_imports, reason = "not every feature needs it")]
pub(crate) use tokio::sync::mpsc;
/// Takes a future out of the runtime's budget, for one that is polled once.
#[allow(unused_imports, reason = "not every feature needs it")]
pub(crate) use tokio::task::unconstrained;
/// The clock of the I/O thread, for futures that it drives.
#[allow(unused_imports, reason = "not every feature needs it")]
pub(crate) use tokio::time::{Sleep, sleep, sleep_until, timeout, timeout_at};

//! Futures driven for a pool by one thread of their own, so that what waits for the network holds no worker.
//!
//! `thread` is the I/O thread: a runtime that drives whatever it is given. `flight` is a future as a task of the pool,
//! `driver` launches flights, so many at a time. What the futures do, a call or a subscription, is decided above.
//!
//! Rules:
//! 1. One I/O thread for each pool, started when it is first needed, ended when the last of those who need it is gone:
//!    drivers, flights, and whoever else holds an [`IoThread`]. An idle one sleeps.
//! 2. Futures, and what they leave behind, run and are dropped on that thread; a panic ends its own future and no other.
//!    User code that has an outcome to deal with runs on the workers. What is told of each task, observer and panic hook, and
//!    what says whether an error is worth another attempt, is called where the outcome arises.
//! 3. Nothing here blocks the I/O thread, and nothing waits *for* it on it: such a wait is an error. A future that blocks
//!    holds up all others.
//! 4. The I/O thread needs no worker to go on. So a worker that waits for a flight waits for something that goes on
//!    without it.

mod driver;
mod future_task;
mod parker;
#[cfg(test)]
mod tests;
mod thread;

pub use self::driver::{Driver, DriverError};

#[allow(unused_imports, reason = "not every feature needs all of it")]
pub(crate) use self::future_task::Fate;
pub(crate) use self::parker::wait_for;
pub(crate) use self::thread::{BlockError, IoThread};
/// How threads hand something to a future that the I/O thread drives.
#[allow(unused_imports, reason = "not every feature needs it")]
pub(crate) use tokio::sync::mpsc;
/// Takes a future out of the runtime's budget, for one that is polled once.
#[allow(unused_imports, reason = "not every feature needs it")]
pub(crate) use tokio::task::unconstrained;
/// The clock of the I/O thread, for futures that it drives.
#[allow(unused_imports, reason = "not every feature needs it")]
pub(crate) use tokio::time::{Sleep, sleep, sleep_until, timeout, timeout_at};

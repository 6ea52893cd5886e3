//! Errors, one type per set of outcomes.
//!
//! Every error is `Send + Sync + 'static` if the task is `Send + 'static`, so that `?` converts it
//! into any boxed error. The files follow the life of a task: building the pool, submitting the
//! task now or for later, and waiting for its outcome.

mod build;
mod cycle;
mod escaped;
mod failed_task;
mod failure;
mod no_success;
mod outcome;
pub(crate) mod panic;
mod submit;
mod timed_out;
mod timer;
mod worker_local;

pub use build::BuildError;
pub use cycle::{Cycle, CycleKind, CycleTarget, CycleTask, CycleWait};
pub(crate) use cycle::{Named, NamedPool};
pub(crate) use escaped::Escaped;
pub use failed_task::{FailedTask, TaskId};
pub use failure::TaskFailure;
pub use no_success::NoSuccess;
pub use outcome::{CancelReason, Cancelled, GroupError, JoinError, TaskError};
pub(crate) use submit::{Refusal, Refuser};
pub use submit::{Refused, SubmitError, SubmitTimeoutError, TrySubmitError};
pub use timed_out::TimedOut;
pub use timer::TimerError;
pub use worker_local::WorkerLocalError;

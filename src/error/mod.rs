//! Errors, one type per set of outcomes.
//!
//! Every error is `Send + Sync + 'static` if the task is `Send + 'static`, so that `?` converts it
//! into any boxed error. The files follow the life of a task: building the pool, submitting the
//! task now or for later, and waiting for its outcome.

mod build;
mod outcome;
pub(crate) mod panic;
mod submit;
mod timer;

pub use build::BuildError;
pub use outcome::{CancelReason, Cancelled, GroupError, JoinError, TaskError};
pub(crate) use submit::{Refusal, Refuser};
pub use submit::{Refused, SubmitError, SubmitTimeoutError, TrySubmitError};
pub use timer::TimerError;

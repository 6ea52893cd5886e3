//! What can go wrong, one type per set of outcomes.
//!
//! Every error is `Send + Sync + 'static` when the task is `Send + 'static`, so that `?` carries it into any error box.
//! The files follow the life of a task: building the pool, submitting (now or for later), waiting for the
//! outcome.

mod build;
mod outcome;
pub(crate) mod panic;
mod submit;
mod timer;

pub use build::BuildError;
pub use outcome::{CancelReason, Cancelled, GroupError, JoinError, TaskError};
pub(crate) use submit::Refusal;
pub use submit::{Refused, SubmitError, SubmitTimeoutError, TrySubmitError};
pub use timer::TimerError;

//! Deadlines, timestamps and clocks.

pub(crate) mod clock;
mod condvar;
pub(crate) mod deadline;

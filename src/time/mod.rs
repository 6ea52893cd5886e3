//! Deadlines, timestamps and clocks.

pub(crate) mod clock;
pub(crate) mod deadline;

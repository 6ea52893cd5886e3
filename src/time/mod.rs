//! Time limits and time stamps.

pub(crate) mod clock;
pub(crate) mod deadline;

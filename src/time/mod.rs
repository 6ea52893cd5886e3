//! Deadlines, timestamps, clocks and rates.

pub(crate) mod clock;
mod condvar;
pub(crate) mod deadline;
#[cfg(any(feature = "grpc", feature = "nats"))]
pub(crate) mod rate;

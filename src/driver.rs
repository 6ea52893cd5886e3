//! Futures as tasks of a pool, polled on one I/O thread.

pub use crate::io::{Driver, DriverError};

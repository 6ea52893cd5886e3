//! Futures as tasks of a pool, driven by one I/O thread.

pub use crate::io::{Driver, DriverError};

//! The error of a wait that ended without a result.

use std::error::Error;
use std::fmt;

/// The error of [`Completions::next_timeout`](crate::Completions::next_timeout): no task ended in
/// time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TimedOut;

impl fmt::Display for TimedOut {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("no task ended in time")
    }
}

impl Error for TimedOut {}

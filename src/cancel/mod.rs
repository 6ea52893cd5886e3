//! Cancellation tokens, and the future that waits for one.

pub(crate) mod future;
pub(crate) mod token;

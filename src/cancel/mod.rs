//! Cancellation tokens, the future that waits for one, and the alarms of futures with a deadline.

pub(crate) mod alarm;
pub(crate) mod future;
pub(crate) mod token;
pub(crate) mod waker_cell;

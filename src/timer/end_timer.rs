//! Timers whose entry in the pool's queue may be stale.

/// A timer of a part that is about to do without it: its key has run, or its batch was taken.
pub(crate) trait EndTimer: Send + Sync {
    /// Notes that the timer is no longer needed. If it has fired, its entry in the pool's queue is
    /// stale from then on, and does nothing.
    fn end(&self);
}

//! The error of a worker local.

/// The error of [`WorkerLocal::with`](crate::WorkerLocal::with).
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum WorkerLocalError {
    /// The caller does not run on a worker of the pool.
    #[error("the caller runs on no worker of the pool")]
    NotOnWorker,
    /// The value is in use further down on the same stack. Either a closure calls `with` again, or
    /// a task waits inside of `with` while its worker runs another task.
    #[error("the value is in use further down on this stack")]
    InUse,
}

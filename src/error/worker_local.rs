//! The error of a worker local.

/// The error of [`WorkerLocal::with`](crate::WorkerLocal::with).
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum WorkerLocalError {
    /// The caller does not run on a worker of the pool.
    #[error("the caller runs on no worker of the pool")]
    NotOnWorker,
    /// The value is in use further down on the same stack: by a closure that calls `with` again, or
    /// by a task that waits while its worker runs another one.
    #[error("the value is in use further down on this stack")]
    InUse,
}

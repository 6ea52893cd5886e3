//! Errors of building and resizing a pool.

use std::io;

/// Why a pool could not be built or resized. Nothing is left behind: threads that had started are joined.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum BuildError {
    /// A pool needs at least one worker.
    #[error("a pool needs at least one worker")]
    ZeroWorkers,
    /// More workers than a pool may have.
    #[error("a pool may have at most {limit} workers, {requested} were requested")]
    #[non_exhaustive]
    TooManyWorkers {
        /// The number asked for.
        requested: usize,
        /// The largest number allowed.
        limit: usize,
    },
    /// A queue needs room for at least one job.
    #[error("a queue needs a capacity of at least one")]
    ZeroQueueCapacity,
    /// A larger queue than a pool may have. Its memory would be allocated at once.
    #[error("a queue may hold at most {limit} jobs, {requested} were requested")]
    #[non_exhaustive]
    QueueTooLarge {
        /// The capacity asked for.
        requested: usize,
        /// The largest capacity allowed.
        limit: usize,
    },
    /// A thread name with a NUL byte, which the operating system cannot take.
    #[error("the thread name contains a NUL byte")]
    InvalidThreadName,
    /// A larger stack than a worker may have, in bytes.
    #[error("a stack may have at most {limit} bytes, {requested} were requested")]
    #[non_exhaustive]
    StackTooLarge {
        /// The size asked for, in bytes.
        requested: usize,
        /// The largest size allowed, in bytes.
        limit: usize,
    },
    /// The environment variable that sizes the global pool holds something other than a number.
    #[error("WORKCREW_WORKERS is {value:?}, not a number of workers")]
    #[non_exhaustive]
    InvalidEnvironment {
        /// What the variable holds.
        value: String,
    },
    /// The operating system refused to start a worker's thread.
    #[error("worker {worker} could not be started")]
    #[non_exhaustive]
    Spawn {
        /// The index of the worker, counted from zero.
        worker: usize,
        /// What the operating system said.
        source: io::Error,
    },
    /// The pool has been shut down and cannot be resized.
    #[error("the pool is shut down")]
    ShutDown,
}

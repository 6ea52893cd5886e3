//! Errors of building and resizing a pool.

use std::error::Error;
use std::fmt;
use std::io;

/// An error of building or resizing a pool. Threads that had started are joined.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum BuildError {
    /// A pool needs at least one worker.
    #[error("a pool needs at least one worker")]
    ZeroWorkers,
    /// The requested number of workers is too large.
    #[error("a pool may have at most {limit} workers, {requested} were requested")]
    #[non_exhaustive]
    TooManyWorkers {
        /// The requested number.
        requested: usize,
        /// The largest allowed number.
        limit: usize,
    },
    /// A queue needs room for at least one job.
    #[error("a queue needs a capacity of at least one")]
    ZeroQueueCapacity,
    /// Tasks of the class [`Priority::Background`](crate::Priority) need at least one worker.
    #[error("background tasks need at least one worker")]
    ZeroBackgroundWorkers,
    /// The requested queue is too large. Its memory would be allocated at once.
    #[error("a queue may hold at most {limit} jobs, {requested} were requested")]
    #[non_exhaustive]
    QueueTooLarge {
        /// The requested capacity.
        requested: usize,
        /// The largest allowed capacity.
        limit: usize,
    },
    /// The thread name contains a NUL byte, which the operating system does not accept.
    #[error("the thread name contains a NUL byte")]
    InvalidThreadName,
    /// The requested stack of a worker is too large.
    #[error("a stack may have at most {limit} bytes, {requested} were requested")]
    #[non_exhaustive]
    StackTooLarge {
        /// The requested size in bytes.
        requested: usize,
        /// The largest allowed size in bytes.
        limit: usize,
    },
    /// A time of [`on_stuck`](crate::WorkerPoolBuilder::on_stuck) or
    /// [`stuck_after`](crate::WorkerPoolBuilder::stuck_after) is zero.
    #[error("the time after which a pool counts as stuck is zero")]
    ZeroStuckTime,
    /// The operating system refused to start the thread of
    /// [`on_stuck`](crate::WorkerPoolBuilder::on_stuck).
    #[error("the thread of `on_stuck` could not be started")]
    #[non_exhaustive]
    StuckThread {
        /// The error of the operating system.
        source: io::Error,
    },
    /// The environment variable `WORKCREW_WORKERS`, which sizes the global pool, is not a number.
    #[error("WORKCREW_WORKERS is {value:?}, not a number of workers")]
    #[non_exhaustive]
    InvalidEnvironment {
        /// The value of the variable.
        value: String,
    },
    /// The operating system refused to start a worker's thread.
    #[error("worker {worker} could not be started")]
    #[non_exhaustive]
    Spawn {
        /// The index of the worker, counted from zero.
        worker: usize,
        /// The error of the operating system.
        source: io::Error,
    },
    /// The start hook of a worker returned an error. See
    /// [`try_on_thread_start`](crate::WorkerPoolBuilder::try_on_thread_start).
    #[error("the start hook of worker {worker} failed")]
    #[non_exhaustive]
    StartHookFailed {
        /// The index of the worker, counted from zero.
        worker: usize,
        /// The error of the hook.
        source: Box<dyn Error + Send + Sync>,
    },
    /// The start hook of a worker panicked. See
    /// [`try_on_thread_start`](crate::WorkerPoolBuilder::try_on_thread_start).
    #[error("the start hook of worker {worker} panicked{}", Message(message.as_deref()))]
    #[non_exhaustive]
    StartHookPanicked {
        /// The index of the worker, counted from zero.
        worker: usize,
        /// The message of the panic, if its payload was a string, as with `panic!`.
        message: Option<String>,
    },
    /// A callback waits for the start hooks of workers, and [too many
    /// waits](crate::CancellationToken::cancel) are nested in callbacks. The workers may still
    /// start.
    #[error("too many waits are nested in callbacks")]
    WouldDeadlock,
    /// The pool has been shut down and cannot be resized.
    #[error("the pool is shut down")]
    ShutDown,
}

/// The end of a text that may quote a message.
struct Message<'a>(Option<&'a str>);

impl fmt::Display for Message<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.map_or(Ok(()), |message| write!(f, ": {message}"))
    }
}

//! Errors of submitting a task. Each returns the refused closure.

use std::error::Error;
use std::fmt;

use crate::sync::Mutex;

/// A closure that was refused. It was not run, and [`into_inner`](Self::into_inner) returns it.
///
/// The wrapper is `Sync` even if the closure is only `Send`, because a shared reference gives no
/// access to the closure.
pub struct Refused<F> {
    /// The closure. The lock is never taken; it only makes the wrapper `Sync`.
    closure: Mutex<F>,
    refuser: Refuser,
}

/// The part of the crate that has refused a closure. Determines the text of the error.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Refuser {
    /// The pool and its queue.
    Pool,
    /// A group with a capacity of its own.
    Group,
    /// A scope with a capacity of its own.
    Scope,
    /// A keyed executor with its own bounds.
    Keyed,
    /// A driver of futures.
    #[cfg_attr(not(feature = "driver"), allow(dead_code, reason = "for the feature `driver`"))]
    Driver,
    /// A caller of remote methods.
    #[cfg_attr(not(feature = "grpc"), allow(dead_code, reason = "for the feature `grpc`"))]
    Caller,
}

/// The reason of a refusal, without the closure.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Refusal {
    /// There is no room, and the caller does not wait.
    Full,
    /// There was no room in time.
    Timeout,
    /// The pool is closed.
    ShutDown,
}

impl<F> Refused<F> {
    pub(crate) fn new(refuser: Refuser, closure: F) -> Self {
        Self { closure: Mutex::new(closure), refuser }
    }

    /// Returns the closure.
    #[must_use]
    pub fn into_inner(self) -> F {
        self.closure.into_inner()
    }

    /// Returns the message of an error for this reason.
    fn message(&self, refusal: Refusal) -> &'static str {
        match (refusal, self.refuser) {
            (Refusal::Full, Refuser::Pool) => "the queue is full",
            (Refusal::Full, Refuser::Group) => "the group is full",
            (Refusal::Full, Refuser::Scope) => "the scope is full",
            (Refusal::Full, Refuser::Keyed) => "the executor or the key is full",
            (Refusal::Full, Refuser::Driver) => "too many futures are in flight",
            (Refusal::Full, Refuser::Caller) => "too many calls are in flight",
            (Refusal::Timeout, Refuser::Pool) => "the queue was full until the timeout",
            (Refusal::Timeout, Refuser::Group) => "the group was full until the timeout",
            (Refusal::Timeout, Refuser::Scope) => "the scope was full until the timeout",
            (Refusal::Timeout, Refuser::Keyed) => "the executor or the key was full until the timeout",
            (Refusal::Timeout, Refuser::Driver) => "too many futures were in flight until the timeout",
            (Refusal::Timeout, Refuser::Caller) => "too many calls were in flight until the timeout",
            (Refusal::ShutDown, Refuser::Group) => "the group is cancelled, or its pool is shut down",
            (Refusal::ShutDown, Refuser::Scope) => "the scope is cancelled, or its pool is shut down",
            (Refusal::ShutDown, _) => "the pool is shut down",
        }
    }
}

impl<F> fmt::Debug for Refused<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Refused(..)")
    }
}

/// The error of a plain submission, such as `execute`: the pool is shut down.
///
/// # Examples
///
/// ```
/// let pool = workcrew::WorkerPool::builder().workers(1).build()?;
/// pool.shutdown();
/// let error = pool.execute(|| println!("too late")).unwrap_err();
/// assert_eq!(error.to_string(), "the pool is shut down");
/// let closure = error.into_inner();
/// closure(); // can still be called
/// # Ok::<(), workcrew::BuildError>(())
/// ```
pub struct SubmitError<F>(Refused<F>);

/// The error of a submission that does not wait, such as `try_execute`.
///
/// # Examples
///
/// ```
/// use workcrew::{TrySubmitError, WorkerPool};
///
/// let pool = WorkerPool::builder().workers(1).build()?;
/// match pool.try_execute(|| println!("if there is room")) {
///     Ok(()) => {}
///     Err(TrySubmitError::Full(task)) => task.into_inner()(), // run it here
///     Err(TrySubmitError::ShutDown(_)) => println!("too late"),
/// }
/// # Ok::<(), workcrew::BuildError>(())
/// ```
pub enum TrySubmitError<F> {
    /// There is no room: the queue, the group, the scope or the key is full, or too many futures
    /// are in flight.
    Full(Refused<F>),
    /// The pool is shut down, or the group or the scope is cancelled.
    ShutDown(Refused<F>),
}

/// The error of a submission that waits for a limited time, such as `try_execute_for`.
pub enum SubmitTimeoutError<F> {
    /// There was no room in time: the queue was full, or too many futures were in flight.
    Timeout(Refused<F>),
    /// The pool is shut down.
    ShutDown(Refused<F>),
}

impl<F> SubmitError<F> {
    pub(crate) fn new(refuser: Refuser, closure: F) -> Self {
        Self(Refused::new(refuser, closure))
    }

    /// Returns the conversion of a refusal by this part of the crate.
    pub(crate) fn by(refuser: Refuser) -> impl FnOnce((Refusal, F)) -> Self {
        move |(_, closure)| Self::new(refuser, closure)
    }

    /// Returns the refused closure.
    #[must_use]
    pub fn into_inner(self) -> F {
        self.0.into_inner()
    }

    /// Returns `true` if the pool is shut down, so that a retry is useless. This is the only reason
    /// today, so the result is always `true`.
    #[must_use]
    pub fn is_shut_down(&self) -> bool {
        true
    }
}

impl<F> TrySubmitError<F> {
    /// Returns the conversion of a refusal by this part of the crate.
    pub(crate) fn by(refuser: Refuser) -> impl FnOnce((Refusal, F)) -> Self {
        move |(refusal, closure)| match refusal {
            Refusal::ShutDown => Self::ShutDown(Refused::new(refuser, closure)),
            Refusal::Full | Refusal::Timeout => Self::Full(Refused::new(refuser, closure)),
        }
    }

    /// Returns the refused closure.
    #[must_use]
    pub fn into_inner(self) -> F {
        match self {
            Self::Full(refused) | Self::ShutDown(refused) => refused.into_inner(),
        }
    }

    /// Returns `true` if there was no room.
    #[must_use]
    pub fn is_full(&self) -> bool {
        matches!(self, Self::Full(_))
    }

    /// Returns `true` if the pool is shut down or the group is cancelled, so that a retry is
    /// useless.
    #[must_use]
    pub fn is_shut_down(&self) -> bool {
        matches!(self, Self::ShutDown(_))
    }
}

impl<F> SubmitTimeoutError<F> {
    /// Returns the conversion of a refusal by this part of the crate.
    pub(crate) fn by(refuser: Refuser) -> impl FnOnce((Refusal, F)) -> Self {
        move |(refusal, closure)| match refusal {
            Refusal::ShutDown => Self::ShutDown(Refused::new(refuser, closure)),
            Refusal::Full | Refusal::Timeout => Self::Timeout(Refused::new(refuser, closure)),
        }
    }

    /// Returns the refused closure.
    #[must_use]
    pub fn into_inner(self) -> F {
        match self {
            Self::Timeout(refused) | Self::ShutDown(refused) => refused.into_inner(),
        }
    }

    /// Returns `true` if there was no room in time.
    #[must_use]
    pub fn is_timeout(&self) -> bool {
        matches!(self, Self::Timeout(_))
    }

    /// Returns `true` if the pool is shut down, so that a retry is useless.
    #[must_use]
    pub fn is_shut_down(&self) -> bool {
        matches!(self, Self::ShutDown(_))
    }
}

impl<F> fmt::Debug for SubmitError<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SubmitError(ShutDown)")
    }
}

impl<F> fmt::Debug for TrySubmitError<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.is_full() { "Full(..)" } else { "ShutDown(..)" })
    }
}

impl<F> fmt::Debug for SubmitTimeoutError<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.is_timeout() { "Timeout(..)" } else { "ShutDown(..)" })
    }
}

impl<F> fmt::Display for SubmitError<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0.message(Refusal::ShutDown))
    }
}

impl<F> fmt::Display for TrySubmitError<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Full(refused) => refused.message(Refusal::Full),
            Self::ShutDown(refused) => refused.message(Refusal::ShutDown),
        })
    }
}

impl<F> fmt::Display for SubmitTimeoutError<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Timeout(refused) => refused.message(Refusal::Timeout),
            Self::ShutDown(refused) => refused.message(Refusal::ShutDown),
        })
    }
}

impl<F> Error for SubmitError<F> {}
impl<F> Error for TrySubmitError<F> {}
impl<F> Error for SubmitTimeoutError<F> {}

//! Errors of submitting a task. Each returns the refused closure.

use std::error::Error;
use std::fmt;

use crate::sync::Mutex;

/// A closure that was refused. It was not run, and [`into_inner`](Self::into_inner) returns it.
///
/// The wrapper is `Sync` even if the closure is only `Send`, because a shared reference gives no
/// access to the closure.
pub struct Refused<F>(
    /// The closure. The lock is never taken; it only makes the wrapper `Sync`.
    Mutex<F>,
);

impl<F> Refused<F> {
    pub(crate) fn new(closure: F) -> Self {
        Self(Mutex::new(closure))
    }

    /// Returns the closure.
    #[must_use]
    pub fn into_inner(self) -> F {
        self.0.into_inner()
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
/// assert!(error.is_shut_down());
/// let closure = error.into_inner();
/// closure(); // still whole
/// # Ok::<(), workcrew::BuildError>(())
/// ```
pub struct SubmitError<F>(Refused<F>);

/// The error of a submission that does not wait, such as `try_execute`.
pub enum TrySubmitError<F> {
    /// The queue or the group has no room.
    Full(Refused<F>),
    /// The pool is shut down, or the group cancelled.
    ShutDown(Refused<F>),
}

/// The error of a submission that waits for a limited time, such as `try_execute_for`.
pub enum SubmitTimeoutError<F> {
    /// There was no room in time.
    Timeout(Refused<F>),
    /// The pool is shut down.
    ShutDown(Refused<F>),
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

impl<F> SubmitError<F> {
    pub(crate) fn new(closure: F) -> Self {
        Self(Refused::new(closure))
    }

    /// Returns the refused closure.
    #[must_use]
    pub fn into_inner(self) -> F {
        self.0.into_inner()
    }
}

impl<F> TrySubmitError<F> {
    pub(crate) fn new(refusal: Refusal, closure: F) -> Self {
        match refusal {
            Refusal::ShutDown => Self::ShutDown(Refused::new(closure)),
            Refusal::Full | Refusal::Timeout => Self::Full(Refused::new(closure)),
        }
    }

    /// Returns the refused closure.
    #[must_use]
    pub fn into_inner(self) -> F {
        match self {
            Self::Full(closure) | Self::ShutDown(closure) => closure.into_inner(),
        }
    }
}

impl<F> SubmitTimeoutError<F> {
    pub(crate) fn new(refusal: Refusal, closure: F) -> Self {
        match refusal {
            Refusal::ShutDown => Self::ShutDown(Refused::new(closure)),
            Refusal::Full | Refusal::Timeout => Self::Timeout(Refused::new(closure)),
        }
    }

    /// Returns the refused closure.
    #[must_use]
    pub fn into_inner(self) -> F {
        match self {
            Self::Timeout(closure) | Self::ShutDown(closure) => closure.into_inner(),
        }
    }
}

/// Implements the methods and traits that the three errors share. `$full`, `$timeout` and
/// `$shut_down` are the conditions, `$closed` is the message of a closed pool.
macro_rules! impl_submit_error {
    ($name:ident, $self:ident, full: $full:expr, timeout: $timeout:expr, shut_down: $shut_down:expr, $closed:literal) => {
        impl<F> $name<F> {
            /// Returns whether there was no room. Only [`TrySubmitError::Full`] returns `true`.
            #[must_use]
            pub fn is_full(&$self) -> bool {
                $full
            }

            /// Returns whether there was no room in time. Only [`SubmitTimeoutError::Timeout`]
            /// returns `true`.
            #[must_use]
            pub fn is_timeout(&$self) -> bool {
                $timeout
            }

            /// Returns whether the pool is shut down or the group cancelled, so that a retry is
            /// useless.
            #[must_use]
            pub fn is_shut_down(&$self) -> bool {
                $shut_down
            }

            fn message(&$self) -> &'static str {
                if $self.is_full() {
                    "there is no room"
                } else if $self.is_timeout() {
                    "there was no room in time"
                } else {
                    $closed
                }
            }
        }

        impl<F> fmt::Debug for $name<F> {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{}({})", stringify!($name), self.message())
            }
        }

        impl<F> fmt::Display for $name<F> {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(self.message())
            }
        }

        impl<F> Error for $name<F> {}
    };
}

impl_submit_error!(SubmitError, self, full: false, timeout: false, shut_down: true, "the pool is shut down");
impl_submit_error!(TrySubmitError, self, full: matches!(self, Self::Full(_)), timeout: false,
    shut_down: matches!(self, Self::ShutDown(_)), "the pool is shut down, or the group cancelled");
impl_submit_error!(SubmitTimeoutError, self, full: false, timeout: matches!(self, Self::Timeout(_)),
    shut_down: matches!(self, Self::ShutDown(_)), "the pool is shut down");

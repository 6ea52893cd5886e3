//! Errors of submitting: each gives the refused closure back.

use std::error::Error;
use std::fmt;

use crate::sync::Mutex;

/// A closure that was refused: not run, not dropped, to be taken back with [`into_inner`](Self::into_inner).
///
/// The wrapper makes an error `Sync` whose closure is only `Send`: through a shared reference there is no way to the
/// closure.
pub struct Refused<F>(
    /// The closure; the lock is never taken, it only makes the wrapper `Sync`.
    Mutex<F>,
);

impl<F> Refused<F> {
    pub(crate) fn new(closure: F) -> Self {
        Self(Mutex::new(closure))
    }

    /// The closure itself.
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

/// Why a plain form refused a task: the pool is shut down.
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

/// Why a `try_` form refused a task.
pub enum TrySubmitError<F> {
    /// The queue, or the group, has no room now.
    Full(Refused<F>),
    /// The pool is shut down, or the group cancelled.
    ShutDown(Refused<F>),
}

/// Why a `_timeout` form refused a task.
pub enum SubmitTimeoutError<F> {
    /// There was no room in time.
    Timeout(Refused<F>),
    /// The pool is shut down.
    ShutDown(Refused<F>),
}

/// Why a submission was refused, apart from what was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Refusal {
    /// No room, and the caller does not wait.
    Full,
    /// No room in time.
    Timeout,
    /// The pool accepts nothing any more.
    ShutDown,
}

impl<F> SubmitError<F> {
    pub(crate) fn new(closure: F) -> Self {
        Self(Refused::new(closure))
    }

    /// The refused closure.
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

    /// The refused closure.
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

    /// The refused closure.
    #[must_use]
    pub fn into_inner(self) -> F {
        match self {
            Self::Timeout(closure) | Self::ShutDown(closure) => closure.into_inner(),
        }
    }
}

/// The questions, the words and the traits that the three errors share; `$full`, `$timeout` and `$shut_down` are what
/// each of them can be,
/// `$closed` what it says when nothing is accepted any more.
macro_rules! refusal_face {
    ($name:ident, $self:ident, full: $full:expr, timeout: $timeout:expr, shut_down: $shut_down:expr, $closed:literal) => {
        impl<F> $name<F> {
            /// Whether there was no room at that moment; true of [`TrySubmitError::Full`] alone.
            #[must_use]
            pub fn is_full(&$self) -> bool {
                $full
            }

            /// Whether there was no room in time; true of [`SubmitTimeoutError::Timeout`] alone.
            #[must_use]
            pub fn is_timeout(&$self) -> bool {
                $timeout
            }

            /// Whether nothing is accepted any more, so that trying again is useless.
            #[must_use]
            pub fn is_shut_down(&$self) -> bool {
                $shut_down
            }

            fn words(&$self) -> &'static str {
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
                write!(f, "{}({})", stringify!($name), self.words())
            }
        }

        impl<F> fmt::Display for $name<F> {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(self.words())
            }
        }

        impl<F> Error for $name<F> {}
    };
}

refusal_face!(SubmitError, self, full: false, timeout: false, shut_down: true, "the pool is shut down");
refusal_face!(TrySubmitError, self, full: matches!(self, Self::Full(_)), timeout: false,
    shut_down: matches!(self, Self::ShutDown(_)), "the pool is shut down, or the group cancelled");
refusal_face!(SubmitTimeoutError, self, full: false, timeout: matches!(self, Self::Timeout(_)),
    shut_down: matches!(self, Self::ShutDown(_)), "the pool is shut down");

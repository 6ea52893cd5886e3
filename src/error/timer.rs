//! The error of setting a timer.

use std::error::Error;
use std::fmt;
use std::io;

use super::submit::{Refused, Refuser};

/// The error of setting a timer or of spawning a delayed or retried task. It contains the refused
/// closure.
///
/// # Examples
///
/// ```
/// use std::time::Duration;
///
/// let pool = workcrew::WorkerPool::builder().workers(1).build()?;
/// pool.shutdown();
/// let error = pool.execute_after(Duration::from_secs(1), || println!("too late")).unwrap_err();
/// assert!(error.is_shut_down());
/// let closure = error.into_inner();
/// closure(); // can still be called
/// # Ok::<(), workcrew::BuildError>(())
/// ```
pub struct TimerError<F> {
    cause: Cause,
    closure: Refused<F>,
}

/// The cause of the error.
#[derive(Debug)]
enum Cause {
    /// The limit of pending timers is reached.
    Full,
    /// The pool is shut down.
    ShutDown,
    /// The period, or the delay between two runs, is zero.
    ZeroPeriod,
    /// The operating system refused to start the timer thread.
    NoThread(io::Error),
}

impl<F> TimerError<F> {
    pub(crate) fn full(closure: F) -> Self {
        Self { cause: Cause::Full, closure: Refused::new(Refuser::Pool, closure) }
    }

    pub(crate) fn shut_down(closure: F) -> Self {
        Self { cause: Cause::ShutDown, closure: Refused::new(Refuser::Pool, closure) }
    }

    pub(crate) fn zero_period(closure: F) -> Self {
        Self { cause: Cause::ZeroPeriod, closure: Refused::new(Refuser::Pool, closure) }
    }

    pub(crate) fn no_thread(source: io::Error, closure: F) -> Self {
        Self { cause: Cause::NoThread(source), closure: Refused::new(Refuser::Pool, closure) }
    }

    /// Returns the refused closure.
    #[must_use]
    pub fn into_inner(self) -> F {
        self.closure.into_inner()
    }

    /// Returns `true` if the limit of pending timers was reached.
    #[must_use]
    pub fn is_full(&self) -> bool {
        matches!(self.cause, Cause::Full)
    }

    /// Returns `true` if the pool is shut down, so that a retry is useless.
    #[must_use]
    pub fn is_shut_down(&self) -> bool {
        matches!(self.cause, Cause::ShutDown)
    }

    /// Returns `true` if the period, or the delay between two runs, was zero.
    #[must_use]
    pub fn is_zero_period(&self) -> bool {
        matches!(self.cause, Cause::ZeroPeriod)
    }
}

impl<F> fmt::Debug for TimerError<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "TimerError({:?})", self.cause)
    }
}

impl<F> fmt::Display for TimerError<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match &self.cause {
            Cause::Full => "too many timers are pending",
            Cause::ShutDown => "the pool is shut down",
            Cause::ZeroPeriod => "the period of a timer is zero",
            Cause::NoThread(_) => "the timer thread could not be started",
        })
    }
}

impl<F> Error for TimerError<F> {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        match &self.cause {
            Cause::NoThread(source) => Some(source),
            _ => None,
        }
    }
}

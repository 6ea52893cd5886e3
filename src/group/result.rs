//! The types that tasks of a group may return.

use std::convert::Infallible;

/// The types that tasks of a [`TaskGroup`](crate::TaskGroup) or a [`Scope`](crate::Scope) may
/// return: `()` and `Result`.
///
/// The trait is sealed, because a group must recognize a failure. A task that has a value and
/// cannot fail returns `Ok::<_, Infallible>(value)`.
#[diagnostic::on_unimplemented(
    message = "a task of a group or a scope returns `()` or a `Result`, not `{Self}`",
    note = "in a group, return `Ok::<_, std::convert::Infallible>(value)` from a task that cannot fail",
    note = "in a scope, `spawn_value` adds a task with a value and returns its handle",
    note = "an async closure returns a future, which a pool does not run: write a plain closure",
    note = "for a closure that only panics, write its type: `|| -> () {{ panic!() }}`"
)]
pub trait TaskResult: Sealed + Send + 'static {
    /// The value of a task that succeeded.
    type Value: Send + 'static;
    /// The error of a task that failed.
    type Error: Send + 'static;

    #[doc(hidden)]
    fn is_failure(&self) -> bool;

    #[doc(hidden)]
    fn into_result(self) -> Result<Self::Value, Self::Error>;
}

/// Prevents implementations of [`TaskResult`] outside of this crate.
pub trait Sealed {}

impl Sealed for () {}

impl TaskResult for () {
    type Value = ();
    type Error = Infallible;

    fn is_failure(&self) -> bool {
        false
    }

    fn into_result(self) -> Result<(), Infallible> {
        Ok(())
    }
}

impl<T, E> Sealed for Result<T, E> {}

impl<T: Send + 'static, E: Send + 'static> TaskResult for Result<T, E> {
    type Value = T;
    type Error = E;

    fn is_failure(&self) -> bool {
        self.is_err()
    }

    fn into_result(self) -> Self {
        self
    }
}

/// The result of the function of [`try_map`](crate::WorkerPool::try_map): `Result<T, E>`. The trait
/// is sealed.
#[diagnostic::on_unimplemented(
    message = "the function of `try_map` returns a `Result`, not `{Self}`",
    note = "for a function that returns plain values, use `map`",
    note = "an async closure returns a future, which a pool does not run: write a plain closure"
)]
pub trait MayFail<T, E>: Sealed {
    #[doc(hidden)]
    fn into_result(self) -> Result<T, E>;
}

impl<T, E> MayFail<T, E> for Result<T, E> {
    fn into_result(self) -> Self {
        self
    }
}

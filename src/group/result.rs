//! The types that tasks of a group may return.

use std::convert::Infallible;

/// The types that tasks of a [`TaskGroup`](crate::TaskGroup) may return: `()` and `Result`.
///
/// The trait is sealed, because a group must recognize a failure. A task that has a value and
/// cannot fail returns `Ok::<_, Infallible>(value)`.
#[diagnostic::on_unimplemented(
    message = "a task of a group returns `()` or a `Result`, not `{Self}`",
    note = "from a task with a value that cannot fail, return `Ok::<_, std::convert::Infallible>(value)`",
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

/// The types that tasks of a [`Scope`](crate::Scope) may return: `()` and `Result<(), E>`, with an
/// `E` that borrows nothing.
///
/// The trait is sealed. A task with a value is added by
/// [`spawn_value`](crate::Scope::spawn_value), and its handle returns the value.
#[diagnostic::on_unimplemented(
    message = "a task of a scope returns `()` or `Result<(), E>`, not `{Self}`",
    note = "for a task with a value, use `spawn_value`, whose handle returns the value, or `map`",
    note = "an async closure returns a future, which a pool does not run: write a plain closure",
    note = "for a closure that only panics, write its type: `|| -> () {{ panic!() }}`"
)]
pub trait ScopeResult: TaskResult<Value = ()> {
    #[doc(hidden)]
    fn success() -> Self;
}

impl ScopeResult for () {
    fn success() -> Self {}
}

impl<E: Send + 'static> ScopeResult for Result<(), E> {
    fn success() -> Self {
        Ok(())
    }
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

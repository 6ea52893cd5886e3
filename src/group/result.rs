//! What the closures of a group may return.

use std::convert::Infallible;

/// What tasks of a [`TaskGroup`](crate::TaskGroup) or a [`Scope`](crate::Scope) return: `()`, or a `Result`.
///
/// It is sealed: nothing else can be returned, because a group must know a failure when it sees one. A task that cannot
/// fail and has a value returns `Ok::<_, Infallible>(value)`.
#[diagnostic::on_unimplemented(
    message = "a task of a group or a scope returns `()` or a `Result`, not `{Self}`",
    note = "in a group, return `Ok::<_, std::convert::Infallible>(value)` from a task that cannot fail",
    note = "in a scope, a value goes through what the task borrows: `|| *slot = value`",
    note = "for a closure that only panics, write its type: `|| -> () {{ panic!() }}`"
)]
pub trait TaskResult: Sealed + Send + 'static {
    /// What a task that succeeded has for the group's owner.
    type Value: Send + 'static;
    /// What a task that failed has for the group's owner.
    type Error: Send + 'static;

    #[doc(hidden)]
    fn is_failure(&self) -> bool;

    #[doc(hidden)]
    fn into_result(self) -> Result<Self::Value, Self::Error>;
}

/// Keeps [`TaskResult`] to this crate.
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

//! The results of handlers.

use std::error::Error;
use std::time::Instant;

use crate::cancel::token::{CancelGuard, CancellationToken};
use crate::pool::inner::PoolInner;
use crate::retry::{Attempt, RetryPolicy};

/// An error of any type, as the errors of handlers are kept. It can be downcast.
pub type BoxError = Box<dyn Error + Send + Sync>;

/// The result of an event's handler: `()`, or `Result<(), E>` if `E` converts into [`BoxError`].
///
/// Every error type does, and so do `String`, `&str` and `anyhow::Error`.
///
/// This trait is sealed: the bus must be able to tell a failure from a success, so a handler can
/// return no other type.
#[diagnostic::on_unimplemented(
    message = "the handler of an event returns `()` or `Result<(), E>`, not `{Self}`",
    note = "for a handler that only panics, write its type: `|event: &Event| -> () {{ panic!() }}`"
)]
pub trait HandlerResult: Sealed {
    #[doc(hidden)]
    fn into_result(self) -> Result<(), BoxError>;
}

/// Seals [`HandlerResult`].
pub trait Sealed {}

impl Sealed for () {}

impl HandlerResult for () {
    fn into_result(self) -> Result<(), BoxError> {
        Ok(())
    }
}

impl<E> Sealed for Result<(), E> {}

impl<E: Into<BoxError>> HandlerResult for Result<(), E> {
    fn into_result(self) -> Result<(), BoxError> {
        self.map_err(Into::into)
    }
}

/// A handler of events of type `E`.
pub(super) type Handler<E> = dyn Fn(&E, &Call<'_>) -> Result<(), BoxError> + Send + Sync;

/// What a handler may ask about the call.
pub(super) struct Call<'a> {
    /// How many attempts were made before.
    pub(super) made: u32,
    /// The retry policy; `None` for a single attempt.
    pub(super) policy: Option<&'a RetryPolicy<BoxError>>,
    /// The time of publishing, if the retry policy has a timeout.
    pub(super) published_at: Option<Instant>,
    pub(super) pool: &'a PoolInner,
}

impl Call<'_> {
    /// Returns the attempt, and the guard of its token, which the caller drops after the call.
    pub(super) fn attempt(&self) -> (Attempt, CancelGuard) {
        let token = CancellationToken::new();
        let guard = self.pool.executor.cancel_with_pool(&token);
        let (number, now) = (self.made.saturating_add(1), self.pool.timers.clock().now());
        let attempt = match self.policy {
            Some(policy) => {
                let deadline = self.published_at.and_then(|begun| policy.deadline(begun));
                Attempt::new(number, policy, deadline, &token, now)
            }
            None => Attempt::new(number, &once(), None, &token, now),
        };
        (attempt, guard)
    }
}

/// Returns the policy of a subscription without one: a single attempt.
pub(super) fn once() -> RetryPolicy<BoxError> {
    RetryPolicy::exponential().max_attempts(1)
}

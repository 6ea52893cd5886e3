//! The results of handlers.

use std::error::Error;

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
pub(super) type Handler<E> = dyn Fn(&E) -> Result<(), BoxError> + Send + Sync;

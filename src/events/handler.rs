//! What handlers return, and what becomes of it.

use std::error::Error;

/// An error of any type, as handlers' errors are kept. It can be downcast.
pub type BoxError = Box<dyn Error + Send + Sync>;

/// What the handler of an event returns: `()`, or `Result<(), E>` with an `E` that fits into a [`BoxError`], as every
/// error does, and `String`, `&str` and `anyhow::Error` as well.
///
/// It is sealed: nothing else can be returned, because the bus must know a failure when it sees one.
#[diagnostic::on_unimplemented(
    message = "the handler of an event returns `()` or `Result<(), E>`, not `{Self}`",
    note = "for a handler that only panics, write its type: `|event: &Event| -> () {{ panic!() }}`"
)]
pub trait HandlerResult: Sealed {
    #[doc(hidden)]
    fn into_result(self) -> Result<(), BoxError>;
}

/// Keeps [`HandlerResult`] to this crate.
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

/// A handler of any type.
pub(super) type Handler<E> = dyn Fn(&E) -> Result<(), BoxError> + Send + Sync;

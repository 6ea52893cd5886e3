//! Handlers of batches, and their results.

use std::error::Error;
use std::fmt;

use super::handler::BoxError;
use crate::sync::Arc;

/// A handler of batches of events of type `E`.
pub(super) type BatchHandler<E> = dyn Fn(&[&E]) -> BatchResults + Send + Sync;

/// The results of the events of one batch.
#[derive(Debug)]
#[non_exhaustive]
pub enum BatchResults {
    /// All events have the same result.
    All(Result<(), BoxError>),
    /// The result of each event.
    Each(Vec<Result<(), BoxError>>),
}

/// The result of a handler of batches.
///
/// - `()`: all events of the batch are handled.
/// - `Result<(), E>`: all events of the batch are handled, or all have failed with that error,
///   which they get as a [`BatchError`].
/// - `Vec<Result<(), E>>`: the result of each event, in the order of the batch. If their number is
///   not that of the events, all events have failed.
///
/// `E` converts into [`BoxError`](crate::events::BoxError), as for
/// [`HandlerResult`](crate::events::HandlerResult). This trait is sealed.
#[diagnostic::on_unimplemented(
    message = "the handler of a batch returns `()`, `Result<(), E>` or `Vec<Result<(), E>>`, not `{Self}`",
    note = "for a handler that only panics, write its type: `|events: &[&Event]| -> () {{ panic!() }}`"
)]
pub trait BatchResult: Sealed {
    #[doc(hidden)]
    fn into_results(self) -> BatchResults;
}

/// Seals [`BatchResult`].
pub trait Sealed {}

impl Sealed for () {}

impl BatchResult for () {
    fn into_results(self) -> BatchResults {
        BatchResults::All(Ok(()))
    }
}

impl<E> Sealed for Result<(), E> {}

impl<E: Into<BoxError>> BatchResult for Result<(), E> {
    fn into_results(self) -> BatchResults {
        BatchResults::All(self.map_err(Into::into))
    }
}

impl<E> Sealed for Vec<Result<(), E>> {}

impl<E: Into<BoxError>> BatchResult for Vec<Result<(), E>> {
    fn into_results(self) -> BatchResults {
        BatchResults::Each(self.into_iter().map(|result| result.map_err(Into::into)).collect())
    }
}

/// The error of an event whose batch has failed as a whole. The events of the batch share the error
/// of the handler, which is the [source](Error::source).
#[derive(Clone)]
pub struct BatchError {
    error: Arc<BoxError>,
    events: usize,
}

impl BatchError {
    /// Creates the error of a batch of that many events.
    pub(super) fn new(error: BoxError, events: usize) -> Self {
        Self { error: Arc::new(error), events }
    }

    /// Returns the number of events of the batch.
    #[must_use]
    pub fn events(&self) -> usize {
        self.events
    }
}

impl fmt::Display for BatchError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "a batch with {} events has failed: {}", self.events, self.error)
    }
}

impl fmt::Debug for BatchError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("BatchError").field("events", &self.events).field("error", &self.error).finish()
    }
}

impl Error for BatchError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        Some(&**self.error)
    }
}

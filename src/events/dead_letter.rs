//! Events that no handler could handle, and events without a handler.

use std::any::Any;
use std::fmt;
use std::iter;

use super::erased::AnyEvent;
use super::handler::BoxError;
use crate::retry::{AttemptError, RetryError};
use crate::sync::Arc;

/// An event that a subscription could not handle, after the last attempt. Passed to
/// [`EventBusBuilder::on_dead_letter`](crate::events::EventBusBuilder::on_dead_letter).
///
/// It can be kept and cloned: clones share the event.
#[derive(Clone)]
pub struct DeadLetter {
    /// The event.
    pub(super) envelope: Arc<dyn AnyEvent>,
    /// The name of the subscription.
    pub(super) subscription: Arc<str>,
    /// The attempts and their errors.
    pub(super) error: Arc<RetryError<BoxError>>,
}

impl DeadLetter {
    /// Returns the event if it is of type `E`.
    #[must_use]
    pub fn event<E: 'static>(&self) -> Option<&E> {
        self.envelope.event().downcast_ref()
    }

    /// Returns the name of the event's type, for diagnostics.
    #[must_use]
    pub fn event_type(&self) -> &'static str {
        self.envelope.event_type()
    }

    /// Returns the topic that the event was published to, if any.
    #[must_use]
    pub fn topic(&self) -> Option<&str> {
        self.envelope.topic()
    }

    /// Returns the name of the subscription.
    #[must_use]
    pub fn subscription(&self) -> &str {
        &self.subscription
    }

    /// Returns the number of attempts, the reason to give up, and the first and last error.
    #[must_use]
    pub fn error(&self) -> &RetryError<BoxError> {
        &self.error
    }
}

impl fmt::Debug for DeadLetter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DeadLetter")
            .field("event_type", &self.event_type())
            .field("topic", &self.topic())
            .field("subscription", &self.subscription())
            .field("error", &self.error)
            .finish()
    }
}

impl fmt::Display for DeadLetter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} for {}: {}", self.event_type(), self.subscription, self.error)?;
        let AttemptError::Failed(error) = self.error.last() else { return Ok(()) };
        iter::successors(error.source(), |cause| cause.source()).try_for_each(|cause| write!(f, ": {cause}"))
    }
}

/// An event without a subscription. Passed to
/// [`EventBusBuilder::on_unhandled`](crate::events::EventBusBuilder::on_unhandled).
pub struct UnhandledEvent<'a> {
    /// The event.
    pub(super) event: &'a (dyn Any + Send + Sync),
    /// The name of its type.
    pub(super) event_type: &'static str,
    /// The topic it was published to.
    pub(super) topic: Option<&'a str>,
}

impl UnhandledEvent<'_> {
    /// Returns the event if it is of type `E`.
    #[must_use]
    pub fn event<E: 'static>(&self) -> Option<&E> {
        self.event.downcast_ref()
    }

    /// Returns the name of the event's type, for diagnostics.
    #[must_use]
    pub fn event_type(&self) -> &'static str {
        self.event_type
    }

    /// Returns the topic that the event was published to, if any.
    #[must_use]
    pub fn topic(&self) -> Option<&str> {
        self.topic
    }
}

impl fmt::Debug for UnhandledEvent<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("UnhandledEvent").field("event_type", &self.event_type).field("topic", &self.topic).finish()
    }
}

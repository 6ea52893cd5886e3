//! One event for one subscription.

use std::panic::Location;
use std::time::Instant;

use super::envelope::Envelope;
use super::handler::BoxError;
use super::key::EventKeyName;
use crate::observe::task_info::TaskId;
use crate::retry::{AttemptErrors, GiveUpReason, RetryError, RetryPolicy, RetryState};
use crate::sync::Arc;
use crate::time::clock::Timestamp;

/// A delivery that has not ended.
pub(super) struct PendingDelivery<E> {
    /// The event.
    pub(super) envelope: Arc<Envelope<E>>,
    /// The position of this subscription among the recipients.
    pub(super) index: usize,
    /// The id of the task.
    pub(super) id: TaskId,
    /// Where the event was published.
    pub(super) location: &'static Location<'static>,
    /// The time of publishing, if durations are recorded.
    pub(super) queued_at: Option<Timestamp>,
    /// The time of publishing, if the retry policy has a timeout.
    pub(super) published_at: Option<Instant>,
    /// The key of the event, in a mailbox whose events have keys.
    pub(super) key: Option<EventKeyName>,
    /// The attempts and their errors; set with the first failure.
    pub(super) retry: Option<Box<RetryProgress<E>>>,
}

/// The attempts of a delivery that has failed.
pub(super) struct RetryProgress<E> {
    /// The attempts so far.
    pub(super) attempts: RetryState<BoxError>,
    /// The first and the last error.
    pub(super) errors: AttemptErrors<BoxError>,
    /// The other deliveries of a batch that waits for its next attempt or has waited for it. Only
    /// in the first.
    pub(super) rest: Vec<PendingDelivery<E>>,
}

impl<E> RetryProgress<E> {
    pub(super) fn new(policy: RetryPolicy<BoxError>, begun: Instant) -> Self {
        Self { attempts: RetryState::new(policy, begun), errors: AttemptErrors::new(), rest: Vec::new() }
    }

    /// Returns the error for a delivery that is given up; `None` if no attempt was made.
    pub(super) fn give_up(self, reason: GiveUpReason) -> Option<RetryError<BoxError>> {
        self.errors.give_up(reason, self.attempts.made())
    }
}

impl<E> PendingDelivery<E> {
    /// Returns the item that stands for the event.
    pub(super) fn item(&self) -> usize {
        self.envelope.item()
    }

    /// Returns `true` if this is the delivery of the event that `item` stands for, or carries it.
    pub(super) fn holds(&self, item: usize) -> bool {
        let rest = self.retry.iter().flat_map(|retry| &retry.rest);
        self.item() == item || rest.into_iter().any(|other| other.item() == item)
    }

    /// Returns `true` if the key of the event is unknown, because user code panicked.
    pub(super) fn has_key_panicked(&self) -> bool {
        self.key.as_ref().is_some_and(|name| name.key.has_panicked())
    }

    /// Panics if the key of the event is unknown because user code panicked.
    pub(super) fn resume_key_panic(&self) {
        if let Some(name) = &self.key {
            name.key.resume_panic();
        }
    }
}

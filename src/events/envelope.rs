//! An event with its recipients and the outcomes of its deliveries.
//!
//! An event takes one allocation, which its deliveries and its receipt share. Until all deliveries
//! have ended, the envelope keeps its recipients alive, and with them the deliveries in their
//! mailboxes, even if the bus is dropped. After that, a receipt or a dead letter keeps the event
//! alive and nothing of the bus.

use std::any::{Any, type_name};
use std::ptr;

use super::erased::AnyEvent;
use super::inner::BusInner;
use super::progress::{DeliveryOutcome, Progress};
use crate::cancel::token::CancellationToken;
use crate::nesting;
use crate::sync::{Arc, Mutex};
use crate::task::context::AwaitedId;
use crate::task::waits::Needs;
use crate::time::deadline::Deadline;

/// An event that is being delivered, or was delivered and is still referred to.
pub(super) struct Envelope<E> {
    /// The event; taken when the envelope is dropped.
    event: Option<E>,
    /// Drops the event. Set where its type is known to hold no borrows.
    discard: fn(E),
    /// The topic that the event was published to.
    topic: Option<Arc<str>>,
    /// How many hooks of a bus led to this event, each called for the event before; see `nesting`.
    generation: usize,
    /// The recipients; `None` once all deliveries have ended.
    recipients: Mutex<Option<Arc<dyn AnyRecipients>>>,
    /// The outcomes of the deliveries.
    progress: Progress,
}

/// The names of the recipients, for receipts, which outlive them.
pub(super) type Names = Arc<[Arc<str>]>;

/// The recipients of an event of any type.
pub(super) trait AnyRecipients: Send + Sync {
    /// Returns the number of recipients.
    fn len(&self) -> usize;

    /// Returns the bus.
    fn inner(&self) -> &BusInner;

    /// Returns the ids of what may have to end before a delivery of a recipient.
    fn related_ids(&self, index: usize) -> Vec<AwaitedId>;

    /// Returns `true` if a recipient handles the event that `item` stands for on this stack.
    fn is_handling(&self, index: usize, item: usize) -> bool;

    /// Returns the token that is cancelled when a report has left something behind.
    fn left_behind(&self) -> &CancellationToken {
        &self.inner().pool.left_behind
    }

    /// Makes deliveries of a recipient, if there are any that one more runner can make. For a wait
    /// for the event that `item` stands for.
    fn help(&self, index: usize, item: usize) -> Help;

    /// Reports what the delivery of an event to a recipient may need. Called under locks.
    fn report_needs(&self, index: usize, item: usize, needs: &mut Needs);

    /// Makes deliveries of a recipient, if there are any that one more runner can make.
    fn advance(&self, index: usize, item: usize);
}

/// The result of an attempt to help.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub(super) enum Help {
    /// At least one delivery was made or requeued.
    Helped,
    /// There is nothing to do before that moment, or before other threads make progress.
    Later(Deadline),
    /// The delivery needs a task that is below on this stack.
    Deadlock,
}

/// The envelope of an event of any type.
pub(super) trait AnyEnvelope: AnyEvent {
    /// Returns the item that stands for the event among the frames of a stack.
    fn item(&self) -> usize;

    /// Returns the recipients; `None` once all deliveries have ended. Drop them without a lock
    /// held.
    fn recipients(&self) -> Option<Arc<dyn AnyRecipients>>;

    /// Returns the outcomes of the deliveries.
    fn progress(&self) -> &Progress;
}

impl<E: Send + Sync + 'static> Envelope<E> {
    pub(super) fn new(event: E, topic: Option<&str>, recipients: Arc<dyn AnyRecipients>) -> Self {
        let (topic, progress) = (topic.map(Arc::from), Progress::new(recipients.len()));
        let generation = nesting::generation();
        Self {
            event: Some(event),
            discard: nesting::discard::<E>,
            topic,
            generation,
            recipients: Mutex::new(Some(recipients)),
            progress,
        }
    }

    pub(super) fn event(&self) -> &E {
        self.event.as_ref().expect("the event is taken only when the envelope is dropped")
    }

    /// Takes the event out of an envelope that no other thread has seen.
    pub(super) fn into_event(mut self) -> E {
        self.event.take().expect("the event is taken only when the envelope is dropped")
    }

    pub(super) fn generation(&self) -> usize {
        self.generation
    }

    /// Completes one delivery. An `outcome` of `None` stands for a delivery that was not needed.
    pub(super) fn complete(&self, inner: &BusInner, index: usize, outcome: Option<DeliveryOutcome>) {
        if self.progress.complete(index, outcome) {
            let recipients = self.recipients.lock().take();
            drop(recipients); // without a lock: the last reference to a mailbox drops its handler
            inner.end_event();
        }
    }
}

impl<E> Envelope<E> {
    /// Returns the item that stands for this event among the frames of a stack: the address of the
    /// envelope, which is unique while it exists.
    pub(super) fn item(&self) -> usize {
        ptr::from_ref(self).addr()
    }
}

impl<E: Send + Sync + 'static> AnyEvent for Envelope<E> {
    fn event(&self) -> &(dyn Any + Send + Sync) {
        Envelope::<E>::event(self)
    }

    fn event_type(&self) -> &'static str {
        type_name::<E>()
    }

    fn topic(&self) -> Option<&str> {
        self.topic.as_deref()
    }
}

impl<E: Send + Sync + 'static> AnyEnvelope for Envelope<E> {
    fn item(&self) -> usize {
        Envelope::<E>::item(self)
    }

    fn recipients(&self) -> Option<Arc<dyn AnyRecipients>> {
        self.recipients.lock().clone()
    }

    fn progress(&self) -> &Progress {
        &self.progress
    }
}

impl<E> Drop for Envelope<E> {
    /// Drops the event and catches the panic of its destructor: any thread may be the last with a
    /// reference, so the panic is not its own. The destructor may publish the next event, and so
    /// on.
    fn drop(&mut self) {
        if let Some(event) = self.event.take() {
            (self.discard)(event);
        }
    }
}

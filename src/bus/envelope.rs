//! An event on its way: the event, whom it is for, what became of it.
//!
//! One allocation for each event, shared by its deliveries and its receipt. It keeps its recipients alive, and with them
//! the deliveries that wait in their mailboxes, whatever becomes of the bus.

use std::any::{Any, type_name};

use super::helping::Recipient;
use super::mailbox::Mailbox;
use super::receipt::{DeliveryOutcome, Progress};
use super::shared::Shared;
use crate::sync::Arc;
use crate::unwind;

/// An event on its way.
pub(super) struct Envelope<E> {
    /// Here until the envelope is dropped, by whoever is the last to hold it; see `drop`.
    event: Option<E>,
    topic: Option<Arc<str>>,
    pub(super) recipients: Recipients<E>,
    progress: Progress,
    shared: Arc<Shared>,
}

/// Whom an event is for, in the order of subscribing.
pub(super) type Recipients<E> = Arc<[Arc<Mailbox<E>>]>;

/// An envelope, whatever the type of its event.
pub(super) trait Enveloped: Send + Sync {
    fn event(&self) -> &(dyn Any + Send + Sync);
    fn event_type(&self) -> &'static str;
    fn topic(&self) -> Option<&str>;
    fn recipients(&self) -> usize;
    fn recipient(&self, index: usize) -> Arc<dyn Recipient>;
    fn progress(&self) -> &Progress;
    fn shared(&self) -> &Shared;
}

impl<E: Send + Sync + 'static> Envelope<E> {
    pub(super) fn new(event: E, topic: Option<&str>, recipients: Recipients<E>, shared: &Arc<Shared>) -> Self {
        let (topic, progress) = (topic.map(Arc::from), Progress::new(recipients.len()));
        Self { event: Some(event), topic, recipients, progress, shared: Arc::clone(shared) }
    }

    pub(super) fn event(&self) -> &E {
        self.event.as_ref().expect("it leaves only with the envelope")
    }

    /// Lets the outcome of one delivery land; `None`, if there was none after all.
    pub(super) fn land(&self, index: usize, outcome: Option<DeliveryOutcome>) {
        if self.progress.land(index, outcome) {
            self.shared.end_event();
        }
    }
}

impl<E: Send + Sync + 'static> Enveloped for Envelope<E> {
    fn event(&self) -> &(dyn Any + Send + Sync) {
        Envelope::<E>::event(self)
    }

    fn event_type(&self) -> &'static str {
        type_name::<E>()
    }

    fn topic(&self) -> Option<&str> {
        self.topic.as_deref()
    }

    fn recipients(&self) -> usize {
        self.recipients.len()
    }

    fn recipient(&self, index: usize) -> Arc<dyn Recipient> {
        Arc::clone(&self.recipients[index]) as _
    }

    fn progress(&self) -> &Progress {
        &self.progress
    }

    fn shared(&self) -> &Shared {
        &self.shared
    }
}

impl<E> Drop for Envelope<E> {
    /// Worker, publisher or the owner of a receipt: who drops the event last is a matter of chance, so a panic of its
    /// destructor concerns none of them.
    fn drop(&mut self) {
        unwind::discard(self.event.take());
    }
}

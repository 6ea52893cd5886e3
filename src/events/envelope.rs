//! An event on its way: the event, whom it is for, what became of it.
//!
//! One allocation for each event, shared by its deliveries and its receipt. Until all deliveries have ended it keeps its
//! recipients alive, and with them the deliveries that wait in their mailboxes, whatever becomes of the bus. What is kept of
//! it after that, by a receipt or a dead letter, keeps the event and nothing of the bus.

use std::any::{Any, type_name};
use std::ptr;

use super::help::AnyRecipients;
use super::inner::BusInner;
use super::mailbox::Mailbox;
use super::receipt::{DeliveryOutcome, Progress};
use crate::nesting;
use crate::sync::{Arc, Mutex};

/// An event on its way.
pub(super) struct Envelope<E> {
    /// Here until the envelope is dropped, by whoever is the last to hold it; see `drop`.
    event: Option<E>,
    /// Drops the event. Only the maker of the envelope knows that its type holds no borrows.
    discard: fn(E),
    topic: Option<Arc<str>>,
    /// How many hooks of a bus led to it, one by the event of another; see `nesting`.
    generation: usize,
    /// `None` once all deliveries have ended.
    recipients: Mutex<Option<Arc<Recipients<E>>>>,
    progress: Progress,
}

/// Whom an event is for, in the order of subscribing.
pub(super) struct Recipients<E> {
    pub(super) mailboxes: Box<[Arc<Mailbox<E>>]>,
    pub(super) names: Names,
}

/// What recipients are called, for receipts that outlast them.
pub(super) type Names = Arc<[Arc<str>]>;

/// An envelope, whatever the type of its event.
pub(super) trait Enveloped: Send + Sync {
    fn event(&self) -> &(dyn Any + Send + Sync);
    fn event_type(&self) -> &'static str;
    fn topic(&self) -> Option<&str>;
    fn subject(&self) -> usize;
    /// `None` once all deliveries have ended. To be dropped under no lock.
    fn recipients(&self) -> Option<Arc<dyn AnyRecipients>>;
    fn progress(&self) -> &Progress;
}

impl<E: Send + Sync + 'static> Envelope<E> {
    pub(super) fn new(event: E, topic: Option<&str>, recipients: Arc<Recipients<E>>) -> Self {
        let (topic, progress) = (topic.map(Arc::from), Progress::new(recipients.mailboxes.len()));
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
        self.event.as_ref().expect("it leaves only with the envelope")
    }

    pub(super) fn generation(&self) -> usize {
        self.generation
    }

    /// Stands for its deliveries among the frames of a stack: the address, which is nobody else's while it is there.
    pub(super) fn subject(&self) -> usize {
        ptr::from_ref(self).addr()
    }

    /// Lets the outcome of one delivery land; `None`, if there was none after all.
    pub(super) fn land(&self, shared: &BusInner, index: usize, outcome: Option<DeliveryOutcome>) {
        if self.progress.land(index, outcome) {
            let recipients = self.recipients.lock().take();
            drop(recipients); // under no lock: it may be the last to know a mailbox, whose handler is foreign
            shared.end_event();
        }
    }
}

impl<E> FromIterator<Arc<Mailbox<E>>> for Recipients<E> {
    fn from_iter<I: IntoIterator<Item = Arc<Mailbox<E>>>>(mailboxes: I) -> Self {
        let mailboxes: Box<[_]> = mailboxes.into_iter().collect();
        let names = mailboxes.iter().map(|mailbox| Arc::clone(&mailbox.settings.name)).collect();
        Self { mailboxes, names }
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

    fn subject(&self) -> usize {
        Envelope::<E>::subject(self)
    }

    fn recipients(&self) -> Option<Arc<dyn AnyRecipients>> {
        self.recipients.lock().as_ref().map(|recipients| Arc::clone(recipients) as _)
    }

    fn progress(&self) -> &Progress {
        &self.progress
    }
}

impl<E> Drop for Envelope<E> {
    /// Worker, publisher or the owner of a receipt: who drops the event last is a matter of chance, so a panic of its
    /// destructor concerns none of them. The destructor may publish the next event, and so on.
    fn drop(&mut self) {
        if let Some(event) = self.event.take() {
            (self.discard)(event);
        }
    }
}

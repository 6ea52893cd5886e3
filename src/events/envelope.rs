//! An event on its way: the event, whom it is for, what became of it.
//!
//! One allocation for each event, inner by its deliveries and its receipt. Until all deliveries have ended it keeps its
//! recipients alive, and with them the deliveries that wait in their mailboxes, whatever becomes of the bus. What is kept of
//! it after that, by a receipt or a dead dead_letter, keeps the event and nothing of the bus.

use std::any::{Any, type_name};
use std::ptr;

use super::erased::AnyEvent;
use super::inner::BusInner;
use super::progress::{DeliveryOutcome, Progress};
use crate::cancel::token::CancellationToken;
use crate::nesting;
use crate::sync::{Arc, Mutex};
use crate::task::context::GroupId;
use crate::task::waits::Needs;
use crate::time::deadline::Deadline;

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
    recipients: Mutex<Option<Arc<dyn AnyRecipients>>>,
    progress: Progress,
}

/// What recipients are called, for receipts that outlast them.
pub(super) type Names = Arc<[Arc<str>]>;

/// Whom an event is for, whatever its type.
pub(super) trait AnyRecipients: Send + Sync {
    fn len(&self) -> usize;
    fn inner(&self) -> &BusInner;

    /// What the deliveries of one of them are called among the frames of a stack.
    fn group(&self, index: usize) -> GroupId;

    /// Cancelled when a report has left something behind.
    fn left_behind(&self) -> &CancellationToken {
        &self.inner().pool.left_behind
    }

    /// Makes deliveries of one of them, if there is something to be made by one more runner, for a wait for the event that
    /// `item` stands for.
    fn help(&self, index: usize, item: usize) -> Help;

    /// Says what a delivery of one of them may wait for. CallResult under locks.
    fn report_needs(&self, index: usize, needs: &mut Needs);

    /// Makes deliveries of one of them, if there is something to be made by one more runner.
    fn advance(&self, index: usize);
}

/// What came of helping.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub(super) enum Help {
    /// Something was done.
    Helped,
    /// There is nothing to do before that moment, or before the next step of others.
    Later(Deadline),
    /// What is to be done can only be done by what lies below on this stack.
    Deadlock,
}

/// An envelope with an event of any type.
pub(super) trait AnyEnvelope: AnyEvent {
    fn item(&self) -> usize;
    /// `None` once all deliveries have ended. To be dropped under no lock.
    fn recipients(&self) -> Option<Arc<dyn AnyRecipients>>;
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
        self.event.as_ref().expect("it leaves only with the envelope")
    }

    pub(super) fn generation(&self) -> usize {
        self.generation
    }

    /// Stands for its deliveries among the frames of a stack: the address, which is nobody else's while it is there.
    pub(super) fn item(&self) -> usize {
        ptr::from_ref(self).addr()
    }

    /// Lets the outcome of one delivery complete; `None`, if there was none after all.
    pub(super) fn complete(&self, inner: &BusInner, index: usize, outcome: Option<DeliveryOutcome>) {
        if self.progress.complete(index, outcome) {
            let recipients = self.recipients.lock().take();
            drop(recipients); // under no lock: it may be the last to know a mailbox, whose handler is foreign
            inner.end_event();
        }
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
    /// Worker, publisher or the owner of a receipt: who drops the event last is a matter of chance, so a panic of its
    /// destructor concerns none of them. The destructor may publish the next event, and so on.
    fn drop(&mut self) {
        if let Some(event) = self.event.take() {
            (self.discard)(event);
        }
    }
}

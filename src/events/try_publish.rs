//! Publishing without waiting.

use std::fmt;
use std::panic::Location;

use super::event_bus::EventBus;
use super::progress::PUBLISHING;
use super::publish;
use super::receipt::Receipt;
use crate::sync::Arc;

/// The error of [`EventBus::try_publish`]: a mailbox was full, so no subscription has the event. It
/// contains the event.
#[derive(thiserror::Error)]
#[error("the mailbox of the subscription `{subscription}` is full")]
pub struct TryPublishError<E> {
    /// The event.
    event: E,
    /// The name of the subscription whose mailbox was full.
    subscription: Arc<str>,
}

impl<E> TryPublishError<E> {
    /// Returns the event.
    #[must_use]
    pub fn into_inner(self) -> E {
        self.event
    }

    /// Returns the name of the subscription whose mailbox was full. If there are several, this is
    /// the first in the order of subscribing.
    #[must_use]
    pub fn subscription(&self) -> &str {
        &self.subscription
    }
}

impl<E> fmt::Debug for TryPublishError<E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TryPublishError").field("subscription", &self.subscription).finish_non_exhaustive()
    }
}

/// # Without waiting
impl EventBus {
    /// Like [`publish`](Self::publish), but never waits for room. If a mailbox with the policy
    /// `Block` is full, no subscription gets the event.
    ///
    /// A full mailbox with another policy discards an event, as its policy says. Synchronous
    /// handlers are called inline, after the event is in all mailboxes. Unlike `publish`, this
    /// method makes no deliveries on a worker to get room.
    ///
    /// # Errors
    ///
    /// [`TryPublishError`] with the event and the name of the subscription whose mailbox is full.
    ///
    /// # Examples
    ///
    /// ```
    /// use std::sync::mpsc::channel;
    /// use workcrew::WorkerPool;
    /// use workcrew::events::EventBus;
    ///
    /// let pool = WorkerPool::builder().workers(1).build()?;
    /// let bus = EventBus::builder(&pool).mailbox_capacity(1).build();
    /// let (started, start) = channel();
    /// let (open, gate) = channel::<()>();
    /// let gate = std::sync::Mutex::new(gate);
    /// let _slow = bus.subscription::<u32>().name("slow").handle(move |_| {
    ///     started.send(()).unwrap();
    ///     gate.lock().unwrap().recv().unwrap();
    /// });
    /// bus.try_publish(1_u32)?; // the handler runs
    /// start.recv()?;
    /// bus.try_publish(2_u32)?; // the event waits in the mailbox
    /// let full = bus.try_publish(3_u32).unwrap_err();
    /// assert_eq!(full.subscription(), "slow");
    /// assert_eq!(full.into_inner(), 3);
    /// open.send(())?;
    /// open.send(())?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[track_caller]
    pub fn try_publish<E: Send + Sync + 'static>(&self, event: E) -> Result<Receipt, TryPublishError<E>> {
        self.try_send(None, event, Location::caller())
    }

    /// Like [`try_publish`](Self::try_publish), but also publishes to the subscriptions to `topic`.
    ///
    /// # Errors
    ///
    /// Those of [`try_publish`](Self::try_publish).
    #[track_caller]
    pub fn try_publish_to<E: Send + Sync + 'static>(
        &self,
        topic: &str,
        event: E,
    ) -> Result<Receipt, TryPublishError<E>> {
        self.try_send(Some(topic), event, Location::caller())
    }

    fn try_send<E: Send + Sync + 'static>(
        &self,
        topic: Option<&str>,
        event: E,
        location: &'static Location<'static>,
    ) -> Result<Receipt, TryPublishError<E>> {
        let Some(recipients) = self.recipients::<E>(topic) else { return Ok(self.unhandled(topic, event)) };
        let envelope = self.begin(topic, event, &recipients);
        match publish::try_publish(&self.registry, &recipients.mailboxes, &envelope, location) {
            Ok(handlers) => {
                self.inner.events.0.count_published();
                Ok(self.finish(envelope, &recipients, handlers))
            }
            Err(full) => {
                self.inner.events.0.count_refused();
                envelope.complete(&self.inner, PUBLISHING, None);
                let envelope = Arc::into_inner(envelope).expect("every delivery of the event was dropped");
                let subscription = Arc::clone(&recipients.names[full]);
                Err(TryPublishError { event: envelope.into_event(), subscription })
            }
        }
    }
}

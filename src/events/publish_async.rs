//! Publishing from async code: a future that waits for room without a thread.
//!
//! | state | meaning | next |
//! |---|---|---|
//! | *new* | not polled yet | *done*; *waiting* |
//! | *waiting* | the event is in every mailbox that had room; the future holds the other deliveries | *done*, by a poll or by the drop |
//! | *done* | no delivery is held | – |
//!
//! Rules:
//! 1. The first poll takes the first two steps of `publish`. Each poll then tries each delivery that
//!    is held. A mailbox that is still full stores the waker under the lock under which it was found
//!    full.
//! 2. A future takes no notification from a thread or from another future; see rule 6 of `mailbox`.
//! 3. Dropping the future refuses the deliveries that it holds. Others are not affected.

use std::collections::BTreeMap;
use std::fmt;
use std::future::Future;
use std::mem;
use std::panic::{Location, RefUnwindSafe, UnwindSafe};
use std::pin::Pin;
use std::task::{Context, Poll};

use super::envelope::Envelope;
use super::event_bus::EventBus;
use super::mailbox::PendingDelivery;
use super::progress::{DeliveryOutcome, PUBLISHING};
use super::publish::{self, Tally};
use super::receipt::Receipt;
use super::registry::Recipients;
use super::room_wait;
use super::watcher::Watcher;
use crate::sync::Arc;
use crate::task::future_wait::FutureWait;
use crate::task::wakers::WakerKey;
use crate::time::deadline::Deadline;

/// # From async code
impl EventBus {
    /// Like [`publish`](Self::publish), for async code: the returned future waits for room in full
    /// mailboxes without blocking the thread. Its output is the receipt, which can be awaited too.
    /// Works with any runtime.
    ///
    /// Nothing happens before the first poll. It puts the event into every mailbox that has room,
    /// and calls synchronous handlers in place. So a full mailbox delays no other subscription.
    /// Dropping the future while it waits leaves those deliveries as they are, and refuses the event
    /// for the subscriptions whose mailboxes are still full.
    ///
    /// Futures that wait for the same room are woken in the order in which they began to wait, and
    /// none can keep the room from the others. Events of one task are in order in each mailbox if
    /// the task awaits each publish before the next.
    ///
    /// On a worker of the pool the future never waits, like `publish`; see
    /// [above](Self#inside-a-handler).
    ///
    /// # Examples
    ///
    /// ```
    /// # fn block_on<F: Future>(future: F) -> F::Output { pollster::block_on(future) }
    /// use workcrew::WorkerPool;
    /// use workcrew::events::EventBus;
    ///
    /// let pool = WorkerPool::builder().workers(1).build()?;
    /// let bus = EventBus::builder(&pool).mailbox_capacity(1).build();
    /// let _handler = bus.subscribe(|_: &u32| ());
    /// block_on(async {
    ///     for n in 0..10_u32 {
    ///         assert_eq!(bus.publish_async(n).await.handlers(), 1); // is delayed while the mailbox is full
    ///     }
    ///     bus.wait_idle_async().await;
    /// });
    /// assert_eq!(pool.metrics().tasks_succeeded, 10);
    /// # Ok::<(), workcrew::BuildError>(())
    /// ```
    #[track_caller]
    pub fn publish_async<E: Send + Sync + 'static>(&self, event: E) -> PublishAsync<E> {
        PublishAsync::new(self, None, event, Location::caller())
    }

    /// Like [`publish_async`](Self::publish_async), but also publishes to the subscriptions to
    /// `topic`.
    #[track_caller]
    pub fn publish_to_async<E: Send + Sync + 'static>(&self, topic: &str, event: E) -> PublishAsync<E> {
        PublishAsync::new(self, Some(topic), event, Location::caller())
    }
}

/// A future that publishes an event, from [`EventBus::publish_async`].
#[must_use = "a future does nothing until it is polled"]
pub struct PublishAsync<E: Send + Sync + 'static> {
    bus: EventBus,
    location: &'static Location<'static>,
    key: WakerKey,
    stage: Stage<E>,
    /// What the last poll has registered.
    wait: FutureWait,
}

/// The states of the table above.
enum Stage<E> {
    New(Option<Box<str>>, E),
    Waiting(Waiting<E>),
    Done,
}

/// An event that has not got into every mailbox.
struct Waiting<E> {
    envelope: Arc<Envelope<E>>,
    recipients: Arc<Recipients<E>>,
    /// How many subscriptions have a delivery.
    handlers: usize,
    /// The deliveries whose mailboxes were full, by the index of the mailbox.
    held: BTreeMap<usize, PendingDelivery<E>>,
    /// Identifies the wait for room. No mailbox knows it.
    watcher: Arc<Watcher>,
}

impl<E: Send + Sync + 'static> PublishAsync<E> {
    fn new(bus: &EventBus, topic: Option<&str>, event: E, location: &'static Location<'static>) -> Self {
        let stage = Stage::New(topic.map(Box::from), event);
        Self { bus: bus.clone(), location, key: WakerKey::new(), stage, wait: FutureWait::default() }
    }

    /// Takes the first step, from *new*. Returns the receipt if the event has no recipients.
    fn begin(&mut self, topic: Option<&str>, event: E) -> Result<Waiting<E>, Receipt> {
        let Some(recipients) = self.bus.recipients::<E>(topic) else { return Err(self.bus.unhandled(topic, event)) };
        let envelope = self.bus.begin(topic, event, &recipients);
        let mut tally = Tally { registry: &self.bus.registry, mailboxes: &recipients.mailboxes, handlers: 0 };
        let held = publish::offer(&mut tally, &envelope, self.location);
        let handlers = tally.handlers;
        Ok(Waiting { envelope, recipients, handlers, held, watcher: Arc::default() })
    }
}

impl<E: Send + Sync + 'static> Future for PublishAsync<E> {
    type Output = Receipt;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Receipt> {
        let this = &mut *self;
        this.wait.begin_poll();
        this.stage = match mem::replace(&mut this.stage, Stage::Done) {
            Stage::New(topic, event) => match this.begin(topic.as_deref(), event) {
                Ok(waiting) => Stage::Waiting(waiting),
                Err(receipt) => return Poll::Ready(receipt),
            },
            stage => stage,
        };
        loop {
            let Stage::Waiting(waiting) = &mut this.stage else { return Poll::Pending };
            waiting.put_held(&this.bus, this.key, context);
            if waiting.held.is_empty() {
                break;
            }
            match this.wait.register(|| waiting.room(), Deadline::NEVER, context) {
                Some(awaited) => awaited.help(),
                None => return Poll::Pending,
            }
        }
        let Stage::Waiting(waiting) = mem::replace(&mut this.stage, Stage::Done) else { return Poll::Pending };
        let Waiting { envelope, recipients, handlers, .. } = waiting;
        Poll::Ready(this.bus.finish(envelope, &recipients, handlers))
    }
}

impl<E: Send + Sync + 'static> Waiting<E> {
    /// Puts the held deliveries into their mailboxes, as far as these have room.
    fn put_held(&mut self, bus: &EventBus, key: WakerKey, context: &Context<'_>) {
        let mailboxes = &self.recipients.mailboxes;
        let mut tally = Tally { registry: &bus.registry, mailboxes, handlers: self.handlers };
        for index in self.held.keys().copied().collect::<Vec<_>>() {
            let waker = context.waker().clone(); // before the delivery: it is user code
            let Some(delivery) = self.held.remove(&index) else { continue };
            let put = if publish::is_worker(mailboxes) {
                mailboxes[index].stop_polling(key);
                Ok(mailboxes[index].put_blocking(delivery))
            } else {
                mailboxes[index].poll_put(delivery, key, waker)
            };
            match put {
                Ok(result) => tally.record(index, result),
                Err(delivery) => drop(self.held.insert(index, delivery)),
            }
        }
        self.handlers = tally.handlers;
    }

    /// Returns the room for the held deliveries as something that is waited for.
    fn room(&self) -> Arc<dyn crate::task::waits::Awaited> {
        let mailboxes = self.held.keys().map(|index| Arc::clone(&self.recipients.mailboxes[*index]));
        room_wait::awaited(&self.watcher, mailboxes.collect())
    }
}

// No field is ever pinned.
impl<E: Send + Sync + 'static> Unpin for PublishAsync<E> {}

impl<E: Send + Sync + 'static> Drop for PublishAsync<E> {
    fn drop(&mut self) {
        self.wait.begin_poll();
        let Stage::Waiting(waiting) = mem::replace(&mut self.stage, Stage::Done) else { return };
        for (index, delivery) in waiting.held {
            let mailbox = &waiting.recipients.mailboxes[index];
            mailbox.stop_polling(self.key);
            let _ = mailbox.refuse(delivery, Some(DeliveryOutcome::Refused));
        }
        waiting.envelope.complete(&self.bus.inner, PUBLISHING, None);
    }
}

// No lock of this crate is held while user code may panic, so a reference never shows a broken
// state.
impl<E: Send + Sync + 'static> UnwindSafe for PublishAsync<E> {}
impl<E: Send + Sync + 'static> RefUnwindSafe for PublishAsync<E> {}

impl<E: Send + Sync + 'static> fmt::Debug for PublishAsync<E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let state = match &self.stage {
            Stage::New(..) => "new",
            Stage::Waiting(_) => "waiting",
            Stage::Done => "done",
        };
        f.debug_struct("PublishAsync").field("location", self.location).field("state", &state).finish_non_exhaustive()
    }
}

//! Publishing from async code: a future that waits for room without a thread.
//!
//! | state | meaning | next |
//! |---|---|---|
//! | *new* | not polled yet | *done*; *waiting* |
//! | *waiting* | the event is in every mailbox that had room; the future holds the other deliveries | *done*, by a poll or by the drop |
//! | *done* | no delivery is held | – |
//!
//! Rules:
//! 1. The first poll takes the first two steps of `publish`. Each poll then tries each delivery
//!    that is held (see `held`). A mailbox that is still full stores the waker under the lock under
//!    which it was found full.
//! 2. A future takes no notification from a thread or from another future; see rule 6 of `mailbox`.
//! 3. Dropping the future refuses the deliveries that it holds. Others are not affected.

use std::fmt;
use std::future::Future;
use std::mem;
use std::panic::Location;
use std::pin::Pin;
use std::task::{Context, Poll, Waker};

use super::event_bus::EventBus;
use super::held::{Deliveries, Held};
use super::publish::{self, Tally};
use super::receipt::Receipt;
use super::room_wait;
use super::watcher::Watcher;
use crate::cancel::token::CancelGuard;
use crate::sync::Arc;
use crate::task::future_wait::FutureWait;
use crate::task::wakers::WakerKey;
use crate::time::deadline::Deadline;
use crate::unwind;

/// # From async code
impl EventBus {
    /// Like [`publish`](Self::publish), for async code: the returned future waits for room in full
    /// mailboxes without blocking the thread. Its output is the receipt, which can be awaited too.
    /// Works with any runtime.
    ///
    /// Nothing happens before the first poll. The first poll puts the event into every mailbox that
    /// has room, and calls synchronous handlers inline. So a full mailbox delays no other
    /// subscription. If the future is dropped while it waits, the event is
    /// [refused](crate::events::DeliveryOutcome::Refused) for the subscriptions whose mailboxes are
    /// still full. Other deliveries are not affected.
    ///
    /// [`wait_idle`](Self::wait_idle) waits for the event until the future is ready or dropped. The
    /// [`wait_idle`](crate::WorkerPool::wait_idle) of the pool does not wait for deliveries that
    /// wait for room. If the pool is shut down meanwhile, they are cancelled.
    ///
    /// Futures that wait for the same room are woken in the order in which they began to wait. A
    /// future that is not polled keeps no room from the others. The events of an async task arrive
    /// in each mailbox in order, if the task awaits each future before it publishes the next event.
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
    ///         // Waits while the mailbox is full.
    ///         assert_eq!(bus.publish_async(n).await.handlers(), 1);
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

/// A future that publishes an event. Returned by [`EventBus::publish_async`].
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

/// An event that is not yet in every mailbox.
struct Waiting<E> {
    held: Arc<Held<E>>,
    /// Closes the held deliveries with the pool; `None` before the event waits.
    guard: Option<CancelGuard>,
    /// The mailboxes that may have a waker of this future, by their indices.
    polled: Vec<usize>,
    /// How many subscriptions have a delivery.
    handlers: usize,
    /// Identifies the wait for room. No mailbox knows it.
    watcher: Arc<Watcher>,
}

impl<E: Send + Sync + 'static> PublishAsync<E> {
    fn new(bus: &EventBus, topic: Option<&str>, event: E, location: &'static Location<'static>) -> Self {
        let stage = Stage::New(topic.map(Box::from), event);
        Self { bus: bus.clone(), location, key: WakerKey::new(), stage, wait: FutureWait::default() }
    }

    /// Takes the first step out of the state *new*. Returns the receipt if the event has no
    /// recipients.
    fn begin(&mut self, topic: Option<&str>, event: E) -> Result<Waiting<E>, Receipt> {
        let Some(recipients) = self.bus.recipients::<E>(topic) else { return Err(self.bus.unhandled(topic, event)) };
        self.bus.inner.events.0.count_published();
        let envelope = self.bus.begin(topic, event, &recipients);
        let mut tally = Tally { registry: &self.bus.registry, mailboxes: &recipients.mailboxes, handlers: 0 };
        let held = publish::offer(&mut tally, &envelope, self.location);
        let (handlers, polled) = (tally.handlers, held.keys().copied().collect());
        let held = Held::new(envelope, recipients, held);
        Ok(Waiting { held, guard: None, polled, handlers, watcher: Arc::default() })
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
            if waiting.held.len() == 0 {
                break;
            }
            let room = || room_wait::awaited(&waiting.watcher, waiting.held.full());
            match this.wait.register(room, Deadline::NEVER, context) {
                Some(awaited) => awaited.help(),
                None => return Poll::Pending,
            }
        }
        match mem::replace(&mut this.stage, Stage::Done) {
            Stage::Waiting(waiting) => Poll::Ready(waiting.finish(&this.bus, this.key)),
            _ => Poll::Pending,
        }
    }
}

impl<E: Send + Sync + 'static> Waiting<E> {
    /// Puts the held deliveries into their mailboxes, as far as these have room.
    fn put_held(&mut self, bus: &EventBus, key: WakerKey, context: &Context<'_>) {
        let mailboxes = &self.held.recipients.mailboxes;
        // Cloning a waker is user code and may panic, so it comes first.
        let mut wakers: Vec<Waker> = (0..=self.held.len()).map(|_| context.waker().clone()).collect();
        let Some(waker) = wakers.pop() else { return };
        let mut tally = Tally { registry: &bus.registry, mailboxes, handlers: self.handlers };
        let mut rest = Deliveries::new();
        for ((index, delivery), waker) in self.held.take(waker).into_iter().zip(wakers) {
            let put = if publish::is_worker(mailboxes) {
                Ok(mailboxes[index].put_blocking(delivery))
            } else {
                mailboxes[index].poll_put(delivery, key, waker)
            };
            match put {
                Ok(result) => tally.record(index, result),
                Err(delivery) => drop(rest.insert(index, delivery)),
            }
        }
        self.handlers = tally.handlers;
        self.held.put_back(rest, &mut self.guard);
    }

    /// Returns the receipt of an event that is no longer held.
    fn finish(mut self, bus: &EventBus, key: WakerKey) -> Receipt {
        self.stop_polling(key);
        self.guard = None; // before the count, which the callback changes
        let Self { held, mut handlers, .. } = self;
        if handlers == 0 && held.cancelled() == 0 {
            bus.report_unhandled_event(&held.envelope);
        }
        handlers += held.end();
        Receipt { event: Some((Arc::clone(&held.envelope) as _, Arc::clone(&held.recipients.names))), handlers }
    }

    fn stop_polling(&self, key: WakerKey) {
        self.polled.iter().for_each(|index| self.held.recipients.mailboxes[*index].stop_polling(key));
    }
}

// No field is ever pinned.
impl<E: Send + Sync + 'static> Unpin for PublishAsync<E> {}

impl<E: Send + Sync + 'static> Drop for PublishAsync<E> {
    fn drop(&mut self) {
        self.wait.begin_poll();
        let Stage::Waiting(mut waiting) = mem::replace(&mut self.stage, Stage::Done) else { return };
        waiting.stop_polling(self.key);
        waiting.guard = None;
        waiting.held.refuse();
    }
}

unwind::safe!(PublishAsync<E>, E: Send + Sync + 'static);

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

//! The builder of a subscription.

use std::any::type_name;
use std::fmt;
use std::hash::Hash;
use std::marker::PhantomData;

use super::event_bus::EventBus;
use super::guard::Subscription;
use super::handler::{BoxError, Call, Handler, HandlerResult};
use super::key::{self, KeyOf};
use super::mailbox::{Handlers, Mailbox, Mode, Settings};
use crate::pool::overflow::Overflow;
use crate::priority::Priority;
use crate::retry::{Attempt, RetryPolicy};
use crate::sync::Arc;

/// A builder of a subscription. Returned by [`EventBus::subscription`].
///
/// Of the settings that exclude each other ([`ordered`](Self::ordered),
/// [`ordered_by`](Self::ordered_by), [`concurrent`](Self::concurrent),
/// [`synchronous`](Self::synchronous)), the last one counts.
///
/// # Examples
///
/// ```
/// use std::time::Duration;
/// use workcrew::{Overflow, WorkerPool};
/// use workcrew::events::EventBus;
/// use workcrew::retry::RetryPolicy;
///
/// struct Uploaded(String);
///
/// let pool = WorkerPool::builder().workers(2).build()?;
/// let bus = EventBus::new(&pool);
/// let _thumbnails = bus
///     .subscription::<Uploaded>()
///     .name("thumbnails")
///     .topic("images")
///     .concurrent(4)
///     .mailbox_capacity(256)
///     .overflow(Overflow::DiscardOldest)
///     .retry(RetryPolicy::fixed(Duration::from_millis(1)).max_attempts(3))
///     .handle(|upload| if upload.0.is_empty() { Err("nothing to show") } else { Ok(()) });
/// assert!(bus.has_subscribers_to::<Uploaded>("images") && !bus.has_subscribers::<Uploaded>());
/// assert_eq!(bus.publish_to("images", Uploaded("cat".to_owned())).handlers(), 1);
/// # Ok::<(), workcrew::BuildError>(())
/// ```
#[must_use = "a subscription begins with `handle` or `handle_with_attempt`"]
pub struct SubscriptionBuilder<'a, E> {
    /// The bus to subscribe to.
    bus: &'a EventBus,
    /// The settings so far.
    settings: Settings,
    /// Returns the key of an event; used only by `ordered_by`.
    key_of: Option<Arc<KeyOf<E>>>,
    /// The type of events.
    event: PhantomData<fn(&E)>,
}

impl EventBus {
    /// Subscribes `handler` to the events of type `E` that are published from now on, with any
    /// topic or none.
    ///
    /// The handler is called on workers of the pool, for one event at a time, in the order in which
    /// each thread publishes. For other settings, see [`subscription`](Self::subscription).
    pub fn subscribe<E, R>(&self, handler: impl Fn(&E) -> R + Send + Sync + 'static) -> Subscription
    where
        E: Send + Sync + 'static,
        R: HandlerResult,
    {
        self.subscription().handle(handler)
    }

    /// Creates a builder of a subscription to events of type `E`.
    pub fn subscription<E: Send + Sync + 'static>(&self) -> SubscriptionBuilder<'_, E> {
        SubscriptionBuilder::new(self)
    }
}

impl<'a, E: Send + Sync + 'static> SubscriptionBuilder<'a, E> {
    pub(super) fn new(bus: &'a EventBus) -> Self {
        let settings = Settings {
            name: Arc::from(type_name::<E>()),
            topic: None,
            once: false,
            mode: Mode::Ordered,
            batch: None,
            capacity: bus.inner.mailbox_capacity,
            capacity_per_key: usize::MAX,
            overflow: Overflow::default(),
            class: Priority::Normal,
            policy: None,
        };
        Self { bus, settings, key_of: None, event: PhantomData }
    }

    /// Sets the name for receipts and dead letters, which is also the label of the subscription's
    /// tasks. *Default: the type of its events.*
    pub fn name(mut self, name: impl Into<Arc<str>>) -> Self {
        self.settings.name = name.into();
        self
    }

    /// Subscribes only to events that are published to this topic. *Default: all events of the
    /// type, with any topic or none.*
    pub fn topic(mut self, topic: impl Into<Arc<str>>) -> Self {
        self.settings.topic = Some(topic.into());
        self
    }

    /// Handles a single event and then unsubscribes, however many threads publish. If the handler
    /// fails and there is a [retry policy](Self::retry), it is called again with that event.
    pub fn once(mut self) -> Self {
        self.settings.once = true;
        self
    }

    /// Handles one event at a time, in the order in which each thread publishes. An event that
    /// waits for another attempt holds up the events behind it. This is the default.
    pub fn ordered(mut self) -> Self {
        self.settings.mode = Mode::Ordered;
        self
    }

    /// Handles the events of one key one at a time, in the order in which each thread publishes.
    /// Events of different keys are handled at the same time, on as many workers as the pool has.
    ///
    /// Keys take turns, as in a [`KeyedExecutor`](crate::KeyedExecutor): a key with many events
    /// delays an event of another key by at most one of its own. An event that waits for another
    /// attempt holds up the events of its key, and no others. A key takes memory only while it has
    /// an event that is not handled. To bound the events of one key, use
    /// [`mailbox_capacity_per_key`](Self::mailbox_capacity_per_key).
    ///
    /// The publisher calls `key` once for each event, with no lock held, and keys are hashed and
    /// compared there. A key owns its data, so clone what it takes from the event. If `key`, the
    /// hash or the comparison panics, the handler is not called with that event. The delivery
    /// [fails](crate::events::DeliveryOutcome::Failed) with the panic on a worker, without another
    /// attempt, and the event becomes a dead letter.
    ///
    /// A handler that waits for the receipt of an event of its own key gets
    /// [`WouldDeadlock`](crate::events::WouldDeadlock). It may wait for an event of another key.
    ///
    /// # Examples
    ///
    /// ```
    /// use std::sync::{Arc, Mutex};
    /// use workcrew::WorkerPool;
    /// use workcrew::events::EventBus;
    ///
    /// struct Booked { account: String, amount: i32 }
    ///
    /// let pool = WorkerPool::builder().workers(4).build()?;
    /// let bus = EventBus::new(&pool);
    /// let of_alice: Arc<Mutex<Vec<i32>>> = Arc::default();
    /// let kept = Arc::clone(&of_alice);
    /// let _ledger = bus
    ///     .subscription::<Booked>()
    ///     .ordered_by(|booked| booked.account.clone())
    ///     .handle(move |booked| {
    ///         if booked.account == "alice" {
    ///             kept.lock().unwrap().push(booked.amount);
    ///         }
    ///     });
    /// for amount in [5, -3, 4] {
    ///     bus.publish(Booked { account: "alice".to_owned(), amount });
    ///     bus.publish(Booked { account: "bob".to_owned(), amount }); // handled at the same time
    /// }
    /// bus.wait_idle();
    /// assert_eq!(*of_alice.lock().unwrap(), [5, -3, 4]);
    /// # Ok::<(), workcrew::BuildError>(())
    /// ```
    pub fn ordered_by<K: Hash + Eq + Send + Sync + 'static>(
        mut self,
        key: impl Fn(&E) -> K + Send + Sync + 'static,
    ) -> Self {
        self.settings.mode = Mode::OrderedBy;
        self.key_of = Some(key::key_of(key));
        self
    }

    /// Handles at most `handlers` events at a time, in no order. Zero counts as one. An event that
    /// waits for another attempt holds up no other event.
    pub fn concurrent(mut self, handlers: usize) -> Self {
        self.settings.mode = Mode::Concurrent(handlers.max(1));
        self
    }

    /// Handles each event on the thread that publishes it, before `publish` returns. There is no
    /// order among threads.
    ///
    /// Attempts after the first are made on workers. An event that is published more than 64 tasks
    /// deep on a stack is [refused](crate::events::DeliveryOutcome::Refused).
    pub fn synchronous(mut self) -> Self {
        self.settings.mode = Mode::Synchronous;
        self
    }

    /// Sets how many events the mailbox holds, including those that wait for another attempt. Zero
    /// counts as one. *Default: the [capacity](crate::events::EventBusBuilder::mailbox_capacity)
    /// set for the bus.*
    pub fn mailbox_capacity(mut self, events: usize) -> Self {
        self.settings.capacity = events.max(1);
        self
    }

    /// Sets how many events of one key the mailbox holds, including one that waits for another
    /// attempt. Zero counts as one. It counts only for [`ordered_by`](Self::ordered_by). *Default:
    /// no bound besides that of the mailbox.*
    ///
    /// An event whose key has no room finds the mailbox full. So one key cannot fill the mailbox,
    /// and a publisher waits for room of that key.
    pub fn mailbox_capacity_per_key(mut self, events: usize) -> Self {
        self.settings.capacity_per_key = events.max(1);
        self
    }

    /// Sets the policy for an event that finds the mailbox full.
    ///
    /// | policy | the event | the publisher |
    /// |---|---|---|
    /// | `Block` (default), `CallerRuns` | waits for room | blocks; a worker makes deliveries until there is room, and if it cannot, the event is refused |
    /// | `DiscardOldest` | takes the place of the oldest waiting event | continues |
    /// | `DiscardNewest` | is dropped | continues |
    ///
    /// If it is the [key](Self::ordered_by) of the event that has no room, `DiscardOldest` discards
    /// the oldest event of that key, and a worker makes deliveries of that key.
    ///
    /// `CallerRuns` is the same as `Block` here, because an external thread could not keep the
    /// order of the events.
    pub fn overflow(mut self, policy: Overflow) -> Self {
        self.settings.overflow = policy;
        self
    }

    /// Sets the class of the deliveries, further attempts included. *Default:
    /// [`Priority::Normal`].* It does not concern what the publisher's thread handles itself: see
    /// [`synchronous`](Self::synchronous).
    pub fn priority(mut self, priority: Priority) -> Self {
        self.settings.class = priority;
        self
    }

    /// Calls the handler again with an event for which it failed or panicked. *Default: the first
    /// failure is final.*
    ///
    /// A policy's timeout counts from the publishing. An attempt's timeout cancels the token of the
    /// attempt, which only a handler of [`handle_with_attempt`](Self::handle_with_attempt) gets.
    pub fn retry(mut self, policy: RetryPolicy<BoxError>) -> Self {
        self.settings.policy = Some(policy);
        self
    }

    /// Returns the bus and the settings, for a handler that gets batches.
    pub(super) fn into_parts(self) -> (&'a EventBus, Settings) {
        (self.bus, self.settings)
    }

    /// Subscribes the handler.
    pub fn handle<R: HandlerResult>(self, handler: impl Fn(&E) -> R + Send + Sync + 'static) -> Subscription {
        self.subscribe(Arc::new(move |event: &E, _: &Call<'_>| handler(event).into_result()))
    }

    /// Subscribes a handler that gets the [`Attempt`] besides the event: its number, counted from
    /// one, whether it is the last, and its token.
    ///
    /// The token is cancelled when the time for the attempt, or for all attempts, is over. A
    /// shutdown of the pool [cancels](crate::WorkerPool#what-a-shutdown-cancels) it, too. Without a
    /// [retry policy](Self::retry), the first attempt is the last.
    ///
    /// # Examples
    ///
    /// ```
    /// use std::time::Duration;
    /// use workcrew::WorkerPool;
    /// use workcrew::events::EventBus;
    /// use workcrew::retry::RetryPolicy;
    ///
    /// let pool = WorkerPool::builder().workers(1).build()?;
    /// let bus = EventBus::new(&pool);
    /// let _mirror = bus
    ///     .subscription::<String>()
    ///     .retry(RetryPolicy::fixed(Duration::from_millis(1)).max_attempts(3))
    ///     .handle_with_attempt(|page, attempt| match attempt.number() {
    ///         1 => Err(format!("the first mirror has no {page}")),
    ///         _ => Ok(()), // the second mirror has it
    ///     });
    /// assert!(bus.publish("page".to_owned()).wait().is_ok());
    /// # Ok::<(), workcrew::BuildError>(())
    /// ```
    pub fn handle_with_attempt<R: HandlerResult>(
        self,
        handler: impl Fn(&E, &Attempt) -> R + Send + Sync + 'static,
    ) -> Subscription {
        self.subscribe(Arc::new(move |event: &E, call: &Call<'_>| {
            let (attempt, _guard) = call.attempt();
            handler(event, &attempt).into_result()
        }))
    }

    fn subscribe(self, handler: Arc<Handler<E>>) -> Subscription {
        let key_of = self.key_of.filter(|_| self.settings.mode == Mode::OrderedBy);
        let handlers = Handlers { one: Some(handler), batch: None, key_of };
        start(self.bus, self.settings, handlers)
    }
}

/// Starts a subscription.
pub(super) fn start<E: Send + Sync + 'static>(
    bus: &EventBus,
    settings: Settings,
    handlers: Handlers<E>,
) -> Subscription {
    bus.inner.pool.use_class(settings.class); // timers push without it
    let mailbox = Mailbox::new(settings, handlers, Arc::clone(&bus.inner));
    bus.registry.add(Arc::clone(&mailbox));
    Subscription::new(mailbox, Arc::downgrade(&bus.registry))
}

impl<E> fmt::Debug for SubscriptionBuilder<'_, E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Settings { name, topic, once, mode, capacity, capacity_per_key, overflow, class, policy, batch: _ } =
            &self.settings;
        f.debug_struct("SubscriptionBuilder")
            .field("name", name)
            .field("topic", topic)
            .field("once", once)
            .field("mode", mode)
            .field("mailbox_capacity", capacity)
            .field("mailbox_capacity_per_key", capacity_per_key)
            .field("overflow", overflow)
            .field("priority", class)
            .field("retry", policy)
            .finish()
    }
}
